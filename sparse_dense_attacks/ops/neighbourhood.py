"""What surrounds a changed pixel: blurring and windows that end where the image ends, whatever it was padded to."""
import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['gaussian_blur', 'image_extent', 'reflected_index', 'windows_changed']


def image_extent(region: Tensor) -> tuple[Tensor, Tensor]:
    """Height and width, both (B,) int64, of the smallest top-left rectangle that holds each image's region (B, 1, H, W)."""
    return _extent(region.any(3)[:, 0]), _extent(region.any(2)[:, 0])


def _extent(used: Tensor) -> Tensor:
    """(B,) int64, one past the last True of each row of a mask (B, N)."""
    return (used * torch.arange(1, used.shape[1] + 1, device=used.device)).amax(1)


def reflected_index(extent: Tensor, length: int, radius: int) -> Tensor:
    """Where positions ``-radius .. length - 1 + radius`` of an axis lie when the image is mirrored at 0 and at ``extent - 1``.

    Args:
        extent: (B,) int64, length of the image along the axis, from 1 to ``length``.

    Returns:
        (B, length + 2 * radius) int64 in [0, extent).
    """
    period = (2 * extent[:, None] - 2).clamp(min=1)
    place = torch.arange(-radius, length + radius, device=extent.device) % period
    return torch.minimum(place, period - place)


def gaussian_blur(x: Tensor, rows: Tensor, columns: Tensor, std: float) -> Tensor:
    """Gaussian blur with mirrored borders.

    Args:
        x: (B, H, W) float >= 0 that is 0 outside the image; the result is exactly 0 where the kernel meets only zeros.
        rows, columns: (B, H + 2 r) and (B, W + 2 r), :func:`reflected_index` of the two axes; r is the radius of the kernel.

    Returns:
        (B, H, W). On an image that fills the tensor it equals ``torchvision``'s ``gaussian_blur(x, 2 r + 1, std)``.
    """
    for dim, index in ((1, rows), (2, columns)):
        length = x.shape[dim]
        radius = (index.shape[1] - length) // 2
        kernel = [math.exp(-0.5 * (i / std) ** 2) for i in range(-radius, radius + 1)]
        if dim == 1:
            index = index[:, :, None].expand(-1, -1, x.shape[2])
        else:
            index = index[:, None].expand(-1, x.shape[1], -1)
        mirrored = x.gather(dim, index)
        x = mirrored.narrow(dim, 0, length) * (kernel[0] / sum(kernel))
        for i, weight in enumerate(kernel[1:], 1):
            x.add_(mirrored.narrow(dim, i, length), alpha=weight / sum(kernel))
    return x


def windows_changed(changed: Tensor, region: Tensor, size: int = 8) -> Tensor:
    """d_{2,0}: the number of ``size`` x ``size`` windows (stride 1) of each image that hold a changed pixel.

    Args:
        changed: (B, H, W) bool.
        region: (B, 1, H, W) bool; windows lie within the rectangle it spans from the top left. Along an axis shorter than
            ``size`` the window is as long as the image.

    Returns:
        (B,) int64.

    Reference: arXiv 2311.17434; by max pooling instead of cutting out all windows.
    """
    padded = F.pad(changed.float(), (0, size - 1, 0, size - 1))
    reached = F.max_pool2d(padded[:, None], size, stride=1)[:, 0] > 0
    # where a window may begin
    height, width = (extent[:, None] for extent in image_extent(region))
    row, column = (torch.arange(length, device=changed.device) for length in changed.shape[1:])
    top, left = row <= (height - size).clamp(min=0), column <= (width - size).clamp(min=0)
    return (reached & top[:, :, None] & left[:, None]).flatten(1).sum(1)
