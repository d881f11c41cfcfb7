"""Learns one pattern on many images: Adam on its colours, Sparse-PGD's mask where its pixels are chosen."""
from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import (
    check_budget,
    check_config,
    check_int,
    check_number,
    check_path,
    from_fields,
    is_count,
    shown,
)
from ..errors import InputError
from ..groups import Kernel, Patch
from ..groups.pattern import Pattern
from ..objectives.base import EightBit, Objective
from ..ops import generator_of, gradient, largest, to_8bit
from ..registry import KERNELS, PLACEMENTS, Config
from .artefact import Artefact, read_picture
from .paint import paint, room_of
from .penalties import non_printability, total_variation
from .placement import Fixed, Pixels, Placement, Places
from .transforms import Transforms, median_pool

__all__ = ['Learner', 'Recipe', 'Step', 'oriented', 'places_in']

STARTS = ('grey', 'random')


@dataclass(frozen=True)
class Recipe:
    """What is learned, and how.

    Args:
        placement: where it goes, see :mod:`.placement`.
        shape: its outline and size in pixels of its own: ``dict(type='Patch', height=64, width=64)``,
            ``dict(type='Shape', name='heart', size=64)``, or a PNG, ``dict(type='Picture',
            path='mask.png')``. For frames and pixels the size of the whole image.
        pixels: how many pixels of the shape are there, a count or a share; which ones is learned,
            with ``placement=Pixels()``. None for all of them.
        start: 'grey', 'random', or an image file such as a logo.
        cap: largest distance of a channel value from the start, in (0, 1].
        transforms: what may happen to it on the way, see :class:`.Transforms`.
        tv: weight of the total variation.
        nps: weight of the non-printability.
        epochs: how often each training image is seen.
        lr: step of Adam on colours in [0, 1]; it falls along a cosine.
        beta: step of the mask logits, times the square root of the number of pixels.

    Raises:
        InputError: values that make no sense, or that do not go together.
    """
    placement: Placement | Config = Fixed()
    shape: Kernel | Config = Patch(height=64, width=64)
    pixels: int | float | None = None
    start: str = 'grey'
    cap: float = 1.0
    transforms: Transforms | Config = Transforms()
    tv: float = 0.0
    nps: float = 0.0
    epochs: int = 20
    lr: float = 0.03
    beta: float = 0.25

    def __post_init__(self):
        check_config(self, 'placement')
        check_config(self, 'shape')
        object.__setattr__(self, 'placement', PLACEMENTS.build(self.placement))
        object.__setattr__(self, 'shape', KERNELS.build(self.shape))
        object.__setattr__(self, 'transforms', from_fields(Transforms, self.transforms, 'transforms'))
        if not isinstance(self.shape, Pattern):
            raise InputError(f'Recipe: shape = {type(self.shape).__name__}, expected Patch, Shape '
                             'or Picture, which have an outline')
        if self.pixels is not None:
            check_budget(self, 'pixels')
            if not isinstance(self.placement, Pixels):
                raise InputError('Recipe: pixels are chosen where they lie: set '
                                 "placement=dict(type='Pixels')")
            if self.transforms != Transforms():
                raise InputError('Recipe: pixels are those of the image, so nothing happens to '
                                 'them on the way: leave out transforms')
            if self.tv or self.nps:
                raise InputError('Recipe: tv and nps are about the surface of a patch: leave them '
                                 'out where pixels are chosen')
        check_path(self, 'start')
        if self.start not in STARTS and not Path(self.start).is_file():
            raise InputError(f'Recipe: start = {shown(self.start)}, expected grey, random, or an '
                             'image file, and there is no such file')
        check_number(self, 'cap', 0, 1, high_ok=True)
        check_number(self, 'tv', low_ok=True)
        check_number(self, 'nps', low_ok=True)
        check_int(self, 'epochs')
        check_number(self, 'lr')
        check_number(self, 'beta')


@dataclass(frozen=True)
class Step:
    """What one iteration found.

    Attributes:
        images: how many of them had a place for the patch and something to break.
        loss: mean of the objective's loss over them, which is raised; penalties not included.
        broken, right: images that are broken, of those that the victim had right before.
        patches, left_alone: places that were painted, objects (or images) that were not.
        skipped: the gradient was not finite, so nothing was learned.
    """
    images: int
    loss: float = 0.0
    broken: int = 0
    right: int = 0
    patches: int = 0
    left_alone: int = 0
    skipped: bool = False


def oriented(pattern: Tensor, objective: Any, channels: str | None = None) -> Tensor:
    """A pattern (3, h, w) RGB in the channel order of an objective's images, on their device.

    Args:
        channels: that order, where the objective does not know it.

    Raises:
        InputError: images without three channels, or nobody knows their order.
    """
    found = objective.surroundings
    order = channels or (found.channels if found is not None else None)
    if objective.images.shape[1] != len(pattern):
        raise InputError(f'the patch has {len(pattern)} channels (RGB), but images have '
                         f'{objective.images.shape[1]}')
    if order is None:
        raise InputError('whether the images are RGB or BGR is not known here: say '
                         "channels='rgb' (or 'bgr') in the attack")
    pattern = pattern.to(objective.images)
    return pattern.flip(0) if order == 'bgr' else pattern


def places_in(objective: Any, placement: Placement, shape: tuple[int, int], draws: Tensor) -> Places:
    """The places in an objective's images.

    Raises:
        InputError: the placement needs objects and none are told.
    """
    told = objective.surroundings
    boxes = told.boxes if told is not None else None
    if placement.at_objects and boxes is None:
        raise InputError(f'{type(placement).__name__} needs the objects of the images, which are '
                         'not known here: attack a detector or a segmenter, or use Fixed or Random')
    return placement.places(room_of(objective.region), shape, boxes, draws.to(objective.images.device))


class Learner:
    """A pattern in the making.

    Args:
        recipe: what is learned, and how.
        seed: decides the start where it is random, and every draw.

    Attributes:
        pattern: (3, h, w) float in [0, 1], RGB.
        epoch: how many epochs are done.
    """

    def __init__(self, recipe: Recipe, seed: int = 0, device: torch.device | str = 'cpu'):
        self.recipe, self.seed, self.epoch = recipe, seed, 0
        outline: Any = recipe.shape  # the recipe has seen to it that there is one
        self.shape = outline.pattern.to(device)
        h, w = self.shape.shape
        if recipe.start == 'grey':
            start = torch.full((3, h, w), 128 / 255)
        elif recipe.start == 'random':
            start = to_8bit(torch.rand(3, h, w, generator=generator_of(seed, 'start')))
        else:
            start = read_picture(recipe.start, h, w)
        self.start = start.to(device)
        self.pattern = self.start.clone().requires_grad_()
        self.optimizer = torch.optim.Adam([self.pattern], recipe.lr)
        self.logits: Tensor | None = None
        if recipe.pixels is not None:
            room = int(self.shape.sum())
            count = recipe.pixels if is_count(recipe.pixels) else max(round(recipe.pixels * room), 1)
            if count > room:
                raise InputError(f'Recipe: pixels = {count}, but the shape has {room}')
            self.count = torch.tensor([count], device=device)
            logits = torch.randn(h, w, generator=generator_of(seed, 'mask')).to(device)
            self.logits = logits.masked_fill(~self.shape, -torch.inf)

    @property
    def mask(self) -> Tensor:
        """(h, w) bool, pixels of the pattern that are there."""
        if self.logits is None:
            return self.shape
        return largest(self.logits[None, None], self.count, int(self.count))[0, 0]

    def artefact(self, story: Mapping[str, Any] | None = None) -> Artefact:
        """The pattern as it is now, in 8 bits."""
        mask = self.mask
        return Artefact(to_8bit(self.pattern.detach() * mask).cpu(), mask.cpu(), self.recipe.placement,
                        story or {})

    def state(self) -> dict[str, Any]:
        """All that :meth:`resume` needs."""
        return dict(epoch=self.epoch, pattern=self.pattern.detach(), logits=self.logits,
                    optimizer=self.optimizer.state_dict())

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self.epoch, self.logits = state['epoch'], state['logits']
        with torch.no_grad():
            self.pattern.copy_(state['pattern'])
        self.optimizer.load_state_dict(state['optimizer'])

    def step(self, objective: Objective, eight_bit: bool = True) -> Step:
        """Look at images once, and change the pattern so that their loss rises.

        Args:
            objective: of the images; it knows their surroundings.
            eight_bit: the victim sees what an 8-bit file can hold.
        """
        draws = torch.stack([torch.rand(2, generator=generator_of(self.seed, key, self.epoch, 'place'))
                             for key in objective.keys])
        places = places_in(objective, self.recipe.placement, self.shape.shape, draws)
        useful = objective.defined & places.valid.any(1)
        rows = useful.nonzero()[:, 0].cpu()
        left = int((places.left_alone * objective.defined).sum())
        if not len(rows):
            return Step(0, left_alone=left)
        part = places[rows]
        judge = EightBit(objective) if eight_bit else objective
        for group in self.optimizer.param_groups:
            group['lr'] = self.recipe.lr * (1 + cos(pi * self.epoch / self.recipe.epochs)) / 2
        move = self._colours if self.logits is None else self._pixels
        loss, success = move(judge, objective, rows, part)
        right = judge.eligible[rows]
        slope: Any = self.pattern.grad
        finite = bool(loss.isfinite().all()) and bool(slope.isfinite().all())
        if finite:
            self.optimizer.step()
            with torch.no_grad():
                cap = self.recipe.cap
                self.pattern.clamp_((self.start - cap).clamp(min=0), (self.start + cap).clamp(max=1))
        self.optimizer.zero_grad()
        return Step(len(rows), float(loss.mean()), int((success & right).sum()), int(right.sum()),
                    int(part.valid.sum()), left, not finite)

    def _colours(self, judge: Any, objective: Any, rows: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        """Loss and success of the images ``rows``; leaves the gradient in the pattern."""
        recipe = self.recipe
        pattern = median_pool(self.pattern, recipe.transforms.median)
        keys = [objective.keys[row] for row in rows]
        looks = recipe.transforms.draw(self.seed, keys, self.epoch, places.valid.shape[1], pattern)
        z, _ = paint(objective.images[rows], objective.region[rows], oriented(pattern, objective),
                     self.shape, places, looks)
        verdict = judge(z, rows)
        cost = -verdict.loss.mean()
        if recipe.tv:
            cost = cost + recipe.tv * total_variation(self.pattern, self.shape)
        if recipe.nps:
            cost = cost + recipe.nps * non_printability(self.pattern, self.shape)
        cost.backward()
        return verdict.loss.detach(), verdict.success

    def _pixels(self, judge: Any, objective: Any, rows: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        """The same where pixels are chosen; moves the mask logits as well.

        The gradient of the mask is that of Sparse-PGD, with the colour's difference from the image
        as magnitude; each image's gradient has length 1 before they are added.
        """
        assert self.logits is not None
        x, region = objective.images[rows], objective.region[rows]
        colours, mask = oriented(self.pattern.detach(), objective), self.mask
        size = [min(pair) for pair in zip(mask.shape, x.shape[2:], strict=True)]
        here = (..., slice(size[0]), slice(size[1]))
        chosen = torch.zeros_like(region)
        chosen[here] = mask[here]
        chosen &= region
        full = torch.zeros_like(x)
        full[here] = colours[here]
        z = torch.where(chosen, full, x).requires_grad_()
        verdict = judge(z, rows)
        slope = gradient(verdict.loss, z) * region
        slope = slope / slope.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]

        grad = torch.zeros_like(self.pattern)
        grad[here] = slope.sum(0)[here]
        self.pattern.grad = -(grad.flip(0) if objective.surroundings.channels == 'bgr' else grad)
        share = self.logits.sigmoid()
        moved = torch.zeros_like(self.logits)
        moved[here] = (slope * (full - x)).sum((0, 1))[here]
        moved *= share * (1 - share)
        if bool(moved.isfinite().all()):
            fall = (1 + cos(pi * self.epoch / self.recipe.epochs)) / 2
            stride = self.recipe.beta * fall * self.shape.sum().sqrt()
            self.logits = self.logits + stride * moved / moved.norm().clamp(min=1e-10)
        return verdict.loss.detach(), verdict.success
