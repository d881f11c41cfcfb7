"""Where pixels may change: anywhere, inside or outside the objects, or where masks of the user's say."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..checks import class_index
from ..errors import InputError
from ..ops.neighbourhood import image_extent

__all__ = ['Where']

PLACES = ('anywhere', 'inside', 'outside')


@dataclass(frozen=True)
class Where:
    """Which pixels of an image may change, in every task.

    Args:
        place: 'anywhere'; 'inside' the objects; 'outside' of them, which leaves an attack the context only; or a folder of
            masks, ``<name of the image file>.png`` in the size of the image, in which every pixel but black ones may change. A
            mask may also have the size of the network's input, and has to where the pipeline crops.
        classes: objects of these classes only (names or indices). By default all that is annotated (or predicted, where that is
            the victim's reference); a segmenter's default is every class but 'background'.

    An image in which nothing may change is left alone and counts as not broken. Where fewer pixels may change than the attack's
    budget, all of them are at its disposal.

    Raises:
        InputError: no such place; objects of an image without boxes or label map; a missing mask or one of another size.
    """
    place: str = 'anywhere'
    classes: Sequence[str | int] | None = None

    def __post_init__(self):
        if self.place not in PLACES and not Path(self.place).is_dir():
            raise InputError(f"where = '{self.place}': no such folder of masks, and none of {', '.join(PLACES)}")
        if self.classes is not None and self.place not in ('inside', 'outside'):
            raise InputError(f"where: classes = {self.classes!r} say which objects, so place has to be 'inside' or 'outside'")
        if isinstance(self.classes, str):
            raise InputError(f"where: classes = '{self.classes}', expected a list such as ['{self.classes}']")

    @classmethod
    def build(cls, cfg: 'Where | Mapping | str') -> 'Where':
        """From ``'inside'``, from ``dict(place='inside', classes=['car'])``, or a finished object."""
        if isinstance(cfg, cls):
            return cfg
        try:
            return cls(**cfg) if isinstance(cfg, Mapping) else cls(cfg)
        except TypeError as error:
            raise InputError(f'where = {cfg!r}: {error}') from error

    def __call__(self, scene, samples: list) -> Tensor | None:
        """The pixels that may change, (B, 1, H, W) bool, or None for all.

        Args:
            scene: what the victim made of the batch.
            samples: the batch's data samples.
        """
        if self.place == 'anywhere':
            return None
        if self.place not in PLACES:
            extents = torch.stack(image_extent(scene.region), 1).tolist()  # of what is no letterbox
            return torch.stack([self._mask(*one) for one in zip(samples, scene.region, extents, strict=True)])
        if not hasattr(scene, 'objects'):
            raise InputError(f"where = '{self.place}': classified images have no outlined objects; give a folder of masks")
        classes = self.classes
        if classes is not None:
            classes = [class_index(name, scene.classes, scene.num_classes, 'where: classes') for name in classes]
        inside = scene.objects(classes)
        return inside if self.place == 'inside' else ~inside

    def _mask(self, sample, region: Tensor, extent: list[int]) -> Tensor:
        """The user's mask (1, H, W) bool of one image, in the coordinates of the padded network input."""
        name = sample.metainfo.get('img_path')
        if name is None:
            raise InputError(f"where = '{self.place}': masks are found by the image file's name, but a sample has no img_path")
        path = Path(self.place) / f'{Path(name).stem}.png'
        try:
            with Image.open(path) as image:
                mask = np.asarray(image.convert('RGB')).any(2)
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"where: no mask '{path}', or no readable PNG") from error
        input_size, original = tuple(sample.metainfo['img_shape'][:2]), tuple(sample.metainfo['ori_shape'][:2])
        h, w = extent
        scale_w, scale_h = sample.metainfo.get('scale_factor', (1, 1))[:2]
        only_resized = (round(original[0] * scale_h), round(original[1] * scale_w)) == (h, w)
        allowed = torch.zeros_like(region)
        if mask.shape == original and only_resized:
            mask = F.interpolate(torch.from_numpy(mask)[None, None].float(), (h, w), mode='nearest-exact')[0] > 0
        elif mask.shape == input_size:
            mask, (h, w) = torch.from_numpy(mask)[None], input_size
        else:
            sizes = f'{original} as the image, or {input_size}' if only_resized else f'{input_size}'
            raise InputError(f"where: mask '{path}' is {mask.shape}, expected {sizes} as the network's input")
        allowed[:, :h, :w] = mask.to(region.device)
        return allowed
