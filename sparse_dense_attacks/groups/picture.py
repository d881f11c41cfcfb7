"""Groups in the shape that an image file shows; the only file here that needs Pillow."""
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..checks import check_int, check_path
from ..errors import InputError
from ..registry import KERNELS
from .pattern import Pattern

__all__ = ['Picture']


@KERNELS.register_module()
@dataclass(frozen=True)
class Picture(Pattern):
    """The pattern in an image file.

    Args:
        path: a PNG (or any file Pillow reads). Opaque pixels form the group where some are not,
            bright ones (more than half) otherwise; one file pixel is one image pixel.
        stride: pixels from one placement to the next.
    """
    path: str = ''
    stride: int = 1

    def __post_init__(self):
        check_int(self, 'stride')
        check_path(self, 'path')
        if not Path(self.path).is_file():
            raise InputError(f"Picture: there is no file '{self.path}'; give the path of a PNG")
        super().__post_init__()

    @cached_property
    def pattern(self) -> Tensor:
        return _read(self.path)


def _read(path: str) -> Tensor:
    """The binary pattern in an image file, (height, width) bool."""
    try:
        with Image.open(path) as image:
            transparent = 'A' in image.getbands() or 'transparency' in image.info
            alpha = image.convert('RGBA').getchannel('A')
            # an alpha channel that is opaque throughout says nothing
            shaped = transparent and alpha.getextrema()[0] < 255
            levels = alpha if shaped else image.convert('L')
    except UnidentifiedImageError as error:
        raise InputError(f"Picture: '{path}' is no image file; expected a PNG") from error
    pixels = torch.frombuffer(bytearray(levels.tobytes()), dtype=torch.uint8)
    return pixels.view(levels.height, levels.width) > 127
