"""The median filter."""
from dataclasses import dataclass

import torch.nn.functional as F

from ..checks import check_int
from ..errors import InputError
from ..registry import DEFENCES
from .base import Defence

__all__ = ['Median']


@DEFENCES.register_module()
@dataclass(frozen=True)
class Median(Defence):
    """Every channel value becomes the median of those around it; gradients go to the one it is.

    Args:
        size: side of the square around it, odd. Beyond the edge lies what is at the edge.
        space: as for every :class:`Defence`.
    """
    size: int = 3

    def __post_init__(self):
        super().__post_init__()
        check_int(self, 'size', 3)
        if self.size % 2 == 0:
            raise InputError(f'Median: size = {self.size}, expected an odd number of pixels')

    def apply(self, x, generators):
        reach = self.size // 2
        around = F.pad(x, (reach,) * 4, mode='replicate')
        windows = around.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)
        return windows.median(4).values
