"""Sparse-RS (Croce, Andriushchenko, Singh, Flammarion & Hein, arXiv 2006.12834): random search without gradients."""
from bisect import bisect_left
from dataclasses import dataclass
from math import ceil, isqrt

import torch
from torch import Tensor

from ..errors import InputError
from ..groups import Kernel, Pixel
from ..registry import ATTACKS, KERNELS, nearest
from ..types import Verdict
from .base import BudgetAttack

__all__ = ['SparseRS']

ALPHA = dict(l0=0.3, patches=0.4, frames=0.5)
L0_STEPS = (0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000), (1, 2, 4, 5, 6, 8, 10, 12, 15, 20)
PATCH_STEPS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000), (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LOCATION_PERIOD = 4


@ATTACKS.register_module()
@dataclass(frozen=True)
class SparseRS(BudgetAttack):
    """Random search over sparse perturbations whose colours are corners of the colour cube; needs losses only.

    Every query changes a part of the best candidate so far and is kept if it breaks the image or makes the objective worse for
    the victim. The part shrinks as queries go by; schedules are those of 10000 queries, rescaled to ``steps``.

    Args:
        k: for ``'l0'`` pixels that may change, or groups with a ``kernel``; for ``'patches'`` pixels of one square, whose side is
            the whole part of its root (and, of a share, at most the image's shorter side); for ``'frames'`` the width of the
            border in pixels (int).
        steps: queries; costs steps + 1 forwards and no backward.
        early_stop: stop at an image's first success (as published).
        variant: ``'l0'``, ``'patches'`` (one square, its place is searched too) or ``'frames'`` (a border).
        alpha_init: how much the first queries change; 0.3 for ``'l0'``, 0.4 for ``'patches'``, 0.5 for ``'frames'`` unless given.
        loss: what is searched with, ``'margin'``, or ``'ce'``: the objective's own loss.
        kernel: what ``'l0'`` moves: single pixels by default, or rows, patches and so on, each of one colour when it is placed
            (where groups overlap, channels are joined). With such groups every other query paints a random square across the
            chosen groups instead.

    Differences from the published code: every image has its own draws; a failed image comes back with its best candidate (clean
    only if none was worse for the victim) rather than clean; images need not be square; a patch can reach the last row and
    column; its side is rounded down, so that its pixels stay within k; what falls outside the region stays as it was; where the
    published code redraws a colour until it differs, one channel is flipped.

    Reference: arXiv 2006.12834; the partner for groups follows the idea in arXiv 2405.05075.
    """
    k: int | float = 150
    steps: int = 10000
    variant: str = 'l0'
    alpha_init: float | None = None
    loss: str = 'margin'
    kernel: Kernel | dict | str = Pixel()

    def __post_init__(self):
        super().__post_init__()
        for name, valid in (('variant', ALPHA), ('loss', ('margin', 'ce'))):
            if getattr(self, name) not in valid:
                raise InputError(f"SparseRS: unknown {name} '{getattr(self, name)}': {nearest(getattr(self, name), valid)}")
        if self.alpha_init is not None and not self.alpha_init > 0:
            raise InputError(f'SparseRS: alpha_init = {self.alpha_init}, expected more than 0')
        object.__setattr__(self, 'kernel', KERNELS.build(self.kernel))
        if self.variant != 'l0' and self.kernel != Pixel():
            raise InputError(f"SparseRS: variant '{self.variant}' takes no kernel; use variant='l0'")
        if self.variant == 'frames' and not isinstance(self.k, int):
            raise InputError(f'SparseRS: k = {self.k}, expected the width of the frame in pixels (int)')

    @property
    def alpha(self) -> float:
        return ALPHA[self.variant] if self.alpha_init is None else self.alpha_init

    def run(self, objective, rng) -> Tensor:
        x, rows = objective.images, torch.arange(len(objective.images))
        search = dict(l0=_Groups, patches=_Patch, frames=_Frame)[self.variant](self, objective, rng)
        z, ell = x.clone(), torch.full((len(x),), torch.inf, device=x.device)
        success = torch.zeros_like(ell, dtype=torch.bool)
        for step in range(self.steps):
            candidate, change = search.propose(step, rows)
            with torch.no_grad():
                verdict = objective(candidate, rows)
            value = self._value(verdict)
            value = torch.where(verdict.loss.isfinite(), value, torch.inf)  # a spent budget or a failure is no improvement
            better = (verdict.success & ~success[rows]) | ((verdict.success == success[rows]) & (value < ell[rows]))
            done = objective.failed[rows] | (verdict.success & self.early_stop)
            better, done = torch.stack([better, done]).cpu()  # the iteration's only synchronisation
            kept = rows[better]
            z[kept], ell[kept], success[kept] = candidate[better], value[better], verdict.success[better]
            search.keep(kept, tuple(part[better] for part in change))
            rows = rows[~done]
            if not len(rows):
                break
        useless = (success == objective.clean.success) & ~(ell <= self._value(objective.clean))
        return torch.where(useless[:, None, None, None], x, z)

    def _value(self, verdict: Verdict) -> Tensor:
        """What is made small, compared between candidates that both succeed or both fail: margins may be flat at success."""
        return -verdict.loss if self.loss == 'ce' else torch.where(verdict.success, -verdict.loss, verdict.margin)


class _Groups:
    """Pixels or other groups: ``order`` (B, G) lists them all, the k chosen ones first, then the other usable ones."""

    def __init__(self, attack, objective, rng):
        self.attack, self.x, self.rng, self.kernel = attack, objective.images, rng, attack.kernel
        usable = self.kernel.usable(objective.region)
        self.grid, self.room = usable.shape[2:], usable.flatten(1).sum(1)
        self.k = attack.budget(objective)[0]
        self.counts = self.k.cpu()
        random = rng.on_grid(self.kernel.grid).uniform(1).masked_fill_(~usable, -1).flatten(1)
        self.order = random.argsort(dim=1, descending=True, stable=True)
        self.paint, self.region = rng.uniform(self.x.shape[1]).round_(), objective.region
        self.slot = torch.arange(int(self.k.max()), device=self.x.device)  # chosen ones are order[:, slot], those below k

    def propose(self, step, rows):
        order, paint, k = self.order[rows], self.paint[rows], self.k[rows]
        if step % 2 == 0 and step and self.kernel != Pixel():
            mask = self._mask(order, k, rows)
            share = self.attack.alpha / schedule(PATCH_STEPS, rescaled(step, self.attack.steps))
            side = (share * mask.flatten(1).sum(1)).sqrt().long().clamp(min=1)
            paint = paint_square(paint, mask, side, False, self.rng, rows)
        elif step:
            order, paint = self._move(order, paint, k, step, rows)
        return torch.where(self._mask(order, k, rows), paint, self.x[rows]), (order, paint)

    def keep(self, rows, change):
        self.order[rows], self.paint[rows] = change

    def _move(self, order, paint, k, step, rows):
        """Swap e random chosen groups for e random others and colour those; where too few are left, recolour chosen ones."""
        c = paint.shape[1]
        share, chosen = self.attack.alpha / schedule(L0_STEPS, rescaled(step, self.attack.steps)), self.counts[rows]
        e = (share * chosen).long().minimum(chosen).clamp(min=1)
        counts, e = e.tolist(), e.to(k.device)
        draws = self.rng.numbers([1 + count * (1 + c) for count in counts], rows)
        turn, draws = draws[:, :1], draws[:, 1:].unflatten(1, (-1, 1 + c))
        slot = self.slot[:draws.shape[1]]
        used = slot < e[:, None]

        scores = self.rng.numbers(chosen.tolist(), rows)
        scores.masked_fill_(self.slot[:scores.shape[1]] >= k[:, None], -1)
        old = scores.topk(len(slot), dim=1).indices
        # Distinct places among the others: sorted draws, each shifted by its rank, all rotated; the others' order is random.
        spare = (self.room[rows] - k)[:, None]
        free = (spare - e[:, None]).clamp(min=0)
        ranks = draws[..., 0].masked_fill(~used, 1).sort(1).values.mul_(free + 1).long().minimum(free) + slot
        new = torch.where(ranks < spare, k[:, None] + (ranks + (turn * spare).long()) % spare.clamp(min=1), old)
        old, new = (torch.where(used, t, t[:, :1]) for t in (old, new))  # beyond e the first one again
        colour = torch.where(used[:, None], draws[..., 1:].mT, draws[:, :1, 1:].mT)
        entering, leaving = order.gather(1, new), order.gather(1, old)

        seen = torch.where(self._mask(order, k, rows), paint, self.x[rows])
        region = self.region[rows].to(seen.dtype)  # of a row it may hold a part
        current = self.kernel.correlate(seen * region) / self.kernel.correlate(region).clamp(min=1e-12)
        current = current.flatten(2).gather(2, entering[:, None].expand(-1, c, -1))
        colour = torch.where(e[:, None, None] == 1, another(current, colour), colour.round())

        groups = paint.new_zeros(len(rows), c + 1, order.shape[1])  # the colours, and where there are any
        groups.scatter_(2, entering[:, None].expand(-1, c + 1, -1), torch.cat([colour, torch.ones_like(colour[:, :1])], 1))
        groups = self.kernel.expand(groups.unflatten(2, self.grid), self.x.shape[2:])
        order = order.scatter(1, new, leaving).scatter(1, old, entering)
        return order, torch.where(groups[:, c:] > 0, groups[:, :c], paint)

    def _mask(self, order, k, rows):
        """(b, 1, H, W) bool, pixels of the chosen groups."""
        v = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :len(self.slot)], self.slot < k[:, None])
        return (self.kernel.expand(v.view(-1, 1, *self.grid), self.x.shape[2:]) > 0) & self.region[rows]


class _Patch:
    """One square per image: its colours ``patch`` (B, C, S, S), of which ``size`` (B,) rows and columns count, at ``place``."""

    def __init__(self, attack, objective, rng):
        self.attack, self.x, self.region, self.rng = attack, objective.images, objective.region, rng
        sizes = list(map(isqrt, attack.budget(objective)[0].tolist()))
        if not isinstance(attack.k, int):
            sizes = [min(size, *extent) for size, extent in zip(sizes, rng.sizes, strict=True)]
        for size, (h, w), key in zip(sizes, rng.sizes, objective.keys, strict=True):
            if size > min(h, w):
                raise InputError(f'SparseRS: a square of {size} x {size} pixels does not fit into image {key}, {h} x {w}')
        first = {s: first_single(lambda it, s=s: patch_side(it, attack.alpha, s), attack.steps) for s in set(sizes)}
        to = dict(device=self.x.device, dtype=torch.int64)
        self.sizes, self.size = sizes, torch.tensor(sizes, **to)
        self.refine = torch.tensor([(first[s] + attack.steps) // 2 for s in sizes], **to)
        self.extent = torch.tensor(rng.sizes, **to).view(-1, 2)
        everyone, c = torch.arange(len(self.x)), self.x.shape[1]
        self.place = (rng.numbers([2] * len(self.x), everyone) * (self.extent - self.size[:, None] + 1)).long()

        # 1000 squares of one colour each, on black
        self.patch = self.x.new_zeros(len(self.x), c, max(sizes, default=0), max(sizes, default=0))
        draws = rng.numbers([1000 * (3 + c)] * len(self.x), everyone).view(len(self.x), -1, 3 + c)
        largest = self.size.sqrt().ceil().sub(1).clamp(min=1)
        for u in draws.unbind(1):
            side = 1 + (u[:, 0] * largest).long()
            corner = (u[:, 1:3] * (self.size - side + 1)[:, None]).long()
            self.patch = torch.where(square(corner, side, self.patch), u[:, 3:, None, None].round(), self.patch)

    def propose(self, step, rows):
        size, extent, patch, place = self.size[rows], self.extent[rows], self.patch[rows], self.place[rows]
        if step:
            u = self.rng.numbers([4 + patch.shape[1]] * len(rows), rows)
            reach = (0.75 * (1 - step / self.attack.steps) * extent).long()
            moved = (place - reach + (u[:, :2] * (2 * reach + 1)).long()).clamp(min=0).minimum(extent - size[:, None])
            moves = ((reach.amax(1) > 0) & (step % LOCATION_PERIOD == 0))[:, None]
            it = rescaled(step, self.attack.steps)
            side = torch.tensor([patch_side(it, self.attack.alpha, self.sizes[r]) for r in rows], device=size.device)
            corner = (u[:, 2:4] * (size - side + 1)[:, None]).long()
            index = corner[:, :1] * patch.shape[3] + corner[:, 1:]
            old = patch.flatten(2).gather(2, index[:, None].expand(-1, patch.shape[1], 1))
            late, colour = (step > self.refine[rows])[:, None, None], u[:, 4:, None]
            single = torch.where(late, flipped(old, colour), another(old, colour))
            shifted = (patch + 2 * colour.round()[..., None] - 1).clamp_(0, 1)
            painted = torch.where((side > 1)[:, None, None, None], shifted, single[..., None])
            here = square(corner, side, patch) & ~moves[..., None, None]
            patch, place = torch.where(here, painted, patch), torch.where(moves, moved, place)
        (h, w), x, last = self.x.shape[2:], self.x[rows], max(patch.shape[3] - 1, 0)
        i, j = (torch.arange(n, device=x.device) - place[:, axis, None] for axis, n in ((0, h), (1, w)))
        b = torch.arange(len(rows), device=x.device)[:, None, None]
        pixels = patch[b, :, i.clamp(0, last)[:, :, None], j.clamp(0, last)[:, None]]  # (b, H, W, C)
        return torch.where(square(place, size, x) & self.region[rows], pixels.movedim(3, 1), x), (patch, place)

    def keep(self, rows, change):
        self.patch[rows], self.place[rows] = change


class _Frame:
    """A border per image, coloured by ``paint`` (B, C, H, W)."""

    def __init__(self, attack, objective, rng):
        self.attack, self.x, self.rng = attack, objective.images, rng
        for key, size in zip(objective.keys, rng.sizes, strict=True):
            if attack.k > (min(size) + 1) // 2:
                raise InputError(f'k = {attack.k}: so wide a frame does not fit into image {key} of {size[0]} x {size[1]} pixels')
        inner = torch.tensor(rng.sizes, device=self.x.device).view(-1, 2) - 2 * attack.k
        corner = torch.full_like(inner, attack.k)
        self.mask = objective.region & ~rectangle(corner, inner, self.x)
        self.paint = rng.uniform(self.x.shape[1]).round_()
        first = first_single(lambda it: frame_side(it, attack.alpha, attack.k), attack.steps)
        self.refine = (first + attack.steps) // 2

    def propose(self, step, rows):
        paint, mask = self.paint[rows], self.mask[rows]
        if step:
            side = frame_side(rescaled(step, self.attack.steps), self.attack.alpha, self.attack.k)
            side = torch.full((len(rows),), side, device=paint.device)
            paint = paint_square(paint, mask, side, step > self.refine, self.rng, rows)
        return torch.where(mask, paint, self.x[rows]), (paint,)

    def keep(self, rows, change):
        self.paint[rows] = change[0]


def rescaled(step: int, steps: int) -> int:
    """The iteration of 10000 that corresponds to a step."""
    return int(step / steps * 10000)


def schedule(table: tuple, it: int) -> int:
    """What alpha is divided by at iteration ``it`` of 10000: the divisor of the first limit that is not below ``it``."""
    limits, divisors = table
    return divisors[bisect_left(limits, it)]


def patch_side(it: int, alpha: float, size: int) -> int:
    """Side of the square that changes in a patch of ``size`` x ``size`` at iteration ``it`` of 10000."""
    return min(int(max((alpha / schedule(PATCH_STEPS, it)) ** 0.5 * size, 1)), size)


def frame_side(it: int, alpha: float, width: int) -> int:
    """Side of the square that changes on a frame at iteration ``it`` of 10000."""
    return max(3 * ceil(max(((10000 - it) / 10000 - 0.5) * alpha * width ** 2, 0)), 1)


def first_single(side, steps: int) -> int:
    """The first step at which single pixels change, ``steps`` if none does."""
    return next((step for step in range(steps) if side(rescaled(step, steps)) == 1), steps)


def flipped(colour: Tensor, u: Tensor) -> Tensor:
    """Colours (b, C, n) in {0, 1} with one channel inverted, the one in which ``u`` (b, C, n) is largest."""
    return (colour - torch.zeros_like(colour).scatter_(1, u.argmax(1, keepdim=True), 1)).abs()


def another(old: Tensor, u: Tensor) -> Tensor:
    """Random corners of the colour cube from uniform ``u`` (b, C, n), none equal to the ``old`` colours."""
    new = u.round()
    return torch.where((new == old).all(1, keepdim=True), flipped(new, u), new)


def rectangle(corner: Tensor, size: Tensor, x: Tensor) -> Tensor:
    """(b, 1, H, W) bool, rectangles in images like ``x``: top left corners (b, 2), heights and widths (b, 2)."""
    inside = [(index >= corner[:, axis, None]) & (index < (corner + size)[:, axis, None]) for axis, index in
              enumerate(torch.arange(n, device=x.device) for n in x.shape[2:])]
    return (inside[0][:, :, None] & inside[1][:, None])[:, None]


def square(corner: Tensor, side: Tensor, x: Tensor) -> Tensor:
    return rectangle(corner, side[:, None], x)


def paint_square(paint: Tensor, mask: Tensor, side: Tensor, flip: bool, rng, rows: Tensor) -> Tensor:
    """Paint a square of one colour, one of its corners a random pixel of the mask.

    A single pixel (``side`` (b,) 1) gets a colour it did not have; with ``flip`` one that differs in a single channel.
    """
    c, w = paint.shape[1], paint.shape[3]
    u = rng.numbers([3 + c] * len(rows), rows)
    count = mask.flatten(1).cumsum(1)
    index = torch.searchsorted(count, (u[:, :1] * count[:, -1:]).long() + 1).clamp_(max=count.shape[1] - 1)
    old = paint.flatten(2).gather(2, index[:, None].expand(-1, c, 1))
    single = flipped(old, u[:, 3:, None]) if flip else another(old, u[:, 3:, None])
    colour = torch.where((side > 1)[:, None, None], u[:, 3:, None].round(), single)
    corner = torch.cat([index // w, index % w], 1) - (u[:, 1:3] > 0.5) * (side - 1)[:, None]
    return torch.where(square(corner, side, paint), colour[..., None], paint)
