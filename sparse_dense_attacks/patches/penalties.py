"""What makes a pattern hard to print: differences of neighbours, and colours that no printer has."""
from itertools import product

import torch
from torch import Tensor

__all__ = ['PRINTABLE', 'non_printability', 'total_variation']

# Stands in for the colours of a printer at hand: five levels a channel without the extremes.
PRINTABLE = torch.tensor(list(product((0.06, 0.28, 0.5, 0.72, 0.94), repeat=3)))


def total_variation(pattern: Tensor, mask: Tensor) -> Tensor:
    """The mean absolute difference of neighbouring pixels that are both in the mask.

    Args:
        pattern: (C, h, w).
        mask: (h, w) bool.

    Example:
        >>> total_variation(torch.tensor([[[0., 1.], [0., 0.5]]]), torch.ones(2, 2) > 0)
        tensor(0.5000)
    """
    pairs = [((pattern[:, 1:] - pattern[:, :-1]).abs(), mask[1:] & mask[:-1]),
             ((pattern[:, :, 1:] - pattern[:, :, :-1]).abs(), mask[:, 1:] & mask[:, :-1])]
    total = pattern.new_zeros(()) + sum((change * both).sum() for change, both in pairs)
    count = sum(both.sum() for _, both in pairs) * len(pattern)
    return total / torch.as_tensor(count).clamp(min=1)


def non_printability(pattern: Tensor, mask: Tensor, colours: Tensor = PRINTABLE) -> Tensor:
    """The mean distance of a pixel's colour to the nearest printable one.

    Args:
        pattern: (3, h, w); the order of its channels is that of the colours.
        mask: (h, w) bool.
        colours: (K, 3) in [0, 1].

    Example:
        >>> non_printability(torch.zeros(3, 1, 1), torch.ones(1, 1) > 0, torch.tensor([[1., 0, 0]]))
        tensor(1.)
    """
    pixels = pattern[:, mask].T
    squares = (pixels[:, None] - colours.to(pattern)).square().sum(-1)
    # the root has no slope at 0
    return squares.amin(1).clamp(min=1e-12).sqrt().mean()
