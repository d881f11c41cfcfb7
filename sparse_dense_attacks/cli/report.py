"""Put finished runs side by side: what they reached, and a chart of success against the budget.

    sda report work_dirs/spgd_faster_rcnn work_dirs/sigma_zero_faster_rcnn
    sda report work_dirs/* --unit groups --out work_dirs/report
"""
import argparse
import statistics
from pathlib import Path

from rich.table import Table

from ..errors import InputError
from ..evaluation import draw_curves, markdown_table, success_at
from ..results import Run
from ..screen import add_row, first, printable, say, show
from . import common

__all__ = ['main', 'run']

BUDGETS = (1, 3, 10, 30, 100, 300, 1000, 3000)


def main(argv: list[str] | None = None) -> int:
    return common.main(run, argv)


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser('sda report', description=__doc__.splitlines()[0])
    parser.add_argument('work_dirs', nargs='+', type=Path,
                        help='finished or half-finished runs of sda attack')
    parser.add_argument('--unit', choices=('pixels', 'elements', 'groups'), default='pixels',
                        help='what the budget counts')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/report'),
                        help='folder for report.md and curves.png')
    parser.add_argument('--measures', nargs='+', default=[], metavar='NAME', help='first measure the '
                        'stored images of each run, with its model, and keep that in its records: '
                        'acp, anc, d20, is, inside, cam, roles, necessity, detections')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='for measures; default: cuda if '
                        'there is one')
    parser.add_argument('--trust-weights', action='store_true', help='for measures: run the code '
                        'that a file of weights names; by default such files are refused')
    args = parser.parse_args(argv)

    folders = list(dict.fromkeys(folder.resolve() for folder in args.work_dirs
                                 if (folder / 'run.json').is_file()))
    others = ', '.join(str(one) for one in args.work_dirs if one.resolve() not in folders)
    if not folders:
        raise InputError(f'{others} holds no run (no run.json); expected the work_dir of '
                         'sda attack')
    if others:
        say(f'note: passed over without a run.json: {others}')
    for folder in folders if args.measures else ():
        from .measures import measure
        measure(folder, args.measures, args.device, args.trust_weights)
    lines, curves = [], {}
    for folder in folders:
        finished = Run.load(folder)
        label = _label(folder, folders)
        for reason in first(finished.bad):
            say(f'warning: {label}: left out, not a record: {reason}')
        curves[label] = _sizes_and_success(finished, args.unit)
        lines.append([label, *_cells(finished, *curves[label])])

    head = ['run', 'attack', 'goal', 'images', 'broken', f'median {args.unit}',
            'clean -> adversarial', *(f'≤ {k}' for k in BUDGETS)]
    table = Table(*head[:7])  # what a terminal has room for
    for line in lines:
        add_row(table, *line[:7])
    args.out.mkdir(parents=True, exist_ok=True)
    note = ('Images the victim got right; the last columns are the share broken within a budget in '
            f'{args.unit}.\n\n')
    (args.out / 'report.md').write_text(printable(note + markdown_table(head, lines)))
    draw_curves(curves, args.out / 'curves.png', args.unit)
    show(table)
    show(f'table in {args.out / "report.md"}, chart in {args.out / "curves.png"}')


def _sizes_and_success(run: Run, unit: str) -> tuple[list[int], list[bool]]:
    """Of the images that the victim got right; without structure a group is a pixel."""
    records = [one for one in run.records if one.success is not None and one.clean_correct]
    sizes = [one.l0_elements if unit == 'elements' else
             one.l0_pixels if unit == 'pixels' or one.groups is None else one.groups
             for one in records]
    return sizes, [bool(one.success) for one in records]


def _cells(run: Run, sizes: list[int], success: list[bool]) -> list[str]:
    """What the table says of a run, but for its name."""
    broken = [size for size, one in zip(sizes, success, strict=True) if one]
    names = [name.removeprefix('clean/') for name, value in run.metrics.items()
             if name.startswith('clean/') and isinstance(value, float)]
    scores = [f'{name} {run.metrics[f"clean/{name}"]:.3f} -> {run.metrics[f"adv/{name}"]:.3f}'
              for name in names[:2] if isinstance(run.metrics.get(f'adv/{name}'), float)]
    return [_type(run.identity.get('attack')), _type(run.identity.get('goal')), str(len(sizes)),
            f'{len(broken) / len(sizes):.3f}' if sizes else '-',
            f'{statistics.median(broken):g}' if broken else '-', ', '.join(scores) or '-',
            *(f'{rate:.2f}' for rate in success_at(BUDGETS, sizes, success))]


def _label(folder: Path, folders: list[Path]) -> str:
    """The shortest end of a path that none of the other paths has."""
    for length in range(1, len(folder.parts) + 1):
        end = folder.parts[-length:]
        if sum(other.parts[-length:] == end for other in folders) == 1:
            return printable(Path(*end))
    return printable(folder)


def _type(described) -> str:
    return described.get('type', '-') if isinstance(described, dict) else str(described or '-')
