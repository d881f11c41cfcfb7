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
        self._promise(s, gradient(verdict.loss, z))
        s.value = verdict.loss.detach()
        s.keep(~objective.failed[s.rows].cpu())

        # single pixels: what is promised most, then around the best, a round at a time
        left = self.steps - 1 if k == 1 else (self.steps - 1) // 2
        sets, count = self.steps - 1 - left, max(left // 4, 1)
        while len(s) and left:
            count = min(count, left)
            hope, s.picks = self._hope(s).flatten(1).topk(min(count, s.gain[0].numel()))
            s.valid = (hope > -torch.inf).cpu()
            for number in range(s.picks.shape[1]):
                if not len(s):
                    break
                self._look_at_one(objective, best, s, number)
            left, count = left - count, ROUND

        if k > 1 and len(s):
            self._look_at_sets(objective, best, s, k, sets)
        return best.images

    def _start(self, objective: Restricted) -> Active:
        x = objective.images
        channels = torch.arange(x.shape[1], device=x.device)
        codes = torch.arange(2 ** x.shape[1], device=x.device)
        colours = (codes[:, None] >> channels & 1).to(x.dtype)
        # all corners of the cube, (b, K, C); what each pixel brought in each, minus infinity where that is not known
        return Active(x=x, region=objective.region, colours=colours.repeat(len(x), 1, 1),
                      gain=x.new_full((len(x), len(codes), *x.shape[2:]), -torch.inf))

    def _promise(self, s: Active, grad: Tensor) -> None:
        """What the gradient promises, (b, K, H, W)."""
        s.promise = torch.zeros_like(s.gain)
        for channel in range(s.x.shape[1]):
            step = s.colours[:, :, channel, None, None] - s.x[:, None, channel]
            s.promise.addcmul_(step, grad[:, None, channel])

    def _hope(self, s: Active) -> Tensor:
        """What is tried next, (b, K, H, W): what is near the best comes first, then what is promised most; minus infinity where
        there is nothing to try."""
        inside = s.promise.masked_fill(~s.region, 0).double()  # or small differences would drown
        hope = inside / _largest_size(inside)

        # other colours of the best, and neighbours in the same colour
        few = min(LEADERS, s.gain[0].numel())
        bar = s.gain.flatten(1).topk(few).values[:, -1, None, None, None]
        leading = s.gain.masked_fill(s.gain < bar, -torch.inf).double()
        near = torch.maximum(F.max_pool2d(leading, 3, 1, 1), leading.amax(1, keepdim=True))
        scale = _largest_size(leading.masked_fill(leading == -torch.inf, 0))
        hope = torch.where(near > -torch.inf, 3 + near / scale + 1e-3 * hope, hope)
        return hope.masked_fill_((s.gain > -torch.inf) | ~s.region, -torch.inf)

    def _estimate(self, s: Active) -> Tensor:
        """Gains (b, K, H, W): what was not tried comes after all that was, in the order of the promises."""
        known = s.gain > -torch.inf
        tried = s.gain.masked_fill(~known, 0)
        inside = s.promise.masked_fill(~s.region, 0)
        unknown = (inside / _largest_size(inside) - 3) * _largest_size(tried)
        return torch.where(known, s.gain, unknown).masked_fill_(~s.region, -torch.inf)

    def _look_at_one(self, objective: Restricted, best: Best, s: Active, number: int) -> None:
        """Try the ``number``-th of ``s.picks`` and note its gain."""
        pick, places = s.picks[:, number, None], s.x[0, 0].numel()
        self._look(objective, best, s, pick % places, pick // places, number)
        gain, pick = s.gain.flatten(1), s.picks[:, number, None]
        known = torch.maximum(gain.gather(1, pick), s.brought[:, None])
        s.gain = gain.scatter(1, pick, known).view_as(s.gain)

    def _look_at_sets(self, objective: Restricted, best: Best, s: Active, k: int, most: int) -> None:
        """Try sets of ``k`` pixels in the order of the sums of their gains."""
        gains, colours = (part.flatten(1) for part in self._estimate(s).max(1))
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
    """(b, 1, 1, 1), the largest absolute value of each image, not quite 0."""
    return a.abs().flatten(1).amax(1).clamp(min=1e-30)[:, None, None, None]
