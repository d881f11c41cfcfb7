"""Measures of many images as one number each, with intervals."""
from collections.abc import Mapping, Sequence

import numpy as np

from ..results import Record
from .detections import FATES, KINDS, SIZES
from .statistics import Interval, bootstrap, mean_interval

__all__ = ['BEFORE_AND_AFTER', 'measure_intervals', 'pooled']

BEFORE_AND_AFTER = ('before_', 'after_')  # what a record puts before the counts of detections
Counts = Mapping[str, float | int | None]


def pooled(counts: Sequence[Counts]) -> dict[str, float]:
    """Shares of all objects and of all predictions of many images.

    Args:
        counts: of every image, see :meth:`~.detections.Answer.counts`.

    Returns:
        'found', 'found_small', 'missing', 'duplicate' and so on, in [0, 1]; NaN over none. And
        'hallucinated_per_image'.
    """
    total = {name: sum(one[name] or 0 for one in counts) for name in (counts[0] if counts else ())}
    shares = {}
    for part, whole in _SHARES.items():
        number = total.get(whole, 0)
        shares[part] = total[part] / number if number else float('nan')
    if counts:
        shares['hallucinated_per_image'] = total['hallucinated'] / len(counts)
    return shares


_SHARES = {f'{fate}{size}': f'objects{size}' for fate in FATES
           for size in ('', *(f'_{one}' for one in SIZES))}
_SHARES |= {'as_other_class' if kind == 'other_class' else kind: 'predictions' for kind in KINDS}


def measure_intervals(records: Sequence[Record]) -> dict[str, Interval]:
    """What the measures of records come to, each with its 95 % interval.

    The mean over the successes among the images that the victim got right, as all sizes of
    perturbations are reported. Counts of detections become shares of all objects and of all
    predictions, over all images that have them, broken or not.

    Args:
        records: of one run.
    """
    broken = [one.measures for one in records if one.success and one.clean_correct]
    found: dict[str, Interval] = {}
    for name in dict.fromkeys(name for one in broken for name in one):
        if name.startswith(BEFORE_AND_AFTER):
            continue
        values = [float(value) for one in broken if (value := one.get(name)) is not None]
        if values and not isinstance(broken[0].get(name), bool):
            found[name] = mean_interval(values)
    for when in BEFORE_AND_AFTER:
        judged = [{name.removeprefix(when): value for name, value in one.measures.items()
                   if name.startswith(when)} for one in records]
        judged = [one for one in judged if one]
        for part, whole in _SHARES.items() if judged else ():
            upper, lower = (np.array([one[name] for one in judged], float) for name in (part, whole))
            if lower.sum():
                found[f'{when}{part}'] = bootstrap(_ratio(upper, lower), len(judged))
    return found


def _ratio(upper: np.ndarray, lower: np.ndarray):
    def statistic(counts: np.ndarray) -> np.ndarray:
        whole = counts @ lower
        return np.where(whole > 0, counts @ upper / np.where(whole > 0, whole, 1), np.nan)

    return statistic
