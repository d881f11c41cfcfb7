"""How the changed pixels lie."""
import torch
from scipy import ndimage
from torch import Tensor

__all__ = ['clusters']


def clusters(changed: Tensor) -> Tensor:
    """Connected groups of changed pixels, neighbours being those above, below, left and right.

    Its mean over images is the ANC (average number of clusters) of arXiv 2311.17434, whose d_{2,0} is ``windows_changed`` in ops.

    Args:
        changed: (B, H, W) bool.

    Returns:
        (B,) int64 on the CPU.
    """
    counts = [ndimage.label(image)[1] for image in changed.cpu().numpy()]
    return torch.tensor(counts, dtype=torch.int64)
