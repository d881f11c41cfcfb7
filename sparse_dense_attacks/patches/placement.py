"""Where a patch goes: fixed, random, on or beside objects, along the border, or pixel for pixel.

Coordinates are those of the attacked images, in pixels; pixel i reaches from i to i + 1, so its
centre is at i + 0.5.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_choice, check_int, check_names, check_number, check_numbers
from ..registry import PLACEMENTS

__all__ = ['BesideObjects', 'Fixed', 'Frame', 'OnObjects', 'Pixels', 'Placement', 'Places', 'Random']

SIDES = {'right': (0, 1), 'left': (0, -1), 'below': (1, 0), 'above': (-1, 0)}  # down, across


@dataclass(frozen=True)
class Places:
    """Upright rectangles in the images of a batch that a pattern is stretched to.

    Attributes:
        centre: (B, P, 2) float, down and across.
        size: (B, P, 2) float, height and width.
        valid: (B, P) bool, False at padding and where there is no place.
        left_alone: (B,) int64, objects that get no patch, or 1 for an image that has no room.
        border: (B, P) float, pixels along the edge that are painted; None for all.
    """
    centre: Tensor
    size: Tensor
    valid: Tensor
    left_alone: Tensor
    border: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> 'Places':
        border = None if self.border is None else self.border[rows]
        return Places(self.centre[rows], self.size[rows], self.valid[rows], self.left_alone[rows],
                      border)

    def scaled(self, factor: float) -> 'Places':
        """Around the same centres, so many times as high and wide."""
        return Places(self.centre, self.size * factor, self.valid, self.left_alone, self.border)


class Placement:
    """A rule for the places of one pattern in any image.

    Attributes:
        classes: of the objects that it goes to, names or indices; None for objects of every class.
    """
    classes: Sequence[str | int] | None = None
    at_objects = False  # whether it needs the boxes of objects

    def places(self, room: Tensor, shape: tuple[int, int], boxes: Tensor | None,
               draws: Tensor) -> Places:
        """The places in B images.

        Args:
            room: (B, 4) float, ``x1 y1 x2 y2`` of the least rectangle that holds all pixels of an
                image that may change; all 0 where none may.
            shape: height and width of the pattern.
            boxes: (B, N, 4) objects, NaN at padding; None where :attr:`at_objects` is False.
            draws: (B, 2) uniform in [0, 1), of each image.
        """
        raise NotImplementedError


def _sized(side: Tensor, shape: tuple[int, int]) -> Tensor:
    """(..., 2) height and width with the proportions of a pattern and the area of a square of ``side``."""
    h, w = shape
    proportions = side.new_tensor([(h / w) ** 0.5, (w / h) ** 0.5])
    return side[..., None] * proportions


def _one(low: Tensor, size: Tensor, room: Tensor) -> Places:
    """One place for each image, where it fits into the room; ``low`` is its upper left corner."""
    extent = room[:, [3, 2]] - room[:, [1, 0]]
    fits = (size <= extent).all(1) & (extent > 0).all(1)
    return Places((low + size / 2)[:, None], size[:, None], fits[:, None], (~fits).long())


@dataclass(frozen=True)
class _Sized(Placement):
    """A placement of one patch of a stated size.

    Args:
        size: side of the square that has the patch's area, in pixels (int) or as a share of the
            image's shorter side (float below 1); None for the pattern's own pixels.
    """
    size: int | float | None = None

    def __post_init__(self):
        if isinstance(self.size, float):
            check_number(self, 'size', 0, 1)
        elif self.size is not None:
            check_int(self, 'size')

    def _size(self, room: Tensor, shape: tuple[int, int]) -> Tensor:
        """(B, 2) height and width, whole pixels."""
        if self.size is None:
            return room.new_tensor(shape).expand(len(room), 2)
        side = room.new_full((len(room),), self.size)
        if isinstance(self.size, float):
            side = side * (room[:, 2:] - room[:, :2]).amin(1)
        return _sized(side, shape).round().clamp(min=1)


@PLACEMENTS.register_module()
@dataclass(frozen=True)
class Fixed(_Sized):
    """At the same place in every image.

    Args:
        size: as above all, see :class:`_Sized`.
        position: down and across, from 0 (top, left) to 1 (bottom, right), as a share of the way
            that is free: (0, 0) is the upper left corner, (0.5, 0.5) the middle.

    Example:
        >>> room = torch.tensor([[0., 0., 10., 6.]])
        >>> found = Fixed(size=2, position=(0.5, 1)).places(room, (4, 4), None, torch.zeros(1, 2))
        >>> found.centre.tolist(), found.size.tolist()
        ([[[3.0, 9.0]]], [[[2.0, 2.0]]])
    """
    position: tuple[float, float] = (0.5, 0.5)

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, 'position', 2, 0, 1, low_ok=True, high_ok=True)

    def places(self, room, shape, boxes, draws):
        size = self._size(room, shape)
        free = room[:, [3, 2]] - room[:, [1, 0]] - size
        low = room[:, [1, 0]] + (free * free.new_tensor(self.position)).round()
        return _one(low, size, room)


@PLACEMENTS.register_module()
@dataclass(frozen=True)
class Random(_Sized):
    """Anywhere in the image, wholly inside, at whole pixels; each image's place is drawn.

    Args:
        size: as for :class:`Fixed`.
    """

    def places(self, room, shape, boxes, draws):
        size = self._size(room, shape)
        free = room[:, [3, 2]] - room[:, [1, 0]] - size
        low = room[:, [1, 0]] + (draws * (free + 1)).floor()
        return _one(low, size, room)


@dataclass(frozen=True)
class _AtObjects(Placement):
    """
    Args:
        classes: of the objects, names or indices; None for all.
        scale: side of the square that has the patch's area, in units of ``measure``.
        measure: 'diagonal' of the object's box, or 'area' for the square root of its area.
        smallest: objects whose box has a side of fewer pixels are left alone.
    """
    classes: Sequence[str | int] | None = None
    scale: float = 0.2
    measure: str = 'diagonal'
    smallest: float = 8
    at_objects = True

    def __post_init__(self):
        if self.classes is not None:
            check_names(self, 'classes', indices=True)
        check_number(self, 'scale')
        check_choice(self, 'measure', ('diagonal', 'area'))
        check_number(self, 'smallest', low_ok=True)

    def places(self, room, shape, boxes, draws):
        sides = boxes[..., [3, 2]] - boxes[..., [1, 0]]
        there = ~sides.isnan().any(-1)
        middle = (boxes[..., [3, 2]] + boxes[..., [1, 0]]) / 2
        side = sides.norm(dim=-1) if self.measure == 'diagonal' else sides.prod(-1).sqrt()
        size = _sized(self.scale * side, shape)
        low, up = room[:, None, [1, 0]], room[:, None, [3, 2]]
        centre = self._centre(middle, sides, size, low, up)
        inside = ((centre >= low) & (centre < up)).all(-1)
        valid = there & (sides.amin(-1) >= self.smallest) & inside
        return Places(centre, size, valid, (there & ~valid).sum(1))

    def _centre(self, middle: Tensor, sides: Tensor, size: Tensor, low: Tensor,
                up: Tensor) -> Tensor:
        """(B, N, 2) centres of the patches; all arguments down and across."""
        raise NotImplementedError


@PLACEMENTS.register_module()
@dataclass(frozen=True)
class OnObjects(_AtObjects):
    """On each object; the defaults are those of patches on people (AdvPatch, T-SEA).

    What sticks out of the image is not painted; where patches overlap, the later object's is seen.

    Args:
        classes: of the objects, names or indices; None for all.
        scale: side of the square that has the patch's area, in units of ``measure``.
        measure: 'diagonal' of the object's box, or 'area' for the square root of its area.
        smallest: objects whose box has a side of fewer pixels are left alone.
        raised: how far above the middle of the object, as a share of its height.

    Reference: arXiv 1904.08653, arXiv 2211.09773.
    """
    raised: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        check_number(self, 'raised', -1, 1)

    def _centre(self, middle, sides, size, low, up):
        return middle - sides * sides.new_tensor([self.raised, 0])


@PLACEMENTS.register_module()
@dataclass(frozen=True)
class BesideObjects(_AtObjects):
    """Beside each object, without touching its box; on the other side of it where there is no room.

    Args:
        classes: of the objects, names or indices; None for all.
        scale: side of the square that has the patch's area, in units of ``measure``.
        measure: 'diagonal' of the object's box, or 'area' for the square root of its area.
        smallest: objects whose box has a side of fewer pixels are left alone.
        side: 'right', 'left', 'above' or 'below'.
        gap: distance between box and patch, as a share of the box's diagonal.
    """
    side: str = 'right'
    gap: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, 'side', SIDES)
        check_number(self, 'gap', low_ok=True)

    def _centre(self, middle, sides, size, low, up):
        away = (sides + size) / 2 + self.gap * sides.norm(dim=-1, keepdim=True)
        step = away * away.new_tensor(SIDES[self.side])
        centre = middle + step
        inside = ((centre >= low) & (centre < up)).all(-1, keepdim=True)
        return torch.where(inside, centre, middle - step)


@PLACEMENTS.register_module()
@dataclass(frozen=True)
class Frame(Placement):
    """Along the border of the image; the pattern is stretched to the image, its middle is not seen.

    Args:
        width: of the border, in pixels (int) or as a share of the image's shorter side (float
            below 1).
    """
    width: int | float = 8

    def __post_init__(self):
        if isinstance(self.width, float):
            check_number(self, 'width', 0, 1)
        else:
            check_int(self, 'width')

    def places(self, room, shape, boxes, draws):
        size = room[:, [3, 2]] - room[:, [1, 0]]
        found = _one(room[:, [1, 0]], size, room)
        border = room.new_full((len(room), 1), self.width)
        if isinstance(self.width, float):
            border = (border * size.amin(1, keepdim=True)).round().clamp(min=1)
        return Places(found.centre, found.size, found.valid, found.left_alone, border)


@PLACEMENTS.register_module()
@dataclass(frozen=True)
class Pixels(Placement):
    """The pattern's pixels are the image's, counted from the upper left corner and never stretched.

    Of images smaller than the pattern fewer pixels change.
    """

    def places(self, room, shape, boxes, draws):
        size = room.new_tensor(shape).expand(len(room), 1, 2)
        there = (room[:, 2:] > room[:, :2]).all(1)
        return Places(size / 2, size, there[:, None], (~there).long())
