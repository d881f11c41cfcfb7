"""Structured kernels: which pixels form a group, and how a mask over groups becomes a mask over pixels."""
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..registry import KERNELS, nearest

__all__ = ['Column', 'Kernel', 'Patch', 'Picture', 'Pixel', 'Row', 'Shape']


class Kernel:
    """A rule that places groups of pixels on a grid; the identity, a group for every pixel, unless a subclass says otherwise."""

    unit = 'groups'  # what a budget counts

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the group grid of an image; 0 where the kernel does not fit."""
        return height, width

    def expand(self, v: Tensor, size: tuple[int, int]) -> Tensor:
        """Group values to pixel values: (b, C, Gh, Gw) in [0, 1] to (b, C, H, W) in [0, 1] for an image of ``size`` (H, W).

        A pixel gets the sum over the groups that contain it, at most 1.
        """
        return v

    def correlate(self, a: Tensor) -> Tensor:
        """(b, C, H, W) to (b, C, Gh, Gw): the sum over each group's pixels by the size of a whole group.

        The mask gradient of arXiv 2405.05075; a row that lies in the region in part counts for as much as that part.
        """
        return a

    def usable(self, region: Tensor) -> Tensor:
        """Groups an attack may choose, (b, 1, Gh, Gw) bool, given the pixels that may change, (b, 1, H, W) bool.

        Raises:
            InputError: the kernel is larger than the images.
        """
        return region

    def cover(self, changed: Tensor, usable: Tensor) -> Tensor:
        """(B,) int64, how many of the ``usable`` groups (B, 1, Gh, Gw) bool cover the changed pixels (B, H, W) bool.

        Exact where no two groups overlap, otherwise greedy: an upper bound of the group l0 norm. A pixel that no group contains
        counts as one.
        """
        return changed.flatten(1).sum(1)


@KERNELS.register_module()
@dataclass(frozen=True)
class Pixel(Kernel):
    """Every pixel is a group: the unstructured case."""
    unit = 'pixels'


@KERNELS.register_module()
@dataclass(frozen=True)
class Row(Kernel):
    """Groups are image rows, each as far as it lies in the region."""

    def grid(self, height, width):
        return height, 1

    def expand(self, v, size):
        return v.expand(*v.shape[:2], *size)

    def correlate(self, a):
        return a.mean(3, keepdim=True)

    def usable(self, region):
        return region.any(3, keepdim=True)

    def cover(self, changed, usable):
        return changed.any(2).sum(1)


@KERNELS.register_module()
@dataclass(frozen=True)
class Column(Kernel):
    """Groups are image columns, each as far as it lies in the region."""

    def grid(self, height, width):
        return 1, width

    def expand(self, v, size):
        return v.expand(*v.shape[:2], *size)

    def correlate(self, a):
        return a.mean(2, keepdim=True)

    def usable(self, region):
        return region.any(2, keepdim=True)

    def cover(self, changed, usable):
        return changed.any(1).sum(1)


class Pattern(Kernel):
    """Groups are all placements of a binary pattern, its top left corner at multiples of ``stride``, wholly inside the region.

    Subclasses give ``stride`` and ``pattern``, (height, width) bool on the CPU.
    """

    def __post_init__(self):
        if isinstance(self.stride, bool) or not isinstance(self.stride, int) or self.stride < 1:
            raise InputError(f'{self}: stride = {self.stride}, expected an int >= 1')
        if not self.pattern.any():
            raise InputError(f'{self}: the pattern is empty, expected at least one pixel')

    def grid(self, height, width):
        ph, pw = self.pattern.shape
        return max((height - ph) // self.stride + 1, 0), max((width - pw) // self.stride + 1, 0)

    def expand(self, v, size):
        spread = F.conv_transpose2d(v.to(torch.float32).flatten(0, 1)[:, None], self._weight(v.device), stride=self.stride)
        missing = size[1] - spread.shape[3], size[0] - spread.shape[2]  # columns and rows beyond the last placement
        return F.pad(spread, (0, missing[0], 0, missing[1])).clamp_(max=1).unflatten(0, v.shape[:2])[:, :, 0]

    def correlate(self, a):
        return self._sums(a).div_(int(self.pattern.sum()))

    def usable(self, region):
        if 0 in self.grid(*region.shape[2:]):
            (ph, pw), (h, w) = self.pattern.shape, region.shape[2:]
            raise InputError(f'{self}: the kernel has {ph} x {pw} pixels, but the images only {h} x {w}')
        return self._sums((~region).float()) == 0

    def cover(self, changed, usable):
        left, size, usable = changed[:, None].float(), changed.shape[1:], usable.float()
        alone = left * (1 - self.expand(usable, size))
        count, left = alone.flatten(1).sum(1).long(), left - alone
        if self.stride >= max(self.pattern.shape):
            return count + (self._sums(left) * usable > 0).flatten(1).sum(1)
        while left.any():
            gain = self._sums(left) * usable
            chosen = torch.zeros_like(gain).flatten(1).scatter_(1, gain.flatten(1).argmax(1, keepdim=True), 1).view_as(gain)
            count += left.flatten(1).any(1)
            left = left * (1 - self.expand(chosen, size))
        return count

    def _sums(self, a: Tensor) -> Tensor:
        """Sum over each group's pixels, (b, C, H, W) to (b, C, Gh, Gw)."""
        return F.conv2d(a.flatten(0, 1)[:, None], self._weight(a.device), stride=self.stride).unflatten(0, a.shape[:2])[:, :, 0]

    @cached_property
    def _weights(self) -> dict:
        return {}

    def _weight(self, device: torch.device) -> Tensor:
        """The pattern as (1, 1, height, width) float on the device, where it stays: one copy, not one per iteration."""
        if device not in self._weights:
            self._weights[device] = self.pattern[None, None].to(device, torch.float32)
        return self._weights[device]


@KERNELS.register_module()
@dataclass(frozen=True)
class Patch(Pattern):
    """Rectangles.

    Args:
        height, width: size in pixels.
        stride: pixels from one placement to the next; 1 allows all overlapping placements.
    """
    height: int = 3
    width: int = 3
    stride: int = 1

    def __post_init__(self):
        for name in ('height', 'width'):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f'{self}: {name} = {value}, expected an int >= 1')
        super().__post_init__()

    @cached_property
    def pattern(self) -> Tensor:
        return torch.ones(self.height, self.width, dtype=torch.bool)

    def _sums(self, a):
        return F.avg_pool2d(a, (self.height, self.width), self.stride, divisor_override=1)  # no TF32, unlike a convolution


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
        if str(self.name).upper() not in GLYPHS and self.name not in OUTLINES:
            raise InputError(f"Shape: unknown name '{self.name}': {nearest(self.name, OUTLINES)} (or one letter or digit)")
        least = 5 if self.name in OUTLINES else 7
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < least:
            raise InputError(f'{self}: size = {self.size}, expected an int >= {least}')
        super().__post_init__()

    @cached_property
    def pattern(self) -> Tensor:
        return _outline(self.name, self.size) if self.name in OUTLINES else _glyph(self.name.upper(), self.size)


@KERNELS.register_module()
@dataclass(frozen=True)
class Picture(Pattern):
    """The pattern in an image file.

    Args:
        path: a PNG (or any file Pillow reads). Opaque pixels form the group if the file has transparency, bright ones (more than
            half) otherwise; one file pixel is one image pixel.
        stride: pixels from one placement to the next.
    """
    path: str = ''
    stride: int = 1

    def __post_init__(self):
        if not Path(self.path).is_file():
            raise InputError(f"Picture: there is no file '{self.path}'; give the path of a PNG")
        super().__post_init__()

    @cached_property
    def pattern(self) -> Tensor:
        return _read(self.path)


def _read(path: str) -> Tensor:
    """The binary pattern in an image file, (height, width) bool. The only place that needs Pillow."""
    from PIL import Image, UnidentifiedImageError
    try:
        with Image.open(path) as image:
            transparent = 'A' in image.getbands() or 'transparency' in image.info
            levels = image.convert('RGBA').getchannel('A') if transparent else image.convert('L')
    except UnidentifiedImageError as error:
        raise InputError(f"Picture: '{path}' is no image file; expected a PNG") from error
    return torch.frombuffer(bytearray(levels.tobytes()), dtype=torch.uint8).view(levels.height, levels.width) > 127


def _outline(name: str, size: int) -> Tensor:
    """A shape of OUTLINES, (size, size) bool: its inequality in x (right) and y (up), both from -1 to 1."""
    axis = torch.linspace(-1, 1, size)
    return OUTLINES[name](axis[None, :].expand(size, size), -axis[:, None].expand(size, size))


def _star(x: Tensor, y: Tensor) -> Tensor:
    """A five-pointed star, one point up: five half planes through the tips two apart, a point inside at least four of them."""
    y = 0.9 * y + 0.1  # from the tip at 1 down to the feet at -cos(36 degrees)
    angles = torch.arange(5) * (2 * torch.pi / 5) + torch.pi / 2  # normals of the five sides, 0.309 away
    return sum((x * a.cos() + y * a.sin() <= 0.309 + 0.7 / len(x)).int() for a in angles) >= 4  # thicker when small


OUTLINES = {
    'cross': lambda x, y: (x.abs() <= 0.3) | (y.abs() <= 0.3),
    'disc': lambda x, y: x.square() + y.square() <= 1.1,
    'heart': lambda x, y: ((1.1 * x).square() + (1.1 * y + 0.11).square() - 1) ** 3 <= (1.1 * x).square() * (1.1 * y + 0.11) ** 3,
    'star': _star,
}

# 5 x 7 dot matrix letters: seven rows of five dots, each row two hexadecimal digits, the leftmost dot worth 16.
GLYPHS = dict(zip('ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789', (
    '0e11111f111111', '1e11111e11111e', '0e11101010110e', '1c12111111121c', '1f10101e10101f', '1f10101e101010', '0e11101711110f',
    '1111111f111111', '0e04040404040e', '0702020202120c', '11121418141211', '1010101010101f', '111b1515111111', '11111915131111',
    '0e11111111110e', '1e11111e101010', '0e11111115120d', '1e11111e141211', '0f10100e01011e', '1f040404040404', '1111111111110e',
    '11111111110a04', '1111111515150a', '11110a040a1111', '1111110a040404', '1f01020408101f',
    '0e11131519110e', '040c040404040e', '0e11010204081f', '1f02040201110e', '02060a121f0202', '1f101e0101110e', '0608101e11110e',
    '1f010204080808', '0e11110e11110e', '0e11110f01020c'), strict=True))


def _glyph(name: str, size: int) -> Tensor:
    """A letter or digit of the dot matrix, scaled to ``size`` rows: (size, round(5/7 size)) bool."""
    dots = torch.tensor([[row >> 4 - column & 1 for column in range(5)] for row in bytes.fromhex(GLYPHS[name])])
    return F.interpolate(dots[None, None].float(), (size, round(size * 5 / 7)), mode='nearest-exact')[0, 0] > 0
