"""A little smaller, at a random place: the randomised defence of Xie et al. (arXiv 1711.01991)."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_int, check_number
from ..registry import DEFENCES
from .base import Defence

__all__ = ['RandomResizePad']


@DEFENCES.register_module()
@dataclass(frozen=True)
class RandomResizePad(Defence):
    """Shrinks the image by a random factor, and pads it with black to its size at a random place.

    The published one enlarges images to a larger input; here the size stays, since victims have
    one of their own. Boxes and label maps stay where they are, so a detector or segmenter pays for
    it on clean images, too. The gradient is exact.

    Args:
        least: the side is this share of the old one, or more.
        draws: over how many draws an attack takes the mean at each look; each costs a pass.
        seed: of the draws, with the image's id and the number of the look. A finished image is
            judged with one draw that no attack sees.
        space: as for every :class:`Defence`.

    Reference: arXiv 1711.01991.
    """
    least: float = 0.9
    draws: int = 4
    seed: int = 0
    random = True

    def __post_init__(self):
        super().__post_init__()
        check_number(self, 'least', 0, 1)
        check_int(self, 'draws')
        check_int(self, 'seed', low=None)

    def apply(self, x, generators: Sequence[torch.Generator]) -> Tensor:
        height, width = x.shape[2:]
        found = []
        for image, generator in zip(x, generators, strict=True):
            scale, down, across = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
            share = self.least + (1 - self.least) * scale
            h, w = (max(round(side * share), 1) for side in (height, width))
            small = F.interpolate(image[None], (h, w), mode='bilinear', align_corners=False,
                                  antialias=True)[0]
            top, left = round((height - h) * down), round((width - w) * across)
            found.append(F.pad(small, (left, width - w - left, top, height - h - top)))
        return torch.stack(found)
