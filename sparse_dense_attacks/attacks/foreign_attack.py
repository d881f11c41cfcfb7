"""Attacks of other libraries behind our contract."""
import pydoc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_flag, check_mapping, shown
from ..errors import InputError
from ..objectives.base import Restricted
from ..registry import ATTACKS
from .base import Attack
from .rng import ImageRNG

__all__ = ['ForeignAttack']


@ATTACKS.register_module()
@dataclass(frozen=True)
class ForeignAttack(Attack):
    """Any ``function(model, inputs, labels, **options) -> adversarial inputs``, as adversarial-library has them.

    The function gets a module that answers with logits, (B, C, H, W) inputs in [0, 1] and (B,) labels, all 0, that it has to
    lead away from. On classifiers with an untargeted goal the logits are the victim's own, the true class first; on every other
    goal there are two, the objective's margin and 0, so that attacks on classifiers also work on detectors and segmenters.
    Changes outside the region are undone before the model sees them. What comes back is judged and counted like our own results.

    Args:
        function: the attack, or where it can be imported from (``'adv_lib.attacks.vfga'``).
        options: its keyword arguments.
        batched: call it once for all images: fast, but the function must show the model all images, in order, every time.
            By default it is called for one image at a time, and may show as many candidates as it likes.

    Attacks that are objects take a lambda: ``lambda model, x, y: torchattacks.PGDL2(model)(x, y)``, or with foolbox
    ``lambda model, x, y: L0FMNAttack()(PyTorchModel(model, (0, 1)), x, y, epsilons=None)[1]``.

    Torch's global generators are seeded from the images' own, and put back; numpy's are not. With ``batched`` such draws depend
    on the batch.

    Raises:
        InputError: the function cannot be imported, gives back something else than images, or calls the model with a part of
            the images although ``batched``.
    """
    function: Callable | str
    options: Mapping = field(default_factory=dict)
    batched: bool = False

    def __post_init__(self):
        function: Any = self.function
        if isinstance(function, str):
            try:
                function = pydoc.locate(function)
            except pydoc.ErrorDuringImport as error:
                raise InputError(f"ForeignAttack: importing '{self.function}' failed: "
                                 f'{error.value}') from error
        if not callable(function):
            raise InputError(f'ForeignAttack: function = {shown(self.function)}: no function that '
                             'can be imported')
        object.__setattr__(self, 'function', function)
        check_mapping(self, 'options')
        check_flag(self, 'batched')

    def run(self, objective: Restricted, rng: ImageRNG) -> Tensor:
        every = torch.arange(len(objective.images))
        parts = [every] if self.batched else every.split(1)
        return torch.cat([self._attacked(objective, rng, rows) for rows in parts])

    def _attacked(self, objective: Restricted, rng: ImageRNG, rows: Tensor) -> Tensor:
        """What the function makes of the images ``rows``, (b, C, H, W)."""
        images = objective.images
        # alone, an image comes without its padding
        height, width = images.shape[2:] if self.batched else rng.sizes[rows[0]]
        model, inputs = _Logits(objective, rows, height, width), images[rows, :, :height, :width]
        labels = torch.zeros_like(rows, device=images.device)

        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            torch.manual_seed(int(rng.numbers([1] * len(rows), rows)[0, 0] * 2 ** 24))
            function: Any = self.function
            z = function(model, inputs.clone(), labels, **self.options)
        if not isinstance(z, Tensor) or z.shape != inputs.shape:
            what = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise InputError(f'{_name(function)} gave back {what}, '
                             f'expected images of shape {tuple(inputs.shape)}')
        return model.whole(z.detach(), rows)


class _Logits(nn.Module):
    """An objective as a classifier of which class 0 has to be left."""

    def __init__(self, objective: Restricted, rows: Tensor, height: int, width: int):
        super().__init__()
        self.objective, self.rows = objective, rows
        self.height, self.width = height, width
        # some attacks ask the parameters where the model lives
        self.device = nn.Parameter(objective.images.new_zeros(0))
        self.eval()

    def whole(self, x: Tensor, rows: Tensor) -> Tensor:
        """The candidates of ``rows`` as whole images, unchanged outside the region."""
        image = self.objective.images[rows]
        padding = (0, image.shape[3] - self.width, 0, image.shape[2] - self.height)
        return torch.where(self.objective.region[rows], F.pad(x, padding), image)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.rows) not in (1, len(x)):
            raise InputError(f'the attack showed the model {len(x)} of {len(self.rows)} images; '
                             'use batched=False')
        rows = self.rows.expand(len(x))
        verdict = self.objective(self.whole(x, rows), rows)
        if verdict.logits is not None:
            return verdict.logits
        # below the other logit at success, even if the margin is just 0
        first = verdict.margin - verdict.success.to(x.dtype)
        return torch.stack([first, torch.zeros_like(first)], 1)


def _name(function: Callable) -> str:
    return getattr(function, '__name__', type(function).__name__)
