"""Random draws that depend on (seed, sample key) and on nothing else."""
import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..ops import generator_of

__all__ = ['ImageRNG']


class ImageRNG:
    """One CPU generator per image, so that batch size, order, padding, device and resuming never change a draw.

    Args:
        seed: the run's seed.
        keys: one sample id per image.
        region: (B, 1, H, W) bool; fields are drawn over the smallest top-left rectangle that holds an image's region, because the
            padded size depends on the image's neighbours.
    """

    def __init__(self, seed: int, keys: Sequence, region: Tensor):
        self.generators = [generator_of(seed, key) for key in keys]
        rows, columns = region.any(3)[:, 0].cpu(), region.any(2)[:, 0].cpu()
        self.sizes = [(_extent(r), _extent(c)) for r, c in zip(rows, columns, strict=True)]
        self.shape, self.device = (region.shape[-2], region.shape[-1]), region.device

    def restricted(self, rows: Tensor) -> 'ImageRNG':
        """The generators of some images; draws advance the originals."""
        part = object.__new__(ImageRNG)
        part.generators = [self.generators[r] for r in rows]
        part.sizes = [self.sizes[r] for r in rows]
        part.shape, part.device = self.shape, self.device
        return part

    def on_grid(self, grid: Callable[[int, int], tuple[int, int]]) -> 'ImageRNG':
        """The same generators, drawing fields on a grid: ``grid`` maps the height and width of an image to those of its grid."""
        part = copy.copy(self)
        part.sizes, part.shape = [grid(*size) for size in self.sizes], grid(*self.shape)
        return part

    def uniform(self, channels: int, rows: Tensor | None = None) -> Tensor:
        """(b, channels, H, W) from U(0, 1); zero outside the image."""
        return self._field(torch.rand, channels, rows)

    def normal(self, channels: int, rows: Tensor | None = None) -> Tensor:
        """(b, channels, H, W) from N(0, 1); zero outside the image."""
        return self._field(torch.randn, channels, rows)

    def numbers(self, counts: list[int], rows: Tensor) -> Tensor:
        """(b, max(counts)) from U(0, 1): ``counts[i]`` numbers for the i-th of the images ``rows``, zero beyond."""
        out = torch.zeros(len(rows), max(counts, default=0))
        for line, count, r in zip(out, counts, rows.tolist(), strict=True):
            line[:count] = torch.rand(count, generator=self.generators[r])
        return out.to(self.device)

    def _field(self, draw: Callable, channels: int, rows: Tensor | None) -> Tensor:
        which = list(range(len(self.generators))) if rows is None else rows.tolist()
        out = torch.zeros(len(which), channels, *self.shape)
        for field, r in zip(out, which, strict=True):
            height, width = self.sizes[r]
            field[:, :height, :width] = draw(channels, height, width, generator=self.generators[r])
        return out.to(self.device)


def _extent(used: Tensor) -> int:
    """One past the last True of a 1-D mask."""
    where = used.nonzero()
    return int(where[-1]) + 1 if len(where) else 0
