"""Walking down from a success, one unit after the other: our attack for the minimum question."""
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_choice, check_config, check_int, check_number
from ..errors import InputError
from ..groups import Kernel, Pixel
from ..objectives.base import AnyObjective, Restricted
from ..ops import box_bounds, changed_pixels, gradient, largest
from ..registry import ATTACKS, KERNELS, Config
from .active import Active
from .base import Attack, MinimumAttack
from .rng import ImageRNG
from .sigma_zero import SigmaZero

__all__ = ['Descent']


@ATTACKS.register_module()
@dataclass(frozen=True)
class Descent(MinimumAttack):
    """Starts from a cheap success of another attack and makes it smaller: drop a unit, then exchange units until it is one again.

    This attack is **ours**. A unit is a channel value, a pixel or a group of pixels. A step costs a forward and a backward:

    1. If the candidate is adversarial it is stored, and what matters least at it is dropped: the units whose return to the clean
       image would give the margin least, by its gradient.
    2. If not, it becomes the held point if its margin is lower than the one held; what came in to no avail gets tired.
    3. The next candidate comes from the held point: a unit that matters little leaves, one that promises much enters at the
       better end of its box, both varied by noise from the second try on; the other changes take a small step along the sign
       of the gradient.

    While an image has no success yet, because the first attack had none, units only enter, half as many as there are.

    Args:
        steps: forwards per image, those of ``base`` included; but at least one for what ``base`` has found. The wrapper's look at
            the clean image comes on top, and each of the steps costs a backward, too.
        base: the attack whose result is the start: an object, its name or a config dict. None: sigma-zero in the same unit for a
            third of the steps.
        unit: ``'element'`` counts channel values, ``'pixel'`` pixels, or groups with a ``kernel``.
        kernel: groups instead of pixels, see :class:`StructuredSparsePGD`.
        drop: share of the units dropped after a success; at least one goes.
        exchange: share of the units exchanged at once; at least one is.
        patience: candidates without a success after which a drop of several units is taken back: the smallest success is
            held again, and ``drop`` and ``exchange`` are halved for the image. 0 takes nothing back.
        follow: whose gradient says what matters: ``'margin'``, or ``'loss'``, for objectives of many parts whose margin knows
            only parts that are not broken yet.
        alpha: step of the changes that stay.
        noise: standard deviation of the log promises.
        budget: see :class:`MinimumAttack`; in groups with a ``kernel``.

    Every image has its own count of steps: a base that stops early at some images leaves them more.
    """
    steps: int = 300
    base: Attack | Config | None = None
    unit: str = 'element'
    kernel: Kernel | Config = Pixel()
    drop: float = 0.0
    exchange: float = 0.0
    patience: int = 0
    follow: str = 'margin'
    alpha: float = 0.2
    noise: float = 0.25

    def __post_init__(self):
        super().__post_init__()
        check_int(self, 'steps')
        check_choice(self, 'unit', ('element', 'pixel'))
        check_config(self, 'kernel')
        object.__setattr__(self, 'kernel', KERNELS.build(self.kernel))
        if self.unit == 'element' and self.kernel != Pixel():
            raise InputError(f'Descent: kernel = {self.kernel} groups pixels; '
                             "set unit='pixel' with it")
        if self.base is not None:
            check_config(self, 'base')
            object.__setattr__(self, 'base', ATTACKS.build(self.base))
        for name in ('drop', 'exchange', 'alpha'):
            check_number(self, name, 0, 1, low_ok=True, high_ok=True)
        check_number(self, 'noise', low_ok=True)
        check_int(self, 'patience', low=0)
        check_choice(self, 'follow', ('margin', 'loss'))

    @property
    def first(self) -> Attack:
        """The attack that the descent starts from."""
        return self.base or SigmaZero(steps=max(self.steps // 3, 1), unit=self.unit)

    def _places(self, objective: AnyObjective) -> Tensor:
        if self.unit == 'element':
            return super()._places(objective)
        return self.kernel.usable(objective.region)

    def has_room(self, objective: AnyObjective) -> Tensor:
        return self._places(objective).flatten(1).any(1)

    def count_groups(self, objective: AnyObjective, adversarial: Tensor) -> Tensor:
        changed = changed_pixels(adversarial, objective.images)
        return self.kernel.cover(changed, self.kernel.usable(objective.region))

    def within(self, objective: AnyObjective, adversarial: Tensor) -> Tensor:
        if self.budget is None or self.kernel == Pixel():
            return super().within(objective, adversarial)
        size = (adversarial - objective.images).abs().amax(1, keepdim=True)
        chosen = self._cover(size, self._places(objective), self.limit(objective))
        return torch.where(self._spread(chosen, size.shape[2:]) > 0, adversarial, objective.images)

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        before = objective.forwards.clone()
        with objective.reserved():  # for the first look at what it has found
            found = self.first.run(objective, rng)
        left = self.steps - (objective.forwards - before)
        return self.walk(objective, found.detach(), left.clamp(min=1), rng)

    def walk(self, objective: Restricted, found: Tensor, left: Tensor, rng: ImageRNG) -> Tensor:
        """The descent alone, from what another attack has found.

        Args:
            objective: as in :meth:`run`.
            found: (B, C, H, W), where it starts.
            left: (B,) int64 on the CPU, steps for each image, at least 1.
            rng: the images' generators.

        Returns:
            The smallest success of each image, (B, C, H, W), and the clean image where there was none.
        """
        best = objective.images.clone()
        s = self._start(objective, found)
        s.left = left
        s.keep(~objective.failed.cpu())
        grid_rng = rng if self.unit == 'element' else rng.on_grid(self.kernel.grid)
        size = best.shape[2:]

        while len(s):
            # look at the candidate
            mask = self._spread(s.v, size)
            z = torch.addcmul(s.x, s.p, mask.to(s.p.dtype)).requires_grad_()
            verdict = objective(z, s.rows)
            descended = verdict.margin if self.follow == 'margin' else -verdict.loss
            s.grad, s.margin = gradient(descended, z), verdict.margin.detach()
            s.success = verdict.success

            # keep the smallest success, drop images that are done
            s.left = s.left - 1
            count = s.v.flatten(1).sum(1)
            s.better = s.success & (count < s.fewest)
            s.fewest = torch.where(s.better, count, s.fewest)
            searching = s.fewest > s.room
            # the candidate is held if it is better, or if nothing smaller is known yet
            taken = s.success | (s.margin < s.held_margin) | searching
            done = objective.failed[s.rows] | (s.fewest <= s.enough)
            count = torch.maximum(count, s.fewest.where(~searching, 0))
            flags = torch.stack([s.better, done, taken, s.success, searching, count]).cpu()
            better, done, s.taken, s.dropped, s.searching = flags[:5].bool()
            s.count, done = flags[5], done | (s.left == 0)
            best[s.rows[better]] = z.detach()[better]
            s.keep(~done)
            if not len(s):
                break

            # the most units that one of the images may drop or exchange at once
            share = max(self.drop, self.exchange, 0.5 if s.searching.any() else 0)
            most = max(math.ceil(share * int(s.count.amax())), 1)
            self._hold(s)
            if self.patience:
                self._take_back(s)
            self._drop(s, most)
            self._exchange(s, most, grid_rng)
        return best

    def _start(self, objective: Restricted, found: Tensor) -> Active:
        """The candidate is what the first attack found; nothing is held yet."""
        x, places = objective.images, self._places(objective)
        room = places.flatten(1).sum(1)
        fewest = room + 1
        low, high = (bound.mul_(objective.region) for bound in box_bounds(x, 1.0))
        p = (found - x).clamp_(low, high)
        if self.unit == 'element':
            v = p != 0
        else:
            v = self._cover(p.abs().amax(1, keepdim=True), places, room)
        return Active(
            # what stays: units that may be chosen and how many they are, the box, the count to reach
            x=x, places=places, room=room, low=low, high=high, enough=self.limit(objective).clamp(min=1),
            # the candidate: changes, chosen units and which of these are new; the smallest success
            p=p, v=v, new=torch.zeros_like(v), fewest=fewest,
            # the point that is held, its gradient and margin
            held_p=p.clone(), held_v=v.clone(), held_grad=torch.zeros_like(x),
            held_margin=x.new_full((len(x),), torch.inf),
            # what follows from it: the better end of the box, a small step, and what units promise and are worth
            corner=torch.zeros_like(x), moved=torch.zeros_like(x),
            promise=torch.zeros_like(v, dtype=x.dtype), worth=torch.zeros_like(v, dtype=x.dtype),
            # what was tried in vain
            tired=torch.zeros_like(v, dtype=x.dtype),
            # share dropped at once; the smallest success once more, and for how many steps there was none
            share=x.new_full((len(x),), self.drop), missed=torch.zeros_like(fewest),
            top_p=p, top_v=v, top_grad=torch.zeros_like(x))

    def _hold(self, s: Active) -> None:
        """Take the candidate for the held point where it is better; what came in to no avail gets tired."""
        rows = s.taken.nonzero()[:, 0]
        s.new[rows] = False
        s.tired.add_(s.new, alpha=2.0)
        s.tired[rows] = 0.3 * s.tired[rows]
        # at success many margins are flat: then the last gradient that says something stays
        grad = s.grad[rows]
        sloped = _wide((grad != 0).flatten(1).any(1))
        s.held_grad[rows] = torch.where(sloped, grad, s.held_grad[rows])
        s.held_p[rows], s.held_v[rows], s.held_margin[rows] = s.p[rows], s.v[rows], s.margin[rows]
        # what is left after the drop has never been looked at
        s.held_margin = torch.where(s.success, torch.inf, s.held_margin)
        self._follow(s, rows)

    def _follow(self, s: Active, rows: Tensor) -> None:
        """What follows from the held points of the images at positions ``rows``."""
        grad, p, low, high = s.held_grad[rows], s.held_p[rows], s.low[rows], s.high[rows]
        corner = torch.where(grad > 0, low, high)
        promise = self._gather(-grad * corner).clamp_(min=1e-30).log_()
        s.promise[rows] = promise.masked_fill_(~s.places[rows], -torch.inf)
        worth = self._gather(-grad * p).masked_fill_(~s.held_v[rows], 0)
        s.worth[rows] = worth / _wide(worth.abs().flatten(1).amax(1).clamp_(min=1e-30))
        s.corner[rows], s.moved[rows] = corner, torch.clamp(p - self.alpha * grad.sign(), low, high)

    def _take_back(self, s: Active) -> None:
        """Hold the smallest success again where what went after it is missed for long, and let half as much go."""
        better = _wide(s.better)
        s.top_p = torch.where(better, s.held_p, s.top_p)
        s.top_v = torch.where(better, s.held_v, s.top_v)
        s.top_grad = torch.where(better, s.held_grad, s.top_grad)
        s.missed = torch.where(s.success, 0, s.missed + 1)
        back = (s.missed >= self.patience) & (s.share * s.fewest >= 1.5) & (s.fewest <= s.room)
        s.share, s.missed = torch.where(back, s.share / 2, s.share), torch.where(back, 0, s.missed)
        s.held_margin = torch.where(back, torch.inf, s.held_margin)
        s.dropped = s.dropped | back.cpu()
        back = _wide(back)
        s.held_p = torch.where(back, s.top_p, s.held_p)
        s.held_v = torch.where(back, s.top_v, s.held_v)
        s.held_grad = torch.where(back, s.top_grad, s.held_grad)
        s.tired = torch.where(back, 0, s.tired)
        self._follow(s, torch.arange(len(s)))

    def _drop(self, s: Active, most: int) -> None:
        """After a success what matters least goes."""
        rows = s.dropped.nonzero()[:, 0]
        held = s.held_v[rows]
        count = held.flatten(1).sum(1)
        count = (s.share[rows] * count).round().long().clamp(min=1).minimum(count - 1)
        useless = (-s.worth[rows]).masked_fill_(~held, -torch.inf)
        s.held_v[rows] = held & ~largest(useless, count, most)

    def _exchange(self, s: Active, most: int, grid_rng: ImageRNG) -> None:
        """The next candidate: some units leave and as many enter; without a success so far they only enter."""
        count = s.held_v.flatten(1).sum(1)
        searching, spare = s.fewest > s.room, s.room - count
        exchange = self.exchange if self.drop == 0 else self.exchange / self.drop * s.share
        enters = (exchange * count).round().long().clamp(min=1).minimum(spare)
        leaves = torch.where(searching, 0, enters.minimum(count))
        enters = torch.where(searching, (count // 2).clamp(min=1).minimum(spare), enters)

        # the first try from a held point is what the gradient says, later ones vary it; one draw serves both choices
        again = (~s.taken).nonzero()[:, 0]
        noise = torch.zeros_like(s.worth)
        noise[again] = grid_rng.normal(s.v.shape[1], s.rows[again])
        needless = (noise - s.worth).masked_fill_(~s.held_v, -torch.inf)
        leave = largest(needless, leaves, most)
        hope = torch.add(s.promise, noise, alpha=self.noise).sub_(s.tired)
        s.new = largest(hope.masked_fill_(s.held_v, -torch.inf), enters, most)

        s.v = s.held_v & ~leave | s.new
        s.p = torch.where(self._spread(s.new, s.x.shape[2:]) > 0, s.corner, s.moved)

    def _gather(self, a: Tensor) -> Tensor:
        """Sum of channel values (b, C, H, W) over each unit."""
        return a if self.unit == 'element' else self.kernel.correlate(a.sum(1, keepdim=True))

    def _spread(self, v: Tensor, size: torch.Size) -> Tensor:
        """The mask over units as one over channel values or pixels."""
        return v if self.unit == 'element' else self.kernel.expand(v, size)

    def _cover(self, size: Tensor, places: Tensor, most: Tensor) -> Tensor:
        """Units, at most ``most`` (B,) of each image, that cover what is largest in ``size`` (B, 1, H, W): the best, again and
        again."""
        if self.kernel == Pixel():
            return largest(size, most, int(most.max())) & (size > 0)
        chosen = torch.zeros_like(places)
        for number in range(int(most.max())):
            gain = self.kernel.correlate(size).mul_(places)
            wanted = (gain.flatten(1).amax(1) > 0) & (most > number)
            if not wanted.any():
                break
            chosen = chosen | largest(gain, wanted.long(), 1)
            size = size * (1 - self.kernel.expand(chosen.to(size.dtype), size.shape[2:]))
        return chosen


def _wide(flag: Tensor) -> Tensor:
    """(b,) as (b, 1, 1, 1)."""
    return flag[:, None, None, None]
