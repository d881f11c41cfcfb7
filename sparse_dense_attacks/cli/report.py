"""Put runs side by side: a page to look at, tables, and charts of success against the budget.

    sda report work_dirs/spgd_faster_rcnn work_dirs/sigma_zero_faster_rcnn
    sda report work_dirs/* --unit groups --out work_dirs/report --pdf
    sda report work_dirs/* --results docs/results.md
"""
import argparse
import csv
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from .. import __version__
from ..errors import InputError
from ..evaluation import draw_curves
from ..evaluation.comparison import same_threat, write_results
from ..evaluation.page import Report, curves_of, render, table_of
from ..evaluation.shots import status_of
from ..evaluation.transfer_view import is_transfer, read_transfer
from ..results import Run
from ..screen import add_row, first, printable, progress, say, show
from . import common

__all__ = ['main', 'run']

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')


def main(argv: list[str] | None = None) -> int:
    return common.main(run, argv)


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser('sda report', description=__doc__.splitlines()[0])
    parser.add_argument('work_dirs', nargs='+', type=Path,
                        help='finished or half-finished runs of sda attack, or of sda transfer')
    parser.add_argument('--unit', choices=('pixels', 'elements', 'groups'), default='pixels',
                        help='what the budget counts')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/report'),
                        help='folder for report.html, report.md, report.csv, images.csv and curves')
    parser.add_argument('--measures', nargs='+', default=[], metavar='NAME', help='first measure the '
                        'stored images of each run, with its model, and keep that in its records: '
                        'acp, anc, d20, is, inside, cam, roles, necessity, detections')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='for measures; default: cuda if '
                        'there is one')
    parser.add_argument('--trust-weights', action='store_true', help='for measures: run the code '
                        'that a file of weights names; by default such files are refused')
    parser.add_argument('--force', action='store_true', help='draw runs of different threat models '
                        'in one chart, and mark them')
    parser.add_argument('--pdf', action='store_true', help='also report.pdf, printed by Chromium '
                        'or Chrome')
    parser.add_argument('--results', type=Path, metavar='FILE', help='write no report but a table '
                        'of the finished runs into this file: model x attack, the worst case, '
                        'intervals')
    parser.add_argument('--budget', type=int, metavar='PIXELS', help='for --results: within how '
                        'many pixels; default: the smallest fixed budget of the attacks')
    args = parser.parse_args(argv)
    if args.budget is not None and args.budget < 1:
        raise InputError(f'--budget {args.budget}: expected 1 pixel or more')

    folders = list(dict.fromkeys(folder.resolve() for folder in args.work_dirs
                                 if (folder / 'run.json').is_file() or is_transfer(folder)))
    others = ', '.join(str(one) for one in args.work_dirs if one.resolve() not in folders)
    if not folders:
        raise InputError(f'{others} holds no run (no run.json); expected the work_dir of '
                         'sda attack')
    if others:
        say(f'note: passed over without a run.json: {others}')
    for folder in folders if args.measures else ():
        if (folder / 'run.json').is_file():
            from .measures import measure
            measure(folder, args.measures, args.device, args.trust_weights)
    transfers = {_label(folder, folders): (folder, read_transfer(folder))
                 for folder in folders if is_transfer(folder)}
    runs, left_out = _load(folders)
    if args.results:
        if not runs:
            raise InputError('--results makes its table of runs of sda attack; these are of sda '
                             'transfer, whose tables are in transfer.md')
        write_results(runs, args.results, _command(argv), args.budget)
        show(f'table in {args.results}')
        return
    _write(runs, transfers, left_out, args)


def _load(folders: list[Path]) -> tuple[dict[str, Run], list[str]]:
    """The runs by their names, and what of them could not be read.

    Raises:
        InputError: one run was asked for, and cannot be read.
    """
    runs, left_out = {}, []
    for folder in folders:
        label = _label(folder, folders)
        if not (folder / 'run.json').is_file():
            continue
        try:
            found = Run.load(folder)
        except InputError as error:
            if len(folders) == 1:
                raise
            left_out.append(printable(f'{label}: {error}'))
            say(f'warning: left out: {error}')
            continue
        runs[label] = found
        for reason in first(found.bad):
            left_out.append(printable(f'{label}: not a record: {reason}'))
            say(f'warning: {label}: left out, not a record: {reason}')
    return runs, left_out


def _write(runs: Mapping[str, Run], transfers: Mapping, left_out: list[str],
           args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    report = Report(args.unit, args.force, left_out, transfers, __version__)
    total = sum(len(one.records) for one in runs.values())
    with progress(total, shown=total > 200, what='report') as advance:
        page = render(runs, args.out.resolve(), report, printable, advance)
    (args.out / 'report.html').write_text(page, encoding='utf-8')
    if runs:
        table = table_of(runs, args.unit)
        note = (f'Images the victim got right; the columns with ≤ are the share broken within a '
                f'budget in {args.unit}.\n\n')
        (args.out / 'report.md').write_text(printable(note + table.markdown()), encoding='utf-8')
        _write_csv(args.out / 'report.csv', table.head, table.rows)
        _write_images(args.out / 'images.csv', runs)
        charts = _draw(runs, args)
        shown = Table(*table.head[:table.short])  # what a terminal has room for
        for line in table.rows:
            add_row(shown, *line[:table.short])
        show(shown)
        show(f'table in {args.out / "report.md"} and report.csv, images in images.csv, '
             f'{", ".join(charts)}')
    if args.pdf:
        _print(args.out / 'report.html', args.out / 'report.pdf')
        show(f'printed to {args.out / "report.pdf"}')
    size = (args.out / 'report.html').stat().st_size / 1e6
    show(f'page to look at: {args.out / "report.html"} ({size:.1f} MB)')


def _draw(runs: Mapping[str, Run], args: argparse.Namespace) -> list[str]:
    """Charts of the runs, one for each threat model; what they are called."""
    groups = same_threat(runs)
    mixed = len(groups) > 1
    if mixed and args.force:
        curves = {f'[{number}] {name}': curves_of(runs[name], args.unit)
                  for number, names in enumerate(groups, start=1) for name in names}
        draw_curves(curves, args.out / 'curves.png', args.unit,
                    'DIFFERENT threat models, in brackets')
        return ['chart in curves.png']
    if mixed:
        say(f'note: {len(groups)} threat models, so as many charts: --force draws all in one')
    names = [f'curves_{number}.png' if mixed else 'curves.png' for number in range(1, len(groups) + 1)]
    for name, group in zip(names, groups, strict=True):
        curves = {one: curves_of(runs[one], args.unit) for one in group}
        draw_curves(curves, args.out / name, args.unit)
    return [f'chart in {name}' for name in names]


def _write_csv(path: Path, head: list[str], rows: list[list]) -> None:
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def _write_images(path: Path, runs: Mapping[str, Run]) -> None:
    """A line for each image of each run, with its measures."""
    measures = list(dict.fromkeys(name for run in runs.values() for one in run.records
                                  for name in one.measures))
    head = ['run', 'image', 'status', 'pixels', 'elements', 'groups', 'linf', 'forwards',
            'backwards', 'seconds', 'share', *measures]
    rows = [[name, printable(one.key), status_of(one), one.l0_pixels, one.l0_elements, one.groups,
             one.linf, one.forwards, one.backwards, one.seconds, one.share,
             *(one.measures.get(measure) for measure in measures)]
            for name, run in runs.items() for one in run.records]
    _write_csv(path, head, rows)


def _print(page: Path, target: Path) -> None:
    """Let a browser print a page.

    Raises:
        InputError: there is none, or it failed.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise InputError(f'--pdf needs one of {", ".join(BROWSERS)} on the PATH; open {page} in '
                         'any browser and print it: the page has a style for paper')
    root = ['--no-sandbox'] if os.name == 'posix' and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [browser, '--headless', '--disable-gpu', *root, f'--user-data-dir={profile}',
             '--no-pdf-header-footer', f'--print-to-pdf={target.resolve()}',
             page.resolve().as_uri()], capture_output=True, text=True, check=False)
    if done.returncode or not target.is_file():
        reason = (done.stderr.strip().splitlines() or ['no word of why'])[-1]
        raise InputError(f'{browser} did not print {page}: {reason}')


def _command(argv: list[str] | None) -> str:
    return printable(shlex.join(['sda', 'report', *(sys.argv[1:] if argv is None else argv)]))


def _label(folder: Path, folders: list[Path]) -> str:
    """The shortest end of a path that none of the other paths has."""
    for length in range(1, len(folder.parts) + 1):
        end = folder.parts[-length:]
        if sum(other.parts[-length:] == end for other in folders) == 1:
            return printable(Path(*end))
    return printable(folder)
