"""Attack the test set of a config, evaluate it before and after."""
import shlex
import sys
from pathlib import Path

from mmengine.runner import Runner

from ..engine.attacker import Attacker
from ..engine.photos import use_photos
from ..errors import InputError
from ..registry import ATTACKS, GOALS
from ..results import describe, file_digest, versions
from ..threat_model import ThreatModel
from .common import (
    CONFIG_ERRORS,
    check_device,
    check_ops,
    check_weights,
    common_arguments,
    find_weights,
    load_config,
    one_line,
    writing_to,
)

__all__ = ['attack_from_command_line', 'opened', 'prepare']

_OLDER = ('seed', 'eight_bit', 'max_forwards', 'where')  # fields of the threat model that configs had at top level


def attack_from_command_line(argv: list[str] | None = None) -> dict:
    """Attack as the arguments say and return the metrics."""
    runner = prepare(argv)
    with writing_to(runner.work_dir):
        return runner.test()


def prepare(argv: list[str] | None = None) -> Runner:
    """Parse and check everything that can be checked before the first image, and build the runner.

    Raises:
        InputError: whatever the user can mend.
    """
    parser = common_arguments('Attack the test set of a config and evaluate it before and after.',
                              "a test config with top-level keys 'attack' and 'goal'")
    parser.add_argument('--images', metavar='FOLDER', help='attack the photos of a folder instead of the test set; what the '
                        'model predicts on the clean ones is taken for the truth')
    parser.add_argument('--limit', type=int, metavar='N', help='only the first N images')
    args = parser.parse_args(argv)

    cfg = load_config(args.config, args.cfg_options, ('attack', 'goal', 'threat', 'victim', 'pictures', *_OLDER))
    for key, example in (('attack', "dict(type='SparsePGD', k=0.01)"), ('goal', "dict(type='Vanish')")):
        if not isinstance(cfg.get(key), dict | str):
            raise InputError(f"{args.config} has no top-level '{key}', for example {key} = {example}")
    given = cfg.to_dict()
    attack, goal = ATTACKS.build(given['attack']), GOALS.build(given['goal'])
    older = {name: given[name] for name in _OLDER if name in given}
    threat = ThreatModel.build(given.get('threat'), older, args.config)
    for key in ('model', 'test_dataloader', *(() if args.images else ('test_evaluator',))):
        if cfg.get(key) is None:
            raise InputError(f"{args.config} has no '{key}': take it from the model's own test config (_base_ = [...])")
    if args.images:
        use_photos(cfg, args.images)
    if args.limit is not None:
        if args.limit < 1:
            raise InputError(f'--limit {args.limit}: expected at least one image')
        dataset = cfg.test_dataloader.dataset
        if 'datasets' in dataset or 'dataset' in dataset:  # mmengine's wrappers take no indices
            raise InputError(f"--limit cannot cut a {dataset.type}: set 'indices' of the data sets within instead, for example "
                             f"--cfg-options test_dataloader.dataset.{'datasets.0' if 'datasets' in dataset else 'dataset'}"
                             f'.indices={args.limit}')
        dataset.indices = args.limit
    check_device(args.device)

    weights = find_weights(args.checkpoint or cfg.get('load_from'))
    cfg.load_from = weights
    cfg.resume, cfg.launcher = False, args.launcher  # a resumed training's config resumes; ours is --resume
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    victim = cfg.pop('victim', None)
    pictures = cfg.pop('pictures', 8)
    digest = file_digest(weights) if weights else 'random weights'
    dataset = {name: value for name, value in cfg.test_dataloader.dataset.to_dict().items() if name != 'indices'}
    run_info = dict(
        identity=dict(attack=describe(attack), goal=describe(goal), threat=describe(threat), model=cfg.model.to_dict(),
                      dataset=dataset, weights=digest, victim=victim),
        command=shlex.join(sys.argv), checkpoint=weights, versions=versions(), config=cfg.to_dict())
    for key in ('attack', 'goal', 'threat', *_OLDER):
        cfg.pop(key, None)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='AttackVisualizationHook', images=pictures)]
    cfg.test_cfg = dict(type='AttackLoop', attack=attack, goal=goal, threat=threat, victim=victim,
                        resume=args.resume, run_info=run_info)
    if cfg.get('default_scope') != 'mmpretrain':  # its classifiers need none
        check_ops()
    try:
        runner = Runner.from_cfg(cfg)
        if args.device:
            runner.model.to(args.device)
        check_weights(runner.model, weights)
        _ = runner.test_loop  # built here, so that a wrong data set is reported as such
    except InputError:
        raise
    except CONFIG_ERRORS as error:
        raise InputError(f'cannot build the run of {args.config}: {type(error).__name__}: {one_line(error)}') from error
    return runner


def opened(argv: list[str]) -> tuple[Attacker, list[dict]]:
    """The attacker of a run, with its weights loaded, and the run's batches; for tools that apply attacks of their own.

    Raises:
        InputError: as :func:`prepare`.
    """
    runner = prepare(argv)
    runner.call_hook('before_run')
    runner.load_or_resume()
    loop = runner.test_loop
    return loop.attacker, list(loop.dataloader)
