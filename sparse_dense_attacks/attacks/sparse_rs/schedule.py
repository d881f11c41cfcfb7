"""How much a query of Sparse-RS changes: the published tables, for 10000 queries."""
from bisect import bisect_left
from collections.abc import Callable
from math import ceil

__all__ = ['L0_STEPS', 'PATCH_STEPS', 'first_single', 'frame_side', 'patch_side', 'rescaled',
           'schedule']

# limits, and what alpha is divided by up to each and beyond the last
L0_STEPS = ((0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000),
            (1, 2, 4, 5, 6, 8, 10, 12, 15, 20))
PATCH_STEPS = ((10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000),
               (1, 2, 4, 8, 16, 32, 64, 128, 256, 512))


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


def first_single(side: Callable[[int], int], steps: int) -> int:
    """The first step at which single pixels change, ``steps`` if none does."""
    return next((step for step in range(steps) if side(rescaled(step, steps)) == 1), steps)
