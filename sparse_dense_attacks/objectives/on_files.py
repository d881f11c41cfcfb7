"""A goal on network inputs, judged on the pixels of the image files they are made of."""
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Verdict
from .base import Objective

__all__ = ['OnFiles']


class Map(Protocol):
    """A map between images that is linear but for its rounding.

    Attributes:
        source, target: sizes before and after.
    """
    @property
    def source(self) -> tuple[int, int]: ...

    @property
    def target(self) -> tuple[int, int]: ...

    def forward(self, x: Tensor) -> Tensor:
        """(C, h, w) to (C, height, width)."""
        ...

    def adjoint(self, grad: Tensor) -> Tensor:
        """The gradient (C, h, w) before from that after."""
        ...


class OnFiles(Objective):
    """An objective whose images are files; those of the ``objective`` within are network inputs.

    All but images and region is that of the objective within, so goals, tasks and attacks know of
    one grid only. The clean verdict is that on what the pipeline itself made of the files.

    Args:
        objective: of the network inputs.
        images: (B, C, H, W) the files' pixels in [0, 1], padded right and bottom.
        region: (B, 1, H, W) bool, which of them may change.
        maps: how each becomes network input.
        shield: what becomes of candidates (b, C, h, w) of the files ``rows`` before that, if anything.
    """

    def __init__(self, objective: Objective, images: Tensor, region: Tensor, maps: Sequence[Map],
                 shield: Callable[[Tensor, Tensor], Tensor] | None = None):
        self.objective, self.maps, self.shield = objective, maps, shield
        self.passes = objective.passes
        self.images, self.keys = images, objective.keys
        # a goal may have nothing to attack in an image
        self.region = region & objective.region.flatten(1).any(1)[:, None, None, None]
        self.clean, self.parts = objective.clean, objective.parts
        self.eligible, self.defined = objective.eligible, objective.defined

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        return self.objective(self.shown(x, rows), rows)

    def share(self, x: Tensor, rows: Tensor) -> Tensor:
        return self.objective.share(self.shown(x, rows), rows)

    def shown(self, x: Tensor, rows: Tensor) -> Tensor:
        """The network inputs (b, C, H', W') of candidates ``x`` (b, C, H, W), differentiable."""
        maps = [self.maps[row] for row in rows.tolist()]
        with torch.autocast(x.device.type, enabled=False):  # only the model computes in less
            if self.shield is not None:
                x = self._shielded(self.shield, x, rows, maps)
            return _Shown.apply(x, maps, self.objective.images.shape[1:])

    @staticmethod
    def _shielded(shield: Callable[[Tensor, Tensor], Tensor], x: Tensor, rows: Tensor,
                  maps: Sequence[Map]) -> Tensor:
        """Every file by itself, without its padding."""
        height, width = x.shape[2:]
        found = []
        for image, row, one in zip(x, rows, maps, strict=True):
            h, w = one.source
            seen = shield(image[None, :, :h, :w], row[None])[0]
            found.append(F.pad(seen, (0, width - w, 0, height - h)))
        return torch.stack(found)


class _Shown(torch.autograd.Function):
    """Maps every image of a batch by itself; rounding passes gradients straight through."""

    @staticmethod
    def forward(ctx, x, maps, shape):
        ctx.maps, ctx.shape = maps, x.shape
        found = x.new_empty(len(x), *shape)
        for image, shown, one in zip(x, found, maps, strict=True):
            h, w = one.source
            _fill(shown, one.forward(image[:, :h, :w]))
        return found

    @staticmethod
    def backward(ctx, grad):
        found = grad.new_empty(ctx.shape)
        for image, shown, one in zip(found, grad, ctx.maps, strict=True):
            height, width = one.target
            _fill(image, one.adjoint(shown[:, :height, :width]))
        return found, None, None


def _fill(whole: Tensor, part: Tensor) -> None:
    """Copy an image (C, h, w) into the top left corner of a larger one; the rest is zero."""
    height, width = part.shape[1:]
    whole[:, :height, :width] = part
    whole[:, height:] = 0
    whole[:, :height, width:] = 0
