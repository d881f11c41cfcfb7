"""The table of a transfer study: its lines, a page to read, and heat maps."""
import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from ..results.cell import Cell
from .controls import CONTROLS
from .markdown import markdown_table
from .statistics import Interval, mean_interval
from .transfer import excess

__all__ = ['CHANGE', 'EXCESS', 'Line', 'draw_heat_maps', 'lines_of', 'write_csv', 'write_page']

CHANGE = 'change'
EXCESS = 'excess'
KINDS = ('attack', *CONTROLS)


@dataclass(frozen=True)
class Line:
    """One number of the table, in the columns of ``transfer.csv``.

    Attributes:
        source, victim: of the cell.
        kind: 'attack' or the name of a control.
        measure: 'change', without labels, or one of the victim's own metrics; with '_excess' at
            its end how far the attack is above the best control.
        clean, adversarial: of the metric, 0 and the change of the label-free one.
        value, low, high: the change, or the relative drop of the metric, and its 95 % interval.
        images: how many it is about.
    """
    source: str
    victim: str
    kind: str
    measure: str
    clean: float
    adversarial: float
    value: float
    low: float
    high: float
    images: int


def lines_of(cells: Sequence[Cell]) -> list[Line]:
    """Every number of some cells; those that were refused have none."""
    return [line for cell in cells if cell.changes for line in _lines(cell)]


def _lines(cell: Cell) -> Iterator[Line]:
    by_kind: dict[str, np.ndarray] = {}
    for kind in KINDS:
        if all(kind in one for one in cell.changes.values()):
            by_kind[kind] = np.array([np.mean(one[kind]) for one in cell.changes.values()])
            found = mean_interval(by_kind[kind])
            yield _line(cell, kind, CHANGE, 0.0, found.value, found)
    controls = [changes for kind, changes in by_kind.items() if kind != 'attack']
    found = excess(by_kind['attack'], np.stack(controls))
    yield _line(cell, 'attack', f'{CHANGE}_{EXCESS}', math.nan, math.nan, found)
    for measure, kinds in cell.native.items():
        clean = kinds['clean']['value']
        for kind in KINDS:
            if kind in kinds:
                one = kinds[kind]
                yield _line(cell, kind, measure, clean, one['value'], _interval(cell, one))
        if EXCESS in kinds:
            lead = _interval(cell, kinds[EXCESS])
            yield _line(cell, 'attack', f'{measure}_{EXCESS}', math.nan, math.nan, lead)


def _interval(cell: Cell, one: Mapping[str, float]) -> Interval:
    return Interval(one['drop'], one['low'], one['high'], len(cell.changes))


def _line(cell: Cell, kind: str, measure: str, clean: float, adversarial: float,
          found: Interval) -> Line:
    return Line(cell.source, cell.victim, kind, measure, clean, adversarial, found.value,
                found.low, found.high, found.images)


def write_csv(lines: Sequence[Line], path: Path) -> None:
    """The lines in the long form; numbers with six digits, nothing where there is none."""
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(Line.__dataclass_fields__)
        for line in lines:
            writer.writerow(_cell_text(value) for value in astuple(line))


def _cell_text(value) -> str:
    if isinstance(value, float):
        return '' if math.isnan(value) else f'{value:.6g}'
    return str(value)


def write_page(lines: Sequence[Line], path: Path, notes: Sequence[str], sources: Sequence[str],
               victims: Sequence[str], same: Mapping[tuple[str, str], str]) -> None:
    """The table to read: a section for each measure, then the notes.

    Args:
        lines: of all cells.
        path: where it goes.
        notes: what has to be said beside the numbers.
        sources, victims: their order.
        same: marks of pairs that are no transfer, or not quite: one model, one backbone.
    """
    parts = ['# Transfer\n\nImages made on the source (rows), shown to the victim (columns) through '
             'its own pipeline, with 95 % intervals over the images. In brackets the best of the '
             'four controls; **bold** where the attack lies above all of them with its whole '
             'interval.\n']
    known = {(one.source, one.victim, one.measure, one.kind): one for one in lines}
    measures = dict.fromkeys(one.measure for one in lines if not one.measure.endswith(EXCESS))
    for measure in measures:
        title = 'label-free change' if measure == CHANGE else f'relative drop of {measure}'
        rows = [[source, *(_shown(known, source, victim, measure, same) for victim in victims)]
                for source in sources]
        parts.append(f'\n## {title.capitalize() if measure == CHANGE else title}\n\n'
                     + markdown_table(['source', *victims], rows))
    parts.append('\n## Notes\n\n' + ''.join(f'- {note}\n' for note in notes))
    path.write_text(''.join(parts))


def _shown(known: Mapping, source: str, victim: str, measure: str, same: Mapping) -> str:
    attack = known.get((source, victim, measure, 'attack'))
    if attack is None:
        return '-'
    controls = [known[key] for kind in CONTROLS
                if (key := (source, victim, measure, kind)) in known]
    text = f'{attack.value:.3f} [{attack.low:.3f}, {attack.high:.3f}]'
    if controls:
        best = max(controls, key=lambda one: one.value)
        text += f' ({best.value:.3f} {best.kind})'
    lead = known.get((source, victim, f'{measure}_{EXCESS}', 'attack'))
    if lead is not None and lead.low > 0:
        text = f'**{text}**'
    return text + same.get((source, victim), '')


def draw_heat_maps(lines: Sequence[Line], folder: Path, sources: Sequence[str],
                   victims: Sequence[str]) -> list[Path]:
    """A picture for each measure: the attack, its controls below, intervals in the cells.

    Returns:
        The files, ``heat_<measure>.png`` each.
    """
    from matplotlib.figure import Figure  # not pyplot, which would choose a window system
    known = {(one.source, one.victim, one.measure, one.kind): one for one in lines}
    written = []
    for measure in dict.fromkeys(one.measure for one in lines if not one.measure.endswith(EXCESS)):
        kinds = [kind for kind in KINDS if any(one.kind == kind and one.measure == measure
                                               for one in lines)]
        size = 2.2 + 1.7 * len(victims), (0.9 + 0.55 * len(sources)) * len(kinds) + 0.6
        figure = Figure(figsize=size, layout='constrained')
        for index, kind in enumerate(kinds, start=1):
            table = [[known.get((source, victim, measure, kind)) for victim in victims]
                     for source in sources]
            axes = figure.add_subplot(len(kinds), 1, index)
            values = [[math.nan if one is None else one.value for one in row] for row in table]
            axes.imshow(np.array(values, dtype=float), vmin=0, vmax=1, cmap='viridis',
                        aspect='auto')
            for y, row in enumerate(table):
                for x, one in enumerate(row):
                    text = '-' if one is None else (
                        f'{one.value:.2f}\n[{one.low:.2f}, {one.high:.2f}]')
                    light = one is not None and one.value < 0.6
                    axes.text(x, y, text, ha='center', va='center', fontsize=7,
                              color='white' if light else 'black')
            axes.set(title=f'{measure}: {kind}', yticks=range(len(sources)),
                     xticks=range(len(victims)))
            axes.set_yticklabels(sources)
            axes.set_xticklabels(victims if index == len(kinds) else [''] * len(victims))
        path = folder / f'heat_{measure.replace("/", "_")}.png'
        figure.savefig(path, dpi=110)
        written.append(path)
    return written
