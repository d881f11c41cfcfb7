"""Denoising by total variation."""
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..checks import check_int, check_number
from ..registry import DEFENCES
from .base import Defence

__all__ = ['TotalVariation']

STEP = 0.125  # of the dual ascent; beyond it may diverge


@DEFENCES.register_module()
@dataclass(frozen=True)
class TotalVariation(Defence):
    """The image nearest to this one, ``|u - x|^2 / (2 weight) + TV(u)``, by Chambolle's projection.

    TV is the isotropic one of each channel. Without the random dropout of pixels of arXiv 1711.00117.
    The gradient is that of the iterations, exact.

    Args:
        weight: how much variation matters; images lie in [0, 1].
        steps: iterations.
        space: as for every :class:`Defence`.
    """
    weight: float = 0.1
    steps: int = 20

    def __post_init__(self):
        super().__post_init__()
        check_number(self, 'weight')
        check_int(self, 'steps')

    def apply(self, x, generators):
        down = across = x.new_zeros(x.shape)
        for _ in range(self.steps):
            # the dual field climbs, and is held within the unit ball at each pixel
            below, right = _slopes(_divergence(down, across) - x / self.weight)
            length = 1 + STEP * (below.square() + right.square() + 1e-12).sqrt()
            down, across = (down + STEP * below) / length, (across + STEP * right) / length
        return x - self.weight * _divergence(down, across)


def _slopes(u: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the pixel below and to the right, zero at the edge."""
    return (F.pad(u[..., 1:, :] - u[..., :-1, :], (0, 0, 0, 1)),
            F.pad(u[..., 1:] - u[..., :-1], (0, 1)))


def _divergence(down: Tensor, across: Tensor) -> Tensor:
    """The negative adjoint of :func:`_slopes`."""
    above = F.pad(down[..., :-1, :], (0, 0, 1, 0))
    left = F.pad(across[..., :-1], (1, 0))
    last_row = F.pad(down[..., :-1, :], (0, 0, 0, 1))
    last_column = F.pad(across[..., :-1], (0, 1))
    return last_row - above + last_column - left
