"""Trying the corners of the colour cube where one gradient points: our attack for one to four pixels."""
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_int
from ..errors import InputError
from ..objectives.base import Restricted
from ..ops import gradient
from ..registry import ATTACKS
from ..types import Verdict
from .active import Active
from .base import Best, BudgetAttack
from .rng import ImageRNG

__all__ = ['ScreenedCorners']

ROUND = 16  # single pixels tried between two looks at where the best ones are
LEADERS = 3  # the best ones, whose surroundings are tried next
CHOSEN = 4  # pixels of a set that are searched; the others are the best single ones


@ATTACKS.register_module()
@dataclass(frozen=True)
class ScreenedCorners(BudgetAttack):
    """One gradient, then forwards only: pixels painted in corners of the colour cube, one by one, then in sets.

    This attack is **ours**. A single pixel is tried in a single colour; its *gain* is how much worse that is for the victim.

    1. The gradient promises every pixel a gain for every corner of the colour cube. A quarter of the forwards for single
       pixels goes to what it promises most.
    2. The others go to the surroundings of the best that were found, 16 at a time: their other colours, and their eight
       neighbours in the same colour. Gains are smooth over the image; where nothing is left there, the promise counts again.
    3. With k > 1 half of the forwards try sets of k pixels, each in its best colour, in the order of the sums of their gains:
       all sets of up to four pixels among the best ``pool``, together with the k - 4 best where k is larger.

    Args:
        k: budget in pixels (count, share, or one count per image).
        steps: forwards per image; one of them has a backward.
        early_stop: return the first success.
        pool: pixels that sets are made of.

    Deterministic. With ``early_stop`` it ascends the negative margin of the objective, otherwise the loss. The idea to score
    single pixels in corners of the cube first is that of CornerSearch (arXiv 1909.05040), which needs all of them.
    """
    k: int | float = 1
    steps: int = 300
    pool: int = 16

    def __post_init__(self):
        super().__post_init__()
        check_int(self, 'pool')

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        found, k = objective.images.clone(), self.budget(objective)[0].cpu()
        if objective.images.shape[1] > 4:
            raise InputError(f'ScreenedCorners: images of {objective.images.shape[1]} channels, '
                             'expected at most 4, whose 16 corners can all be tried')
        for count in k.unique().tolist():  # images with the same budget go together
            rows = (k == count).nonzero()[:, 0]
            found[rows] = self._search(Restricted(objective, rows), count)
        return found

    def _search(self, objective: Restricted, k: int) -> Tensor:
        best, s = Best(objective), self._start(objective)
        best.loss = self._ascended(objective.clean).loss.clone()

        # the gradient at the clean image
        z = s.x.clone().requires_grad_()
        verdict = self._ascended(objective(z, s.rows))
        s.grad, s.value = gradient(verdict.loss, z), verdict.loss.detach()
        s.keep(~objective.failed[s.rows].cpu())
        largest = [_largest_size(self._promised(s, code)) for code in range(s.colours.shape[1])]
        s.scale = torch.stack(largest).amax(0)

        # single pixels: what is promised most, then around the best, a round at a time
        single = self.steps - 1 if k == 1 else (self.steps - 1) // 2
        s.tried = torch.full((len(s), max(single, 1)), -1, device=s.x.device)
        s.gains = s.x.new_full(s.tried.shape, -torch.inf)
        done, count = 0, max(single // 4, 1)
        while len(s) and done < single:
            hope, s.picks = self._hope(s, min(count, single - done))
            s.valid = (hope > -torch.inf).cpu()
            for number in range(s.picks.shape[1]):
                if not len(s):
                    break
                self._look_at_one(objective, best, s, number, done + number)
            done, count = done + s.picks.shape[1], ROUND
            if len(s) and not s.valid.any():  # everything was tried
                break

        if k > 1 and len(s):
            self._look_at_sets(objective, best, s, k, self.steps - 1 - single)
        return best.images

    def _start(self, objective: Restricted) -> Active:
        x = objective.images
        channels = torch.arange(x.shape[1], device=x.device)
        codes = torch.arange(2 ** x.shape[1], device=x.device)
        colours = (codes[:, None] >> channels & 1).to(x.dtype)
        # all corners of the cube, (b, K, C)
        return Active(x=x, region=objective.region, colours=colours.repeat(len(x), 1, 1))

    def _promised(self, s: Active, code: int) -> Tensor:
        """What the gradient promises every pixel in one colour, (b, H W); 0 where nothing may change."""
        step = s.colours[:, code, :, None, None] - s.x
        return step.mul_(s.grad).mul_(s.region).sum(1).flatten(1)

    def _hope(self, s: Active, count: int) -> tuple[Tensor, Tensor]:
        """The ``count`` tries that come next, ``colour * H * W + pixel`` (b, n), after how much is hoped for of each, (b, n).

        What is near the best comes first, then what is promised most; minus infinity where there is nothing to try. Colour by
        colour, so that nothing is held of all of them at once.
        """
        places, size = s.x[0, 0].numel(), s.x.shape[2:]
        leaders = s.gains.topk(min(LEADERS, s.gains.shape[1]))
        gain, led = leaders.values.double(), s.tried.gather(1, leaders.indices)
        unit = _largest_size(gain.masked_fill(gain == -torch.inf, 0))
        nowhere = gain.new_full((len(s), places), -torch.inf)
        there = nowhere.scatter_reduce(1, led % places, gain, 'amax')
        hopes, picks = [], []
        for code in range(s.colours.shape[1]):
            # in double, or small differences would drown
            hope = self._promised(s, code).double() / s.scale

            # other colours of the best, and neighbours in the same colour
            same = gain.masked_fill(led // places != code, -torch.inf)
            leading = nowhere.scatter_reduce(1, led % places, same, 'amax').unflatten(1, size)
            near = torch.maximum(F.max_pool2d(leading, 3, 1, 1).flatten(1), there)
            hope = torch.where(near > -torch.inf, 3 + near / unit + 1e-3 * hope, hope)

            known = self._known(s, code) > -torch.inf
            hope.masked_fill_(known | ~s.region.flatten(1), -torch.inf)
            hope, pick = hope.topk(min(count, places))
            hopes.append(hope)
            picks.append(pick + code * places)
        hope, best = torch.cat(hopes, 1).topk(min(count, len(hopes) * places))
        return hope, torch.cat(picks, 1).gather(1, best)

    def _known(self, s: Active, code: int) -> Tensor:
        """The gains of one colour, (b, H W), minus infinity where it was not tried."""
        places = s.x[0, 0].numel()
        here = s.tried // places == code
        known = s.gains.new_full((len(s), places), -torch.inf)
        return known.scatter_reduce_(1, s.tried.where(here, 0) % places,
                                     s.gains.masked_fill(~here, -torch.inf), 'amax')

    def _estimate(self, s: Active) -> tuple[Tensor, Tensor]:
        """The largest gain of every pixel and the colour of it, (b, H W) each.

        What was not tried comes after all that was, in the order of the promises.
        """
        unit = _largest_size(s.gains.masked_fill(s.gains == -torch.inf, 0))
        best = s.gains.new_full((len(s), s.x[0, 0].numel()), -torch.inf)
        colour = torch.zeros_like(best, dtype=torch.int64)
        for code in range(s.colours.shape[1]):
            known = self._known(s, code)
            unknown = (self._promised(s, code) / s.scale - 3) * unit
            gain = torch.where(known > -torch.inf, known, unknown)
            better = (gain > best) & s.region.flatten(1)
            best, colour = best.where(~better, gain), colour.masked_fill(better, code)
        return best, colour

    def _look_at_one(self, objective: Restricted, best: Best, s: Active, number: int,
                     column: int) -> None:
        """Try the ``number``-th of ``s.picks`` and note its gain in a column of ``s.gains``."""
        pick, places = s.picks[:, number, None], s.x[0, 0].numel()
        self._look(objective, best, s, pick % places, pick // places, number)
        s.tried[:, column], s.gains[:, column] = s.picks[:, number], s.brought

    def _look_at_sets(self, objective: Restricted, best: Best, s: Active, k: int, most: int) -> None:
        """Try sets of ``k`` pixels in the order of the sums of their gains."""
        gains, colours = self._estimate(s)
        always = max(k - CHOSEN, 0)
        pool = min(self.pool + always, gains.shape[1])
        gains, s.pixels = gains.topk(pool)
        s.colour = colours.gather(1, s.pixels)

        # positions in the pool
        first = torch.arange(always, device=s.x.device)
        others = torch.arange(always, pool, device=s.x.device)
        sets = torch.combinations(others, min(k - always, len(others)))

        hope, s.order = gains[:, sets].sum(2).topk(min(most, len(sets)))
        s.valid = (hope > -torch.inf).cpu()
        for number in range(s.order.shape[1]):
            if not len(s):
                break
            chosen = torch.cat([first.expand(len(s), -1), sets[s.order[:, number]]], 1)
            pixels, colour = (part.gather(1, chosen) for part in (s.pixels, s.colour))
            self._look(objective, best, s, pixels, colour, number)

    def _look(self, objective: Restricted, best: Best, s: Active, pixels: Tensor, colour: Tensor,
              number: int) -> None:
        """Paint ``pixels`` (b, j) in ``colour`` (b, j), keep the best and drop what is done.

        ``s.brought`` (b,) is what that brought, minus infinity where ``s.valid`` says that there is nothing to try.
        """
        s.brought = torch.full_like(s.value, -torch.inf)
        here = s.valid[:, number].nonzero()[:, 0]
        if not len(here):
            return
        channels = s.x.shape[1]
        values = s.colours.gather(1, colour[:, :, None].expand(-1, -1, channels)).transpose(1, 2)
        z = s.x.flatten(2).scatter(2, pixels[:, None].expand(-1, channels, -1), values)
        z = z.view_as(s.x)[here]
        with torch.no_grad():
            verdict = self._ascended(objective(z, s.rows[here]))
        s.brought[here] = verdict.loss - s.value[here]
        done = objective.failed[s.rows[here]] | (verdict.success & self.early_stop)
        [done] = best.take(z, verdict, s.rows[here], done)
        stay = torch.ones(len(s), dtype=torch.bool)
        stay[here[done]] = False
        s.keep(stay)

    def _ascended(self, verdict: Verdict) -> Verdict:
        """The verdict with what is ascended as its loss; a spent budget stays at minus infinity."""
        if not self.early_stop:
            return verdict
        loss = torch.where(verdict.loss.isfinite(), -verdict.margin, -torch.inf)
        return replace(verdict, loss=loss)


def _largest_size(a: Tensor) -> Tensor:
    """(b, 1), the largest absolute value of each image, not quite 0."""
    return a.abs().amax(1, keepdim=True).clamp(min=1e-30)
