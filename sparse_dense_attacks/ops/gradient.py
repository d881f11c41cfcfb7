"""The gradient that every white-box attack follows."""
import torch
from torch import Tensor

__all__ = ['gradient']


def gradient(values: Tensor, x: Tensor, again: bool = False) -> Tensor:
    """Gradient of each image's value with respect to that image, where no value depends on another image.

    Args:
        values: (b,), computed from ``x``.
        x: (b, C, H, W) that requires grad.
        again: another gradient through the same graph will follow.

    Returns:
        (b, C, H, W), contiguous: the gradient of a pooled input comes as an expanded view, which cannot be written into.
    """
    return torch.autograd.grad(values.sum(), x, retain_graph=again)[0].contiguous()
