"""Success against the budget, from the smallest success known for each image."""
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .statistics import percentiles

__all__ = ['band_of', 'draw_curves', 'draw_validations', 'success_at']


def success_at(budgets: Sequence[int] | np.ndarray, sizes: Sequence[int],
               success: Sequence[bool]) -> np.ndarray:
    """Share of images that are broken within each budget.

    An image broken with n changes is broken with every budget of at least n, so the results of one minimum attack, or of a
    search over the budget, give the whole curve.

    Args:
        budgets: pixels, elements or groups.
        sizes: l0 of each image's result, in the same unit.
        success: whether that result is a success; one entry for every image of the denominator.

    Returns:
        (len(budgets),) float in [0, 1]; NaN without images.
    """
    broken = np.sort(np.asarray(sizes)[np.asarray(success, dtype=bool)])
    return np.searchsorted(broken, budgets, side='right') / (len(success) or np.nan)


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
