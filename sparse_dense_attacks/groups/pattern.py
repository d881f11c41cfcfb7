"""Groups that are placements of one binary pattern, and the plainest of them, rectangles."""
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_int
from ..errors import InputError
from ..registry import KERNELS
from .base import Kernel

__all__ = ['Patch', 'Pattern']


class Pattern(Kernel):
    """Groups are all placements of a binary pattern, its top left corner at multiples of ``stride``, wholly inside the region.

    Attributes:
        stride: pixels from one placement to the next.
    """
    stride: int

    @property
    def pattern(self) -> Tensor:
        """(height, width) bool on the CPU; subclasses say which."""
        raise NotImplementedError

    def __post_init__(self):
        check_int(self, 'stride')
        if not self.pattern.any():
            raise InputError(f'{self}: the pattern is empty, expected at least one pixel')

    def grid(self, height, width):
        rows, columns = self.pattern.shape
        down, across = (height - rows) // self.stride + 1, (width - columns) // self.stride + 1
        return max(down, 0), max(across, 0)

    def expand(self, v, size):
        height, width = size
        single = v.to(torch.float32).flatten(0, 1)[:, None]
        spread = F.conv_transpose2d(single, self._weight(v.device), stride=self.stride)
        # columns and rows beyond the last placement
        beyond = (0, width - spread.shape[3], 0, height - spread.shape[2])
        return F.pad(spread, beyond).clamp_(max=1).unflatten(0, v.shape[:2])[:, :, 0]

    def correlate(self, a):
        return self._sums(a).div_(int(self.pattern.sum()))

    def usable(self, region):
        if 0 in self.grid(*region.shape[2:]):
            return region[:, :, :0, :0]
        return self._sums((~region).float()) == 0

    def cover(self, changed, usable):
        if not usable.numel():
            return changed.flatten(1).sum(1)
        size, usable = changed.shape[1:], usable.float()
        left = changed[:, None].float()  # what is not covered yet

        # pixels that no group contains
        alone = left * (1 - self.expand(usable, size))
        count = alone.flatten(1).sum(1).long()
        left = left - alone

        # where no two groups overlap every group with a changed pixel counts, otherwise take the best of them again and again
        if self.stride >= max(self.pattern.shape):
            return count + (self._sums(left) * usable > 0).flatten(1).sum(1)
        return count + self._greedy(left[:, 0], usable[:, 0])

    def _greedy(self, left: Tensor, usable: Tensor) -> Tensor:
        """(B,) int64, how many groups it takes to cover the pixels ``left`` (B, H, W) 0 or 1, the best of the ``usable`` groups
        (B, Gh, Gw) 0 or 1 first.

        A choice changes what its neighbours are worth and nothing else, so the image is summed over once.
        """
        rows, columns = self.pattern.shape
        weight = self._weight(left.device)
        down, across = (rows - 1) // self.stride, (columns - 1) // self.stride  # how far neighbours overlap
        worth = F.pad(self._sums(left[:, None])[:, 0] * usable, (across, across, down, down))
        usable = F.pad(usable, (across, across, down, down))

        # where the pixels of a group and where its neighbours lie, counted from its first
        pixels = _window(rows, columns, left.shape[2], left.device)
        neighbours = _window(2 * down + 1, 2 * across + 1, worth.shape[2], left.device)
        margin = (across * self.stride, across * self.stride, down * self.stride, down * self.stride)
        width, pixels_left = worth.shape[2], left.flatten(1).clone()
        worth, usable = worth.flatten(1), usable.flatten(1)

        count = torch.zeros(len(left), dtype=torch.long, device=left.device)
        remaining = pixels_left.sum(1)
        while remaining.any():
            count += remaining > 0
            best = worth.argmax(1)
            row, column = best // width - down, best % width - across
            row, column = row.clamp(min=0), column.clamp(min=0)  # an image that is done chooses the margin

            inside = (row * left.shape[2] + column)[:, None] * self.stride + pixels
            covered = pixels_left.gather(1, inside) * weight.flatten()
            pixels_left.scatter_add_(1, inside, -covered)
            remaining = remaining - covered.sum(1)

            lost = F.conv2d(F.pad(covered.view(-1, 1, rows, columns), margin), weight, stride=self.stride)
            around = (row * width + column)[:, None] + neighbours
            worth.scatter_add_(1, around, -lost.flatten(1) * usable.gather(1, around))
        return count

    def _sums(self, a: Tensor) -> Tensor:
        """Sum over each group's pixels, (b, C, H, W) to (b, C, Gh, Gw)."""
        sums = F.conv2d(a.flatten(0, 1)[:, None], self._weight(a.device), stride=self.stride)
        return sums.unflatten(0, a.shape[:2])[:, :, 0]

    @cached_property
    def _weights(self) -> dict:
        return {}

    def _weight(self, device: torch.device) -> Tensor:
        """The pattern as (1, 1, height, width) float on the device, where it stays: one copy, not one per iteration."""
        if device not in self._weights:
            self._weights[device] = self.pattern[None, None].to(device, torch.float32)
        return self._weights[device]


def _window(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """(rows * columns,) int64, flat positions of a window at the top left of an image of that width."""
    down, across = torch.arange(rows, device=device), torch.arange(columns, device=device)
    return (down[:, None] * width + across).flatten()


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
        check_int(self, 'height')
        check_int(self, 'width')
        super().__post_init__()

    @cached_property
    def pattern(self) -> Tensor:
        return torch.ones(self.height, self.width, dtype=torch.bool)

    def expand(self, v, size):
        if self.stride > 1:
            return super().expand(v, size)
        # a pixel is in a group whose corner lies within so many above and to the left of it: two sums
        # along an axis are much less work than a transposed convolution
        h, w = self.height, self.width
        spread = F.pad(v.to(torch.float32), (w - 1, w - 1, h - 1, h - 1))
        spread = F.avg_pool2d(spread, (h, 1), 1, divisor_override=1)
        return F.avg_pool2d(spread, (1, w), 1, divisor_override=1).clamp_(max=1)

    def _sums(self, a):
        # no TF32, unlike a convolution
        return F.avg_pool2d(a, (self.height, self.width), self.stride, divisor_override=1)
