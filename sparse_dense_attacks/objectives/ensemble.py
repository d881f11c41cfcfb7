"""Several models at once, whatever their tasks: one image has to break them all."""
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor

from ..checks import shown
from ..errors import InputError
from ..registry import nearest
from ..types import Verdict
from .base import Objective

__all__ = ['Ensemble']

COMBINE = ('mean', 'worst')


class Ensemble(Objective):
    """The objectives of several models on the same images as one; such images transfer better.

    ``loss`` is the mean, or the smallest, of what the members' losses have gained since the clean
    image: losses of different goals have different zeros. The mean may give up one member for what
    it gains on another; the worst looks after whichever is behind. ``success``: all members say so.
    ``margin`` is the mean, or the largest, of what their margins are above 0.

    A member for which success has no meaning on an image (a detector where there is no object) has
    no say in its success, but its loss counts. A pass, as attacks count them, is one of each.
    Sums of losses of several models are those of arXiv 1703.08603.

    Args:
        members: at least one; their images must be the same pixels, as the original grid has them
            whatever the models make of them. Keys are those of the first.
        combine: 'mean' or 'worst'.
        weights: factors of the members' losses, 1 by default.

    Raises:
        InputError: no member, images that differ, another number of weights than of members.

    Example:
        >>> from sparse_dense_attacks import SigmaZero
        >>> from sparse_dense_attacks.testing import Net, objective, pictures
        >>> images = pictures(2, 3, 6, 7)
        >>> members = [objective(Net(seed=seed, gain=0.4), images) for seed in (0, 1)]
        >>> result = SigmaZero(steps=80)(Ensemble(members))
        >>> [bool(one(result.images, torch.arange(2)).success.all()) for one in members]
        [True, True]
    """

    def __init__(self, members: Sequence[Objective], combine: str = 'mean',
                 weights: Sequence[float] | None = None):
        if not members:
            raise InputError('Ensemble: members = [], expected at least one objective')
        if combine not in COMBINE:
            raise InputError(f"Ensemble: combine = {shown(combine)}, expected 'mean' or 'worst'; "
                             f'{nearest(combine, COMBINE)}')
        weights = [1.0] * len(members) if weights is None else list(weights)
        if len(weights) != len(members) or not all(_is_weight(one) for one in weights):
            raise InputError(f'Ensemble: weights = {shown(weights)}, expected {len(members)} '
                             'positive numbers, one for each member')
        first = members[0]
        for number, member in enumerate(members[1:], start=2):
            if member.images.shape != first.images.shape or not torch.equal(
                    member.images.to(first.images), first.images):
                raise InputError(f'Ensemble: member {number} sees other pixels than member 1: '
                                 'models share images on the grid of the file only '
                                 "(grid='original')")
        self.members, self.combine = list(members), combine
        self.images, self.keys = first.images, first.keys
        self.weights = self.images.new_tensor(weights)[:, None]
        device = self.images.device
        self.start = torch.stack([self._own(member.clean).loss for member in members])
        self._defined = torch.stack([member.defined.to(device) for member in members])
        self.defined = self._defined.any(0)
        # where none is defined, all of them have a margin to follow
        self.counted = self._defined | ~self.defined
        right = torch.stack([member.eligible.to(device) for member in members])
        self.eligible = (right | ~self.counted).all(0)
        self.region = self._shared_region()
        divided = [member.parts.to(device) for member in members if member.parts is not None]
        self.parts = torch.stack(divided).sum(0) if divided else None
        self.clean = self._join([self._own(member.clean) for member in members],
                                torch.arange(len(self.images)))

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        return self._join([self._own(member(x.to(member.images.device), rows))
                           for member in self.members], rows)

    def share(self, x: Tensor, rows: Tensor) -> Tensor:
        """(b,) float64, of the parts of all members taken together; NaN where there are none."""
        broken = torch.zeros(len(x), dtype=torch.float64, device=self.images.device)
        if self.parts is None:
            return super().share(x, rows)
        for member in self.members:
            if member.parts is not None:
                parts = member.parts[rows].to(broken)
                share = member.share(x.to(member.images.device), rows).to(broken)
                broken += torch.where(parts > 0, share, 0) * parts
        return broken / self.parts[rows]

    def _own(self, verdict: Verdict) -> Verdict:
        """A member's verdict where and in what the ensemble computes, without its logits."""
        loss, margin = verdict.loss.to(self.images), verdict.margin.to(self.images)
        return replace(verdict, loss=loss, margin=margin, logits=None,
                       success=verdict.success.to(self.images.device))

    def _join(self, verdicts: Sequence[Verdict], rows: Tensor) -> Verdict:
        """One verdict of those of the members, each on the images ``rows``."""
        gain = torch.stack([one.loss for one in verdicts]) - self.start[:, rows]
        gain = gain * self.weights
        success = torch.stack([one.success for one in verdicts])
        counted = self.counted[:, rows]
        # beyond 0 a margin has no more to say, and must not make up for another member's
        left = torch.stack([one.margin for one in verdicts]).clamp(min=0)
        left = torch.where(counted & ~success, left, 0)
        if self.combine == 'mean':
            loss, margin = gain.mean(0), left.sum(0) / counted.sum(0)
        else:
            loss, margin = gain.amin(0), left.amax(0)
        return Verdict(loss, margin, (success | ~counted).all(0) & self.defined[rows])

    def _shared_region(self) -> Tensor:
        """What all members let change, but for those that have nothing to attack in an image."""
        regions = torch.stack([member.region.to(self.images.device) for member in self.members])
        nothing = ~regions.flatten(2).any(2)
        some = ~nothing.all(0)
        return (regions | nothing[..., None, None, None]).all(0) & some[:, None, None, None]


def _is_weight(value) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and isfinite(value) and value > 0
