"""A finished transfer study, read from its files for a report."""
import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .controls import CONTROLS
from .gallery import seen_file
from .transfer_report import CHANGE, EXCESS, Line

__all__ = ['is_transfer', 'read_transfer']

MARKS = ('(d)', '(b)')


def is_transfer(folder: Path) -> bool:
    """Whether a folder is the work dir of ``sda transfer``."""
    return (folder / 'transfer.csv').is_file()


def read_transfer(folder: Path) -> dict[str, Any]:
    """The tables of a transfer study, its notes, and which pictures it has.

    Raises:
        InputError: a file of it is broken.
    """
    lines = _lines(folder / 'transfer.csv')
    sources = list(dict.fromkeys(one.source for one in lines))
    victims = list(dict.fromkeys(one.victim for one in lines))
    known = {(one.source, one.victim, one.measure, one.kind): one for one in lines}
    notes, marks = _page(folder / 'transfer.md')
    tables = []
    for measure in dict.fromkeys(one.measure for one in lines if not one.measure.endswith(EXCESS)):
        rows = [dict(source=source, cells=[
            dict(_cell(known, source, victim, measure), mark=marks.get((source, victim), ''))
            for victim in victims]) for source in sources]
        title = 'Label-free change' if measure == CHANGE else f'Relative drop of {measure}'
        tables.append(dict(title=title, rows=rows))
    seen = [(f'{source} → {victim}', path) for source in sources for victim in victims
            if (path := seen_file(folder, source, victim)).is_file()]
    return dict(victims=victims, tables=tables, notes=notes, seen=seen)


def _lines(path: Path) -> list[Line]:
    kinds = Line.__annotations__
    try:
        with path.open(newline='') as file:
            found = [Line(**{name: _read(text, kinds[name]) for name, text in row.items()})
                     for row in csv.DictReader(file)]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f'{path} is broken or of another version ({error}): sda transfer writes '
                         'it anew') from error
    if not found:
        raise InputError(f'{path} has no line: the study is not finished; sda transfer goes on')
    return found


def _read(text: str, kind: Any) -> Any:
    if kind is str:
        return text
    return kind(text) if text else math.nan


def _page(path: Path) -> tuple[list[str], dict[tuple[str, str], str]]:
    """The notes, and the marks of pairs that are no transfer, from transfer.md."""
    if not path.is_file():
        return ['transfer.md is missing: pairs of one model or backbone are not marked'], {}
    tables, _, notes = path.read_text().partition('\n## Notes\n')
    marks, head = dict[tuple[str, str], str](), list[str]()
    for line in tables.splitlines():
        cells = [cell.strip() for cell in line.strip('|').split(' | ')] if '|' in line else []
        if cells[:1] == ['source']:
            head = cells
        elif cells and head and not cells[0].startswith('---'):
            marks |= {(cells[0], victim): cell[-3:] for victim, cell
                      in zip(head[1:], cells[1:], strict=False) if cell.endswith(MARKS)}
    listed = [line.removeprefix('- ').replace('**', '') for line in notes.splitlines()
              if line.startswith('- ')]
    return listed, marks


def _cell(known: dict, source: str, victim: str, measure: str) -> dict[str, Any]:
    attack = known.get((source, victim, measure, 'attack'))
    if attack is None:
        return dict(text='-', colour='', ink='', real=False, control='')
    controls: Sequence[Line] = [known[key] for kind in CONTROLS
                                if (key := (source, victim, measure, kind)) in known]
    best = max(controls, key=lambda one: one.value, default=None)
    lead = known.get((source, victim, f'{measure}_{EXCESS}', 'attack'))
    colour, ink = _colour(attack.value)
    return dict(text=f'{attack.value:.3f} [{attack.low:.3f}, {attack.high:.3f}]', colour=colour,
                ink=ink, real=lead is not None and lead.low > 0,
                control=f'({best.value:.3f} {best.kind})' if best else '')


def _colour(value: float) -> tuple[str, str]:
    """Of a share, and a colour of text that can be read on it."""
    from matplotlib import colormaps
    if math.isnan(value):
        return '', ''
    red, green, blue, _ = colormaps['cividis'](min(max(value, 0.0), 1.0), bytes=True)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return f'rgb({red} {green} {blue})', '#000' if luminance > 120 else '#fff'
