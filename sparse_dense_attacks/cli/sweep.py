"""Run an attack with a table of other settings on the same images; one table, one figure, findings.

    sda sweep sparse_dense_attacks::studies/reinit.py
    sda sweep my_sweep.py --work-dir work_dirs/my_sweep --device cpu
"""
import argparse
import copy
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checks import is_count, shown
from ..errors import InputError
from ..registry import nearest
from ..screen import say, show
from . import common

if TYPE_CHECKING:
    from ..evaluation.sweep import Cell

__all__ = ['Sweep', 'main', 'run']

FIELDS = {'title', 'note', 'base', 'limit', 'options', 'cells', 'measures', 'figure', 'findings',
          'work_dir', 'custom_imports'}
FINDING = ('claim', 'measure', 'more', 'less')
WHOLE = ('attack', 'goal', 'threat')  # of these an override without a dot takes the whole place


def main(argv: list[str] | None = None) -> int:
    return common.main(run, argv, kept='all finished images of all cells are safe; run it again')


def run(argv: list[str] | None = None) -> list['Cell']:
    """Sweep as the arguments say.

    Raises:
        InputError: whatever the user can mend.
    """
    from ..evaluation.sweep import check_same_images, draw_cells, judge_claim, write_cells
    args = _parser().parse_args(argv)
    sweep = Sweep.read(args)
    cells = []
    for name in sweep.cells:
        cells.append(_cell(sweep, name))
        gc.collect()
    check_same_images(cells)
    findings = [judge_claim(cells, **one) for one in sweep.findings]
    out = args.out or sweep.folder
    out.mkdir(parents=True, exist_ok=True)
    stem = out / sweep.name
    draw_cells(cells, stem.with_suffix('.png'), sweep.figure, sweep.title)
    write_cells(cells, findings, stem, sweep.title, sweep.note)
    for one in findings:
        show(str(one).replace('**', ''))
    seconds = sum(record.seconds for cell in cells for record in cell.records)
    show(f'{len(cells)} cells, {seconds:.0f} s of attack; table in {stem}.csv and {stem}.md, figure '
         f'in {stem}.png')
    return cells


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('sda sweep', description=__doc__.splitlines()[0])
    parser.add_argument('config', help='a file, or a name such as '
                        'sparse_dense_attacks::studies/reinit.py')
    parser.add_argument('--work-dir', help="where the cells' runs go; finished ones are taken as they "
                        "are; default: the config's, or work_dirs/sweep_<name of the config>")
    parser.add_argument('--out', type=Path, help='folder for table and figure; default: the work dir')
    parser.add_argument('--limit', type=int, metavar='N', help='only the first N images')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='default: cuda if there is one')
    parser.add_argument('--trust-weights', action='store_true', help='run the code that a file of '
                        'weights names; by default such files are refused')
    parser.add_argument('-v', '--verbose', action='store_true', help='print all that the libraries '
                        'log')
    return parser


@dataclass(frozen=True)
class Sweep:
    """What a config of a sweep says.

    Attributes:
        name: of the files that are written.
        folder: where the cells' runs go.
        title, note: of the page.
        base: the attack config.
        limit: how many images.
        options: overrides of every cell, by dotted key; 'attack', 'goal' and 'threat' are replaced
            as a whole.
        cells: overrides by the cell's name; 'base' there is another config.
        measures: what to measure of every image.
        figure: what the figure shows beside success.
        findings: claims to judge, see :func:`~sparse_dense_attacks.evaluation.sweep.judge_claim`.
        args: of the command line.
    """
    name: str
    folder: Path
    title: str
    note: str
    base: str | None
    limit: int | None
    options: Mapping[str, Any]
    cells: Mapping[str, Mapping[str, Any]]
    measures: Sequence
    figure: str
    findings: Sequence[Mapping[str, str]]
    args: argparse.Namespace

    @classmethod
    def read(cls, args: argparse.Namespace) -> 'Sweep':
        """Read and check the config.

        Raises:
            InputError: a field that nothing reads, or that does not fit.
        """
        from .checkpoints import guard_loading
        from .configs import read_config
        guard_loading(args.trust_weights)
        cfg = read_config(args.config)
        given = cfg.to_dict()
        for field in given:
            if field not in FIELDS:
                raise InputError(f"{args.config}: nothing reads '{field}' of a sweep: "
                                 f'{nearest(field, FIELDS)}')
        cells = given.get('cells')
        if not isinstance(cells, Mapping) or not cells or not all(
                isinstance(name, str) and isinstance(one, Mapping) for name, one in cells.items()):
            raise InputError(f'cells = {shown(cells)}, expected a dict from name to overrides, such '
                             "as {'k = 10': {'attack.k': 10}}")
        for name in cells:
            if '/' in name:
                raise InputError(f"cells: the name '{name}' holds '/', which names a folder")
        limit = args.limit if args.limit is not None else given.get('limit')
        if limit is not None and not is_count(limit):
            raise InputError(f'limit = {shown(limit)}, expected an int >= 1')
        if not isinstance(given.get('options', {}), Mapping):
            raise InputError(f"options = {shown(given['options'])}, expected a dict such as "
                             "{'attack.steps': 50}")
        for name, one in cells.items():
            if not isinstance(one.get('base', given.get('base')), str):
                raise InputError(f"cell '{name}' has no base = 'my_attack_config.py'")
        name = Path(cfg.filename).stem
        folder = Path(args.work_dir or given.get('work_dir') or f'work_dirs/sweep_{name}')
        return cls(name, folder, given.get('title', name), given.get('note', ''), given.get('base'),
                   limit, given.get('options', {}), cells, given.get('measures', []),
                   given.get('figure', 'pixels'), _findings(given.get('findings', []), cells), args)


def _findings(given: Any, cells: Mapping) -> list[dict]:
    if not isinstance(given, list | tuple):
        raise InputError(f'findings = {shown(given)}, expected a list of dicts')
    for one in given:
        if not isinstance(one, Mapping) or sorted(one) != sorted(FINDING):
            raise InputError(f"findings: {shown(one)}, expected a dict of {', '.join(FINDING)}")
        for side in ('more', 'less'):
            if one[side] not in cells:
                raise InputError(f"findings: no cell '{one[side]}': {nearest(one[side], cells)}")
    return [dict(one) for one in given]


def _cell(sweep: Sweep, name: str) -> 'Cell':
    """Run a cell, or go on with it, or take it as it is; then the measures that it lacks."""
    from ..engine.data import keys_of
    from ..evaluation.sweep import Cell
    from ..results import Run
    from ..results.run import is_finished, is_same
    folder = sweep.folder / 'cells' / _file_name(name)
    runner = _runner(sweep, name, folder, resume=False)
    loop = runner.test_loop
    identity, keys = loop.run_info['identity'], keys_of(loop.dataloader.dataset)
    if not is_finished(folder, identity, keys):
        loop.resume = is_same(folder, identity)
        say(f"cell '{name}'")
        with common.writing_to(runner.work_dir):
            runner.test()
    elif loop.attacker.measures and not _measured(Run.load(folder), loop.attacker.measures):
        say(f"cell '{name}': measures")
        runner.call_hook('before_run')
        runner.load_or_resume()
        loop.measure()
    found = Run.load(folder)
    return Cell(name, [one for one in found.records if one.key in keys], found.metrics)


def _measured(run, measures) -> bool:
    """Whether all images have all measures."""
    from ..evaluation.measures import BEFORE_AND_AFTER
    names = set(measures.names)
    names |= {f'{when}objects' for when in BEFORE_AND_AFTER if measures.of_outputs}
    return all(names <= one.measures.keys() for one in run.records if not one.skipped)


def _runner(sweep: Sweep, name: str, folder: Path, resume: bool):
    from .attack import _OWN, arguments, attack_runner
    from .configs import read_config, set_options
    overrides = dict(sweep.options) | dict(sweep.cells[name])
    config = overrides.pop('base', sweep.base)
    cfg = read_config(config)
    for key in WHOLE:
        if key in overrides:
            cfg.pop(key, None)
            cfg[key] = copy.deepcopy(overrides.pop(key))
    set_options(cfg, f"{config} (cell '{name}')", overrides, _OWN)
    cfg.measures, cfg.pictures = list(sweep.measures), 0
    args = arguments([config])
    args.work_dir, args.limit, args.resume = str(folder), sweep.limit, resume
    for field in ('device', 'trust_weights', 'verbose'):
        setattr(args, field, getattr(sweep.args, field))
    return attack_runner(cfg, args)


def _file_name(name: str) -> str:
    """A cell's name as a folder's; names that differ give folders that differ."""
    from urllib.parse import quote
    return quote(name, safe=' ,=+()').replace(' ', '_')
