"""Groups in the shape of a heart, a star, a letter and so on."""
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_int, check_text
from ..errors import InputError
from ..registry import KERNELS, nearest
from .pattern import Pattern

__all__ = ['Shape']


@KERNELS.register_module()
@dataclass(frozen=True)
class Shape(Pattern):
    """A named outline: a heart, star, cross or disc, or any letter A-Z or digit.

    Args:
        name: ``'heart'``, ``'star'``, ``'cross'``, ``'disc'``, or one letter or digit.
        size: height in pixels; letters and digits are 5/7 as wide, the other shapes as wide as high. At least 7 for letters and
            digits and 5 for the other shapes: smaller ones cannot be recognised.
        stride: pixels from one placement to the next.
    """
    name: str = 'heart'
    size: int = 7
    stride: int = 1

    def __post_init__(self):
        check_text(self, 'name')
        if str(self.name).upper() not in GLYPHS and self.name not in OUTLINES:
            raise InputError(f"Shape: unknown name '{self.name}': {nearest(self.name, OUTLINES)} "
                             '(or one letter or digit)')
        check_int(self, 'size', 5 if self.name in OUTLINES else 7)
        super().__post_init__()

    @cached_property
    def pattern(self) -> Tensor:
        if self.name in OUTLINES:
            return _outline(self.name, self.size)
        return _glyph(self.name.upper(), self.size)


def _outline(name: str, size: int) -> Tensor:
    """A shape of OUTLINES, (size, size) bool: its inequality in x (right) and y (up), both from -1 to 1."""
    axis = torch.linspace(-1, 1, size)
    return OUTLINES[name](axis[None, :].expand(size, size), -axis[:, None].expand(size, size))


def _star(x: Tensor, y: Tensor) -> Tensor:
    """A five-pointed star, one point up: five half planes through the tips two apart, a point inside at least four of them."""
    y = 0.9 * y + 0.1  # from the tip at 1 down to the feet at -cos(36 degrees)
    angles = torch.arange(5) * (2 * torch.pi / 5) + torch.pi / 2  # normals of the five sides
    away = 0.309 + 0.7 / len(x)  # thicker when small
    return sum((x * a.cos() + y * a.sin() <= away).int() for a in angles) >= 4


def _heart(x: Tensor, y: Tensor) -> Tensor:
    """``(x^2 + y^2 - 1)^3 <= x^2 y^3``, scaled into the square."""
    x, y = 1.1 * x, 1.1 * y + 0.11
    return (x.square() + y.square() - 1) ** 3 <= x.square() * y ** 3


OUTLINES = {
    'cross': lambda x, y: (x.abs() <= 0.3) | (y.abs() <= 0.3),
    'disc': lambda x, y: x.square() + y.square() <= 1.1,
    'heart': _heart,
    'star': _star,
}

# 5 x 7 dot matrix letters: seven rows of five dots, each row two hexadecimal digits, the leftmost dot worth 16.
GLYPHS = {
    'A': '0e11111f111111', 'B': '1e11111e11111e', 'C': '0e11101010110e', 'D': '1c12111111121c',
    'E': '1f10101e10101f', 'F': '1f10101e101010', 'G': '0e11101711110f', 'H': '1111111f111111',
    'I': '0e04040404040e', 'J': '0702020202120c', 'K': '11121418141211', 'L': '1010101010101f',
    'M': '111b1515111111', 'N': '11111915131111', 'O': '0e11111111110e', 'P': '1e11111e101010',
    'Q': '0e11111115120d', 'R': '1e11111e141211', 'S': '0f10100e01011e', 'T': '1f040404040404',
    'U': '1111111111110e', 'V': '11111111110a04', 'W': '1111111515150a', 'X': '11110a040a1111',
    'Y': '1111110a040404', 'Z': '1f01020408101f', '0': '0e11131519110e', '1': '040c040404040e',
    '2': '0e11010204081f', '3': '1f02040201110e', '4': '02060a121f0202', '5': '1f101e0101110e',
    '6': '0608101e11110e', '7': '1f010204080808', '8': '0e11110e11110e', '9': '0e11110f01020c',
}


def _glyph(name: str, size: int) -> Tensor:
    """A letter or digit of the dot matrix, scaled to ``size`` rows: (size, round(5/7 size)) bool."""
    rows = bytes.fromhex(GLYPHS[name])
    dots = torch.tensor([[row >> 4 - column & 1 for column in range(5)] for row in rows])
    shape = (size, round(size * 5 / 7))
    return F.interpolate(dots[None, None].float(), shape, mode='nearest-exact')[0, 0] > 0
