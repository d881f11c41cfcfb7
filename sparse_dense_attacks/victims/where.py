"""Where pixels may change: anywhere, inside or outside the objects, or where masks of the user's say."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..checks import check_names, class_index, files_for
from ..errors import InputError
from .base import Geometry, Scene

__all__ = ['Where']

PLACES = ('anywhere', 'inside', 'outside')
DEEP = ('I', 'F')  # how the modes of images with more than 8 bits begin


@dataclass(frozen=True)
class Where:
    """Which pixels of an image may change, in every task.

    Crowd regions, difficult and ignored objects and pixels without a class are neither inside nor
    outside.

    Args:
        place: 'anywhere'; 'inside' the objects; 'outside' of them, which leaves an attack the
            context only; or a folder of masks in the size of the images, in which every pixel but
            black and transparent ones may change. The mask of ``seq1/0001.jpg`` is
            ``seq1/0001.png`` in that folder, or ``0001.png`` if no other image is called so. A mask
            may also have the size of the network's input, and has to where the pipeline crops.
        classes: objects of these classes only (names or indices). By default all that is annotated
            (or predicted, where that is the victim's reference); a segmenter's default is every
            class but 'background'.

    An image in which nothing may change is left alone and counts as not broken. Where fewer pixels
    may change than the attack's budget, all of them are at its disposal.

    Raises:
        InputError: no such place; objects of an image without boxes or label map; a missing mask,
            one of another size, or one that fits two images.
    """
    place: str = 'anywhere'
    classes: Sequence[str | int] | None = None

    def __post_init__(self):
        if isinstance(self.place, Path):
            object.__setattr__(self, 'place', str(self.place))
        if not isinstance(self.place, str) or (
                self.place not in PLACES and not Path(self.place).is_dir()):
            raise InputError(f'where = {self.place!r}: no such folder of masks, and none of '
                             f'{", ".join(PLACES)}')
        if self.classes is None:
            return
        if self.place not in ('inside', 'outside'):
            raise InputError(f'where: classes = {self.classes!r} say which objects, so place has '
                             "to be 'inside' or 'outside'")
        if isinstance(self.classes, str):
            raise InputError(f"where: classes = '{self.classes}', expected a list such as "
                             f"['{self.classes}']")
        check_names(self, 'classes', indices=True)

    @classmethod
    def build(cls, cfg: 'Where | Mapping | str') -> 'Where':
        """From ``'inside'``, from ``dict(place='inside', classes=['car'])``, or a finished object."""
        if isinstance(cfg, Where):
            return cfg
        try:
            return cls(**cfg) if isinstance(cfg, Mapping) else cls(cfg)
        except TypeError as error:
            raise InputError(f'where = {cfg!r}: {error}') from error

    @property
    def folder(self) -> Path | None:
        """The folder of masks, None for a place."""
        return None if self.place in PLACES else Path(self.place)

    def __call__(self, scene: Scene) -> Tensor | None:
        """The pixels of a scene's images that may change, (B, 1, H, W) bool, or None for all."""
        if self.place == 'anywhere':
            return None
        if self.folder is not None:
            return self._masks(self.folder, scene)
        classes = None
        if self.classes is not None:
            classes = [class_index(name, scene.classes, scene.num_classes, 'where: classes')
                       for name in self.classes]
        inside = scene.objects(classes)
        return (inside if self.place == 'inside' else ~inside) & ~scene.ignored()

    def _masks(self, folder: Path, scene: Scene) -> Tensor:
        """The user's masks in the coordinates of the network input, (B, 1, H, W) bool."""
        files = [geometry.file for geometry in scene.geometry if geometry.file is not None]
        if len(files) < len(scene.geometry):
            raise InputError(f"where = '{self.place}': masks are found by the image file's name, "
                             'but a sample has no img_path')
        masks = torch.zeros_like(scene.region)
        found = files_for(folder, files, 'where: mask')
        for mask, path, geometry in zip(masks, found, scene.geometry, strict=True):
            h, w = geometry.input
            mask[:, :h, :w] = _fitted(path, geometry)
        return masks


def _fitted(path: Path, geometry: Geometry) -> Tensor:
    """The mask in a file in the coordinates of one image's network input, (h, w) bool."""
    mask = _read(path)
    if mask.shape == geometry.original and geometry.resized:
        return geometry.onto_input(mask)
    if mask.shape == geometry.input:
        return mask
    sizes = f'{geometry.input}'
    if geometry.resized:
        sizes = f'{geometry.original} as the image, or {sizes}'
    raise InputError(f"where: mask '{path}' is {tuple(mask.shape)}, expected {sizes} as the "
                     "network's input")


def _read(path: Path) -> Tensor:
    """Which pixels of an image file are neither black nor transparent, (h, w) bool."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(DEEP):
                return torch.from_numpy(np.asarray(image) != 0)
            pixels = np.asarray(image.convert('RGBA'))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"where: no mask '{path}', or no readable PNG") from error
    return torch.from_numpy(pixels[..., :3].any(2) & (pixels[..., 3] > 0))
