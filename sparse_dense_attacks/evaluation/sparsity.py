"""How the changed pixels lie."""
import torch
from scipy import ndimage
from torch import Tensor

from ..ops import changed_pixels
from ..ops.neighbourhood import windows_changed

__all__ = ['clusters', 'pixels', 'preference', 'windows']


def pixels(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Changed pixels, of which any channel differs; the mean over images is the ACP of arXiv 2311.17434.

    Args:
        clean, adversarial: (B, C, H, W).

    Returns:
        (B,) int64.
    """
    return changed_pixels(adversarial, clean).flatten(1).sum(1)


def clusters(changed: Tensor) -> Tensor:
    """Connected groups of changed pixels, neighbours being those above, below, left and right.

    Its mean over images is the ANC (average number of clusters) of arXiv 2311.17434.

    Args:
        changed: (B, H, W) bool.

    Returns:
        (B,) int64 on the CPU.
    """
    counts = [ndimage.label(image)[1] for image in changed.cpu().numpy()]
    return torch.tensor(counts, dtype=torch.int64)


def windows(changed: Tensor) -> Tensor:
    """d_{2,0} of arXiv 2311.17434: how many 8 x 8 windows (stride 1) hold a changed pixel.

    Args:
        changed: (B, H, W) bool, without padding.

    Returns:
        (B,) int64.
    """
    return windows_changed(changed, torch.ones_like(changed)[:, None])


def preference(change: Tensor, inside: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
    """How much a perturbation prefers a part of the image; 1 where it does not care.

    The part's share of the changed pixels, and of the 1-norm, each divided by its share of the
    pixels.

    Args:
        change: (B, C, H, W), the adversarial images less the clean ones.
        inside: (B, 1, H, W) bool, the part, for example the objects.
        content: (B, 1, H, W) bool, the pixels that count.

    Returns:
        Of the pixels and of the 1-norm, both (B,) float64; NaN where nothing is changed, or the part
        is nothing or everything.

    Example:
        >>> change = torch.tensor([[[[1., 0., 0., 0.]]]])
        >>> inside = torch.tensor([[[[True, True, False, False]]]])
        >>> [one.item() for one in preference(change, inside, torch.ones_like(inside))]
        [2.0, 2.0]
    """
    part = inside & content
    size, whole = (where.flatten(1).sum(1).double() for where in (part, content))
    area = torch.where((size > 0) & (size < whole), size / whole, torch.nan)
    norms = change.double().abs().sum(1, keepdim=True) * content
    found = []
    for weight in ((norms > 0).double(), norms):
        within, total = (one.flatten(1).sum(1) for one in (weight * part, weight))
        found.append(within / total / area)  # 0 / 0 is NaN
    return found[0], found[1]
