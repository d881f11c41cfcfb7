"""Measures of attacked images by name: what :mod:`~sparse_dense_attacks.evaluation` asks of a model.

    measures = ['anc', 'is', dict(type='cam', layer='backbone.layer4')]
"""
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import shown
from ..errors import InputError
from ..evaluation import interpretability, sparsity
from ..evaluation.interpretability import PERCENTILES, SHARES
from ..objectives import Targeted, TargetedPixels
from ..objectives.roles import own_score, two_scores
from ..ops import changed_pixels, gradient, to_8bit
from ..registry import nearest
from ..victims.layers import layer_and_gradient

if TYPE_CHECKING:
    from .attacker import Task

__all__ = ['FROM_OUTPUTS', 'MEASURES', 'Case', 'Measures']

Number = float | int | None
FROM_OUTPUTS = 'detections'  # made of the stock model's predictions before and after


@dataclass(frozen=True)
class Case:
    """One attacked image, as measures are given it.

    Attributes:
        task: the batch opened for attack.
        kind: the victim's task.
        row: the image's place in the batch.
        picture: (C, h, w), what was stored, in [0, 1], without padding.
        success: the attack has succeeded.
    """
    task: 'Task'
    kind: str
    row: int
    picture: Tensor
    success: bool

    @cached_property
    def clean(self) -> Tensor:
        """(C, H, W), padded as in the batch."""
        return to_8bit(self.task.objective.images[self.row])

    @cached_property
    def adversarial(self) -> Tensor:
        """(C, H, W), padded as in the batch."""
        (h, w), (height, width) = self.picture.shape[1:], self.clean.shape[1:]
        return F.pad(self.picture.to(self.clean), (0, width - w, 0, height - h))

    @property
    def _size(self) -> tuple[slice, slice, slice]:
        h, w = self.picture.shape[1:]
        return slice(None), slice(h), slice(w)

    @cached_property
    def change(self) -> Tensor:
        """(C, h, w), w, without padding."""
        return (self.adversarial - self.clean)[self._size]

    @cached_property
    def changed(self) -> Tensor:
        """(h, w) bool."""
        return changed_pixels(self.adversarial[None], self.clean[None])[0][self._size[1:]]

    @cached_property
    def content(self) -> Tensor:
        """(h, w) bool, without letterbox."""
        return self.task.places.region[self.row, 0][self._size[1:]]

    @property
    def objects(self) -> Tensor:
        """(h, w) bool, pixels of what is right."""
        return self.task.places.objects()[self.row, 0][self._size[1:]]

    def rows(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), self.row)

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of candidates (n, C, H, W) the scores of what is right and of what was reached."""
        return self._scores(self.task.shown(x, self.rows(x)))

    @cached_property
    def _scores(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        x = self.adversarial[None]
        shown_ = self.task.shown(x, self.rows(x))[0]
        return two_scores(self.kind, self.task.scene, self.row, shown_)

    def succeeds(self, x: Tensor) -> Tensor:
        """(n,) bool, which candidates are a success."""
        return self.task.objective(x, self.rows(x)).success

    def slope(self) -> Tensor:
        """(C, H, W), gradient of the attack's loss at the adversarial image."""
        x = self.adversarial[None].clone().requires_grad_()
        return gradient(self.task.objective(x, self.rows(x)).loss, x)[0]


def acp(case: Case) -> dict[str, Number]:
    return dict(acp=int(sparsity.pixels(case.clean[None], case.adversarial[None])))


def anc(case: Case) -> dict[str, Number]:
    return dict(anc=int(sparsity.clusters(case.changed[None])))


def d20(case: Case) -> dict[str, Number]:
    return dict(d20=int(sparsity.windows(case.changed[None])))


def inside(case: Case) -> dict[str, Number]:
    found: dict[str, Number] = {}
    for name, where in (('inside', case.objects), ('outside', ~case.objects)):
        pixels, norm = sparsity.preference(case.change[None], where[None, None],
                                           case.content[None, None])
        found |= {f'{name}_pixels': float(pixels), f'{name}_l1': float(norm)}
    return found


def is_(case: Case) -> dict[str, Number]:
    names = [f'is_{percentile}' for percentile in PERCENTILES]
    if not case.success or not case.changed.any():
        return dict.fromkeys(names)
    saliency = interpretability.adversarial_saliency(case.scores, case.clean)[case._size]
    values = interpretability.interpretability_score(case.change, saliency)
    return dict(zip(names, values.tolist(), strict=True))


def cam(case: Case, layer: str = 'backbone') -> dict[str, Number]:
    names = [f'cam_{round(100 * share)}' for share in SHARES]
    score = own_score(case.kind, case.task.scene, case.row)
    x = case.task.shown(case.clean[None], case.rows(case.clean[None])).clone().requires_grad_()
    features, slope, size = layer_and_gradient(case.task.scene.model, layer, lambda: score(x))
    if not slope.isfinite().all():  # there is nothing right about the image
        return dict.fromkeys(names)
    values = interpretability.grad_cam(features, slope, size)
    values = case.task.onto_grid(values, case.row)[case._size[1:]]
    shares = interpretability.cam_overlap(case.changed, values, case.content)
    return dict(zip(names, shares.tolist(), strict=True))


def roles(case: Case) -> dict[str, Number]:
    found = interpretability.roles(case.scores, case.clean, case.adversarial)
    a, b = found.obscured, found.led
    share = found.obscuring.double().mean() if (a + b).isfinite().all() else a.new_tensor(torch.nan)
    return dict(obscuring=float(share), leading=float(1 - share), obscured_sum=float(a.sum()),
                led_sum=float(b.sum()))


def necessity(case: Case) -> dict[str, Number]:
    if not case.success or not case.changed.any() or not case.succeeds(case.adversarial[None]).item():
        return dict(necessary=None, pruned=None)
    needed = interpretability.necessary(case.succeeds, case.clean, case.adversarial)
    left = interpretability.pruned(case.succeeds, case.slope(), case.clean, case.adversarial)
    restored = int(case.changed.sum()) - int(sparsity.pixels(case.clean[None], left[None]))
    return dict(necessary=float(needed.double().mean()), pruned=restored)


# What each is, and by what names its numbers go into a record.
MEASURES: dict[str, tuple[Callable[..., dict[str, Number]], tuple[str, ...]]] = {
    'acp': (acp, ('acp',)),
    'anc': (anc, ('anc',)),
    'd20': (d20, ('d20',)),
    'inside': (inside, ('inside_pixels', 'inside_l1', 'outside_pixels', 'outside_l1')),
    'is': (is_, tuple(f'is_{percentile}' for percentile in PERCENTILES)),
    'cam': (cam, tuple(f'cam_{round(100 * share)}' for share in SHARES)),
    'roles': (roles, ('obscuring', 'leading', 'obscured_sum', 'led_sum')),
    'necessity': (necessity, ('necessary', 'pruned')),
}


class Measures:
    """Measures to take of every attacked image.

    Args:
        wanted: names, or dicts with ``type`` and options.

    Raises:
        InputError: an unknown name or option.
    """

    def __init__(self, wanted: Sequence[str | Mapping[str, Any]] = ()):
        if not isinstance(wanted, list | tuple):
            raise InputError(f"measures = {shown(wanted)}, expected a list such as ['anc', 'is']")
        self.of_outputs = False
        self.chosen: list[tuple[str, Callable[[Case], dict[str, Number]]]] = []
        for entry in wanted:
            options = dict(entry) if isinstance(entry, Mapping) else dict(type=entry)
            name = options.pop('type', None)
            if name == FROM_OUTPUTS and not options:
                self.of_outputs = True
                continue
            if not isinstance(name, str) or name not in MEASURES:
                known = [*MEASURES, FROM_OUTPUTS]
                raise InputError(f'measures: no measure {shown(name)}: {nearest(str(name), known)}')
            self.chosen.append((name, _with_options(name, options)))

    def __bool__(self) -> bool:
        return bool(self.chosen) or self.of_outputs

    @property
    def names(self) -> set[str]:
        """By what names the numbers go into a record, but for those of outputs."""
        return {name for kind, _ in self.chosen for name in MEASURES[kind][1]}

    def note(self, goal) -> str | None:
        """What has to be said of a measure for a goal that it was not made for."""
        aimed = isinstance(goal, Targeted | TargetedPixels)
        asked = {kind for kind, _ in self.chosen} & {'is', 'roles'}
        if aimed or not asked:
            return None
        return (f"{', '.join(sorted(asked))}: {type(goal).__name__} names no target class, so what "
                'each attack has reached stands for it')

    def of_batch(self, task: 'Task', kind: str, pictures: Sequence[Tensor],
                 success: Sequence[bool]) -> list[dict[str, Number]]:
        """The measures of every image of a batch; call within the victim's session.

        Args:
            task: the batch opened for attack.
            kind: the victim's task.
            pictures: what was stored of each image, (C, h, w) in [0, 255].
            success: whether the attack on each has succeeded.

        Raises:
            InputError: a measure that the task, the goal or the model does not have.
        """
        found = []
        for row, (picture, broken) in enumerate(zip(pictures, success, strict=True)):
            case = Case(task, kind, row, picture.float().round() / 255, bool(broken))
            values: dict[str, Number] = {}
            for _, measure in self.chosen:
                values |= measure(case)
            found.append({name: _known(value) for name, value in values.items()})
        return found


def _with_options(name: str, options: Mapping[str, Any]) -> Callable[[Case], dict[str, Number]]:
    measure = MEASURES[name][0]
    valid = list(inspect.signature(measure).parameters)[1:]
    for option, value in options.items():
        if option not in valid:
            raise InputError(f"measure '{name}' has no option '{option}': {nearest(option, valid)}")
        if not isinstance(value, str):
            raise InputError(f"measure '{name}': {option} = {shown(value)}, expected the name of a "
                             'layer')
    return partial(measure, **options)


def _known(value: Number) -> Number:
    return value if value is not None and math.isfinite(value) else None
