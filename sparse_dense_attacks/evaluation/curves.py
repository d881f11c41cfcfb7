"""Success against the budget, from the smallest success known for each image."""
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..results import Record, Run
from .statistics import Interval, mean_interval, percentiles

__all__ = ['UNITS', 'accuracy_at', 'band_of', 'draw_curves', 'draw_validations', 'local_optimality',
           'metric_at', 'success_at', 'success_band', 'worst_case']

# What a budget can count, and where a record says how much of it was spent.
UNITS = dict(pixels='l0_pixels', elements='l0_elements', groups='groups', forwards='forwards',
             seconds='seconds')


def success_at(budgets: Sequence[float] | np.ndarray, sizes: Sequence[float],
               success: Sequence[bool]) -> np.ndarray:
    """Share of images that are broken within each budget.

    An image broken with n changes is broken with every budget of at least n, so the results of one minimum attack, or of a
    search over the budget, give the whole curve.

    Args:
        budgets: in pixels, elements, groups, forwards or seconds.
        sizes: l0 of each image's result, in the same unit.
        success: whether that result is a success; one entry for every image of the denominator.

    Returns:
        (len(budgets),) float in [0, 1]; NaN without images.
    """
    broken = np.sort(np.asarray(sizes)[np.asarray(success, dtype=bool)])
    return np.searchsorted(broken, budgets, side='right') / (len(success) or np.nan)


def success_band(budgets: Sequence[float] | np.ndarray, sizes: Sequence[float],
                 success: Sequence[bool], resamples: int = 2000,
                 seed: int = 0) -> list[Interval]:
    """:func:`success_at` with its 95 % interval over images, for each budget."""
    size, broken = np.asarray(sizes, float), np.asarray(success, dtype=bool)
    return [mean_interval(broken & (size <= budget), resamples, seed) for budget in budgets]


def accuracy_at(budgets: Sequence[float] | np.ndarray, records: Sequence[Record],
                unit: str = 'pixels') -> np.ndarray:
    """Share of all images that the victim gets right within each budget of the attacker.

    Args:
        budgets: in the unit.
        records: of one run, or of :func:`worst_case`.
        unit: one of :data:`UNITS`.

    Returns:
        (len(budgets),) float in [0, 1]; at 0 it is the accuracy on clean images.
    """
    judged = [one for one in records if one.success is not None]
    right = [one for one in judged if one.clean_correct]
    if not right:
        return np.full(len(budgets), 0.0 if judged else np.nan)
    broken = success_at(budgets, [_spent(one, unit) for one in right],
                        [bool(one.success) for one in right])
    return len(right) / len(judged) * (1 - broken)


def metric_at(runs: Sequence[Run], metric: str, unit: str = 'pixels') -> list[tuple[float, float]]:
    """A metric of the data set, such as a mAP or a mIoU, against what several runs have spent.

    Args:
        runs: finished ones, of the same model and images with budgets of their own.
        metric: its name without 'clean/' and 'adv/'.
        unit: one of :data:`UNITS`.

    Returns:
        Points (spent, value), the clean one at 0 first; spent is the mean over the images that the
        victim got right.

    Raises:
        InputError: a run that does not have the metric, or another value of it on clean images.
    """
    points: list[tuple[float, float]] = []
    for run in runs:
        names = [f'{side}/{metric}' for side in ('clean', 'adv')]
        if not all(isinstance(run.metrics.get(name), float) for name in names):
            raise InputError(f"{run.work_dir} has no metric '{metric}' before and after, or is not "
                             'finished')
        clean, attacked = (run.metrics[name] for name in names)
        if not points:
            points.append((0.0, clean))
        if clean != points[0][1]:
            raise InputError(f'{run.work_dir} says {metric} {clean} of the clean images, '
                             f'{runs[0].work_dir} {points[0][1]}: they are of other models or images')
        right = [_spent(one, unit) for one in run.records if one.clean_correct]
        points.append((float(np.mean(right)) if right else 0.0, attacked))
    return sorted(points)


def worst_case(runs: Mapping[str, Sequence[Record]], unit: str = 'pixels') -> list[Record]:
    """What the best of several attacks does to each image.

    Of the attacks that break an image the one that spends least; of an image that none breaks the
    record of the first. Only images that all runs have attacked.

    Args:
        runs: the records of each attack, by its name.
        unit: what least means, one of :data:`UNITS`.

    Returns:
        A record for each image, in the order of the first run.

    Raises:
        InputError: no run, no image in common, or runs that do not agree on whether the model had a
            clean image right: they attacked other models or other goals.
    """
    known = [{one.key: one for one in records if not one.skipped} for records in runs.values()]
    if not known:
        raise InputError('a worst case needs at least one run')
    keys = [key for key in known[0] if all(key in one for one in known)]
    if not keys:
        raise InputError(f"the runs {', '.join(runs)} have no image in common")
    found = []
    for key in keys:
        records = [one[key] for one in known]
        if len({(one.clean_correct, one.success is None) for one in records}) > 1:
            raise InputError(f"the runs {', '.join(runs)} do not agree on whether the model had the "
                             f"clean image '{key}' right: they are of different models or goals")
        broken = [one for one in records if one.success]
        found.append(min(broken, key=lambda one: _spent(one, unit)) if broken else records[0])
    return found


def local_optimality(runs: Mapping[str, Sequence[Record]],
                     unit: str = 'pixels') -> dict[str, float]:
    """AttackBench's local optimality: how much of what all attacks reach together each reaches alone.

    The area between clean and robust accuracy, up to the budget that the union of the runs needs for
    all it breaks: 1 where an attack needs no more on any image than the best one, 0 where it breaks
    none. Budgets are whole numbers from 0 on, of which each counts alike, so that the area is above 0
    where all successes are of one size.

    Args:
        runs, unit: as for :func:`worst_case`; a unit that is counted.

    Returns:
        By the attack's name in [0, 1]; NaN where no attack breaks any image.

    Reference: arXiv 2404.19460.
    """
    best = [one for one in worst_case(runs, unit) if one.success and one.clean_correct]
    least = {one.key: _spent(one, unit) for one in best}
    most = max(least.values(), default=0)
    union = sum(most - size + 1 for size in least.values())
    found = {}
    for name, records in runs.items():
        sizes = [_spent(one, unit) for one in records if one.key in least and one.success]
        area = sum(max(most - size + 1, 0) for size in sizes)
        found[name] = area / union if union else float('nan')
    return found


def _spent(record: Record, unit: str) -> float:
    """How much of a unit an attack spent on an image; without structure a group is a pixel."""
    if unit not in UNITS:
        raise InputError(f"unit = '{unit}', expected one of {', '.join(UNITS)}")
    if unit == 'groups' and record.groups is None:
        return record.l0_pixels
    return getattr(record, UNITS[unit])


def band_of(sizes: Sequence[int], success: Sequence[bool], resamples: int = 400,
            seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 95 % interval of :func:`success_at`, at every budget where it rises; by a bootstrap.

    Args:
        sizes, success: as in :func:`success_at`, of two images at least.
        resamples: how many sets of images.
        seed: decides them.

    Returns:
        (K,) budgets in rising order, and (K,) float each: the low and the high end from there on.
    """
    images = len(sizes)
    needed = np.where(np.asarray(success, dtype=bool), sizes, np.inf)
    order = np.argsort(needed, kind='stable')
    counts = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), resamples)
    shares = counts[:, order].cumsum(1) / images
    ends = np.quantile(shares, percentiles(images), axis=0)
    budgets, last = np.unique(needed[order][::-1], return_index=True)
    known = np.isfinite(budgets)
    low, high = ends[:, images - 1 - last[known]]
    return budgets[known], low, high


def draw_curves(results: Mapping[str, tuple[Sequence[int], Sequence[bool]]], path: str | Path,
                unit: str = 'pixels', title: str = '') -> None:
    """A chart of success against the budget.

    Args:
        results: for every attack its ``sizes`` and ``success`` as in :func:`success_at`.
        path: where the picture goes; its ending is the format.
        unit: what ``sizes`` count.
        title: heading.
    """
    from matplotlib.figure import Figure  # not pyplot, which would choose a window system

    figure = Figure(figsize=(9, 5.5), layout='constrained')
    axes = figure.subplots()
    largest = max((max(sizes, default=1) for sizes, _ in results.values()), default=1)
    budgets = np.arange(1, largest + 1)
    styles = [dict(color=f'C{index}', linestyle=dashes) for dashes in ('-', '--', ':', '-.')
              for index in range(10)]
    for (name, result), style in zip(results.items(), styles, strict=False):
        line, = axes.step(budgets, success_at(budgets, *result), where='post', label=name)
        line.set(**style)
    axes.set(xscale='log', xlabel=f'budget in {unit}', ylabel='images broken', title=title,
             ylim=(-0.02, 1.02), xlim=(0.95, largest * 1.05))
    axes.yaxis.set_major_formatter('{x:.0%}')
    axes.xaxis.set_major_formatter('{x:g}')
    axes.grid(alpha=0.3)
    axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=130)


def draw_validations(history: Sequence[Mapping[str, float]], path: str | Path) -> None:
    """A chart of how clean and robust metrics change in the course of a training run.

    Args:
        history: for every validation its ``iter`` (training iterations until then), ``clean/<name>`` and ``adv/<name>``.
        path: where the picture goes; its ending is the format.
    """
    from matplotlib.figure import Figure

    # COCO's metric of an object size that does not occur is -1
    names = dict.fromkeys(name.removeprefix('adv/')
                          for one in history for name, value in one.items()
                          if name.startswith('adv/') and value >= 0)
    columns, rows = min(len(names), 3) or 1, -(-len(names) // 3) or 1
    figure = Figure(figsize=(4.5 * columns, 3.6 * rows), layout='constrained')
    for index, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, index)
        for prefix, label in (('clean', 'clean'), ('adv', 'under attack')):
            key = f'{prefix}/{name}'
            points = [(one['iter'], one[key]) for one in history if one.get(key, -1) >= 0]
            axes.plot(*zip(*points, strict=True), marker='o', label=label)
        axes.margins(y=0.1)
        axes.set(title=name, xlabel='training iterations', ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)
