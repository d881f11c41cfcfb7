"""Runs of one attack with other settings on the same images: table, figure and findings."""
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..results import Record
from .markdown import markdown_table
from .measures import measure_intervals
from .statistics import Interval, difference_interval, mean_interval

__all__ = ['COSTS', 'Cell', 'Finding', 'check_same_images', 'draw_cells', 'judge_claim', 'value_of',
           'write_cells']

# What a record says of every image, beside its measures.
COSTS = dict(pixels='l0_pixels', elements='l0_elements', groups='groups', forwards='forwards',
             seconds='seconds')
UNKNOWN = '-'
FEWEST = 5  # images that a claim is decided on


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: of the setting.
        records: of its images.
        metrics: of the data set, from ``metrics.json``.
    """
    name: str
    records: Sequence[Record]
    metrics: Mapping[str, object]

    @property
    def right(self) -> list[Record]:
        """The images that the victim got right, the denominator of success."""
        return [one for one in self.records if one.success is not None and one.clean_correct]

    @cached_property
    def numbers(self) -> dict[str, Interval]:
        """Success over the images that the victim got right, all else over the broken ones of them."""
        right = self.right
        found = {}
        if right:
            found['success'] = mean_interval([bool(one.success) for one in right])
        broken = [one for one in right if one.success]
        for name in COSTS:
            values = [value for one in broken if (value := value_of(one, name)) is not None]
            if values:
                found[name] = mean_interval(values)
        passes = [1000 * one.seconds / one.forwards for one in right if one.forwards]
        if passes:
            found['ms_per_forward'] = mean_interval(passes)
        return found | measure_intervals(self.records)

    def scores(self) -> dict[str, str]:
        """The victim's own metrics, clean and adversarial."""
        return {name.removeprefix('clean/'): f'{value:.3f} -> {after:.3f}'
                for name, value in self.metrics.items()
                if name.startswith('clean/') and isinstance(value, float) and value >= 0
                and isinstance(after := self.metrics.get(name.replace('clean/', 'adv/', 1)), float)}


def value_of(record: Record, name: str) -> float | None:
    """What a record says by the name of a cost, a measure or 'success'; None where it says nothing."""
    value = getattr(record, COSTS.get(name, name)) if name in {*COSTS, 'success'} else \
        record.measures.get(name)
    return None if value is None else float(value)


def check_same_images(cells: Sequence[Cell]) -> None:
    """Refuse cells that are not about the same images.

    Raises:
        InputError: with the first image that is missing.
    """
    for cell in cells[1:]:
        first, other = ({one.key for one in each.records} for each in (cells[0], cell))
        if differ := sorted(first ^ other):
            raise InputError(f"the cells '{cells[0].name}' and '{cell.name}' are not about the same "
                             f"images: '{differ[0]}' is in one only")


@dataclass(frozen=True)
class Finding:
    """What two cells say about a claim.

    Attributes:
        claim: that ``measure`` of ``more`` exceeds that of ``less``, in words.
        measure: 'success', the name of a cost or of a measure.
        more, less: names of cells.
        interval: mean difference, image by image.
    """
    claim: str
    measure: str
    more: str
    less: str
    interval: Interval

    @property
    def verdict(self) -> str:
        """'holds', 'contradicted' or 'not decided', by whether the interval lies beyond 0.

        Fewer than five images decide nothing: their resamples are too few.
        """
        if self.interval.images < FEWEST:
            return 'not decided'
        if self.interval.low > 0:
            return 'holds'
        return 'contradicted' if self.interval.high < 0 else 'not decided'

    def __str__(self) -> str:
        found = self.interval
        return (f'{self.claim}: **{self.verdict}**. {self.measure} of {self.more} less that of '
                f'{self.less}: {_text(found)}, {found.images} images.')


def judge_claim(cells: Sequence[Cell], claim: str, measure: str, more: str, less: str) -> Finding:
    """Compare two cells image by image.

    Success is compared on the images that the victim got right, all else on those that both cells
    broke and say a number of; nothing is decided where there are none.

    Raises:
        InputError: no such cell, or no such number.
    """
    measures = {name for cell in cells for one in cell.records for name in one.measures}
    if measure not in {'success', *COSTS, *measures}:
        raise InputError(f"findings: no cell says '{measure}' of an image, expected success, "
                         f"{', '.join([*COSTS, *sorted(measures)])}")
    known = {cell.name: cell for cell in cells}
    for name in (more, less):
        if name not in known:
            raise InputError(f"findings: no cell '{name}', there are {', '.join(known)}")
    first, second = ({one.key: one for one in known[name].right} for name in (more, less))
    pairs = []
    for key in first.keys() & second.keys():
        both = first[key], second[key]
        values = [value_of(one, measure) for one in both]
        counted = measure == 'success' or all(one.success for one in both)
        if counted and None not in values:
            pairs.append((key, values))
    if not pairs:
        return Finding(claim, measure, more, less, Interval(np.nan, np.nan, np.nan, 0))
    left, right = (np.array([values[side] for _, values in sorted(pairs)]) for side in (0, 1))
    return Finding(claim, measure, more, less, difference_interval(left, right))


def write_cells(cells: Sequence[Cell], findings: Sequence[Finding], stem: Path, title: str,
                note: str) -> None:
    """Write ``<stem>.csv`` and ``<stem>.md``.

    Args:
        cells: of the sweep.
        findings: what they say of claims.
        stem: path without ending; a figure of this name beside it is shown.
        title: of the page.
        note: paragraph above the table.
    """
    names = list(dict.fromkeys(name for cell in cells for name in cell.numbers))
    scores = list(dict.fromkeys(name for cell in cells for name in cell.scores()))[:2]
    with stem.with_suffix('.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['cell', 'images', *(f'{name}{end}' for name in names
                                             for end in ('', '_low', '_high')), *scores])
        for cell in cells:
            ends = [cell.numbers.get(name) for name in names]
            values = [value for one in ends
                      for value in ((one.value, one.low, one.high) if one else ('', '', ''))]
            writer.writerow([cell.name, len(cell.right), *values,
                             *(cell.scores().get(name, '') for name in scores)])
    shown = [name for name in names if not _varies_little(name)]
    rows = [[cell.name, len(cell.right), *(_text(cell.numbers.get(name)) for name in shown),
             *(cell.scores().get(name, UNKNOWN) for name in scores)] for cell in cells]
    lines = [f'# {title}', note, '\n'.join(f'- {one}' for one in findings),
             markdown_table(['', 'images', *shown, *scores], rows), f'![]({stem.name}.png)',
             'Success is over the images the model got right, all else the mean over the broken ones '
             'of them; brackets hold 95 % of bootstrap resamples of the images.']
    stem.with_suffix('.md').write_text('\n\n'.join(line.rstrip('\n') for line in lines if line) + '\n')


def _varies_little(name: str) -> bool:
    """Of the percentiles and sizes, of which there are many, one is enough for a page."""
    return name.startswith(('is_6', 'is_7', 'is_8', 'cam_2', 'cam_3')) or name.endswith(
        ('_small', '_medium', '_large'))


def _text(found: Interval | None) -> str:
    if found is None:
        return UNKNOWN
    if np.isnan(found.low):
        return _number(found.value)
    return f'{_number(found.value)} [{_number(found.low)}, {_number(found.high)}]'


def _number(value: float) -> str:
    """Three digits, and no power of ten for what is counted."""
    return f'{value:.0f}' if abs(value) >= 1000 else f'{value:.3g}'


def draw_cells(cells: Sequence[Cell], path: Path, shown: str, title: str = '') -> None:
    """A dot with its interval for each cell: success, and one more number.

    Args:
        cells: of the sweep.
        path: where the picture goes; its ending is the format.
        shown: the other number, a cost or a measure.
        title: heading.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.4 + 0.34 * len(cells)), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ('success', shown), strict=True):
        for place, cell in enumerate(cells):
            if name in cell.numbers:
                one = cell.numbers[name]
                ends = np.nan_to_num([[one.value - one.low], [one.high - one.value]]).clip(min=0)
                axes.errorbar(one.value, place, xerr=ends, fmt='o', color='C0', capsize=3)
        axes.set(xlabel=name.replace('_', ' '))
        axes.grid(alpha=0.3)
    panels[0].set(xlim=(-0.03, 1.03), yticks=range(len(cells)),
                  yticklabels=[cell.name for cell in cells])
    panels[0].invert_yaxis()
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
