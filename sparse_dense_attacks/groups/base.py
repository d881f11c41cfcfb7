"""What a budget counts: groups of pixels, and how a mask over groups becomes a mask over pixels."""
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..registry import KERNELS

__all__ = ['Kernel', 'Pixel']


class Kernel:
    """A rule that places groups of pixels on a grid; the identity, a group for every pixel, unless a subclass says otherwise."""

    unit = 'groups'  # what a budget counts

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the group grid of an image; 0 where the kernel does not fit."""
        return height, width

    def expand(self, v: Tensor, size: Sequence[int]) -> Tensor:
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
        """Groups an attack may choose, (b, 1, Gh, Gw) bool, of those that lie in the pixels that may
        change, (b, 1, H, W) bool; (b, 1, 0, 0) where the kernel is larger than the images.
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
