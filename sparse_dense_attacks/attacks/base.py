"""The final wrapper around every attack core."""
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from ..checks import check_budget, check_flag, check_int
from ..errors import InputError
from ..groups import Kernel, Pixel
from ..objectives.base import AnyObjective, EightBit, MeteredObjective, Objective, Restricted
from ..ops import (
    changed_pixels,
    count_elements,
    count_pixels,
    largest,
    linf_distance,
    pixel_budget,
    to_8bit,
)
from ..types import AttackResult, Judgement, Verdict
from .active import Active, store
from .rng import ImageRNG

__all__ = ['Attack', 'Best', 'BudgetAttack', 'MinimumAttack', 'cascade', 'judge', 'judging_cost',
           'left_to_attack', 'warn_if_random']


@dataclass(frozen=True)
class Attack:
    """Base of all attacks: fields are hyper-parameters, :meth:`run` is the core, calling the object is final.

    A core gets an :class:`~sparse_dense_attacks.objectives.base.Objective` and returns adversarial images. What it returns is
    never trusted: the call clamps it into the box and the region, asks the victim again about the float and the 8-bit image, and
    counts.

    Attributes:
        needs_surroundings: whether objectives have to tell what surrounds their images: the order
            of channels, and the boxes of the objects that :attr:`placed_at` asks about.
    """
    needs_surroundings: ClassVar[bool] = False

    @property
    def placed_at(self) -> Sequence[str | int] | None:
        """Classes of the objects whose boxes the attack asks about; empty for all, None for none."""
        return None

    @property
    def learned_on(self) -> str | None:
        """Digest of the weights of the model it was learned on; None where nothing was learned before."""
        return None

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        """Adversarial images (B, C, H, W) for ``objective.images``.

        Args:
            objective: metered; beside what every :class:`Objective` offers, ``failed`` (B,) bool marks images that are of no more
                use, and within ``reserved()`` one forward per image is held back to judge a result with.
            rng: the images' generators.
        """
        raise NotImplementedError

    def wanted(self, clean: Verdict) -> Tensor:
        """(B,) bool, images worth attacking: by default those the victim still gets right."""
        return ~clean.success

    def has_room(self, objective: AnyObjective) -> Tensor:
        """(B,) bool, images in which something may change."""
        return objective.region.flatten(1).any(1)

    @property
    def structured(self) -> bool:
        """Whether the attack has groups to count; without structure a group is a pixel."""
        return False

    @property
    def member_names(self) -> tuple[str, ...]:
        """What the members of a cascade are called, in their order; nothing for attacks that are none."""
        return ()

    def count_groups(self, objective: AnyObjective, adversarial: Tensor) -> Tensor:
        """(B,) int64, groups of the attack's structure that cover the changed pixels; without structure a group is a pixel."""
        return count_pixels(adversarial, objective.images)

    def too_small(self, objective: AnyObjective) -> Tensor:
        """(B,) bool, images in which the budget asks for more than may change; none by default."""
        return torch.zeros(len(objective.images), dtype=torch.bool, device=objective.images.device)

    def measures(self, objective: AnyObjective) -> list[dict]:
        """Further numbers about each image for its record; none by default."""
        return [{} for _ in objective.keys]

    def within(self, objective: AnyObjective, adversarial: Tensor) -> Tensor:
        """Images (B, C, H, W) cut down to the budget where they exceed it; as they are by default."""
        return adversarial

    @final
    def __call__(self, objective: Objective, seed: int = 0, eight_bit: bool = True,
                 max_forwards: int | None = None, rechecks: int = 1,
                 precision: torch.dtype | None = None, sync_every: int | None = None) -> AttackResult:
        """Attack all images of an objective.

        Args:
            objective: the task.
            seed: together with an image's key it decides every random draw for that image.
            eight_bit: let the attack see only what an 8-bit file can hold (default). False reproduces published attacks on float
                images; success is judged on 8 bits all the same and reported beside the float success.
            max_forwards: hard budget of forward passes per image, all included: the look at the clean image, the attack, and
                those that judge its result. ``queries`` of the result never exceed it.
            rechecks: how often the victim is asked about a finished image, see :func:`judge`.
            precision: what the victim may compute in while it is attacked (``torch.bfloat16``, ``torch.float16``); None for its
                own, in which it judges results in any case. Images for which that is too little come back as failed.
            sync_every: look only every so many iterations which images are done. Nothing else changes: these are looked at for
                nothing until then, but a GPU has not to be waited for. None: 1 on the CPU, 8 elsewhere. Attacks that have to know
                in every iteration, because their draws depend on it, look all the same.

        Returns:
            The adversarial images with success, sparsity and cost per image. Images the victim already gets wrong come back
            untouched with ``success`` True and l0 = 0; images whose loss, gradient or result is not finite come back untouched as
            failed.
            A warning names the failed images, and those that were not broken because no gradient ever differed from zero.

        Raises:
            InputError: ``max_forwards`` leaves nothing to attack with.
        """
        if max_forwards is not None:
            max_forwards = left_to_attack(objective, max_forwards, eight_bit, rechecks)
        if sync_every is None:
            sync_every = 1 if objective.images.device.type == 'cpu' else 8
        meter = MeteredObjective(EightBit(objective) if eight_bit else objective, max_forwards, precision, sync_every)
        clean, images = meter.clean, meter.images
        worth = self.wanted(clean) & self.has_room(meter) & ~meter.failed
        if max_forwards is not None:
            worth &= (meter.forwards < max_forwards).to(worth.device)
        rows = worth.nonzero()[:, 0].cpu()

        seconds = torch.zeros(len(images))
        adversarial = images.clone()
        if len(rows):
            started = _now(images)
            before = meter.forwards[rows]
            part = Restricted(meter, rows)
            with torch.enable_grad():
                found = self.run(part, ImageRNG(seed, part.keys, part.region))
            spent = (meter.forwards[rows] - before).float()
            seconds[rows] = (_now(images) - started) * spent / spent.sum().clamp(min=1)
            meter.fail(rows, ~found.isfinite().flatten(1).all(1))
            usable = part.region & ~part.failed[:, None, None, None]
            adversarial[rows] = torch.where(usable, found.detach().clamp(0, 1), part.images)

        if eight_bit:
            adversarial = to_8bit(adversarial)
        adversarial = self._affordable(meter, adversarial)
        said = judge(objective, adversarial, meter, eight_bit, rechecks)
        valid = ~meter.failed
        end = 'so they count as not broken' if precision is None else f'in {precision}'
        _warn(f'loss or gradient is not finite, or the result, {end}', meter.failed, meter.keys)
        short = self.too_small(meter)
        _warn('no group of pixels fits into what may change, so they stay as they are',
              short & ~self.has_room(meter), meter.keys)
        _warn('the gradient is zero everywhere, so there was nothing to follow',
              meter.flat & ~said.success_float & ~meter.failed, meter.keys)
        counted = replace(said, success=said.success & valid,
                          success_float=said.success_float & valid,
                          queries=said.queries + meter.forwards)
        stage = meter.stage.where(counted.success.cpu() & bool(self.member_names), -1)
        return AttackResult(
            **vars(counted), images=adversarial, defined=meter.defined, failed=meter.failed,
            short=short,
            clean_correct=meter.eligible & clean.loss.isfinite(),
            groups=self.count_groups(meter, adversarial), stage=stage,
            forwards=meter.forwards, backwards=meter.backwards, seconds=seconds)

    def _affordable(self, meter: MeteredObjective, adversarial: Tensor) -> Tensor:
        """Images whose changes exceed the budget cut down to it, or untouched if that does no harm."""
        cut = self.within(meter, adversarial)
        over = changed_pixels(cut, adversarial).flatten(1).any(1)
        rows = over.nonzero()[:, 0].cpu()
        if not len(rows):
            return adversarial
        with torch.no_grad():
            verdict = meter(cut[rows], rows)
        clean = meter.clean[rows]
        better = verdict.success | (verdict.loss > clean.loss)
        adversarial = adversarial.clone()
        adversarial[rows] = torch.where(better[:, None, None, None], cut[rows], meter.images[rows])
        return adversarial


def judge(objective: Objective, images: Tensor, start: 'MeteredObjective | Objective | None' = None,
          eight_bit: bool = True, rechecks: int = 1) -> Judgement:
    """Ask the victim about finished images and count what was changed; attacks, transfer and re-scoring end here.

    Args:
        objective: of the victim whose word counts.
        images: (B, C, H, W) float in [0, 1], one for each of the objective's images.
        start: the images (and the verdict on them) that changes are counted from; by default those
            of the objective. Images without a change are not shown to the victim again.
        eight_bit: count changes of the images rounded to 8 bits (default), or of the float images.
        rechecks: how often the victim is asked: an image is broken where more than half of the
            answers say so, which matters for models whose answers are partly random.

    Example:
        >>> from sparse_dense_attacks.testing import Linear, objective
        >>> task = objective(Linear(torch.ones(1, 2, 2), -1.0), torch.zeros(1, 1, 2, 2))
        >>> said = judge(task, torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]]))
        >>> said.success.tolist(), said.l0_pixels.tolist()
        ([True], [2])
    """
    start = start or objective
    rounded = to_8bit(images)
    queries = torch.zeros(len(images), dtype=torch.int64)
    known = [(start.images, start.clean.success)]
    success = _ask(objective, rounded, known, rechecks, queries)
    float_success = _ask(objective, images, [*known, (rounded, success)], rechecks, queries)
    stored = rounded if eight_bit else images
    parts = objective.parts
    if parts is None:
        parts = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    else:
        queries += 1  # for the share
    return Judgement(
        success=success, success_float=float_success,
        l0_pixels=count_pixels(stored, start.images),
        l0_elements=count_elements(stored, start.images),
        linf=linf_distance(stored, start.images),
        share=objective.share(rounded, torch.arange(len(images))), parts=parts, queries=queries)


def judging_cost(objective: Objective, eight_bit: bool = True, rechecks: int = 1) -> int:
    """Forwards of an image that :func:`judge` takes at most; results of 8-bit attacks are asked about once."""
    looks = rechecks * (1 if eight_bit else 2)
    return looks * objective.passes + (objective.parts is not None)


def warn_if_random(objective: Objective) -> None:
    """Ask twice about the first clean image, and warn where the answers differ.

    Costs two forwards of one image, which are not counted.
    """
    if not len(objective.images):
        return
    first = torch.tensor([0])
    with torch.no_grad():
        once, again = (objective(objective.images[:1], first) for _ in range(2))
    # Where one of the two is flat (a sure image has hardly any loss), the other one is not.
    same = (torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6, equal_nan=True)
            for a, b in ((once.loss, again.loss), (once.margin, again.margin)))
    if not all(same):
        warnings.warn('the model answers differently when asked twice about the same image (loss '
                      f'{once.loss.item():.4g}, then {again.loss.item():.4g}), so a success may '
                      'not hold: switch its randomness off, or set rechecks (in threat) to judge '
                      'by the majority of so many answers', RuntimeWarning, stacklevel=3)


def left_to_attack(objective: Objective, max_forwards: int, eight_bit: bool, rechecks: int) -> int:
    """What a budget of forwards leaves for the look at the clean image and the attack.

    Raises:
        InputError: too few for one of each.
    """
    cost = judging_cost(objective, eight_bit, rechecks)
    least = cost + 2 * objective.passes
    if not isinstance(max_forwards, int) or max_forwards < least:
        raise InputError(f'max_forwards = {max_forwards}: expected at least {least} (int): the '
                         f'look at the clean image, one for the attack, and {cost} to judge its '
                         'result')
    return max_forwards - cost


def _ask(objective: Objective, images: Tensor, known: Sequence[tuple[Tensor, Tensor]],
         rechecks: int, queries: Tensor) -> Tensor:
    """(B,) bool, images that are broken, asking only about those of which that is not known.

    Args:
        known: images (B, C, H, W), and (B,) which of them are broken.
        queries: (B,) int64 on the CPU, to which the forwards are added.
    """
    success, new = known[0][1].clone(), torch.ones_like(known[0][1])
    for others, broken in known:
        same = ~changed_pixels(images, others).flatten(1).any(1)
        success = torch.where(same & new, broken, success)
        new = new & ~same
    rows = new.nonzero()[:, 0].cpu()
    if len(rows):
        with torch.no_grad():
            found = [objective(images[rows], rows).success for _ in range(rechecks)]
        success[rows] = 2 * torch.stack(found).sum(0) > rechecks
        queries[rows] += rechecks * objective.passes
    return success


@dataclass(frozen=True)
class BudgetAttack(Attack):
    """An attack with a fixed pixel budget.

    Args:
        k: pixels that may change: a count (int), a share of the region (float in (0, 1)), or one count per image (a dict from
            sample id to int).
        steps: iterations.
        early_stop: stop at an image's first success (as published). False spends all steps on lowering the victim further, also
            on images that count as broken already: the right choice when a metric such as mAP is read afterwards.
    """
    k: int | float | Mapping = 20
    steps: int = 100
    early_stop: bool = True

    def __post_init__(self):
        check_budget(self, 'k', per_image=True)
        check_int(self, 'steps')
        check_flag(self, 'early_stop')

    @property
    def kernel(self) -> Kernel:
        """What ``k`` counts."""
        return Pixel()

    @property
    def free(self) -> bool:
        """Whether any changes of ``k`` pixels or groups are allowed, whatever their size and place."""
        return True

    def budget(self, objective: AnyObjective) -> tuple[Tensor, Tensor]:
        """``k`` and the largest k possible for each image, both (B,) int64."""
        places = self.kernel.usable(objective.region)
        k = pixel_budget(self.k, places, objective.keys, self.kernel.unit)
        return k, places.flatten(1).sum(1)

    def has_room(self, objective: AnyObjective) -> Tensor:
        return self.kernel.usable(objective.region).flatten(1).any(1)

    def too_small(self, objective: AnyObjective) -> Tensor:
        room = self.kernel.usable(objective.region).flatten(1).sum(1)
        wanted = [self.k.get(key, 0) if isinstance(self.k, Mapping) else self.k
                  for key in objective.keys]
        # a share of no groups at all is none either, but where the region is empty none is missed
        least = [max(k, 1) if isinstance(k, int) else 1 for k in wanted]
        return (room < room.new_tensor(least)) & objective.region.flatten(1).any(1)

    def wanted(self, clean: Verdict) -> Tensor:
        return ~clean.success if self.early_stop else torch.ones_like(clean.success)

    @property
    def structured(self) -> bool:
        return self.kernel != Pixel()

    def count_groups(self, objective: AnyObjective, adversarial: Tensor) -> Tensor:
        changed = changed_pixels(adversarial, objective.images)
        found = self.kernel.cover(changed, self.kernel.usable(objective.region))
        if self.kernel == Pixel():
            return found
        return found.minimum(self.budget(objective)[0])  # a greedy cover may exceed k


@dataclass(frozen=True, kw_only=True)
class MinimumAttack(Attack):
    """An attack that looks for the fewest changes.

    Args:
        budget: stop an image once its result changes no more than this, and count it as broken only then: a count (int) or a
            share of the region (float in (0, 1)), or one count per image (a dict from sample id to int), in :attr:`unit`. None
            asks how few are needed and spends all steps.
    """
    budget: int | float | Mapping | None = None

    def __post_init__(self):
        if self.budget is not None:
            check_budget(self, 'budget', per_image=True)

    @property
    def unit(self) -> str:
        """What the attack minimises, 'element' or 'pixel'."""
        return 'element'

    def limit(self, objective: AnyObjective) -> Tensor:
        """(B,) int64, l0 at which an image is finished; without a budget 0, which no success reaches."""
        places = self._places(objective)
        if self.budget is None:
            return torch.zeros(len(places), dtype=torch.int64, device=places.device)
        return pixel_budget(self.budget, places, objective.keys, f'{self.unit}s')

    def _places(self, objective: AnyObjective) -> Tensor:
        """(B, 1 or C, H, W) bool, what may change, counted in :attr:`unit`."""
        if self.unit == 'element':
            return objective.region.expand_as(objective.images)
        return objective.region

    def too_small(self, objective: AnyObjective) -> Tensor:
        if not isinstance(self.budget, int | Mapping):
            return super().too_small(objective)
        places = self._places(objective).flatten(1).sum(1)
        wanted = [self.budget.get(key, 0) if isinstance(self.budget, Mapping) else self.budget
                  for key in objective.keys]
        return places < places.new_tensor(wanted)

    def within(self, objective: AnyObjective, adversarial: Tensor) -> Tensor:
        """The largest changes only, as many as the budget has."""
        if self.budget is None:
            return adversarial
        size = (adversarial - objective.images).abs()
        if self.unit == 'pixel':
            size = size.amax(1, keepdim=True)
        limit = self.limit(objective)
        over = (size > 0).flatten(1).sum(1) > limit
        kept = largest(size, limit, int(limit.max())) & (size > 0) if over.any() else size > 0
        return torch.where(kept | ~over[:, None, None, None], adversarial, objective.images)


class Best:
    """The best candidates so far: a success beats a failure, then the higher loss wins."""

    def __init__(self, objective: AnyObjective):
        self.images = objective.images.clone()
        self.loss, self.success = objective.clean.loss.clone(), objective.clean.success.clone()

    def improved(self, verdict: Verdict, rows: Tensor) -> Tensor:
        """(b,) bool, candidates that beat what is stored."""
        success = self.success[rows]
        higher = (verdict.success == success) & (verdict.loss >= self.loss[rows])
        return (verdict.success & ~success) | higher

    def take(self, x: Tensor, verdict: Verdict, rows: Tensor, *flags: Tensor) -> Tensor:
        """Keep the candidates ``x`` (b, C, H, W) of the images ``rows`` that beat what is stored.

        Returns:
            The ``flags``, each (b,) bool or all int64, on the CPU, (F, b): fetched together with what improved, because waiting
            for the device once per iteration is all that an attack should do.
        """
        known = torch.stack([self.improved(verdict, rows), *flags]).cpu()
        better = known[0].bool()
        rows = rows[better]
        if len(rows):
            self.images[rows] = x.detach()[better]
            self.loss[rows] = verdict.loss.detach()[better]
            self.success[rows] = verdict.success[better]
        return known[1:]

    def settle(self, s: Active, objective: Restricted, x: Tensor, verdict: Verdict, done: Tensor, now: bool,
               *flags: Tensor) -> Tensor | None:
        """Keep the candidates ``x`` (b, C, H, W) of active images that beat what is stored, and let images go that are done.

        Args:
            s: the images that are left.
            objective: what the core was given.
            verdict: on ``x``.
            done: (b,) bool on the device.
            now: look which those are; always so where ``objective.sync_every`` is 1.
            flags: see :meth:`Active.leave`.

        Returns:
            The flags of the images that stay, (F, b) on the CPU; None where nobody looked.
        """
        if objective.sync_every == 1:
            known = self.take(x, verdict, s.rows, done, *flags)
            stay = known[0] == 0
            s.keep(stay)
            return known[1:, stay]
        better = self.improved(verdict, s.rows) & ~s.idle
        store(self.images, s.rows, x.detach(), better)
        store(self.loss, s.rows, verdict.loss.detach(), better)
        store(self.success, s.rows, verdict.success, better)
        return s.leave(objective, done, now, *flags)


def cascade(attacks: Sequence[Attack], objective: Restricted, rng: ImageRNG,
            survivors_only: bool = True) -> tuple[Tensor, Tensor]:
    """Run attacks one after the other and keep each image's best result; asking about it costs one forward per attack.

    A result beyond the budget of its attack is cut down to it first. An attack that is there more than once gets, from the second
    time on, only the images that it made worse for the victim the last time.

    Args:
        survivors_only: later attacks get only the images the earlier ones did not break.

    Returns:
        The best images (B, C, H, W), and which attack was the first to break each: (B,) int64 on the CPU, -1 for survivors.
    """
    best, rows = Best(objective), torch.arange(len(objective.images))
    stage = torch.full_like(rows, -1)
    pays = torch.ones(len(attacks), len(rows), dtype=torch.bool)
    for number, attack in enumerate(attacks):
        same = attacks.index(attack)
        asked = rows[pays[same, rows]]
        if not len(asked):
            continue
        part = Restricted(objective, asked)
        with objective.reserved():
            x = attack.within(part, attack.run(part, rng.restricted(asked)))
        with torch.no_grad():
            verdict = objective(x, asked)
        worse = verdict.success | (verdict.loss > best.loss[asked])
        success, pays[same, asked] = best.take(x, verdict, asked, verdict.success, worse)
        stage[asked[success & (stage[asked] < 0)]] = number
        if survivors_only:
            rows = rows[stage[rows] < 0]
    objective.credit(torch.arange(len(stage)), stage)
    return best.images, stage


def _warn(what: str, which: Tensor, keys: Sequence) -> None:
    rows = which.nonzero()[:, 0].tolist()
    if rows:
        names = ', '.join(str(keys[b]) for b in rows[:5]) + (', ...' if len(rows) > 5 else '')
        warnings.warn(f'{len(rows)} of {len(keys)} images: {what} ({names})', RuntimeWarning,
                      stacklevel=3)


def _now(images: Tensor) -> float:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter()
