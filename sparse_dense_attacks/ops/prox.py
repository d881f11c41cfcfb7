"""The proximal operator of the 1/2-quasinorm.

Convention of Xu et al. (IEEE TNNLS 2012): no factor 1/2 in front of the square.
"""
import math

import torch
from torch import Tensor

__all__ = ['critical_lambda', 'half_quasinorm_prox']

THRESHOLD = 54 ** (1 / 3) / 4


def half_quasinorm_prox(a: Tensor, weight: Tensor | float) -> Tensor:
    """``argmin_w (w - a)^2 + weight * |w|^(1/2)``, element-wise and in closed form.

    Entries with ``|a| <= 54^(1/3) / 4 * weight^(2/3)`` become exactly 0; at that threshold the result jumps to ``2/3 a``.

    Args:
        a: any shape.
        weight: >= 0, broadcasts with ``a``; infinite weights give 0.

    Returns:
        Tensor of the shape of ``a``. Finite also under autograd: the arc cosine never sees an argument above 1.
    """
    weight = torch.as_tensor(weight, dtype=a.dtype, device=a.device)
    size = a.abs()
    kept = size > THRESHOLD * weight.pow(2 / 3)
    # at most 2^(-1/2) where kept
    ratio = torch.where(kept, weight / 8 * torch.where(kept, size / 3, 1).pow(-1.5), 0)
    shrunk = a * (2 / 3) * (1 + torch.cos(2 * math.pi / 3 - 2 / 3 * torch.acos(ratio)))
    return torch.where(kept, shrunk, 0)


def critical_lambda(grad: Tensor, step: float) -> Tensor:
    """The largest lambda for which a proximal step from 0 still moves, i.e. ``half_quasinorm_prox(step * grad, lambda * step)``
    keeps its largest element; in closed form what the published code of GSE (arXiv 2311.17434) finds by doubling and bisection.

    Args:
        grad: (B, C, H, W) gradient at 0.
        step: length of the step.

    Returns:
        (B,) float; 0 where the gradient is 0 everywhere.
    """
    return (step * grad.abs().flatten(1).amax(1) / THRESHOLD).pow(1.5) / step
