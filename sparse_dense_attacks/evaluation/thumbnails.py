"""Pictures small enough to be many: a reduced image, and exactly the pixels that were changed."""
import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ['Allowance', 'data_uri', 'label_uri', 'shrunk_labels']

BASE = ((0, 90), (320, 70), (200, 55), (120, 45), (72, 35))  # longer side (0: as it is), quality
OVERLAY = (0, 256, 128, 64)
LEAST = 1 / 16  # characters of a pixel, below which it is not worth trying
# Okabe and Ito's colours, which the colour-blind tell apart, then lighter and darker ones
COLOURS = ('#0072b2', '#e69f00', '#009e73', '#d55e00', '#56b4e9', '#cc79a7', '#f0e442', '#333333',
           '#7fb8d8', '#f2cf7f', '#7fceb9', '#eaae7f', '#004466', '#8a5f00', '#005f45', '#803800')
OPAQUE = 150


@dataclass
class Allowance:
    """How many characters the pictures of a page may have, shared by all of its images.

    Attributes:
        left: for those that are still to come.
        images: how many these are.
        most: for one image, however few there are.
    """
    left: int
    images: int
    most: int = 400_000

    def share(self) -> int:
        """What the next image may use."""
        return min(self.left // max(self.images, 1), self.most)

    def spend(self, characters: int) -> None:
        self.left -= characters
        self.images -= 1


def base_uri(image: np.ndarray, most: int) -> tuple[str, int]:
    """An image (H, W, 3) uint8 as a picture of at most so many characters, and its longer side.

    Empty where even the smallest has more.
    """
    longer, pixels = max(image.shape[:2]), image[..., 0].size
    for side, quality in BASE:
        factor = side / longer if side else 1.0
        if side >= longer or pixels * factor ** 2 * LEAST > most:
            continue
        uri = data_uri(_resized(image, side, Image.Resampling.BOX), 'webp', quality=quality)
        if len(uri) <= most:
            return uri, side or longer
    return '', 0


def overlay_uri(changed: np.ndarray, most: int) -> tuple[str, int]:
    """Changed pixels (H, W, 4) uint8 as a picture, and its longer side.

    Where it is reduced, a pixel stands for a cell in which anything was changed, in one of the
    colours there.
    """
    longer = max(changed.shape[:2])
    for side in OVERLAY:
        if side >= longer:
            continue
        uri = data_uri(_thinned(changed, side), 'webp', lossless=True, exact=False, quality=60)
        if len(uri) <= most:
            return uri, side or longer
    return '', 0


def _thinned(changed: np.ndarray, side: int) -> np.ndarray:
    height, width = changed.shape[:2]
    if not side:
        return changed
    factor = side / max(height, width)
    rows, columns = np.nonzero(changed[..., 3])
    small = np.zeros((max(1, round(height * factor)), max(1, round(width * factor)), 4), np.uint8)
    small[np.minimum((rows * factor).astype(int), len(small) - 1),
          np.minimum((columns * factor).astype(int), small.shape[1] - 1)] = changed[rows, columns]
    return small


def _resized(image: np.ndarray, side: int, how: Image.Resampling) -> np.ndarray:
    if not side:
        return image
    height, width = image.shape[:2]
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, how))


def shrunk_labels(labels: np.ndarray, side: int) -> np.ndarray:
    """A label map (H, W) with its longer side cut to ``side``."""
    return _resized(labels, side if side < max(labels.shape) else 0, Image.Resampling.NEAREST)


def label_uri(labels: np.ndarray) -> str:
    """A label map (H, W) uint8 in half-transparent colours; 255 is nothing."""
    image = Image.fromarray(labels)
    image.putpalette(bytes(value for label in range(256) for value in _rgb(label)))
    transparency = bytes([OPAQUE] * 255 + [0])
    return _uri(image, 'png', transparency=transparency, optimize=True)


def colour(label: int) -> str:
    """The colour of a class, for legends."""
    return COLOURS[label % len(COLOURS)]


def _rgb(label: int) -> tuple[int, int, int]:
    text = colour(label)
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def data_uri(pixels: np.ndarray, form: str = 'png', **options) -> str:
    """Pixels as the address of a picture within the page."""
    return _uri(Image.fromarray(pixels), form, **options)


def _uri(image: Image.Image, form: str, **options) -> str:
    file = io.BytesIO()
    image.save(file, format=form, **options)
    return f'data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}'


def classes_in(maps: Sequence[np.ndarray]) -> list[int]:
    """Labels that occur in label maps, but for 255."""
    return [label for label in np.unique(np.concatenate([one.ravel() for one in maps])).tolist()
            if label != 255]
