"""JPEG compression."""
import io
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..checks import check_int
from ..errors import InputError
from ..registry import DEFENCES
from .base import Defence, straight

__all__ = ['JPEG']


@DEFENCES.register_module()
@dataclass(frozen=True)
class JPEG(Defence):
    """Compresses the image as Pillow does, and opens it again.

    Gradients pass straight through the rounding of the coefficients; that colours are kept at half
    the size is in them.

    Args:
        quality: 1 to 95, as Pillow counts it (beyond 95 it is another method).
        space: as for every :class:`Defence`.
    """
    quality: int = 75

    def __post_init__(self):
        super().__post_init__()
        check_int(self, 'quality', 1, 95)

    def apply(self, x, generators):
        if x.shape[1] not in (1, 3):
            raise InputError(f'JPEG: images have {x.shape[1]} channels, expected 3 (RGB) or 1')
        kept = _half_the_colours(x) if x.shape[1] == 3 else x
        pixels = (x.detach() * 255).round().to('cpu', torch.uint8).permute(0, 2, 3, 1).numpy()
        seen = torch.stack([self._compressed(image) for image in pixels]).to(x)
        return straight(kept, seen)

    def _compressed(self, image: np.ndarray) -> Tensor:
        """What is left of (h, w, C) uint8, (C, h, w) in [0, 1]."""
        file = io.BytesIO()
        picture = Image.fromarray(image if image.shape[2] == 3 else image[..., 0])
        picture.save(file, 'JPEG', quality=self.quality)
        opened = np.array(Image.open(file)).reshape(image.shape)
        return torch.from_numpy(opened).permute(2, 0, 1).float() / 255


def _half_the_colours(x: Tensor) -> Tensor:
    """Images (b, 3, h, w) whose colour, but not whose brightness, is that of blocks of 2 x 2."""
    h, w = x.shape[2:]
    grey = (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    colour = F.pad(x - grey, (0, w % 2, 0, h % 2), mode='replicate')
    blocks = F.interpolate(F.avg_pool2d(colour, 2), scale_factor=2, mode='nearest')
    return grey + blocks[:, :, :h, :w]
