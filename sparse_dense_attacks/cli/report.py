"""Put finished runs side by side: a table of what they reached, and a chart of success against the budget.

    sda report work_dirs/spgd_faster_rcnn work_dirs/sigma_zero_faster_rcnn
    sda report work_dirs/* --unit groups --out work_dirs/report
"""
import argparse
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..errors import InputError
from ..evaluation import draw_curves, markdown_table, success_at
from ..results import Run
from . import common

__all__ = ['main', 'run']

BUDGETS = (1, 3, 10, 30, 100, 300, 1000, 3000)


def main(argv: list[str] | None = None) -> int:
    return common.main(run, argv)


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser('sda report', description=__doc__.splitlines()[0])
    parser.add_argument('work_dirs', nargs='+', type=Path, help='finished or half-finished runs of sda attack')
    parser.add_argument('--unit', choices=('pixels', 'elements', 'groups'), default='pixels', help='what the budget counts')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/report'), help='folder for report.md and curves.png')
    args = parser.parse_args(argv)
    column = 'groups' if args.unit == 'groups' else f'l0_{args.unit}'

    runs = list(dict.fromkeys(folder.resolve() for folder in args.work_dirs if (folder / 'run.json').is_file()))
    others = ', '.join(str(folder) for folder in args.work_dirs if folder.resolve() not in runs)
    if not runs:
        raise InputError(f'{others} holds no run (no run.json); expected the work_dir of sda attack')
    if others:
        Console(stderr=True).print(f'note: passed over without a run.json: {others}', soft_wrap=True, markup=False)
    lines, curves = [], {}
    for folder in runs:
        finished = Run.load(folder)
        metrics = finished.metrics
        records = [r for r in finished.records if r.success is not None and r.clean_correct]
        sizes, success = [getattr(r, column) for r in records], [bool(r.success) for r in records]
        label = _label(folder, runs)
        curves[label] = sizes, success
        broken = [size for size, broken in zip(sizes, success, strict=True) if broken]
        scores = [f'{name.removeprefix("clean/")} {value:.3f} -> {metrics["adv/" + name.removeprefix("clean/")]:.3f}'
                  for name, value in metrics.items() if name.startswith('clean/') and isinstance(value, float)][:2]
        lines.append([label, *(_type(finished.identity.get(part)) for part in ('attack', 'goal')), str(len(records)),
                      f'{len(broken) / len(records):.3f}' if records else '-',
                      f'{statistics.median(broken):g}' if broken else '-', ', '.join(scores) or '-',
                      *(f'{rate:.2f}' for rate in success_at(BUDGETS, sizes, success))])

    head = ['run', 'attack', 'goal', 'images', 'broken', f'median {args.unit}', 'clean -> adversarial',
            *(f'≤ {k}' for k in BUDGETS)]
    table = Table(*head[:7])  # what a terminal has room for
    for line in lines:
        table.add_row(*line[:7])
    args.out.mkdir(parents=True, exist_ok=True)
    note = f'Images the victim got right; the last columns are the share broken within a budget in {args.unit}.\n\n'
    (args.out / 'report.md').write_text(note + markdown_table(head, lines))
    draw_curves(curves, args.out / 'curves.png', args.unit)
    console = Console()
    console.print(table)
    console.print(f'table in {args.out / "report.md"}, chart in {args.out / "curves.png"}', soft_wrap=True)


def _label(folder: Path, folders: list[Path]) -> str:
    """The shortest end of a path that none of the other paths has."""
    ends = [folder.parts[-length:] for length in range(1, len(folder.parts) + 1)]
    return str(Path(*next(end for end in ends if sum(other.parts[-len(end):] == end for other in folders) == 1)))


def _type(described) -> str:
    return described.get('type', '-') if isinstance(described, dict) else str(described or '-')
