"""What an adversarial image is compared with: changes of as many pixels that no model has chosen.

A transfer is real when it beats them all. Every control is a pure function of the clean and the
adversarial image and a generator, and changes exactly as many pixels as the attack did.
"""
import hashlib
from collections.abc import Sequence

import numpy as np

from ..errors import InputError

__all__ = ['CONTROLS', 'changed', 'control', 'donor_of', 'random_pixels', 'recoloured', 'shuffled',
           'swapped']

Image = np.ndarray  # (H, W, C) uint8

CONTROLS = ('random', 'shuffled', 'recoloured', 'swapped')


def changed(clean: Image, adversarial: Image) -> np.ndarray:
    """(H, W) bool, pixels of which any channel differs.

    Raises:
        InputError: images of different sizes, or that are not uint8.
    """
    for name, image in (('clean', clean), ('adversarial', adversarial)):
        if image.dtype != np.uint8 or image.ndim != 3:
            raise InputError(f'{name} image: expected uint8 (H, W, C), found {image.dtype} '
                             f'{image.shape}')
    if clean.shape != adversarial.shape:
        raise InputError(f'the adversarial image is {adversarial.shape}, but the clean one '
                         f'{clean.shape}: they are not on one grid')
    return (clean != adversarial).any(2)


def random_pixels(clean: Image, adversarial: Image, rng: np.random.Generator) -> Image:
    """As many random pixels in random corner colours, each channel 0 or 255."""
    count = int(changed(clean, adversarial).sum())
    found = clean.reshape(-1, clean.shape[2]).copy()
    _paint_at_random(found, np.arange(len(found)), count, rng)
    return found.reshape(clean.shape)


def shuffled(clean: Image, adversarial: Image, rng: np.random.Generator) -> Image:
    """The same colours at random places anywhere in the image."""
    where = changed(clean, adversarial).ravel()
    return _placed(clean, _flat(adversarial)[where], rng.permutation(where.size), rng)


def recoloured(clean: Image, adversarial: Image, rng: np.random.Generator) -> Image:
    """The same places with their colours permuted.

    The adversarial image itself where all of them have one colour.
    """
    where = changed(clean, adversarial).ravel()
    places = rng.permutation(where.nonzero()[0])
    return _placed(clean, _flat(adversarial)[where], places, rng)


def swapped(clean: Image, adversarial: Image, donor: tuple[Image, Image],
            rng: np.random.Generator) -> Image:
    """The perturbation of another image: its places and its colours.

    The grids are laid on each other at the upper left corner, and what reaches beyond this image
    comes in again on the other side, so that what is adjacent stays adjacent. If the donor has more
    changes than needed, the first ones from a random one on are taken, row by row; if it has fewer,
    or some of them change nothing here, random pixels in random corner colours make up for them.

    Args:
        donor: the other image, clean and adversarial; its size may be another.

    Raises:
        InputError: the donor has another number of channels.
    """
    if donor[0].shape[2] != clean.shape[2]:
        raise InputError(f'the other image has {donor[0].shape[2]} channels, this one '
                         f'{clean.shape[2]}')
    count = int(changed(clean, adversarial).sum())
    rows, columns = changed(*donor).nonzero()
    colours = donor[1][rows, columns]
    h, w = clean.shape[:2]
    places = (rows % h) * w + columns % w
    found = _flat(clean).copy()
    use = (found[places] != colours).any(1)
    places, colours = places[use], colours[use]
    _, first = np.unique(places, return_index=True)  # two may have come to lie on one
    order = np.sort(first)
    if len(order):
        order = np.roll(order, -int(rng.integers(len(order))))[:count]
    found[places[order]] = colours[order]
    free = np.ones(len(found), dtype=bool)
    free[places[order]] = False
    _paint_at_random(found, free.nonzero()[0], count - len(order), rng)
    return found.reshape(clean.shape)


def control(kind: str, clean: Image, adversarial: Image, key: str, seed: int = 0,
            donor: tuple[Image, Image] | None = None) -> Image:
    """One of the :data:`CONTROLS`; its draws depend on ``seed``, ``key`` and ``kind`` only.

    Args:
        kind: one of :data:`CONTROLS`.
        clean, adversarial: (H, W, C) uint8.
        key: id of the image.
        donor: another image, clean and adversarial, for 'swapped'.

    Example:
        >>> clean = np.zeros((4, 4, 3), np.uint8)
        >>> adversarial = clean.copy()
        >>> adversarial[0, :3] = 255
        >>> found = control('shuffled', clean, adversarial, 'cat.png')
        >>> int(changed(clean, found).sum()), int(found.max())
        (3, 255)
    """
    rng = np.random.default_rng(_number(f'control\0{kind}\0{seed}\0{key}'))
    if kind == 'swapped':
        if donor is None:
            raise InputError("the control 'swapped' needs another image")
        return swapped(clean, adversarial, donor, rng)
    makers = dict(random=random_pixels, shuffled=shuffled, recoloured=recoloured)
    if kind not in makers:
        raise InputError(f"unknown control '{kind}': valid are {', '.join(CONTROLS)}")
    return makers[kind](clean, adversarial, rng)


def donor_of(keys: Sequence[str], seed: int = 0) -> dict[str, str]:
    """Which other image gives each its perturbation: the next one in a random cycle of them all.

    It depends on the set of the images, not on their order. Empty for fewer than two.
    """
    cycle = sorted(keys, key=lambda key: _number(f'donor\0{seed}\0{key}'))
    return dict(zip(cycle, cycle[1:] + cycle[:1], strict=True)) if len(cycle) > 1 else {}


def _flat(image: Image) -> np.ndarray:
    return image.reshape(-1, image.shape[2])


def _paint_at_random(pixels: np.ndarray, free: np.ndarray, count: int,
                     rng: np.random.Generator) -> None:
    """Give ``count`` of the ``free`` pixels (P, C) corner colours that differ from their own."""
    channels = pixels.shape[1]
    places = rng.choice(free, count, replace=False)
    code = rng.integers(2 ** channels, size=count)
    bits = np.arange(channels)
    own = pixels[places]
    same = (((code[:, None] >> bits) & 1) * 255 == own).all(1)
    code[same] ^= rng.integers(1, 2 ** channels, size=int(same.sum()))  # any other corner
    pixels[places] = ((code[:, None] >> bits) & 1) * 255


def _placed(clean: Image, colours: np.ndarray, places: np.ndarray,
            rng: np.random.Generator) -> Image:
    """The clean image with ``colours`` (n, C) at the first n of ``places`` (P,), in this order.

    Where a colour would meet itself, and so change nothing, it trades places with a random one.
    One to trade with always exists: otherwise every place of another colour would hold this colour
    already, so that there were more of it than the attack, which put each of them onto another
    colour, had places for.
    """
    count, found = len(colours), _flat(clean).copy()
    there = found[places]  # (P, C), the clean colours
    for i in (there[:count] == colours).all(1).nonzero()[0]:
        fits = (there != colours[i]).any(1)
        # what is given away in return must not meet itself either
        fits[:count] &= (colours != there[i]).any(1)
        j = rng.choice(fits.nonzero()[0])
        places[[i, j]], there[[i, j]] = places[[j, i]], there[[j, i]]
    found[places[:count]] = colours
    return found.reshape(clean.shape)


def _number(text: str) -> int:
    digest = hashlib.blake2b(text.encode(errors='surrogateescape'), digest_size=8).digest()
    return int.from_bytes(digest, 'little')
