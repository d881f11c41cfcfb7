"""Which runs may be compared, and how they compare on the same images."""
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..results import Record, Run
from .markdown import markdown_table
from .statistics import Interval, mean_interval

__all__ = ['Row', 'call', 'judged', 'model_name', 'rows_of', 'same_threat', 'size_of',
           'threat_model', 'write_results']


def threat_model(run: Run) -> dict[str, Any]:
    """What a run may be compared by: what the attacker may do and wants, but for the seed."""
    threat = dict(run.identity.get('threat') or {})
    threat.pop('seed', None)
    return dict(threat=threat, goal=run.identity.get('goal'))


def same_threat(runs: Mapping[str, Run]) -> list[list[str]]:
    """Names of the runs, those of one threat model together, in the order they come."""
    groups = defaultdict(list)
    for name, run in runs.items():
        groups[json.dumps(threat_model(run), sort_keys=True, default=str)].append(name)
    return list(groups.values())


def call(described: Any) -> str:
    """A described component as one writes it, such as ``SparsePGD(k=20)``.

    Example:
        >>> call(dict(type='SparsePGD', k=20)), call(None)
        ('SparsePGD(k=20)', '-')
    """
    if described is None:
        return '-'
    if not isinstance(described, Mapping):
        return str(described)
    inner = ', '.join(f'{name}={_value(value)}' for name, value in described.items()
                      if name != 'type')
    name = str(described.get('type', 'dict'))
    return f'{name}({inner})' if inner else name


def _value(value: Any) -> str:
    return call(value) if isinstance(value, Mapping) else repr(value)


def model_name(run: Run) -> str:
    """What to call the model: the file of its weights, else its class."""
    checkpoint = run.info.get('checkpoint')
    if checkpoint:
        return Path(str(checkpoint)).stem
    model = run.identity.get('model')
    return str(model.get('type', '-')) if isinstance(model, Mapping) else str(model or '-')


def judged(run: Run) -> list[Record]:
    """The images that the victim got right and on which success has a meaning."""
    return [one for one in run.records if one.success is not None and one.clean_correct]


def size_of(record: Record, unit: str) -> int:
    """How much of an image was changed; without structure a group is a pixel."""
    if unit == 'elements':
        return record.l0_elements
    return record.l0_pixels if unit == 'pixels' or record.groups is None else record.groups


@dataclass(frozen=True)
class Row:
    """Attacks on one model, on the images that all of them attacked.

    Attributes:
        model, data: what the model and the data set are called.
        images: how many images there are: those the model got right.
        budget: pixels within which success counts; None for any number.
        broken: of every attack, and at the end of the worst case of all, the share of the images.
        median: by the same names the median of the pixels of the broken images; NaN for none.
    """
    model: str
    data: str
    images: int
    budget: int | None
    broken: dict[str, Interval]
    median: dict[str, float]


WORST = 'worst case'


def rows_of(runs: Mapping[str, Run], budget: int | None = None) -> list[Row]:
    """A row for each model and data set.

    In the worst case an image is broken if any of the attacks breaks it, with the fewest pixels
    that one of them needs. Attacks of a fixed budget stand beside those that look for the fewest
    pixels: within one row all are judged by the smallest fixed budget, so that none is favoured.

    Args:
        runs: of one threat model, by name.
        budget: pixels within which success counts; by default as said above.
    """
    groups: dict[str, dict[str, Run]] = defaultdict(dict)
    for name, run in runs.items():
        key = json.dumps([run.identity.get(part) for part in ('model', 'weights', 'dataset',
                                                              'victim')], default=str)
        groups[key][name] = run
    return [_row(group, budget) for group in groups.values()]


def _row(runs: Mapping[str, Run], budget: int | None) -> Row:
    first = next(iter(runs.values()))
    by_key = [{one.key: one for one in judged(run)} for run in runs.values()]
    keys = [key for key in by_key[0] if all(key in one for one in by_key)]
    if budget is None:
        fixed = [max((one.l0_pixels for one in run.records), default=0) for run in runs.values()
                 if (run.identity.get('attack') or {}).get('k') is not None]
        budget = min(fixed, default=None)
    limit = np.inf if budget is None else budget
    pixels = np.array([[one[key].l0_pixels if one[key].success else np.inf for key in keys]
                       for one in by_key], float).reshape(len(by_key), len(keys))
    pixels[pixels > limit] = np.inf
    columns = _names(runs)
    table = dict(zip(columns, pixels, strict=True))
    if len(runs) > 1:
        table[WORST] = pixels.min(0)
    broken, median = {}, {}
    for name, counts in table.items():
        found = np.isfinite(counts)
        broken[name] = (mean_interval(found.astype(float)) if keys
                        else Interval(np.nan, np.nan, np.nan, 0))
        median[name] = float(np.median(counts[found])) if found.any() else np.nan
    data = first.identity.get('dataset')
    kind = str(data.get('type', '-')) if isinstance(data, Mapping) else '-'
    return Row(model_name(first), kind, len(keys), budget, broken, median)


def _names(runs: Mapping[str, Run]) -> list[str]:
    """Columns: an attack's class, with the run's name where two runs have the same."""
    kinds = [str((run.identity.get('attack') or {}).get('type', '-')) for run in runs.values()]
    return [kind if kinds.count(kind) == 1 else f'{kind} ({name})'
            for kind, name in zip(kinds, runs, strict=True)]


def write_results(runs: Mapping[str, Run], path: Path, command: str,
                  budget: int | None = None) -> None:
    """One table of finished runs for each threat model: model x attack, and the worst case.

    Args:
        runs: by name; unfinished ones are named and left out.
        path: of the page.
        command: that writes it.
        budget: as of :func:`rows_of`.

    Raises:
        InputError: none is finished.
    """
    finished = {name: run for name, run in runs.items() if run.metrics and run.records}
    if not finished:
        raise InputError(f'none of the runs is finished ({", ".join(runs)}): go on with sda attack '
                         '... --resume')
    parts = [f'# Results\n\nWritten by `{command}`.\n\nShare of the images broken, with its 95 % '
             'interval over the images (bootstrap), and after the semicolon the median of the '
             'changed pixels of the broken ones. Denominator: images that the model got right '
             'and all attacks of the row have attacked. Success is judged on the stored 8-bit '
             'image, within the budget of the row: the smallest of the attacks with a fixed one. '
             f'**{WORST.capitalize()}**: broken by any of the attacks, image by image.\n']
    if left := [name for name in runs if name not in finished]:
        parts.append(f'\nNot finished, and left out: {", ".join(left)}.\n')
    for group in same_threat(finished):
        rows = rows_of({name: finished[name] for name in group}, budget)
        model = threat_model(finished[group[0]])
        names = [*dict.fromkeys(name for row in rows for name in row.broken if name != WORST)]
        names += [WORST] * any(WORST in row.broken for row in rows)
        head = ['model', 'data', 'images', 'within', *names]
        cells = [[row.model, row.data, row.images,
                  '-' if row.budget is None else f'{row.budget} pixels',
                  *(_cell(row, name) for name in names)] for row in rows]
        parts.append(f'\n## {call(model["goal"])}\n\nThreat model: `{call(model["threat"])}`\n\n'
                     + markdown_table(head, cells) + '\n'
                     + ''.join(_made(name, finished[name]) for name in group))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(parts))


def _made(name: str, run: Run) -> str:
    """How a run was made."""
    command = run.info.get('command')
    made = f', by `{command}`' if command else ''
    return f'- {name}: `{call(run.identity.get("attack"))}`{made}\n'


def _cell(row: Row, name: str) -> str:
    if name not in row.broken:
        return '-'
    found = row.broken[name]
    if np.isnan(found.value):
        return '-'
    share = f'{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]'
    return share if np.isnan(row.median[name]) else f'{share}; {row.median[name]:g}'
