"""Applies what was learned on other images: a patch, a frame, or fixed pixels."""
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..checks import check_choice, check_config, check_number, check_path, shown
from ..errors import InputError
from ..objectives.base import AnyObjective, Restricted
from ..ops import generator_of, to_8bit
from ..patches import Artefact, Looks, Placement, Places, paint
from ..patches.learner import oriented, places_in
from ..registry import ATTACKS, PLACEMENTS, Config
from .base import Attack
from .rng import ImageRNG

__all__ = ['UniversalPatch']

ELSEWHERE = 'random places'
OWN = ('learned', 'grey', 'noise', ELSEWHERE)


@ATTACKS.register_module()
@dataclass(frozen=True)
class UniversalPatch(Attack):
    """Puts an artefact of ``sda fit`` into every image, whatever the victim says of it; costs no pass.

    Args:
        artefact: its ``patch.json``, or a finished :class:`~sparse_dense_attacks.patches.Artefact`.
        content: what is shown in its outline at its places: 'learned', its own colours; 'grey'; 'noise',
            random colours, the same ones in every image; 'random places', of pixels that were chosen
            as many others, in random colours; or the ``patch.json`` of another artefact.
        placement: other places than those it was learned for.
        scale: factor of its height and width.
        rotation: degrees, counter-clockwise.
        brightness: added to its colours, which are in [0, 1].
        channels: 'rgb' or 'bgr', the order in the images, where nobody else knows it.

    Attributes:
        digest: of the artefact, and of the one whose colours are shown, so that a run with them is not resumed with others.

    Raises:
        InputError: artefacts that are missing or damaged; images without three channels.
    """
    artefact: str | Artefact
    content: str = 'learned'
    placement: Placement | Config | None = None
    scale: float = 1.0
    rotation: float = 0.0
    brightness: float = 0.0
    channels: str | None = None
    digest: str = field(init=False, default='')
    needs_surroundings: ClassVar[bool] = True

    def __post_init__(self):
        if not isinstance(self.artefact, Artefact):
            check_path(self, 'artefact')
        check_path(self, 'content')
        if self.placement is not None:
            check_config(self, 'placement')
            object.__setattr__(self, 'placement', PLACEMENTS.build(self.placement))
        check_number(self, 'scale')
        check_number(self, 'rotation', -360, 360, low_ok=True, high_ok=True)
        check_number(self, 'brightness', -1, 1, low_ok=True, high_ok=True)
        if self.channels is not None:
            check_choice(self, 'channels', ('rgb', 'bgr'))
        used = [self.learned] if self.lender is None else [self.learned, self.lender]
        object.__setattr__(self, 'digest', ' '.join(one.digest for one in used))

    @cached_property
    def learned(self) -> Artefact:
        """The artefact itself."""
        return self.artefact if isinstance(self.artefact, Artefact) else Artefact.load(self.artefact)

    @cached_property
    def lender(self) -> Artefact | None:
        """The other artefact whose colours are shown; None for contents that need none."""
        if self.content in OWN:
            return None
        if not Path(self.content).is_file():
            raise InputError(f'UniversalPatch: content = {shown(self.content)}, expected '
                             f'{", ".join(OWN)}, or the patch.json of another artefact')
        return Artefact.load(self.content)

    @cached_property
    def pattern(self) -> Tensor:
        """(3, h, w) float in [0, 1], RGB, what is shown."""
        own = self.learned.pattern
        if self.lender is not None:
            other = self.lender.pattern[None]
            return to_8bit(torch.nn.functional.interpolate(other, own.shape[1:], mode='area')[0])
        if self.content == 'learned':
            return own
        if self.content == 'grey':
            return torch.full_like(own, 128 / 255)
        return to_8bit(torch.rand(own.shape, generator=generator_of(0, 'noise')))

    @cached_property
    def mask(self) -> Tensor:
        """(h, w) bool, which of its pixels are there."""
        own = self.learned.mask
        if self.content != ELSEWHERE:
            return own
        order = torch.randperm(own.numel(), generator=generator_of(0, 'places'))
        return (order < own.sum()).view_as(own)

    @property
    def where(self) -> Placement:
        """The placement that counts."""
        found: Any = self.placement
        return self.learned.placement if found is None else found

    @property
    def placed_at(self) -> Sequence[str | int] | None:
        if not self.where.at_objects:
            return None
        return () if self.where.classes is None else self.where.classes

    @property
    def learned_on(self) -> str | None:
        return self.learned.story.get('weights')

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        images, region = objective.images, objective.region
        draws = rng.numbers([2] * len(images), torch.arange(len(images)))
        places = self._places(objective, draws)
        looks = Looks.plain(len(images), places.valid.shape[1], images.device, self.rotation,
                            self.brightness)
        pattern = oriented(self.pattern, objective, self.channels)
        mask = self.mask.to(images.device)
        return paint(images, region, pattern, mask, places, looks)[0]

    def _places(self, objective: AnyObjective, draws: Tensor) -> Places:
        shape = self.pattern.shape[1], self.pattern.shape[2]
        return places_in(objective, self.where, shape, draws).scaled(self.scale)

    def _anywhere(self, objective: AnyObjective) -> Places:
        """Places as good as any: which images have some does not depend on draws."""
        return self._places(objective, torch.zeros(len(objective.images), 2))

    def wanted(self, clean):
        return torch.ones_like(clean.success)

    def has_room(self, objective: AnyObjective) -> Tensor:
        return self._anywhere(objective).valid.any(1)

    def too_small(self, objective: AnyObjective) -> Tensor:
        return objective.region.flatten(1).any(1) & ~self.has_room(objective)

    def measures(self, objective: AnyObjective) -> list[dict]:
        places = self._anywhere(objective)
        return [dict(patches=patches, left_alone=left) for patches, left in
                zip(places.valid.sum(1).tolist(), places.left_alone.tolist(), strict=True)]
