"""Groups that are placements of one binary pattern, and the plainest of them, rectangles."""
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

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
