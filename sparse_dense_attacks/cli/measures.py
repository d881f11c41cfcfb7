"""Measures of finished runs, from what they have stored and the model that they name."""
import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..results import Run

__all__ = ['measure']


def measure(folder: Path, names: Sequence[str], device: str | None = None,
            trust_weights: bool = False) -> None:
    """Take measures of the images of a run and add them to its records.

    Args:
        folder: the work dir.
        names: of the measures.
        device: 'cpu' or 'cuda'; the GPU if there is one by default.
        trust_weights: run the code that a file of weights names.

    Raises:
        InputError: a run that does not say how its model is built; weights, a model or images that
            are others now; a measure that does not exist or does not fit.
    """
    from mmengine.config import Config
    from mmengine.utils import import_modules_from_strings
    from rich.table import Table

    from ..engine.measures import Measures
    from ..evaluation import measure_intervals
    from ..screen import add_row, show
    from .attack import arguments, attack_runner
    from .checkpoints import guard_loading

    asked = Measures(list(names))
    run = Run.load(folder)
    given = _config(run)
    if not isinstance(given, dict):
        raise InputError(f'{folder}/run.json has no config of one model (an ensemble, or images '
                         'of a plain module), so measures cannot be taken of it')
    cfg = Config({key: value for key, value in given.items() if key != 'measures'},
                 cfg_text='# of run.json', filename=str(folder / 'measured.py'),
                 format_python_code=False)
    cfg.victim, cfg.measures = run.identity.get('victim'), list(names)
    defence = run.identity.get('defence')
    if defence is not None and defence.get('space') == 'original':
        raise InputError(f'{folder}: its defence works on image files, and measures of such runs can '
                         'only be taken while they attack: measures = [...] in the config')
    if defence is not None:
        cfg.defence = defence
    if 'custom_imports' in cfg:
        import_modules_from_strings(**cfg.custom_imports)
    args = arguments([str(folder / 'run.json')])
    args.checkpoint = run.info.get('checkpoint')
    if args.checkpoint is None:
        raise InputError(f'{folder} was attacked with random weights, which are gone, so measures '
                         'cannot be taken of it')
    args.work_dir, args.device, args.trust_weights = str(folder), device, trust_weights
    args.amp = run.identity.get('amp')
    guard_loading(trust_weights)
    runner = attack_runner(cfg, args)
    _check_same(run, runner.test_loop.run_info['identity'])
    runner.call_hook('before_run')
    runner.load_or_resume()
    loop = runner.test_loop
    if note := asked.note(loop.attacker.goal):
        show(f'note: {note}')
    table = Table(str(folder), 'value and 95 % interval', 'images')
    for name, interval in measure_intervals(loop.measure()).items():
        add_row(table, name, interval, interval.images)
    show(table)


def _config(run: Run) -> Any:
    text = run.info.get('config_text')
    if text is None:
        return run.info.get('config')
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError) as error:
        raise InputError(f'{run.work_dir}/run.json is broken (config_text: {error})') from error


def _check_same(run: Run, identity: dict) -> None:
    """Refuse a model, data or weights that are not those of the run."""
    now = json.loads(json.dumps(identity, default=str))
    differ = [key for key in sorted({*now, *run.identity}) if now.get(key) != run.identity.get(key)]
    if differ:
        raise InputError(f'{run.work_dir} was attacked with another {", ".join(differ)} than is '
                         'there now, so its measures would be of something else')
