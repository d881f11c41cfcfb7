"""Learn a patch, a frame or fixed pixels on a training split, and judge it on images not seen.

    sda fit sparse_dense_attacks::patches/demo_faster_rcnn.py
    sda fit my_fit.py --work-dir work_dirs/mine --resume

A config is a test config with a goal and

    fit = dict(placement=dict(type='OnObjects', classes=['person']), epochs=20)
    fit_dataloader = dict(batch_size=8, dataset=dict(indices=range(96)))  # changes of test_dataloader

The result, ``patch.json`` in the work dir, is applied by ``attack = dict(type='UniversalPatch',
artefact='.../patch.json')`` in any config.
"""
import argparse
import hashlib
import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from ..checks import check_task, shown
from ..errors import InputError
from ..registry import GOALS
from . import common
from .common import writing_to

if TYPE_CHECKING:
    from mmengine.runner import Runner

__all__ = ['fit_from_command_line', 'main', 'prepare_fit']

OWN = ('fit', 'fit_dataloader', 'goal', 'threat', 'victim', 'defence', 'judge')


def main(argv: list[str] | None = None) -> int:
    return common.main(fit_from_command_line, argv, kept='all finished epochs are safe')


def fit_from_command_line(argv: list[str] | None = None) -> dict:
    """Learn and judge as the arguments say; returns the judged numbers of every version."""
    runner = prepare_fit(argv)
    with writing_to(runner.work_dir):
        return runner.test()


def prepare_fit(argv: list[str] | None = None) -> 'Runner':
    """Parse and check everything that can be checked before the first image, and build the runner.

    Raises:
        InputError: whatever the user can mend.
    """
    args = _parser().parse_args(argv)
    args.images = args.limit = None  # of sda attack, whose settings are used

    from ..results import describe, file_digest, model_of, versions
    from .attack import DEFAULTS, build, settle, take_defence
    from .checkpoints import guard_loading
    from .configs import load_config, unset_variables

    guard_loading(args.trust_weights)
    cfg = load_config(args.config, args.cfg_options, OWN)
    for key in ('fit', 'fit_dataloader'):
        if not isinstance(cfg.get(key), dict):
            raise InputError(f"{args.config} has no top-level '{key}', a dict: {_EXAMPLES[key]}")
    if args.launcher != 'none':
        raise InputError(f'--launcher {args.launcher}: a patch is learned by one process')
    task, _, goal = DEFAULTS.get(cfg.get('default_scope'), (None, None, None))
    goal = GOALS.build(cfg.to_dict().get('goal') or _default_goal(cfg, goal))
    if task is not None:
        check_task(goal, task)
    unset = unset_variables(cfg)
    if cfg.get('test_dataloader') is None:
        raise InputError(f"{args.config} has no 'test_dataloader': take it from the model's own "
                         'test config (_base_ = [...])')
    victim = cfg.to_dict().get('victim')
    defence = take_defence(cfg, victim)  # before the training split is made of the test set
    if defence is not None:
        if defence.space == 'original':
            raise InputError("defence.space = 'original': a patch is learned through defences of the "
                             "network's input; leave space out")
        victim = dict(victim or {}, defence=describe(defence))
    train = cfg.test_dataloader.to_dict()
    _merge(train, cfg.pop('fit_dataloader').to_dict())
    weights = settle(cfg, args, unset)
    settings = model_of(cfg), dict(train.get('dataset') or {}, indices=None)
    content = json.dumps(settings, sort_keys=True, default=str)
    story = dict(weights=file_digest(weights) if weights else 'random weights', config=args.config,
                 settings=hashlib.sha256(content.encode()).hexdigest()[:16],
                 model=cfg.model.type, command=shlex.join(sys.argv), versions=versions())
    given = cfg.to_dict()
    for key in (*OWN, 'attack'):
        cfg.pop(key, None)
    cfg.test_cfg = dict(type='FitLoop', train=train, recipe=given['fit'], goal=goal,
                        judge=given.get('judge') or {}, threat=given.get('threat') or {},
                        victim=victim, resume=args.resume, story=story)
    return build(cfg, args, weights, unset)


_EXAMPLES = dict(
    fit="fit = dict(placement=dict(type='Fixed'), epochs=20)",
    fit_dataloader='fit_dataloader = dict(dataset=dict(indices=list(range(96)))), which is what '
                   'the training split has other than test_dataloader')


def _default_goal(cfg: Any, goal: Any) -> Any:
    """The default of a task; of a patch on objects of some classes to hide those."""
    placement = cfg.to_dict()['fit'].get('placement')
    classes = placement.get('classes') if isinstance(placement, dict) else None
    if goal is None:
        raise InputError(f"{cfg.filename} has no top-level 'goal', for example "
                         "goal = dict(type='Vanish')")
    return dict(goal, classes=classes) if classes and goal['type'] == 'Vanish' else goal


def _merge(base: dict, changes: dict) -> None:
    """Write changes into a dict of dicts; what is no dict is replaced.

    Raises:
        InputError: a dict and something else under one name.
    """
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        elif isinstance(base.get(key), dict):
            raise InputError(f'fit_dataloader: {key} = {shown(value)}, expected a dict')
        else:
            base[key] = value


def _parser() -> argparse.ArgumentParser:
    return common.common_arguments('fit', __doc__.splitlines()[0],
                                   'a test config of mmdet, mmseg or mmpretrain with fit')
