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
from .base import Geometry, Scene

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
        if isinstance(cfg, Where):
            return cfg
        try:
            return cls(**cfg) if isinstance(cfg, Mapping) else cls(cfg)
        except TypeError as error:
            raise InputError(f'where = {cfg!r}: {error}') from error

    def __call__(self, scene: Scene) -> Tensor | None:
        """The pixels of a scene's images that may change, (B, 1, H, W) bool, or None for all."""
        if self.place == 'anywhere':
            return None
        if self.place not in PLACES:
            masks = torch.zeros_like(scene.region)
            for mask, geometry in zip(masks, scene.geometry, strict=True):
                h, w = geometry.input
                mask[:, :h, :w] = self._mask(geometry)
            return masks
        classes = None
        if self.classes is not None:
            classes = [class_index(name, scene.classes, scene.num_classes, 'where: classes') for name in self.classes]
        inside = scene.objects(classes)
        return inside if self.place == 'inside' else ~inside

    def _mask(self, geometry: Geometry) -> Tensor:
        """The user's mask (h, w) bool of one image, in the coordinates of the network input."""
        if geometry.file is None:
            raise InputError(f"where = '{self.place}': masks are found by the image file's name, but a sample has no img_path")
        path = Path(self.place) / f'{Path(geometry.file).stem}.png'
        try:
            with Image.open(path) as image:
                mask = torch.from_numpy(np.asarray(image.convert('RGB')).any(2))
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"where: no mask '{path}', or no readable PNG") from error
        if mask.shape == geometry.original and geometry.resized:
            h, w = geometry.content
            allowed = torch.zeros(geometry.input, dtype=torch.bool)
            allowed[:h, :w] = F.interpolate(mask[None, None].float(), (h, w), mode='nearest-exact')[0, 0] > 0
            return allowed
        if mask.shape == geometry.input:
            return mask
        sizes = f'{geometry.original} as the image, or {geometry.input}' if geometry.resized else f'{geometry.input}'
        raise InputError(f"where: mask '{path}' is {tuple(mask.shape)}, expected {sizes} as the network's input")
