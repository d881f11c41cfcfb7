"""Groups that are whole rows or columns of the image."""
from dataclasses import dataclass

from ..registry import KERNELS
from .base import Kernel

__all__ = ['Column', 'Row']


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
