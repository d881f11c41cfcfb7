"""Squares and colours for Sparse-RS; colours are corners of the colour cube."""
import torch
from torch import Tensor

from ..rng import ImageRNG

__all__ = ['another', 'flipped', 'paint_square', 'rectangle', 'square']


def flipped(colour: Tensor, u: Tensor) -> Tensor:
    """Colours (b, C, n) in {0, 1} with one channel inverted, the one in which ``u`` (b, C, n) is largest."""
    return (colour - torch.zeros_like(colour).scatter_(1, u.argmax(1, keepdim=True), 1)).abs()


def another(old: Tensor, u: Tensor) -> Tensor:
    """Random corners of the colour cube from uniform ``u`` (b, C, n), none equal to the ``old`` colours."""
    new = u.round()
    return torch.where((new == old).all(1, keepdim=True), flipped(new, u), new)


def rectangle(corner: Tensor, size: Tensor, x: Tensor) -> Tensor:
    """(b, 1, H, W) bool, rectangles in images like ``x``: top left corners (b, 2), heights and widths (b, 2)."""
    end = corner + size
    row, column = (torch.arange(length, device=x.device) for length in x.shape[2:])
    rows = (row >= corner[:, :1]) & (row < end[:, :1])
    columns = (column >= corner[:, 1:]) & (column < end[:, 1:])
    return (rows[:, :, None] & columns[:, None])[:, None]


def square(corner: Tensor, side: Tensor, x: Tensor) -> Tensor:
    """(b, 1, H, W) bool, squares in images like ``x``: top left corners (b, 2), sides (b,)."""
    return rectangle(corner, side[:, None], x)


def paint_square(paint: Tensor, mask: Tensor, side: Tensor, flip: bool, rng: ImageRNG,
                 rows: Tensor) -> Tensor:
    """Paint a square of one colour, one of its corners a random pixel of the mask.

    A single pixel (``side`` (b,) 1) gets a colour it did not have; with ``flip`` one that differs in a single channel.
    """
    channels, width = paint.shape[1], paint.shape[3]
    u = rng.numbers([3 + channels] * len(rows), rows)
    shade = u[:, 3:, None]

    # a random pixel of the mask
    count = mask.flatten(1).cumsum(1)
    nth = (u[:, :1] * count[:, -1:]).long() + 1
    index = torch.searchsorted(count, nth).clamp_(max=count.shape[1] - 1)

    # the colour
    old = paint.flatten(2).gather(2, index[:, None].expand(-1, channels, 1))
    single = flipped(old, shade) if flip else another(old, shade)
    colour = torch.where((side > 1)[:, None, None], shade.round(), single)

    # the square, which extends from that pixel to a random side
    pixel = torch.cat([index // width, index % width], 1)
    corner = pixel - (u[:, 1:3] > 0.5) * (side - 1)[:, None]
    return torch.where(square(corner, side, paint), colour[..., None], paint)
