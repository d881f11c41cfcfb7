"""One page of finished runs and transfer studies, in a single file that needs nothing else."""
import base64
import hashlib
import string
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..results import Run
from .comparison import call, judged, model_name, same_threat, size_of, threat_model
from .curves import band_of, success_at
from .markdown import markdown_table
from .measures import measure_intervals
from .places import MOST, Places, heat_picture
from .shots import STATUSES, Gallery, link_to
from .statistics import Interval, mean_interval
from .thumbnails import COLOURS, Allowance, data_uri

__all__ = ['BUDGETS', 'Table', 'curves_of', 'render', 'state', 'table_of']

BUDGETS = (1, 3, 10, 30, 100, 300, 1000, 3000)
PICTURES = 20_000_000  # characters of all pictures of images; the rest of 30 MB is for words
SEEN = 4_000_000  # of those of transfer studies
DASHES = ('', '8 4', '2 3', '10 4 2 4')
LEFT, RIGHT, TOP, BOTTOM = 60, 700, 20, 330  # of a chart


@dataclass(frozen=True)
class Table:
    """Runs side by side.

    Attributes:
        head: names of the columns.
        rows: a list of texts for each run.
        short: how many of the columns a terminal has room for.
    """
    head: list[str]
    rows: list[list[str]]
    short: int = 7

    def markdown(self) -> str:
        return markdown_table(self.head, self.rows)


def state(run: Run) -> str:
    """Whether a run is finished, and of how many images its metrics are."""
    attacked = sum(not one.skipped for one in run.records)
    if not run.records:
        return 'empty: no image yet'
    if not run.metrics:
        return f'unfinished: {len(run.records)} images so far'
    scored = run.metrics.get('attack/images', attacked)
    return 'finished' if scored >= attacked else f'finished for {scored} of {attacked} images'


def curves_of(run: Run, unit: str) -> tuple[list[int], list[bool]]:
    """Sizes and success of the images that the victim got right."""
    records = judged(run)
    return [size_of(one, unit) for one in records], [bool(one.success) for one in records]


def table_of(runs: Mapping[str, Run], unit: str) -> Table:
    """What runs reached, one after the other.

    Args:
        runs: by name.
        unit: what the budget counts: 'pixels', 'elements' or 'groups'.
    """
    letters = {name: letter for letter, names in _lettered(runs) for name in names}
    means = {name: measure_intervals(run.records) for name, run in runs.items()}
    measures = list(dict.fromkeys(name for one in means.values() for name in one))
    head = ['run', 'attack', 'goal', 'images', 'broken', f'median {unit}', 'clean -> adversarial',
            '95 % interval', 'threat model', 'status', 'model', *(f'≤ {k}' for k in BUDGETS),
            *measures]
    rows = []
    for name, run in runs.items():
        sizes, success = curves_of(run, unit)
        broken = [size for size, one in zip(sizes, success, strict=True) if one]
        rate = mean_interval(success) if success else None
        rows.append([
            name if state(run) == 'finished' else f'{name} ({state(run)})',
            _type(run.identity.get('attack')), _type(run.identity.get('goal')),
            str(len(sizes)), f'{rate.value:.3f}' if rate else '-',
            f'{np.median(broken):g}' if broken else '-', ', '.join(_scores(run)) or '-',
            f'[{rate.low:.3f}, {rate.high:.3f}]' if rate else '-', letters[name], state(run),
            model_name(run), *(f'{share:.2f}' for share in success_at(BUDGETS, sizes, success)),
            *(_short(means[name].get(one)) for one in measures)])
    return Table(head, rows)


def _short(found: Interval | None) -> str:
    return '-' if found is None else f'{found.value:.4g} [{found.low:.4g}, {found.high:.4g}]'


def _scores(run: Run) -> Iterator[str]:
    names = [name.removeprefix('clean/') for name, value in run.metrics.items()
             if name.startswith('clean/') and isinstance(value, float)]
    for name in names[:2]:
        after = run.metrics.get(f'adv/{name}')
        if isinstance(after, float):
            yield f'{name} {run.metrics[f"clean/{name}"]:.3f} -> {after:.3f}'


def _type(described: Any) -> str:
    return described.get('type', '-') if isinstance(described, Mapping) else str(described or '-')


def _lettered(runs: Mapping[str, Run]) -> Iterator[tuple[str, list[str]]]:
    """Groups of one threat model, called A, B, ..."""
    for number, names in enumerate(same_threat(runs)):
        letter = string.ascii_uppercase[number % 26]
        yield letter * (number // 26 + 1), names


@dataclass
class Report:
    """What goes onto the page beside the runs.

    Attributes:
        unit: what the budget counts.
        force: draw runs of different threat models in one chart.
        left_out: a line for every folder or record that could not be read.
        transfers: by name their folder and what :func:`.transfer_view.read_transfer` says.
        version: of this package.
    """
    unit: str
    force: bool = False
    left_out: Sequence[str] = ()
    transfers: Mapping[str, tuple[Path, dict[str, Any]]] = field(default_factory=dict)
    version: str = ''


def render(runs: Mapping[str, Run], page: Path, report: Report,
           printable: Callable[[object], str],
           advance: Callable[[int], None] = lambda images: None) -> str:
    """The page as text.

    Args:
        runs: by name.
        page: the folder it goes into, from which the links lead.
        report: what else is shown.
        printable: makes text of any name.
        advance: is told of every image that is done.
    """
    total = sum(len(run.records) for run in runs.values())
    gallery = Gallery(page, Allowance(PICTURES, total), printable)
    views = []
    for name, run in runs.items():
        places, note = gallery.add(name, run, advance)
        views.append(_run_view(name, run, places, note, printable))
    groups = [dict(letter=letter, names=names, facts=_threat_facts(runs[names[0]], names))
              for letter, names in _lettered(runs)]
    charts = list(_charts(runs, report))
    table = table_of(runs, report.unit) if runs else Table([], [])
    transfers = [_transfer_view(name, *given, page) for name, given in report.transfers.items()]
    environment = Environment(loader=PackageLoader(__package__, 'template'), autoescape=True,
                              undefined=StrictUndefined)
    loader = environment.loader
    assert loader is not None
    css, js = (loader.get_source(environment, f'report.{kind}')[0] for kind in ('css', 'js'))
    sections = [('threat', 'Threat model'), ('runs', 'Runs')] * bool(runs)
    sections += [('curves', 'Curves')] * bool(charts) + [('places', 'Places')] * bool(runs)
    sections += [(f'transfer{number}', f'Transfer {one["name"]}')
                 for number, one in enumerate(transfers, start=1)]
    sections += [('gallery', 'Gallery'), ('again', 'Reproduce')] * bool(runs)
    note = (f'Images the victim got right. Median {report.unit} of the broken ones; the columns '
            f'with ≤ are the share broken within a budget in {report.unit}. Measures: mean over '
            'the broken images and its 95 % interval.')
    found = {one['status'] for one in gallery.images}
    data = dict(runs=gallery.runs, images=gallery.images,
                statuses=[one for one in STATUSES if one in found], orders=ORDERS)
    text = environment.get_template('report.html').render(
        title='Sparse attacks: ' + (', '.join([*runs, *report.transfers]) if
                                    len(runs) + len(transfers) < 4 else f'{len(runs)} runs'),
        css=css, js=js, digest=_digest(js), sections=sections, groups=groups, runs=views,
        head=table.head, rows=table.rows, caption=note, charts=charts, transfers=transfers,
        left_out=report.left_out, most=f'{MOST:g}', data=data,
        scale=data_uri(heat_picture(np.linspace(0, MOST, 64)[None])),
        footer=f'sparse-dense-attacks {report.version}, {time.strftime("%Y-%m-%d %H:%M")}')
    return printable(text)


ORDERS = (('fewest pixels', 'pixels up'), ('most pixels', 'pixels down'), ('name', 'key up'),
          ('slowest', 'seconds down'))


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _threat_facts(run: Run, names: Sequence[str]) -> list[tuple[str, str]]:
    model = threat_model(run)
    threat = dict(model['threat'])
    facts = [('goal', call(model['goal']))]
    words: dict[str, tuple[str, Callable[[Any], str]]] = dict(
        grid=('what changes', lambda grid: {'input': 'pixels of the network input',
                                            'original': 'pixels of the image file'}.get(grid, grid)),
        where=('where', _where), eight_bit=('judged on', lambda yes: 'the 8-bit image that is stored'
                                            if yes else 'the float image'),
        max_forwards=('forwards', lambda most: 'any number' if most is None else f'at most {most}'),
        rechecks=('success', lambda times: 'one answer of the model' if times == 1 else
                  f'the majority of {times} answers'),
        max_components=('connected pieces', lambda most: 'any number' if most is None else
                        f'at most {most}'),
        max_area=('area', lambda most: 'any' if most is None else
                  f'at most {most:.2%} of the image'))
    for name, value in threat.items():
        if name in words:
            title, say = words[name]
            facts.append((title, say(value)))
        elif name != 'type':
            facts.append((name, call(value)))
    return [*facts, ('runs', ', '.join(names))]


def _where(described: Any) -> str:
    if not isinstance(described, Mapping) or described.get('type') != 'Where':
        return call(described)
    classes = described.get('classes')
    return str(described.get('place')) + (f' of {", ".join(map(str, classes))}' if classes else '')


def _run_view(name: str, run: Run, places: Places, note: str,
              printable: Callable[[object], str]) -> dict[str, Any]:
    maps = []
    if places.images:
        maps.append(dict(title='on the image', uri=data_uri(heat_picture(places.on_image)),
                         text=f'mean of {places.images} images. {note}', box=False))
    if places.boxes:
        text = f'{places.boxes} objects; inside them {places.inside:.2f} times the even share'
        maps.append(dict(title='relative to an object (dashed)', box=True, text=text,
                         uri=data_uri(heat_picture(places.on_objects))))
    identity, info = run.identity, run.info
    facts = [('status', state(run)), ('work dir', run.work_dir),
             ('attack', call(identity.get('attack'))), ('goal', call(identity.get('goal'))),
             ('threat', call(identity.get('threat'))), ('model', model_name(run)),
             ('weights', info.get('checkpoint') or '-'),
             ('SHA-256 of the weights', identity.get('weights') or '-'),
             ('data set', _type(identity.get('dataset')))]
    return dict(
        name=name, maps=maps, no_maps=note or 'no image was changed',
        command=printable(info.get('command') or 'not recorded'),
        facts=[(one, printable(value)) for one, value in facts],
        metrics=[[printable(cell) for cell in row] for row in _metrics(run)],
        versions=[(one, printable(value)) for one, value in (info.get('versions') or {}).items()])


def _metrics(run: Run) -> Iterator[tuple[Any, ...]]:
    numbers = {name: value for name, value in run.metrics.items()
               if isinstance(value, int | float)}
    for name, value in numbers.items():
        if name.startswith('clean/'):
            after = numbers.get(name.replace('clean/', 'adv/', 1))
            yield name.removeprefix('clean/'), _number(value), _number(after)
        elif not name.startswith('adv/'):
            yield name, '', _number(value)


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.4g}'


def _charts(runs: Mapping[str, Run], report: Report) -> Iterator[dict[str, Any]]:
    groups = list(_lettered(runs))
    known = {name: curves_of(run, report.unit) for name, run in runs.items()}
    if report.force and len(groups) > 1:
        marked = {f'[{letter}] {name}': known[name] for letter, names in groups for name in names}
        letters = ', '.join(letter for letter, _ in groups)
        yield from _chart(marked, report.unit, f'threat models {letters}', 'Forced into one chart: '
                          f'these runs are of different threat models ({letters}), in brackets; '
                          'their curves answer different questions.')
        return
    for letter, names in groups:
        title = f'threat model {letter}'
        yield from _chart({name: known[name] for name in names}, report.unit, title)


def _chart(known: Mapping[str, tuple[list[int], list[bool]]], unit: str, title: str,
           warning: str = '') -> Iterator[dict[str, Any]]:
    known = {name: one for name, one in known.items() if one[0]}
    if not known:
        return
    most = max(10, *(max(sizes) for sizes, _ in known.values()))
    ticks = [10 ** power * step for power in range(len(str(most))) for step in (1, 3)]

    def across(budget: float | np.ndarray) -> Any:
        return LEFT + (RIGHT - LEFT) * np.log10(budget) / np.log10(most)

    lines = []
    for number, (name, (sizes, success)) in enumerate(known.items()):
        found = np.unique([size for size, one in zip(sizes, success, strict=True) if one])
        budgets = np.unique(np.append(np.maximum(found, 1), [1, most]))
        heights = _up(success_at(budgets, sizes, success))
        steps = ''.join(f'H{x:.1f}V{y:.1f}' for x, y in zip(across(budgets), heights, strict=True))
        lines.append(dict(name=name, path=f'M{LEFT},{_up(0.0)}{steps}', colour=COLOURS[number % 8],
                          dash=DASHES[number // 8 % len(DASHES)],
                          band=_band(sizes, success, most, across)))
    yield dict(title=f'Share of images broken within a budget, {title}', unit=unit, lines=lines,
               warning=warning, ys=[(_up(share), f'{share:.0%}') for share in (0, .25, .5, .75, 1)],
               xs=[(round(float(across(tick)), 1), f'{tick:,}') for tick in ticks if tick <= most])


def _up(share: Any) -> Any:
    return BOTTOM - (BOTTOM - TOP) * share


def _band(sizes: Sequence[int], success: Sequence[bool], most: int,
          across: Callable[[Any], Any]) -> str:
    """The outline of a curve's pointwise interval; empty where there is none."""
    if len(sizes) < 2 or not any(success):
        return ''
    budgets, low, high = band_of(sizes, success)
    rising = across(np.maximum(budgets, 1))
    upper = ''.join(f'H{x:.1f}V{_up(y):.1f}' for x, y in zip(rising, high, strict=True))
    lower = [f'V{_up(y):.1f}H{x:.1f}' for x, y in zip(rising, low, strict=True)]
    return f'M{rising[0]:.1f},{_up(0.0):.1f}{upper}H{across(most):.1f}{"".join(lower[::-1])}Z'


def _transfer_view(name: str, folder: Path, found: dict[str, Any], page: Path) -> dict[str, Any]:
    left, seen = SEEN, []
    for title, path in found['seen']:
        uri = 'data:image/png;base64,' + base64.b64encode(path.read_bytes()).decode()
        inside = len(uri) <= left
        left -= len(uri) if inside else 0
        seen.append(dict(title=title, uri=uri if inside else '', link=link_to(path, page)))
    return dict(found, name=name, folder=folder, seen=seen)
