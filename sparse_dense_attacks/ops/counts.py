"""The sparsity counts; pixels and elements are never mixed up."""
from torch import Tensor

__all__ = ['changed_pixels', 'count_elements', 'count_pixels', 'linf_distance']


def changed_pixels(a: Tensor, b: Tensor) -> Tensor:
    """Pixels in which any channel differs: two (B, C, H, W) batches give (B, H, W) bool.

    Not a sum over channels: opposite changes would cancel.
    """
    return (a != b).any(1)


def count_pixels(a: Tensor, b: Tensor) -> Tensor:
    """l0 in pixels, (B,) int64."""
    return changed_pixels(a, b).flatten(1).sum(1)


def count_elements(a: Tensor, b: Tensor) -> Tensor:
    """l0 in channel values, (B,) int64."""
    return (a != b).flatten(1).sum(1)


def linf_distance(a: Tensor, b: Tensor) -> Tensor:
    """Largest change of a channel value, (B,) float."""
    return (a - b).abs().flatten(1).amax(1)
