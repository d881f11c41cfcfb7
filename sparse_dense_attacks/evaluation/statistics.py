"""Intervals: what a number would be on other images of the same kind."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ..errors import InputError

__all__ = ['Interval', 'bootstrap', 'difference_interval', 'mean_interval']

Statistic = Callable[[np.ndarray], np.ndarray]  # counts (R, N) of images -> values (R,)
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value and where it lies with 95 % confidence.

    Attributes:
        value: on the images at hand.
        low, high: ends of the interval; NaN where fewer than two images cannot give one.
        images: how many there are.
    """
    value: float
    low: float
    high: float
    images: int

    def __str__(self) -> str:
        return f'{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]'


def bootstrap(statistic: Statistic, images: int, resamples: int = 2000,
              seed: int = 0) -> Interval:
    """The 95 % interval of anything that is computed from a set of images.

    Percentiles of the statistic on sets of as many images, drawn with replacement. The percentiles
    lie a little further out than 2.5 and 97.5 %, so that the interval of a mean is as wide as
    Student's instead of too narrow for few images (the expanded percentiles of arXiv 1411.5279).
    Where all images agree, say that none is broken, the interval has no width: a bootstrap cannot
    know of what it never saw.

    Args:
        statistic: takes how often each image occurs, (R, N) int, and says one value for each of the
            R sets. Statistics of the same ``images`` and ``seed`` see the same sets.
        images: N.
        resamples: how many sets.
        seed: decides them.

    Returns:
        The value over every image once, and its interval. A set on which the statistic is NaN (of
        no image with an object, say) is left out.

    Raises:
        InputError: no image, or no resample.

    Example:
        >>> values = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
        >>> print(bootstrap(lambda counts: counts @ values / len(values), len(values)))
        0.625 [0.250, 1.000]
    """
    for name, number in (('images', images), ('resamples', resamples)):
        if number < 1:
            raise InputError(f'{name} = {number}, expected at least 1')
    value = float(statistic(np.ones((1, images), dtype=np.int64))[0])
    if images < 2:
        return Interval(value, np.nan, np.nan, images)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    found = np.asarray(statistic(counts), float)
    found = found[~np.isnan(found)]
    if not len(found):
        return Interval(value, np.nan, np.nan, images)
    low, high = np.quantile(found, percentiles(images))
    return Interval(value, float(low), float(high), images)


def mean_interval(values: Sequence[float] | np.ndarray, resamples: int = 2000,
                  seed: int = 0) -> Interval:
    """The mean of one value for each image, and its interval."""
    known = np.asarray(values, float)
    return bootstrap(lambda counts: counts @ known / len(known), len(known), resamples, seed)


def difference_interval(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray,
                        resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of ``first - second``, image by image, and its interval.

    Raises:
        InputError: they are not about the same images.
    """
    if len(first) != len(second):
        raise InputError(f'a paired difference needs the same images, found {len(first)} and '
                         f'{len(second)}')
    return mean_interval(np.subtract(first, second, dtype=float), resamples, seed)


def percentiles(images: int) -> tuple[float, float]:
    """Which percentiles of the resamples are the ends of an interval, see :func:`bootstrap`."""
    tail = (1 - LEVEL) / 2
    widened = np.sqrt(images / (images - 1)) * special.stdtrit(images - 1, tail)
    low = float(special.ndtr(widened))
    return low, 1 - low
