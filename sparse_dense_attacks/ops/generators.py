"""Random generators that depend on a seed and a name and on nothing else."""
import hashlib

import torch

__all__ = ['generator_of']


def generator_of(seed: int, *names) -> torch.Generator:
    """A CPU generator of its own for every (seed, names).

    Args:
        seed: the run's seed.
        names: what the draws are for: an image's key, a step, a purpose.

    Example:
        >>> draws = [torch.rand(1, generator=generator_of(0, key)).item() for key in 'aab']
        >>> draws[0] == draws[1], draws[0] == draws[2]
        (True, False)
    """
    name = '\0'.join(map(str, (seed, *names))).encode(errors='surrogateescape')  # of a file it may be no UTF-8
    digest = hashlib.blake2b(name, digest_size=8).digest()
    number = int.from_bytes(digest, 'little') >> 1  # manual_seed takes 63 bits
    return torch.Generator().manual_seed(number)
