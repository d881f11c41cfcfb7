"""What a defence is worth: undefended, against the same images, and attacked through it.

    sda defend sparse_dense_attacks::defences/yolox.py
    sda defend my_config.py --limit 32 --resume

A config is one of `sda attack` with defences by name, and attacks by name unless it has just one:

    defences = dict(jpeg=dict(type='JPEG', quality=75), median=dict(type='Median', size=3))
    attacks = dict(spgd=dict(type='SparsePGD', k=0.01), sigma_zero=dict(type='SigmaZero'))

A universal patch is adaptive where it was learned through the defence: in texts of an attack
'{defence}' stands for the defence's name, and for 'undefended' in that row.
"""
import argparse
import copy
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checks import shown
from ..errors import InputError
from . import common
from .common import say
from .launch import join

if TYPE_CHECKING:
    from ..results import Run

__all__ = ['main', 'run']

HEAD = ['attack', 'defence', 'row', 'images', 'broken', 'share', 'median pixels',
        'clean -> adversarial']


def main(argv: list[str] | None = None) -> int:
    return common.main(run, argv)


def run(argv: list[str] | None = None) -> list[list[str]]:
    """Run what the config names, and write the table; returns its lines."""
    from mmengine.dist import is_main_process
    from rich.table import Table

    from ..evaluation import markdown_table
    from ..screen import add_row, show
    from .attack import check_precision
    from .checkpoints import guard_loading
    from .configs import read_config

    args = _parser().parse_args(argv)
    check_precision(args)
    join(args.launcher, args.device)
    guard_loading(args.trust_weights)
    cfg = read_config(args.config)
    if args.attack is not None and cfg.get('attacks') is not None:
        raise InputError(f"--attack {args.attack} beside the 'attacks' of {args.config}, each of which it "
                         'would replace: leave it out')
    attacks, defences = _named(cfg, 'attacks', args.config), _named(cfg, 'defences', args.config)
    for key in ('attacks', 'defences'):
        cfg.pop(key, None)
    _check(attacks, defences)
    folder = Path(args.work_dir or f'work_dirs/defend_{Path(cfg.filename).stem}')
    lines = []
    for name, attack in attacks.items():
        place = folder / name
        _set_attack(cfg, attack, 'undefended')
        plain = _run(cfg, args, place / 'undefended')
        lines.append(_line(name, '-', 'undefended', plain))
        for title, defence in defences.items():
            _set_attack(cfg, attack, 'undefended')
            static = _run(cfg, args, place / title / 'static', defence, plain.work_dir)
            lines.append(_line(name, title, 'static', static))
            _set_attack(cfg, attack, title)
            adaptive = _run(cfg, args, place / title / 'adaptive', defence)
            lines.append(_line(name, title, 'adaptive', adaptive))

    if not is_main_process():
        return lines
    note = ('Images that the model before which the defence is got right. *undefended*: the attack '
            'on the model as it is; *static*: these images shown to the defended model; *adaptive*: '
            'the attack through the defence. Success and metrics are those of the 8-bit images.\n\n')
    (folder / 'defences.md').write_text(note + markdown_table(HEAD, lines))
    table = Table(*HEAD)
    for line in lines:
        add_row(table, *line)
    show(table)
    show(f'table in {folder / "defences.md"}')
    return lines


def _parser() -> argparse.ArgumentParser:
    from .attack import parser
    return parser('defend', __doc__.splitlines()[0], "a config of sda attack with 'defences'")


def _named(cfg: Any, key: str, config: str) -> dict[str, Any]:
    """Entries by name; of attacks the config's own by default, None where it has none."""
    given = cfg.to_dict()
    entries = given.get(key)
    if entries is None and key == 'attacks':
        return {'attack': given.get('attack')}
    if not isinstance(entries, Mapping) or not entries:
        raise InputError(f"{config}: {key} = {shown(entries)}, expected a dict from name to entry, "
                         "such as dict(jpeg=dict(type='JPEG', quality=75))")
    for name in entries:
        if '/' in name or name == 'undefended':
            raise InputError(f"{config}: {key}: '{name}' cannot be the name of a folder here, "
                             'expected another one')
    return dict(entries)


def _check(attacks: Mapping[str, Any], defences: Mapping[str, Any]) -> None:
    """Build everything once, so that a mistake in the last entry costs no run."""
    from ..engine.defend import built_defence
    from ..registry import ATTACKS
    for attack in attacks.values():
        if attack is not None:
            for title in ('undefended', *defences):
                ATTACKS.build(_against(attack, title))
    for defence in defences.values():
        built_defence(copy.deepcopy(defence))


def _set_attack(cfg: Any, attack: Any, defence: str) -> None:
    """Write an attack on a defence of this name into a config; None leaves that to others."""
    if attack is not None:
        cfg.pop('attack', None)
        cfg.attack = _against(attack, defence)


def _against(attack: Any, defence: str) -> Any:
    """An attack, or a value in it, in whose texts '{defence}' stands for the name of the defence."""
    if isinstance(attack, str):
        return attack.replace('{defence}', defence)
    if isinstance(attack, Mapping):
        return {key: _against(value, defence) for key, value in attack.items()}
    return copy.deepcopy(attack)


def _run(cfg: Any, args: argparse.Namespace, folder: Path, defence: Any = None,
         shown_run: Path | None = None) -> 'Run':
    """A run in a folder, or the one that is there already, with the records of its images only.

    Raises:
        InputError: without a defence there is one all the same.
    """
    from mmengine.dist import barrier

    from ..results import Run
    from ..results.run import is_finished, is_same
    from .attack import attack_runner
    args = copy.copy(args)
    args.work_dir = str(folder)
    cfg = copy.deepcopy(cfg)
    if defence is not None:
        cfg.pop('defence', None)
        cfg.defence = defence
    runner = attack_runner(cfg, args, None if shown_run is None else str(shown_run))
    loop = runner.test_loop
    identity = loop.run_info['identity']
    if defence is None and 'defence' in identity:
        raise InputError(f"{args.config} has a defence of its own ({identity['defence']['type']}), behind "
                         "which no row would be undefended: name it among 'defences'")
    if not (args.resume and is_finished(folder, identity, loop.places)):
        if shown_run is not None:  # images that are others now are shown anew, which costs no attack
            loop.resume = args.resume and is_same(folder, identity)
        say(f'{folder}')
        runner.test()
    barrier()  # the first process has written the metrics
    run = Run.load(folder)
    return replace(run, records=tuple(one for one in run.records if one.key in loop.places))


def _line(attack: str, defence: str, row: str, run: 'Run') -> list[str]:
    metrics = run.metrics
    names = [name.removeprefix('clean/') for name, value in metrics.items()
             if name.startswith('clean/') and isinstance(value, float)]
    scores = [f'{name} {metrics[f"clean/{name}"]:.3f} -> {metrics[f"adv/{name}"]:.3f}'
              for name in names[:2] if isinstance(metrics.get(f'adv/{name}'), float)]
    right = [one for one in run.records if one.success is not None and one.clean_correct]
    broken = [one.l0_pixels for one in right if one.success]
    return [attack, defence, row, str(len(right)), _number(metrics.get('attack/success_rate')),
            _number(metrics.get('attack/share')),
            f'{statistics.median(broken):g}' if broken else '-', ', '.join(scores) or '-']


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'
