"""Fewer levels of brightness."""
from dataclasses import dataclass

from ..checks import check_int
from ..registry import DEFENCES
from .base import Defence, straight

__all__ = ['BitDepth']


@DEFENCES.register_module()
@dataclass(frozen=True)
class BitDepth(Defence):
    """Rounds channel values to the nearest of ``2 ** bits`` levels; gradients pass straight through.

    Args:
        bits: 1 to 7; images have 8.
        space: as for every :class:`Defence`.
    """
    bits: int = 4

    def __post_init__(self):
        super().__post_init__()
        check_int(self, 'bits', 1, 7)

    def apply(self, x, generators):
        steps = 2 ** self.bits - 1
        return straight(x, (x.detach() * steps).round() / steps)
