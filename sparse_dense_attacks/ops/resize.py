"""Resampling as OpenCV and Pillow do it to 8-bit images, differentiable.

Both resample one axis after the other, so an image is multiplied by a banded matrix from each side.
Matrices are cut into dense blocks along their bands: memory is linear in the sides of the image.
Where the libraries compute in integers (OpenCV's bilinear filter with 11-bit weights, Pillow's
filters with 22-bit weights, rounded and clipped between the axes) so does this, exactly, in floats
that hold these integers. Rounding and clipping pass gradients straight through.
"""
import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ['FILTERS', 'Resampling', 'pillow_rows_first', 'resampling']

Size = tuple[int, int]

FILTERS = {
    'cv2': ('nearest', 'bilinear', 'bicubic', 'area', 'lanczos'),
    'pillow': ('nearest', 'bilinear', 'bicubic', 'box', 'lanczos', 'hamming'),
}
BLOCK = 32  # rows of a band that are multiplied together
CV2_ONE = 2 ** 11  # what OpenCV's integer weights add up to
PILLOW_HALF = 2 ** 11  # Pillow's add up to the square of it
CACHED = 64  # pairs of sizes, of which each holds a few numbers per row and column


class Axis(NamedTuple):
    """How the pixels along one axis are mixed: ``sum_t weights[i, t] * pixels[indices[i, t]]``.

    Attributes:
        length: pixels before.
        indices: (n, t) int64, one row for each of the pixels after.
        weights: (n, t) float64.
    """
    length: int
    indices: Tensor
    weights: Tensor


class Band:
    """A sparse matrix whose entries lie near its diagonal, as dense blocks of rows.

    Args:
        rows, columns: (m,) int64, where the entries are.
        values: (m,) float, entries; those of one place are added up.
        height: rows of the matrix.
        device: where it is kept, float32 unless ``values`` are to stay float64.
    """

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, height: int,
                 device: torch.device, dtype: torch.dtype):
        order = rows.argsort(stable=True)
        rows, columns, values = rows[order], columns[order], values[order]
        self.height, self.blocks = height, []
        starts = torch.arange(0, height + BLOCK, BLOCK).clamp(max=height)
        ends = torch.searchsorted(rows, starts).tolist()
        for b, (first, last) in enumerate(zip(ends, ends[1:], strict=False)):
            top, bottom = int(starts[b]), int(starts[b + 1])
            if bottom == top:
                continue
            held = slice(first, last)
            low = int(columns[held].min()) if last > first else 0
            high = int(columns[held].max()) + 1 if last > first else 1
            block = torch.zeros(bottom - top, high - low, dtype=torch.float64)
            place = rows[held] - top, columns[held] - low
            block.index_put_(place, values[held].double(), accumulate=True)
            self.blocks.append((slice(top, bottom), slice(low, high), block.to(device, dtype)))

    @classmethod
    def of(cls, axis: Axis, weight: Tensor, device, dtype) -> tuple['Band', 'Band']:
        """The matrix of an axis with these weights (n, t), and its transpose."""
        rows = torch.arange(len(axis.indices))[:, None].expand_as(axis.indices)
        kept = weight != 0
        entries = rows[kept], axis.indices[kept], weight[kept]
        return (cls(*entries, len(axis.indices), device, dtype),
                cls(entries[1], entries[0], entries[2], axis.length, device, dtype))

    def mix_columns(self, x: Tensor) -> Tensor:
        """(n, h, w) to (n, h, height)."""
        n, h, _ = x.shape
        flat = x.reshape(n * h, -1)
        out = flat.new_empty(n * h, self.height)
        for here, there, block in self.blocks:
            torch.mm(flat[:, there], block.T, out=out[:, here])
        return out.view(n, h, self.height)

    def mix_rows(self, x: Tensor) -> Tensor:
        """(n, h, w) to (n, height, w)."""
        out = x.new_empty(len(x), self.height, x.shape[2])
        for here, there, block in self.blocks:
            torch.bmm(block.expand(len(x), -1, -1), x[:, there], out=out[:, here])
        return out


class Resampling:
    """One way from a size to another.

    Args:
        source, target: heights and widths in pixels.
        name: of the filter, one of :data:`FILTERS` of the backend.
        backend: 'cv2' or 'pillow'.
        rounded: 8-bit images in, 8-bit images out (default); False: the linear map alone, as cv2
            does with float images.
        rows_first: Pillow mixes rows first, then columns; see :func:`pillow_rows_first`.
        device, dtype: where, and in which type (float32, or float64 for linear maps).

    Attributes:
        rows, columns: an :class:`Axis` each, with weights that add up to one, or nearly.

    Raises:
        InputError: no such filter.

    Example:
        >>> smaller = Resampling((2, 2), (1, 1), 'bilinear', 'cv2')
        >>> smaller(torch.tensor([[[[10., 20.], [30., 41.]]]])).flatten()
        tensor([25.])
    """

    def __init__(self, source: Size, target: Size, name: str = 'bilinear', backend: str = 'cv2',
                 rounded: bool = True, rows_first: bool = False,
                 device: torch.device | str = 'cpu', dtype: torch.dtype = torch.float32):
        if name not in FILTERS.get(backend, ()):
            raise InputError(f"no filter '{name}' of {backend}: cv2 has "
                             f'{", ".join(FILTERS["cv2"])}, pillow {", ".join(FILTERS["pillow"])}')
        self.source, self.target = source, target
        make = _cv2_axes if backend == 'cv2' else _pillow_axes
        rows, columns = make(source, target, name)
        fixed = backend == 'cv2' and (name == 'lanczos' or _is_bilinear(source, target, name))
        if rounded and fixed:
            rows, columns = _fixed(rows), _fixed(columns)
        self.rows, self.columns = rows, columns
        where: tuple = (torch.device(device), dtype)
        self._across, self._along = _linear(self.rows, self.columns, where)
        self._passes: list[Callable[[Tensor], Tensor]] = []
        if source == target:
            pass
        elif not rounded or name == 'nearest':
            self._passes += [self._along[0].mix_columns, self._across[0].mix_rows]
        elif backend == 'pillow':
            if source[1] != target[1]:
                self._passes.append(_PillowPass(self.columns, where, 'mix_columns'))
            if source[0] != target[0]:
                at = 0 if rows_first else len(self._passes)
                self._passes.insert(at, _PillowPass(self.rows, where, 'mix_rows'))
        elif _is_bilinear(source, target, name):
            whole = (self.columns.weights * CV2_ONE).round()
            self._passes.append(Band.of(self.columns, whole, *where)[0].mix_columns)
            self._passes.append(_FixedRows(self.rows, where[0]))
        else:
            self._passes += [self._along[0].mix_columns, self._across[0].mix_rows]
            halves_up = name == 'area' and _halves(source, target)
            self._passes.append(_round_up if halves_up else _round_even)

    def __call__(self, x: Tensor) -> Tensor:
        """Resample images.

        Args:
            x: (n, C, h, w) in [0, 255] of the size ``source``; whole numbers, if rounded.

        Returns:
            (n, C, height, width) of the size ``target``, whole numbers in [0, 255] if rounded.
        """
        return _Resample.apply(x, self)

    def forward(self, x: Tensor) -> Tensor:
        """Of images (n, h, w), as the library does it."""
        for step in self._passes:
            x = step(x)
        return x

    def adjoint(self, grad: Tensor) -> Tensor:
        """The gradient (n, h, w) of the source from one (n, height, width) of the target."""
        return self._along[1].mix_columns(self._across[1].mix_rows(grad))


@lru_cache(maxsize=CACHED)
def resampling(source: Size, target: Size, name: str, backend: str, rounded: bool,
               rows_first: bool, device: torch.device) -> Resampling:
    """The :class:`Resampling` of these arguments, kept for the next image of the size."""
    return Resampling(source, target, name, backend, rounded, rows_first, device)


def pillow_rows_first(source: Size, target: Size) -> bool:
    """Whether Pillow 13 mixes rows first: where more than twice as many of them go as columns.

    Earlier versions always begin with columns.
    """
    rows, columns = (before - after for before, after in zip(source, target, strict=True))
    return rows > 0 and rows > 2 * columns


class _Resample(torch.autograd.Function):
    """Forward as the library computes, backward the transpose of the linear map."""

    @staticmethod
    def forward(ctx, x, plan):
        ctx.plan = plan
        return plan.forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    @staticmethod
    def backward(ctx, grad):
        found = ctx.plan.adjoint(grad.flatten(0, 1)).unflatten(0, grad.shape[:2])
        return found, None


class _PillowPass:
    """One axis in Pillow's integers: a sum of pixels times 22-bit weights, rounded and clipped.

    Weights are ``high * 2 ** 11 + low``, so that both sums are whole numbers that a float32 holds.
    """

    def __init__(self, axis: Axis, where: tuple, mix: str):
        unit = PILLOW_HALF ** 2
        # The library adds a half and cuts off, which rounds halves away from zero.
        whole = torch.trunc(axis.weights * unit + torch.copysign(torch.tensor(0.5).double(),
                                                                axis.weights))
        high = (whole / PILLOW_HALF).round()
        low = whole - high * PILLOW_HALF
        self._high = getattr(Band.of(axis, high, *where)[0], mix)
        self._low = getattr(Band.of(axis, low, *where)[0], mix)

    def __call__(self, x: Tensor) -> Tensor:
        low = self._low(x).add_(PILLOW_HALF ** 2 / 2).div_(PILLOW_HALF).floor_()
        return low.add_(self._high(x)).div_(PILLOW_HALF).floor_().clamp_(0, 255)


class _FixedRows:
    """OpenCV's second pass of the bilinear filter, over rows mixed with weights that add up to 2048.

    It cuts off bits of the sums and of both products on the way.
    """

    def __init__(self, axis: Axis, device: torch.device):
        whole = (axis.weights * CV2_ONE).round().to(torch.int32)
        self._rows = [axis.indices[:, tap].to(device) for tap in (0, 1)]
        self._weights = [whole[:, tap, None].to(device) for tap in (0, 1)]

    def __call__(self, x: Tensor) -> Tensor:
        mixed = x.to(torch.int32).bitwise_right_shift_(4)
        upper, lower = (mixed.index_select(1, rows).mul_(weights).bitwise_right_shift_(16)
                        for rows, weights in zip(self._rows, self._weights, strict=True))
        return upper.add_(lower).add_(2).bitwise_right_shift_(2).to(x.dtype)


def _round_even(x: Tensor) -> Tensor:
    return x.round_().clamp_(0, 255)


def _round_up(x: Tensor) -> Tensor:
    return x.add_(0.5).floor_().clamp_(0, 255)


def _linear(rows: Axis, columns: Axis, where: tuple) -> tuple:
    return tuple(Band.of(axis, axis.weights, *where) for axis in (rows, columns))


def _halves(source: Size, target: Size) -> bool:
    return source == (2 * target[0], 2 * target[1])


def _is_bilinear(source: Size, target: Size, name: str) -> bool:
    """Whether OpenCV mixes two pixels with whole weights; it does for 'area' where a side grows."""
    return name == 'bilinear' or name == 'area' and not _shrinks(source, target)


def _shrinks(source: Size, target: Size) -> bool:
    return all(before >= after for before, after in zip(source, target, strict=True))


def _cv2_axes(source: Size, target: Size, name: str) -> tuple[Axis, Axis]:
    if name == 'area' and _shrinks(source, target):
        kinds = _area, _area
    elif name in ('area', 'bilinear'):
        kinds = ((_bilinear_rows, _bilinear_columns) if name == 'bilinear'
                 else (_grown_area, _grown_area))
    else:
        kinds = (dict(nearest=_nearest, bicubic=_cubic, lanczos=_lanczos4)[name],) * 2
    rows, columns = (kind(before, after)
                     for kind, before, after in zip(kinds, source, target, strict=True))
    return rows, columns


def _places(before: int, after: int) -> tuple[Tensor, Tensor]:
    """Where in the source the centre of each pixel of the target is: the pixel before it, the rest.

    In OpenCV's steps of double and single precision.
    """
    scale = 1 / (after / before)
    place = ((torch.arange(after).double() + 0.5) * scale - 0.5).float()
    return place.floor().long(), place - place.floor()


def _taps(before: int, index: Tensor, weight: Tensor) -> Axis:
    """Pixels beyond the ends are those at the ends."""
    return Axis(before, index.clamp(0, before - 1), weight.double())


def _fixed(axis: Axis) -> Axis:
    """With weights as OpenCV's 11 bits hold them."""
    return axis._replace(weights=(axis.weights.float() * CV2_ONE).round().double() / CV2_ONE)


def _bilinear_rows(before: int, after: int) -> Axis:
    first, rest = _places(before, after)
    return _taps(before, torch.stack([first, first + 1], 1), torch.stack([1 - rest, rest], 1))


def _bilinear_columns(before: int, after: int) -> Axis:
    """As for rows, but beyond the ends all weight is that of the last pixel."""
    first, rest = _places(before, after)
    rest = torch.where((first < 0) | (first >= before - 1), 0, rest)
    return _taps(before, torch.stack([first, first + 1], 1), torch.stack([1 - rest, rest], 1))


def _grown_area(before: int, after: int) -> Axis:
    """OpenCV's 'area' where a side of the image grows."""
    inverse = after / before
    place = torch.arange(after).double()
    first = (place * (1 / inverse)).floor()
    rest = ((place + 1) - (first + 1) * inverse).float()
    rest = torch.where(rest <= 0, 0, rest - rest.floor())
    index = torch.stack([first, first + 1], 1).long()
    return _taps(before, index, torch.stack([1 - rest, rest], 1))


def _nearest(before: int, after: int) -> Axis:
    step = 1 / (after / before)
    index = (torch.arange(after).double() * step).floor().long().clamp(max=before - 1)
    return Axis(before, index[:, None], torch.ones(after, 1, dtype=torch.float64))


def _area(before: int, after: int) -> Axis:
    """Each pixel of the target is the mean of what it covers."""
    scale = 1 / (after / before)
    low = torch.arange(after).double() * scale
    high = low + scale
    cell = (before - low).clamp(max=scale)
    last = high.floor().clamp(max=before - 1)
    first = torch.minimum(low.ceil(), last)
    index = first[:, None] - 1 + torch.arange(math.ceil(scale) + 3).double()
    covered = torch.where((index >= first[:, None]) & (index < last[:, None]), 1., 0.)
    before_first, after_last = first - low, high - last
    covered = torch.where(index == first[:, None] - 1,
                          torch.where(before_first > 1e-3, before_first, 0.)[:, None], covered)
    part = torch.minimum(after_last.clamp(max=1), cell)
    covered = torch.where(index == last[:, None],
                          torch.where(after_last > 1e-3, part, 0.)[:, None], covered)
    return _taps(before, index.long(), (covered / cell[:, None]).float())


def _cubic(before: int, after: int) -> Axis:
    first, x = _places(before, after)
    a = -0.75
    outer = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    other = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1
    weight = torch.stack([outer, inner, other, 1 - outer - inner - other], 1)
    return _taps(before, first[:, None] + torch.arange(-1, 3), weight)


def _lanczos4(before: int, after: int) -> Axis:
    first, rest = _places(before, after)
    distance = rest[:, None].double() - torch.arange(-3, 5).double()
    weight = torch.sinc(distance) * torch.sinc(distance / 4)
    weight = weight / weight.sum(1, keepdim=True)
    return _taps(before, first[:, None] + torch.arange(-3, 5), weight)


def _pillow_axes(source: Size, target: Size, name: str) -> tuple[Axis, Axis]:
    kind = _pillow_nearest if name == 'nearest' else partial(_pillow_axis, name=name)
    rows, columns = (kind(before, after) for before, after in zip(source, target, strict=True))
    return rows, columns


def _pillow_nearest(before: int, after: int) -> Axis:
    step = before / after  # Pillow adds it up, with the rounding of every sum
    place = torch.full((after,), step, dtype=torch.float64)
    place[0] = step * 0.5
    index = place.cumsum(0).floor().long().clamp(0, before - 1)
    return Axis(before, index[:, None], torch.ones(after, 1, dtype=torch.float64))


def _pillow_axis(before: int, after: int, name: str) -> Axis:
    """The filter, as wide as a pixel of the target where that is the larger one."""
    support, curve = _CURVES[name]
    scale = before / after
    wide = max(scale, 1.0)
    reach = support * wide
    centre = (torch.arange(after).double() + 0.5) * scale
    low = (centre - reach + 0.5).trunc().clamp(min=0)
    high = (centre + reach + 0.5).trunc().clamp(max=before)
    index = low[:, None] + torch.arange(math.ceil(reach) * 2 + 1).double()
    weight = curve((index - centre[:, None] + 0.5) / wide)
    weight = torch.where(index < high[:, None], weight, 0)
    total = weight.sum(1, keepdim=True)
    return _taps(before, index.long(), weight / torch.where(total == 0, 1, total))


def _box(x: Tensor) -> Tensor:
    return ((x > -0.5) & (x <= 0.5)).double()


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _hamming(x: Tensor) -> Tensor:
    window = 0.54 + 0.46 * torch.cos(math.pi * x)
    return torch.where(x.abs() < 1, torch.sinc(x) * window, 0)


def _keys(x: Tensor) -> Tensor:
    """Cubic convolution with a = -0.5."""
    a, x = -0.5, x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


def _lanczos3(x: Tensor) -> Tensor:
    inside = (x >= -3) & (x < 3)
    return torch.where(inside, torch.sinc(x) * torch.sinc(x / 3), 0)


# Half the width of each of Pillow's filters, in pixels, and its curve.
_CURVES: dict[str, tuple[float, Callable[[Tensor], Tensor]]] = {
    'box': (0.5, _box), 'bilinear': (1.0, _triangle), 'hamming': (1.0, _hamming),
    'bicubic': (2.0, _keys), 'lanczos': (3.0, _lanczos3)}
