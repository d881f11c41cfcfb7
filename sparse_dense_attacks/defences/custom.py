"""A user's own transform."""
import pydoc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..checks import check_choice, check_flag, check_int, check_mapping, shown
from ..errors import InputError
from ..registry import DEFENCES
from .base import Defence, straight

__all__ = ['Custom']


@DEFENCES.register_module()
@dataclass(frozen=True)
class Custom(Defence):
    """Any ``function(x, **options)`` from images (B, C, H, W), RGB in [0, 1], to images of that shape.

    Args:
        function: the transform, or where it can be imported from (``'my_package.blur'``).
        options: its keyword arguments.
        gradient: 'exact' follows the function's own gradient, 'straight' takes the identity's.
        random: it draws from torch's global generator. It is then called for one image at a time,
            with the generator seeded from ``seed``, the image and the look, and put back.
        draws, seed: as for :class:`RandomResizePad`, where it is random.
        space: as for every :class:`Defence`.

    Raises:
        InputError: the function cannot be imported, or gives back something else than images.
    """
    function: Callable | str = ''
    options: Mapping = field(default_factory=dict)
    gradient: str = 'exact'
    random: bool = False
    draws: int = 1
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        function: Any = self.function
        if isinstance(function, str):
            try:
                function = pydoc.locate(function)
            except pydoc.ErrorDuringImport as error:
                raise InputError(f"Custom: importing '{self.function}' failed: "
                                 f'{error.value}') from error
        if not callable(function):
            raise InputError(f'Custom: function = {shown(self.function)}: no function that can be '
                             'imported')
        object.__setattr__(self, 'function', function)
        check_mapping(self, 'options')
        check_choice(self, 'gradient', ('exact', 'straight'))
        check_flag(self, 'random')
        check_int(self, 'draws')
        check_int(self, 'seed', low=None)
        if self.draws > 1 and not self.random:
            raise InputError(f'Custom: draws = {self.draws}, but random = False: a defence that '
                             'does not draw is the same each time')

    def apply(self, x, generators):
        if self.gradient == 'straight':
            return straight(x, self._called(x.detach(), generators))
        return self._called(x, generators)

    def _called(self, x: Tensor, generators) -> Tensor:
        if not self.random:
            return self._checked(x)
        found = []
        for image, generator in zip(x.split(1), generators, strict=True):
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                torch.manual_seed(generator.initial_seed())
                found.append(self._checked(image))
        return torch.cat(found)

    def _checked(self, x: Tensor) -> Tensor:
        function: Any = self.function
        seen = function(x, **self.options)
        if not isinstance(seen, Tensor) or seen.shape != x.shape:
            what = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
            raise InputError(f'Custom: function gave back {what}, expected images of shape '
                             f'{tuple(x.shape)}')
        return seen
