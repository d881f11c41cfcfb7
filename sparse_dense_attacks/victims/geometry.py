"""How an image file became network input, whatever the pipeline is made of; imports no model library."""
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['ContentTracer', 'Geometry', 'geometry_of', 'own_draws', 'trace_content']

TRACED = 'traced_content'  # meta key of what a ContentTracer found
NOT_GEOMETRY = ('Load', 'Pack')  # transforms called so read files or wrap up the result
BLUR = 2  # grey levels by which rounding may move the ends of a ramp


@dataclass(frozen=True)
class Geometry:
    """How one image file became network input; heights and widths in pixels.

    Attributes:
        file: path of the image file, None for an image from memory.
        original: size of the image in the file.
        input: size of the network input.
        content: size of what is no padding or letterbox in it.
        resized: the content is the whole original image, resized at most (not cropped, not flipped).
        corner: row and column of the content's upper left pixel.
    """
    file: str | None
    original: tuple[int, int]
    input: tuple[int, int]
    content: tuple[int, int]
    resized: bool
    corner: tuple[int, int] = (0, 0)

    @classmethod
    def of_memory(cls, images: Tensor) -> tuple['Geometry', ...]:
        """Those of images (B, C, H, W) that are shown to the network as they are."""
        size = images.shape[2], images.shape[3]
        return (cls(None, size, size, size, True),) * len(images)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the content."""
        top, left = self.corner
        return slice(top, top + self.content[0]), slice(left, left + self.content[1])

    def onto_input(self, mask: Tensor) -> Tensor:
        """A mask of the original image (h, w) bool as one of the network input, False at padding."""
        found = torch.zeros(self.input, dtype=torch.bool, device=mask.device)
        small = mask[None, None].float()
        found[self.window] = F.interpolate(small, self.content, mode='nearest-exact')[0, 0] > 0
        return found


def geometry_of(sample, image: Tensor) -> Geometry:
    """How the pipeline of an OpenMMLab data set made ``image`` (C, h, w) of a sample's file.

    What a :class:`ContentTracer` in the pipeline found is taken as it is. Without one the last
    ``scale_factor`` is all that samples tell, and mmcv's Pad overwrites ``img_shape``: the size it
    leads to is believed where all beyond it has one colour, as padding has. Otherwise something
    else came after that resize, and all of the input is content, with a warning.
    """
    meta, size = sample.metainfo, (image.shape[-2], image.shape[-1])
    file, original = meta.get('img_path'), tuple(meta.get('ori_shape', size)[:2])
    if TRACED in meta:
        found = meta[TRACED]
        return Geometry(file, original, size, content=found[1], resized=found[2], corner=found[0])
    if 'ori_shape' not in meta or 'scale_factor' not in meta:
        return Geometry(file, original, size, size, True)
    scale_w, scale_h = meta['scale_factor'][:2]
    scaled = round(original[0] * scale_h), round(original[1] * scale_w)
    content = min(size[0], scaled[0]), min(size[1], scaled[1])
    if not _is_padding(image, content):
        warnings.warn(f'{file or "a sample"}: scale_factor leads to {content[0]} x {content[1]} '
                      f'pixels of the input ({size[0]} x {size[1]}), but what lies beyond is no '
                      'padding, so all of them may change; give a region if they should not',
                      RuntimeWarning, stacklevel=2)
        return Geometry(file, original, size, size, True)
    return Geometry(file, original, size, content, scaled == content)


def _is_padding(image: Tensor, content: tuple[int, int]) -> bool:
    """Whether all pixels beyond the content have one colour, if there are any."""
    beyond = torch.ones(image.shape[-2:], dtype=torch.bool, device=image.device)
    beyond[:content[0], :content[1]] = False
    pixels = image[:, beyond]
    return bool((pixels == pixels[:, -1:]).all())


def trace_content(dataset) -> None:
    """Let the pipelines of a data set say in each sample what of the network input is content.

    Call it before the data are read. Of mmengine's wrappers (ConcatDataset and the like) every
    data set within is changed; one without a pipeline of transforms stays as it is.
    """
    for leaf in _leaves(dataset):
        transforms = getattr(getattr(leaf, 'pipeline', None), 'transforms', None)
        if transforms and not any(isinstance(step, ContentTracer) for step in transforms):
            transforms.append(ContentTracer(transforms))


def _leaves(dataset) -> Iterator[Any]:
    within = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if within == [None]:
        yield dataset
    else:
        for one in within:
            yield from _leaves(one)


class ContentTracer:
    """The last step of a pipeline: runs the steps before it on test pictures of the image's size.

    A pixel of the input is content where it follows what the image shows: where a white image and a
    black one differ. Two ramps, one across and one down, tell whether content is the whole image.
    Done once for every size. Samples stay without the meta key where this cannot be known: where a
    step needs more than an image, or gives another size each time.

    Args:
        transforms: the steps of the pipeline; those that load or pack are left out.
    """

    def __init__(self, transforms: Sequence):
        self.transforms = [step for step in transforms
                           if not type(step).__name__.startswith(NOT_GEOMETRY)]
        self._known: dict[tuple, tuple | None] = {}

    def __call__(self, results: dict) -> dict:
        sample, image = results.get('data_samples'), results.get('inputs')
        meta = getattr(sample, 'metainfo', {})
        if isinstance(image, Tensor) and image.ndim == 3 and 'ori_shape' in meta:
            case = tuple(meta['ori_shape'][:2]), tuple(image.shape)
            if case not in self._known:
                self._known[case] = self._traced(*case)
            if self._known[case] is not None:
                sample.set_metainfo({TRACED: self._known[case]})  # type: ignore[union-attr]
        return results

    def _traced(self, original: tuple[int, int], shape: tuple) -> tuple | None:
        """Corner, size and :attr:`Geometry.resized` of the content, None if it cannot be known."""
        height, width = original
        down, across = (np.linspace(0, 255, side).round() for side in original)
        pictures = (np.zeros(original), np.full(original, 255.),
                    down[:, None].repeat(width, 1), across[None].repeat(height, 0))
        try:
            with own_draws():
                seen = [self._shown(picture, shape) for picture in pictures]
        except Exception:  # whatever a user's transform raises on a picture without a file
            return None
        shown = [one for one in seen if one is not None]
        if len(shown) < len(seen):
            return None
        black, white = shown[:2]
        down, across = shown[2:]
        change = white - black
        content = abs(change) > abs(change).max() / 2
        rows, columns = content.any(1).nonzero()[0], content.any(0).nonzero()[0]
        if not len(rows):
            return None
        top, left = int(rows[0]), int(columns[0])
        size = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
        window = slice(top, top + size[0]), slice(left, left + size[1])
        with np.errstate(invalid='ignore'):  # 0 / 0 in holes, which no whole image has
            whole = all(_from_end_to_end(((ramp - black)[window] / change[window]).mean(axis))
                        for ramp, axis in ((down, 1), (across, 0)))
        return (top, left), size, whole

    def _shown(self, picture: np.ndarray, shape: tuple) -> np.ndarray | None:
        """What the steps make of a grey picture, as (h, w) float; None where that has no fixed size."""
        channels = shape[0]
        image = np.ascontiguousarray(picture[..., None].repeat(channels, 2).astype(np.uint8))
        results: Any = dict(img=image, img_shape=picture.shape, ori_shape=picture.shape,
                            height=picture.shape[0], width=picture.shape[1],
                            seg_fields=[], img_fields=['img'], reduce_zero_label=False)
        for step in self.transforms:
            results = step(results)
        found = np.asarray(results['img'], dtype=float)
        if found.shape[:2] != shape[1:]:
            return None
        return found if found.ndim == 2 else found.mean(2)


def _from_end_to_end(ramp: np.ndarray) -> bool:
    """Whether a ramp from 0 to 1 is there from its first to its last step, whatever its length."""
    step = 1 / len(ramp)
    return bool(ramp[0] <= step + BLUR / 255 and ramp[-1] >= 1 - step - BLUR / 255)


class own_draws:
    """Leaves the global generators as they were."""

    def __enter__(self):
        self.states = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def __exit__(self, *_):
        random.setstate(self.states[0])
        np.random.set_state(self.states[1])
        torch.set_rng_state(self.states[2])
