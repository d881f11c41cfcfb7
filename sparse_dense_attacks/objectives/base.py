"""The contract between attacks and tasks, and the wrappers every run puts around an objective."""
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError
from ..ops import changed_pixels, to_8bit
from ..types import Surroundings, Verdict

__all__ = ['AnyObjective', 'EightBit', 'MeteredObjective', 'Objective', 'Restricted', 'Surrounded']

_SCALE = 1024.0  # lifts gradients above the least that a half precision float can hold


class Objective(Protocol):
    """What an attack is given: images, where they may change, and a judge. No task, no model.

    Attributes:
        images: (B, C, H, W) float in [0, 1]; smaller images are padded right and bottom.
        region: (B, 1, H, W) bool, pixels that may change; False at padding.
        keys: one sample id per image; with the seed it decides every random draw for the image.
        clean: the verdict on ``images``.
        eligible: (B,) bool, the victim was right about the clean image (denominator of the success
            rate).
        defined: (B,) bool, False where success has no meaning for the image.
        parts: (B,) int64, how many parts of the image (objects, pixels of a label map) the goal is
            about; None for goals without parts, the default.
        passes: how many forwards a look at a candidate is.
        surroundings: what attacks that put pictures into the images have to know of these; None
            where nobody asked, the default.
    """
    images: Tensor
    region: Tensor
    keys: Sequence
    clean: Verdict
    eligible: Tensor
    defined: Tensor
    parts: Tensor | None = None
    passes: int = 1
    surroundings: Surroundings | None = None

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        """Judge candidates ``x`` (b, C, H, W) of the images ``rows``.

        Args:
            rows: (b,) int64 on the CPU, known to attacks without a synchronisation.
        """
        ...

    def share(self, x: Tensor, rows: Tensor) -> Tensor:
        """(b,) float64, share of the parts of candidates ``x`` that are as the goal wants them.

        NaN for images without parts, as all are by default. Costs at most one forward.
        """
        return x.new_full((len(x),), torch.nan, dtype=torch.float64)


class Surrounded(Objective):
    """An objective that also tells what surrounds its images."""

    def __init__(self, objective: Objective, surroundings: Surroundings):
        self.objective, self.surroundings = objective, surroundings
        self.images, self.region, self.keys = objective.images, objective.region, objective.keys
        self.clean, self.parts = objective.clean, objective.parts
        self.eligible, self.defined = objective.eligible, objective.defined
        self.passes = objective.passes

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        return self.objective(x, rows)

    def share(self, x: Tensor, rows: Tensor) -> Tensor:
        return self.objective.share(x, rows)


class EightBit:
    """Rounds every candidate to the 8-bit grid before the victim sees it; the gradient passes straight through.

    What an attack calls success is then what a PNG file keeps.

    Attributes:
        rounded: (B,) bool, images that are not on the grid; these are looked at once more.
    """

    def __init__(self, objective: Objective):
        self.objective, self.passes = objective, objective.passes
        self.images = to_8bit(objective.images)
        self.region, self.keys = objective.region, objective.keys
        self.surroundings, self.defined = objective.surroundings, objective.defined
        self.rounded = changed_pixels(self.images, objective.images).flatten(1).any(1)
        # Right about the image that a file holds, or rounding alone would count as a success.
        self.eligible = objective.eligible & ~(self.rounded & self.clean.success)

    @cached_property
    def clean(self) -> Verdict:
        clean, rows = self.objective.clean, self.rounded.nonzero()[:, 0].cpu()
        if not len(rows):
            return clean
        with torch.no_grad():
            verdict = self.objective(self.images[rows], rows)
        return clean.replaced(rows, verdict)

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        return self.objective(to_8bit(x), rows)


class Restricted:
    """The images ``rows`` of a metered objective, renumbered from 0; what a core is given.

    Attributes:
        failed: (b,) bool, images that are of no more use.
        forwards: (b,) int64 on the CPU, spent so far.
        sync_every: see :class:`MeteredObjective`.
        others as in :class:`Objective`.
    """

    images: Tensor
    region: Tensor
    keys: Sequence
    clean: Verdict
    eligible: Tensor
    defined: Tensor
    surroundings: Surroundings | None

    def __init__(self, objective: 'MeteredObjective | Restricted', rows: Tensor):
        self.objective, self.rows = objective, rows
        self.images = objective.images[rows]
        self.region = objective.region[rows]
        self.keys = [objective.keys[r] for r in rows]
        self.eligible = objective.eligible[rows]
        self.defined = objective.defined[rows]
        self.clean = objective.clean[rows]
        told = objective.surroundings
        self.surroundings = None if told is None else told[rows]

    @property
    def failed(self) -> Tensor:
        return self.objective.failed[self.rows]

    @property
    def forwards(self) -> Tensor:
        return self.objective.forwards[self.rows]

    @property
    def sync_every(self) -> int:
        return self.objective.sync_every

    def rest(self, rows: Tensor, which: Tensor) -> None:
        """See :meth:`MeteredObjective.rest`."""
        self.objective.rest(self.rows[rows], which)

    def idled(self, rows: Tensor) -> Tensor:
        """See :meth:`MeteredObjective.idled`."""
        return self.objective.idled(self.rows[rows])

    def refund(self, rows: Tensor, passes: Tensor) -> None:
        """See :meth:`MeteredObjective.refund`."""
        self.objective.refund(self.rows[rows], passes)

    def reserved(self) -> AbstractContextManager[None]:
        """See :meth:`MeteredObjective.reserved`."""
        return self.objective.reserved()

    def credit(self, rows: Tensor, stage: Tensor) -> None:
        """See :meth:`MeteredObjective.credit`."""
        self.objective.credit(self.rows[rows], stage)

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        return self.objective(x, self.rows[rows])


class MeteredObjective:
    """Counts passes per image, enforces a hard budget of forwards, and notices losses and gradients that are of no use.

    An image whose budget is spent is not shown to the model any more: its verdicts are ``loss = -inf, margin = 1, success =
    False``, so no attack can profit from further calls. An image may occur several times among ``rows``.

    Args:
        objective: what is asked.
        max_forwards: the budget of each image; None for none.
        precision: what the model computes in where torch's autocast thinks that it may; None for what it always does. The verdict
            on the clean images is that of the model as it is.
        sync_every: a core need look only every so many iterations which of its images are done. Until then it asks on, about all;
            what is asked about an image that :meth:`rest` has been told of counts nowhere.

    Attributes:
        forwards, backwards: (B,) int64 on the CPU.
        stage: (B,) int64 on the CPU, see :class:`~sparse_dense_attacks.AttackResult`.
    """

    def __init__(self, objective: 'Objective | EightBit', max_forwards: int | None = None,
                 precision: torch.dtype | None = None, sync_every: int = 1):
        if max_forwards is not None and (not isinstance(max_forwards, int) or max_forwards < 1):
            raise InputError(f'max_forwards = {max_forwards}: expected at least 1 (int), the look '
                             'at the clean image')
        self.objective, self.max_forwards = objective, max_forwards
        self.precision, self.sync_every = precision, sync_every
        self.images, self.keys = objective.images, objective.keys
        self.region = objective.region
        self.eligible, self.defined = objective.eligible, objective.defined
        self.surroundings = objective.surroundings
        self.forwards = torch.zeros(len(self.images), dtype=torch.int64)
        self.backwards = torch.zeros_like(self.forwards)
        self.stage = torch.full_like(self.forwards, -1)
        self._reserve = 0
        self._broken, self._sloped = torch.zeros(2, len(self.images), dtype=torch.int64,
                                                 device=self.images.device)
        # which images are done, as the device knows, and the passes spent on them since
        self._idle = torch.zeros(len(self.images), dtype=torch.bool, device=self.images.device)
        self._idled = torch.zeros(2, len(self.images), dtype=torch.int64, device=self.images.device)

    @property
    def failed(self) -> Tensor:
        """(B,) bool, a loss or gradient of the image was not finite."""
        return self._broken > 0

    @property
    def flat(self) -> Tensor:
        """(B,) bool, gradients of the image were taken and all of them were zero everywhere."""
        return (self.backwards > 0).to(self._sloped.device) & (self._sloped == 0)

    @cached_property
    def clean(self) -> Verdict:
        """The verdict on the clean images; costs one forward the first time, two where they had to be rounded."""
        verdict = _as_type(self.objective.clean, self.images.dtype)
        self.forwards += self.objective.passes
        if isinstance(self.objective, EightBit):
            self.forwards += self.objective.rounded.cpu() * self.objective.passes
        self._broken += ~verdict.loss.isfinite()
        return verdict

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        if self.max_forwards is None:
            return self._query(x, rows)
        # candidates of the same image before this one
        earlier = (rows[:, None] == rows).tril(-1).sum(1)
        passes = self.objective.passes
        left = self.max_forwards - self._reserve * passes
        allowed = (self.forwards[rows] + (earlier + 1) * passes <= left).nonzero()[:, 0]
        # Zero times x keeps the graph connected, so that an attack may still ask for a gradient.
        nothing = x.flatten(1).sum(1) * 0
        spent = Verdict(loss=nothing - torch.inf, margin=nothing + 1,
                        success=torch.zeros_like(nothing, dtype=torch.bool),
                        logits=self._spent_logits(nothing))
        if not len(allowed):
            return spent
        return spent.replaced(allowed, self._query(x[allowed], rows[allowed]))

    def _spent_logits(self, nothing: Tensor) -> Tensor | None:
        """Logits (b, K) of images whose budget is spent: never those of another class."""
        if self.clean.logits is None:
            return None
        others = nothing[:, None].expand(-1, self.clean.logits.shape[1] - 1)
        return torch.cat([nothing[:, None] + 1, others], 1)

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Within this context one look per image is held back from the budget, to judge a result with afterwards."""
        self._reserve += 1
        try:
            yield
        finally:
            self._reserve -= 1

    def credit(self, rows: Tensor, stage: Tensor) -> None:
        """Note which member of a cascade has broken the images ``rows``, (b,) int64 on the CPU, -1 for none."""
        self.stage[rows] = stage

    def _query(self, x: Tensor, rows: Tensor) -> Verdict:
        passes = torch.full_like(rows, self.objective.passes)
        self.forwards.index_add_(0, rows, passes)
        if x.requires_grad:
            x = x.view_as(x)
            x.register_hook(lambda grad: self._count_backward(grad, rows))
        verdict = self._answer(x, rows)
        self._notice(self._broken, rows, ~verdict.loss.isfinite())
        self._waste(0, rows)
        return verdict

    def rest(self, rows: Tensor, which: Tensor) -> None:
        """Count nothing that is asked about those of the images ``rows`` that ``which`` marks, (b,) bool on the device."""
        self._idle[rows] = which

    def idled(self, rows: Tensor) -> Tensor:
        """(2, b) int64 on the device, forwards and backwards that were spent on the images ``rows`` while they rested."""
        return self._idled[:, rows]

    def refund(self, rows: Tensor, passes: Tensor) -> None:
        """Take these back, (2, b) int64 on the CPU; the images rest no more."""
        self.forwards[rows] -= passes[0]
        self.backwards[rows] -= passes[1]
        self._idle[rows] = False
        self._idled[:, rows] = 0

    def _waste(self, kind: int, rows: Tensor) -> None:
        if self.sync_every > 1:
            _count(self._idled[kind], rows, self._idle[rows] * self.objective.passes)

    def _notice(self, counter: Tensor, rows: Tensor, which: Tensor) -> None:
        if self.sync_every > 1:
            which = which & ~self._idle[rows]
        _count(counter, rows, which)

    def _answer(self, x: Tensor, rows: Tensor) -> Verdict:
        if self.precision is None:
            return _as_type(self.objective(x, rows), x.dtype)
        scale = _SCALE if self.precision == torch.float16 else 1.0
        with torch.autocast(x.device.type, self.precision):
            verdict = self.objective(_scaled(x, 1 / scale), rows)
        verdict = _as_type(verdict, x.dtype)
        return replace(verdict, **{name: _scaled(value, scale) for name, value in _numbers(verdict)})

    def fail(self, rows: Tensor, which: Tensor) -> None:
        """Give up those of the images ``rows`` that are marked in ``which``, (b,) bool."""
        _count(self._broken, rows, which)

    def _count_backward(self, grad: Tensor, rows: Tensor) -> None:
        self.backwards.index_add_(0, rows, torch.full_like(rows, self.objective.passes))
        self._waste(1, rows)
        # cheap on every device; NaN and inf survive it
        ends = torch.stack([grad.flatten(1).amax(1), grad.flatten(1).amin(1)])
        self._notice(self._broken, rows, ~ends.isfinite().all(0))
        self._notice(self._sloped, rows, (ends != 0).any(0))


def _as_type(verdict: Verdict, dtype: torch.dtype) -> Verdict:
    """The verdict in the type of the images, whatever the model computes in."""
    return replace(verdict, **{name: value.to(dtype) for name, value in _numbers(verdict)})


def _numbers(verdict: Verdict) -> Iterator[tuple[str, Tensor]]:
    """What of a verdict may have a gradient, by name."""
    for name in ('loss', 'margin', 'logits'):
        value = getattr(verdict, name)
        if value is not None:
            yield name, value


class _Scaled(torch.autograd.Function):
    """A tensor whose gradient is multiplied on its way back."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor, None


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else _Scaled.apply(x, factor)


def _count(counter: Tensor, rows: Tensor, which: Tensor) -> None:
    counter.index_put_((rows,), which.to(counter.dtype), accumulate=True)


AnyObjective = Objective | EightBit | MeteredObjective | Restricted  # with or without wrappers
