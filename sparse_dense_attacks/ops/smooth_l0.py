"""The smooth stand-in for the l0 norm: ``sum q / (q + sigma)`` with ``q`` the squared change of an element or of a pixel."""
from torch import Tensor

__all__ = ['smooth_l0', 'smooth_l0_grad']


def smooth_l0(delta: Tensor, sigma: Tensor | float, pixel: bool = False) -> Tensor:
    """Number of changed entries, made differentiable; from below, and exact as ``sigma`` goes to 0.

    Args:
        delta: (B, C, H, W) perturbation.
        sigma: sharpness in squared units of ``delta``; a number or (B, 1, 1, 1). Where ``delta^2 = sigma`` an entry counts 1/2.
        pixel: count pixels (``q`` sums the squares of all channels) instead of channel values.

    Returns:
        (B,) float.

    Reference: arXiv 2402.01879; arXiv 2408.15702 writes ``sigma^2`` where this has ``sigma``.
    """
    q = _energy(delta, pixel)
    return (q / (q + sigma)).flatten(1).sum(1)


def smooth_l0_grad(delta: Tensor, sigma: Tensor | float, pixel: bool = False) -> Tensor:
    """Gradient of :func:`smooth_l0` with respect to ``delta``, ``2 delta sigma / (q + sigma)^2``: (B, C, H, W), a new tensor."""
    return delta / (_energy(delta, pixel) + sigma).square_() * (2 * sigma)


def _energy(delta: Tensor, pixel: bool) -> Tensor:
    q = delta.square()
    return q.sum(1, keepdim=True) if pixel else q
