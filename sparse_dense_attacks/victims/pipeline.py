"""A test pipeline as a differentiable map from the pixels of an image file to the network input.

Transforms of mmcv, mmdet, mmseg and mmpretrain are recognised by their class. What size they make
of an image they are asked themselves; how they resample it is in :mod:`..ops.resize`. Imports no
model library.
"""
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..ops.resize import Resampling, pillow_rows_first, resampling
from .geometry import Geometry, own_draws

__all__ = ['DEFENDED_AS', 'INSTEAD', 'FileGeometry', 'FilePipeline', 'Resized', 'Window']

Size = tuple[int, int]
NOTHING: Mapping = MappingProxyType({})
INSTEAD = "use threat.grid='input', which attacks the pixels of the network input"


@dataclass(frozen=True)
class Window:
    """A crop, a flip, or padding with one colour.

    Attributes:
        source, target: size of the image before and after.
        rows, columns: of the image before, what is kept.
        flips: axes of (C, h, w) that are turned around.
        corner: row and column, in the image after, of the first pixel that is kept.
        fill: colour of the rest, (C,) float.
    """
    source: Size
    target: Size
    rows: slice
    columns: slice
    flips: tuple[int, ...]
    corner: Size
    fill: tuple[float, ...]

    def forward(self, x: Tensor) -> Tensor:
        """(C, h, w) to (C, height, width)."""
        kept = self._turned(x[:, self.rows, self.columns])
        if kept.shape[1:] == self.target:
            return kept
        found = x.new_tensor(self.fill)[:, None, None].repeat(1, *self.target)
        rows, columns = self.place
        found[:, rows, columns] = kept
        return found

    def adjoint(self, grad: Tensor) -> Tensor:
        """The gradient (C, h, w) before from one (C, height, width) after."""
        rows, columns = self.place
        kept = self._turned(grad[:, rows, columns])
        if kept.shape[1:] == self.source:
            return kept
        found = grad.new_zeros(len(grad), *self.source)
        found[:, self.rows, self.columns] = kept
        return found

    def _turned(self, x: Tensor) -> Tensor:
        return x.flip(self.flips) if self.flips else x

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns, of the image after, of what is kept."""
        top, left = self.corner
        return (slice(top, top + self.rows.stop - self.rows.start),
                slice(left, left + self.columns.stop - self.columns.start))

    def before(self, axis: int, first: Any, last: Any) -> tuple[Any, Any]:
        """Where in the image before what lies between two places of an axis comes from."""
        kept = self.columns if axis else self.rows
        low, high = first - self.corner[axis], last - self.corner[axis]
        if axis + 1 in self.flips:
            return kept.stop - high, kept.stop - low
        return kept.start + low, kept.start + high

    def reached(self, axis: int, first: int, last: int) -> tuple[int, int]:
        """Which pixels of an axis become those from ``first`` up to ``last``; none as (n, n)."""
        place = self.place[axis]
        first, last = max(first, place.start), min(last, place.stop)
        low, high = self.before(axis, first, max(first, last))
        return int(low), int(high)


@dataclass(frozen=True)
class Resized:
    """A resize: the arguments of :class:`~sparse_dense_attacks.ops.resize.Resampling`."""
    source: Size
    target: Size
    name: str
    backend: str
    rounded: bool

    def on(self, device: torch.device) -> Resampling:
        first = (self.backend == 'pillow' and _pillow_chooses()
                 and pillow_rows_first(self.source, self.target))
        return resampling(self.source, self.target, self.name, self.backend, self.rounded, first,
                          device)

    def forward(self, x: Tensor) -> Tensor:
        """(C, h, w) to (C, height, width)."""
        return self.on(x.device).forward(x)

    def adjoint(self, grad: Tensor) -> Tensor:
        """The gradient (C, h, w) before from one (C, height, width) after."""
        return self.on(grad.device).adjoint(grad)

    def before(self, axis: int, first: Any, last: Any) -> tuple[Any, Any]:
        """As :meth:`Window.before`."""
        scale = self.source[axis] / self.target[axis]
        return first * scale, last * scale

    def reached(self, axis: int, first: int, last: int) -> tuple[int, int]:
        """As :meth:`Window.reached`, with what a filter passes over between them."""
        plan = self.on(torch.device('cpu'))
        mix = plan.columns if axis else plan.rows
        used = mix.indices[first:last][mix.weights[first:last] != 0]
        low, high = (round(place) for place in self.before(axis, first, last))
        if not len(used):
            return low, low
        return min(int(used.min()), low), max(int(used.max()) + 1, high)


@cache
def _pillow_chooses() -> bool:
    """Whether the installed Pillow mixes rows first where that saves work, as version 13 does."""
    side, target = 8, (2, 7)
    pixels = torch.arange(side * side).mul(37).remainder(251).view(side, side)
    picture = Image.fromarray(pixels.to(torch.uint8).numpy())
    found = np.array(picture.resize(target[::-1], Image.Resampling.LANCZOS))
    plan = Resampling((side, side), target, 'lanczos', 'pillow', rows_first=True)
    return torch.equal(plan.forward(pixels[None].float())[0], torch.from_numpy(found).float())


@dataclass(frozen=True, eq=False)
class FileGeometry:
    """How image files of one size become network input.

    Attributes:
        source, target: size of the file and of the network input.
        steps: what is done, :class:`Resized` and :class:`Window`.
    """
    source: Size
    target: Size
    steps: Sequence[Any]

    def forward(self, x: Tensor) -> Tensor:
        """What the network is shown of the file's pixels (C, h, w) in [0, 1], rounded to 8 bits."""
        x = (x * 255).round_()
        for step in self.steps:
            x = step.forward(x)
        return x.div_(255)  # of a copy

    def adjoint(self, grad: Tensor) -> Tensor:
        """The gradient (C, h, w) of the file's pixels from one of the network input."""
        for step in reversed(self.steps):
            grad = step.adjoint(grad)
        return grad

    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the file that are not cropped away."""
        rows, columns = (self._reached(axis) for axis in (0, 1))
        return rows, columns

    def _reached(self, axis: int) -> slice:
        first, last = 0, self.target[axis]
        for step in reversed(self.steps):
            first, last = step.reached(axis, first, last)
        return slice(first, last)

    def onto_file(self, boxes: Tensor) -> Tensor:
        """Boxes (n, 4), ``x1 y1 x2 y2`` in pixels of the network input, in pixels of the file.

        Rounded to a thousandth: an edge in the middle of a pixel is there again.
        """
        x1, y1, x2, y2 = boxes.double().unbind(1)
        (left, right), (top, bottom) = self._before(1, x1, x2), self._before(0, y1, y2)
        found = torch.stack([left, top, right, bottom], 1)
        return found.mul(1000).round().div(1000).to(boxes.dtype)

    def onto_input(self, axis: int) -> np.ndarray:
        """Which pixel of the network input the centre of each pixel of the file lies in, along an axis.

        Outside of the input, too, where pixels are cropped away.
        """
        side = self.target[axis]
        first, last = self._before(axis, 0, side)
        places = (np.arange(self.source[axis]) + 0.5 - first) / (last - first) * side
        flips = sum(axis + 1 in step.flips for step in self.steps if isinstance(step, Window))
        return np.floor(side - places if flips % 2 else places).astype(int)

    def _before(self, axis: int, first: Any, last: Any) -> tuple[Any, Any]:
        for step in reversed(self.steps):
            first, last = step.before(axis, first, last)
        return first, last

    @property
    def moves(self) -> bool:
        """Whether something is flipped or cropped, or padded above or to the left."""
        return any(isinstance(step, Window) and (
            step.flips or step.corner != (0, 0)
            or (step.rows, step.columns) != (slice(0, step.source[0]), slice(0, step.source[1])))
            for step in self.steps)

    def of_file(self, path: str | None) -> Geometry:
        """The geometry of a file that is attacked itself."""
        return Geometry(path, self.source, self.source, self.source, True)


class FilePipeline:
    """The transforms of a test pipeline, from the file to the network input.

    Args:
        transforms: built; those that load annotations are left out.

    Raises:
        InputError: one that is not known, that draws at random, or that loads no file.
    """

    def __init__(self, transforms: Iterable):
        steps = [step for step in transforms if not _is_idle(step)]
        names = [_name(step) for step in steps]
        if not steps or names[0] != LOADER:
            begins = f'begins with {names[0]}' if names else 'is empty'
            raise InputError(f'threat.grid: the test pipeline {begins}, expected '
                             f'LoadImageFromFile, since images are attacked as files; {INSTEAD}')
        if names[-1] not in PACKERS:
            raise InputError(f'threat.grid: the test pipeline ends with {names[-1]}, expected one '
                             f'of {", ".join(PACKERS)}; {INSTEAD}')
        self.loader, self.pack = steps[0], steps[-1]
        remote = getattr(self.loader, 'backend_args', None) or self.loader.file_client_args
        if remote and remote.get('backend', 'local') not in ('local', 'disk'):
            raise InputError(f'threat.grid: images are loaded by the file backend '
                             f'{remote["backend"]!r}, expected files on disk; {INSTEAD}')
        self.defence = steps[1].defence if names[1] == DEFEND else None
        first = 1 if self.defence is None else 2
        self.before, self.steps = steps[:first], steps[first:-1]
        for step, name in zip(self.steps, names[first:-1], strict=True):
            if name == DEFEND:
                raise InputError('threat.grid: Defend is no longer at the files once they have '
                                 'been resized: put it right after LoadImageFromFile, once')
            if name not in KNOWN:
                raise InputError(f'threat.grid: the transform {name} of the test pipeline cannot '
                                 f'be reproduced differentiably; {INSTEAD}')
            KNOWN[name].check(step)
        self.reads = [SAID[name] for name in names if name in SAID]
        self._known: dict[tuple, FileGeometry] = {}

    def load(self, path: str | None) -> np.ndarray:
        """The pixels of an image file as the pipeline's loader gives them, (h, w, 3) uint8.

        Raises:
            InputError: no file on disk, not three channels, or more than 8 bits.
        """
        if path is None or '://' in str(path):
            held = 'an image from memory' if path is None else f'{path}'
            raise InputError(f'threat.grid: {held} is no file on disk; {INSTEAD}')
        image = self.loader(dict(img_path=path))['img']
        if image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f'threat.grid: {path} is loaded as {image.shape}, expected three '
                             f"channels (color_type='color'); {INSTEAD}")
        if image.dtype != np.uint8 and not (
                np.issubdtype(image.dtype, np.floating) and self._is_whole(image)):
            raise InputError(f'threat.grid: {path} is loaded as {image.dtype}, which a PNG of 8 '
                             f"bits cannot hold (color_type='color' makes 8 bits of it); {INSTEAD}")
        return np.ascontiguousarray(image.astype(np.uint8))

    @staticmethod
    def _is_whole(image: np.ndarray) -> bool:
        return bool((image == image.round()).all() and image.min() >= 0 and image.max() <= 255)

    def shown(self, path: str, said: Mapping = NOTHING) -> Tensor:
        """What the stock transforms make of an image file, (C, height, width).

        Args:
            path: the file.
            said: meta data of the sample, for transforms that are told what to do by them.
        """
        results: Any = dict(self._read(said), img_path=path, seg_fields=[],
                            reduce_zero_label=False)
        if self.defence is not None:
            results[DEFENDED_AS] = said
        with own_draws():
            for step in (*self.before, *self.steps, self.pack):
                results = step(results)
        return results['inputs']

    def geometry(self, size: Size, said: Mapping = NOTHING) -> FileGeometry:
        """The map for files of a size.

        Args:
            size: height and width.
            said: as for :meth:`shown`.
        """
        told = self._read(said)
        key = size, repr(told)
        if key not in self._known:
            rounded, at, found = not getattr(self.loader, 'to_float32', False), size, []
            for step in self.steps:
                for done in KNOWN[_name(step)].of(_told(step, told), at, rounded):
                    found.append(done)
                    at = done.target
            self._known[key] = FileGeometry(size, at, tuple(found))
        return self._known[key]

    def _read(self, said: Mapping) -> dict[str, Any]:
        """What transforms read of a sample's meta data.

        Raises:
            InputError: it is not there.
        """
        for name in self.reads:
            if name not in said:
                raise InputError(f"threat.grid: the samples do not say '{name}', which the test "
                                 f"pipeline reads: add '{name}' to the meta_keys of its packing "
                                 'transform')
        return {name: said[name] for name in self.reads}


# Recognising transforms: a class for each way in which they act

LOADER = 'mmcv.LoadImageFromFile'
DEFEND = 'sparse_dense_attacks.Defend'
DEFENDED_AS = 'defended_as'  # whose draws a defence takes, where a file stands for another's
PACKERS = ('mmdet.PackDetInputs', 'mmseg.PackSegInputs', 'mmpretrain.PackInputs')
# Steps that leave the image alone; the last two are appended by the engine.
IDLE = ('LoadAnnotations', 'LoadPanopticAnnotations', 'LoadEmptyAnnotations',
        'LoadTextAnnotations', 'LoadDepthAnnotation', 'LoadProposals', 'ContentTracer',
        'SayResized', 'SayPipeline')
LIBRARIES = ('mmcv', 'mmdet', 'mmseg', 'mmpretrain', __name__.partition('.')[0])


def _name(step: Any) -> str:
    """Library and class of a transform."""
    return f'{type(step).__module__.partition(".")[0]}.{type(step).__name__}'


def _is_idle(step: Any) -> bool:
    library, name = _name(step).split('.')
    return library in LIBRARIES and name in IDLE


class _Kind:
    """A kind of transform: whether one of it can be followed, and what it does to a size."""

    def check(self, step: Any) -> None:
        """Refuse a transform that draws at random."""

    def of(self, step: Any, size: Size, rounded: bool) -> list[Resized | Window]:
        raise NotImplementedError


class _Resize(_Kind):
    """Transforms that say how they resample in attributes of their own or of a part."""

    def __init__(self, part: Callable[[Any], Any] = lambda step: step):
        self.part = part

    def of(self, step, size, rounded):
        part = self.part(step)
        return [Resized(size, _size_after(step, size), part.interpolation, part.backend, rounded)]


class _ResizeToMultiple(_Kind):

    def of(self, step, size, rounded):
        # mmcv's default for both
        return [Resized(size, _size_after(step, size), step.interpolation or 'bilinear', 'cv2',
                        rounded)]


class _FixShapeResize(_Kind):

    def of(self, step, size, rounded):
        if not step.keep_ratio:
            return _Resize().of(step, size, rounded)
        unpadded = copy.copy(step)
        unpadded.pad_transform = lambda results: results
        [resized] = _Resize().of(unpadded, size, rounded)
        return [resized, _window(step.pad_transform, resized.target)]


class _EfficientNetCenterCrop(_Kind):

    def of(self, step, size, rounded):
        side = step.crop_size / (step.crop_size + step.crop_padding) * min(size)
        starts = [max(0, round((length - side) / 2)) for length in size]
        stops = [min(int(start + side - 1), length - 1) + 1
                 for start, length in zip(starts, size, strict=True)]
        rows, columns = (slice(*ends) for ends in zip(starts, stops, strict=True))
        kept = stops[0] - starts[0], stops[1] - starts[1]
        crop = Window(size, kept, rows, columns, (), (0, 0), ())
        target = step.crop_size, step.crop_size
        return [crop, Resized(kept, target, step.interpolation, step.backend, rounded)]


class _Window(_Kind):

    def check(self, step):
        padding = getattr(step, 'padding_mode', 'constant')
        if padding != 'constant':
            raise InputError(f'threat.grid: {_name(step)} pads with parts of the image '
                             f'(padding_mode={padding!r}), which cannot be reproduced; {INSTEAD}')

    def of(self, step, size, rounded):
        return [_window(step, size)]


class _Flip(_Kind):

    def check(self, step):
        always = step.prob == 1 and isinstance(step.direction, str)
        if step.prob and not always:
            raise InputError(f'threat.grid: {_name(step)}(prob={step.prob}, '
                             f'direction={step.direction!r}) of the test pipeline draws at random; '
                             f'set prob to 0 or 1 with one direction, or {INSTEAD}')

    def of(self, step, size, rounded):
        return [_window(step, size)] if step.prob else []


def _told(step: Any, said: Mapping) -> Any:
    """A transform as it works on one sample."""
    if _name(step) not in SAID:
        return step
    return lambda results: step({**said, **results})


def _shown(step: Any, image: np.ndarray) -> np.ndarray:
    """What a transform makes of an image."""
    size = image.shape[:2]
    with own_draws():
        return step(dict(img=image, img_shape=size, ori_shape=size, seg_fields=[]))['img']


def _size_after(step: Any, size: Size) -> Size:
    height, width = _shown(step, np.zeros(size, np.uint8)).shape[:2]
    return height, width


def _window(step: Any, size: Size) -> Window:
    """What a crop, a flip or padding does, from where each pixel of an image goes.

    Pixels are numbered below zero, which no colour of padding is.
    """
    rows, columns = np.indices(size, dtype=np.float32)
    after = np.asarray(_shown(step, np.stack([-1 - rows, -1 - columns, -1 + 0 * rows], 2)))
    kept = after[..., 2] < 0
    tops, lefts = kept.any(1).nonzero()[0], kept.any(0).nonzero()[0]
    sides, flips = [], []
    inside = after[tops[0]:tops[-1] + 1, lefts[0]:lefts[-1] + 1]
    for axis, numbers in enumerate((-1 - inside[:, 0, 0], -1 - inside[0, :, 1])):
        if numbers[0] > numbers[-1]:
            flips.append(axis + 1)
        sides.append(slice(int(numbers.min()), int(numbers.max()) + 1))
    outside = after[~kept]
    fill = outside[0].tolist() if len(outside) else [0.] * 3
    return Window(size, after.shape[:2], sides[0], sides[1], tuple(flips),
                  (int(tops[0]), int(lefts[0])), tuple(fill))


# What a transform reads of the sample's meta data.
SAID = {'sparse_dense_attacks.CropObject': 'crop'}

KNOWN: dict[str, _Kind] = {
    'sparse_dense_attacks.CropObject': _Window(),
    'mmcv.Resize': _Resize(), 'mmdet.Resize': _Resize(), 'mmseg.Resize': _Resize(),
    'mmdet.FixScaleResize': _Resize(), 'mmdet.FixShapeResize': _FixShapeResize(),
    'mmpretrain.ResizeEdge': _Resize(), 'mmseg.ResizeToMultiple': _ResizeToMultiple(),
    'mmdet.ResizeShortestEdge': _Resize(lambda step: step.resize),
    'mmseg.ResizeShortestEdge': _Resize(lambda step: step.resize),
    'mmpretrain.EfficientNetCenterCrop': _EfficientNetCenterCrop(),
    'mmcv.CenterCrop': _Window(), 'mmcv.Pad': _Window(), 'mmdet.Pad': _Window(),
    'mmcv.RandomFlip': _Flip(), 'mmdet.RandomFlip': _Flip(), 'mmseg.RandomFlip': _Flip(),
}
