"""The 8-bit grid on which images are stored."""
import torch
from torch import Tensor

__all__ = ['to_8bit']


class _Round(torch.autograd.Function):
    """Rounds to multiples of 1/255; the gradient passes straight through."""

    @staticmethod
    def forward(ctx, x):
        # in place: this runs once per attack iteration on whole batches
        return (x * 255).round_().div_(255)

    @staticmethod
    def backward(ctx, grad):
        return grad


def to_8bit(x: Tensor) -> Tensor:
    """The nearest images an 8-bit file can hold.

    Args:
        x: images in [0, 1], any shape.

    Returns:
        Tensor of the same shape with values ``i / 255``, so that ``255 * result`` is exactly an integer; the gradient of the
        rounding is taken to be one.

    Example:
        >>> to_8bit(torch.tensor([0.5])) * 255
        tensor([128.])
    """
    return _Round.apply(x)
