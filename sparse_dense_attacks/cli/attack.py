"""Attack the test set of a config, evaluate it before and after.

    sda attack sparse_dense_attacks::spgd_faster_rcnn.py
    sda attack mmdet::yolox/yolox_tiny_8xb8-300e_coco.py --images photos --attack sigma_zero
    sda attack my_config.py --checkpoint my_weights.pth --cfg-options attack.k=500 --limit 32
"""
import argparse
import hashlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import compat
from ..checks import check_task
from ..errors import InputError
from ..registry import ATTACKS, GOALS, Registry
from . import common
from .common import building, check_device, compile_model, say, writing_to
from .launch import join

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

    from ..defences import Defence
    from ..engine import Attacker

__all__ = ['DEFAULTS', 'arguments', 'attack_from_command_line', 'attack_runner', 'build', 'check_precision',
           'main', 'opened', 'parser', 'prepare', 'settle', 'take_defence']

# Fields of the threat model that configs had at top level before there was one.
_OLDER = ('seed', 'eight_bit', 'max_forwards', 'where')
_OWN = ('attack', 'goal', 'threat', 'victim', 'defence', 'pictures', 'measures', *_OLDER)

# All steps are spent where the metric, such as average precision, is read afterwards.
_SPARSE_PGD = dict(type='SparsePGD', k=0.01, early_stop=False)
# Library of a config -> its task, and the attack and goal if neither command nor config has any.
DEFAULTS: dict[str, tuple] = {
    'mmdet': ('detection', _SPARSE_PGD, dict(type='Vanish')),
    'mmseg': ('segmentation', _SPARSE_PGD, dict(type='UntargetedPixels')),
    'mmpretrain': ('classification', dict(type='SparsePGD', k=0.01), dict(type='Untargeted')),
}


def main(argv: list[str] | None = None) -> int:
    return common.main(attack_from_command_line, argv)


def attack_from_command_line(argv: list[str] | None = None) -> dict:
    """Attack as the arguments say and return the metrics."""
    runner = prepare(argv)
    with writing_to(runner.work_dir):
        return runner.test()


def opened(argv: list[str]) -> tuple['Attacker', list[dict]]:
    """The attacker of a run, its weights loaded, and its batches, for tools with their own attacks.

    Raises:
        InputError: as :func:`prepare`.
    """
    runner = prepare(argv)
    runner.call_hook('before_run')
    runner.load_or_resume()
    loop = runner.test_loop
    return loop.attacker, list(loop.dataloader)


def prepare(argv: list[str] | None = None) -> 'Runner':
    """Parse and check everything that can be checked before the first image, and build the runner.

    Raises:
        InputError: whatever the user can mend.
    """
    args = arguments(argv)

    from .checkpoints import guard_loading
    from .configs import read_config

    check_precision(args)
    join(args.launcher, args.device)
    guard_loading(args.trust_weights)
    return attack_runner(read_config(args.config), args)


def attack_runner(cfg: 'Config', args: argparse.Namespace, shown: str | None = None) -> 'Runner':
    """The runner of a config that has been read; what the ``args`` say is written into it.

    Args:
        cfg: of the run.
        args: of the command.
        shown: work dir of another run, whose images are shown in place of an attack.

    Raises:
        InputError: as :func:`prepare`.
    """
    from ..engine.defend import defends_files
    from ..results import Run, describe, file_digest, literal, model_of, versions
    from ..threat_model import ThreatModel
    from .configs import unset_variables

    unset = unset_variables(cfg)
    attack, goal = _attack_and_goal(cfg, args)
    given = cfg.to_dict()
    older = {name: given[name] for name in _OLDER if name in given}
    threat = ThreatModel.build(given.get('threat'), older, args.config)
    weights = settle(cfg, args, unset)
    victim = cfg.pop('victim', None)
    defence = take_defence(cfg, victim)
    victim = None if victim == {} else victim
    pictures, measures = cfg.pop('pictures', 8), cfg.to_dict().get('measures', ())
    cfg.pop('measures', None)
    dataset = cfg.test_dataloader.dataset.to_dict()
    dataset.pop('indices', None)
    identity = dict(
        attack=describe(attack), goal=describe(goal), threat=describe(threat),
        model=model_of(cfg), dataset=dataset, victim=victim,
        weights=file_digest(weights) if weights else 'random weights')
    installed = versions()
    if installed.keys() & {'mmcv', 'onedl-mmcv'}:
        installed['mmcv operators'] = compat.in_use()
    run_info = dict(identity=identity, command=shlex.join(sys.argv), checkpoint=weights,
                    versions=installed, config=cfg.to_dict(),
                    config_text=literal(cfg.to_dict()))
    if shown is not None:
        digests = sorted(f'{one.key} {one.digest}' for one in Run.load(shown).records)
        identity['shown'] = hashlib.sha256('\n'.join(digests).encode()).hexdigest()[:16]
    if args.amp is not None:
        identity['amp'] = args.amp
    if defence is not None:
        identity['defence'] = describe(defence)
        if defence.space == 'input':
            victim = dict(victim or {}, defence=defence)
    if threat.grid == 'input' and defends_files(dataset):
        raise InputError("defence.space = 'original' beside threat.grid = 'input': the attack would "
                         'come after the defence; set either to the other one')
    for key in ('attack', 'goal', 'threat', *_OLDER):
        cfg.pop(key, None)
    draw = dict(type='AttackVisualizationHook', images=pictures)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), draw]
    cfg.test_cfg = dict(type='AttackLoop', attack=attack, goal=goal, threat=threat, victim=victim,
                        resume=args.resume, run_info=run_info, measures=measures, shown=shown,
                        amp=args.amp, sync_every=args.sync_every,
                        check=(args.limit or 8) if args.check else 0)
    runner = build(cfg, args, weights, unset)
    if args.channels_last:
        import torch
        runner.model.to(memory_format=torch.channels_last)
    if args.compile:
        compile_model(runner.model)
    return runner


def take_defence(cfg: 'Config', victim: dict | None = None) -> 'Defence | None':
    """The defence of a config, taken out of it; one of image files goes into the test pipelines.

    A DefenceHook, which stock runs have, is taken for one: in a run of ours it would come before
    the attack.

    Args:
        victim: options of the victim, which may name it instead.

    Raises:
        InputError: it is none, or named twice.
    """
    from ..engine.defend import built_defence, defend_files
    from ..results import describe
    content = cfg.to_dict()
    given = [content.get('defence')]
    cfg.pop('defence', None)
    if isinstance(victim, dict):
        given.append(victim.pop('defence', None))
    hooks = list(content.get('custom_hooks') or [])
    ours = [hook for hook in hooks if str(hook.get('type')).endswith('DefenceHook')]
    if ours:
        given += [hook['defence'] for hook in ours]
        cfg.custom_hooks = [hook for hook in hooks if hook not in ours]
    given = [one for one in given if one is not None]
    if not given:
        return None
    if len(given) > 1:
        raise InputError('more than one defence is given (defence, victim.defence, a DefenceHook): '
                         'leave all but one out')
    defence = built_defence(given[0])
    if defence.space == 'original':
        defend_files(cfg.test_dataloader.dataset, describe(defence))
    return defence


def settle(cfg: 'Config', args: argparse.Namespace, unset: str) -> str | None:
    """Write images, weights and work dir of the arguments into a config.

    Returns:
        The weights, None for random ones.

    Raises:
        InputError: as :func:`prepare`.
    """
    from ..engine.photos import use_photos
    from .weights import find_weights

    for key in ('model', 'test_dataloader', *(() if args.images else ('test_evaluator',))):
        if cfg.get(key) is None:
            raise InputError(f"{args.config} has no '{key}': take it from the model's own test "
                             'config (_base_ = [...])')
    if args.images:
        say(use_photos(cfg, args.images))
    if args.limit is not None:
        _cut(cfg.test_dataloader.dataset, args.limit)
    check_device(args.device)

    weights = (find_weights(args.checkpoint) if args.checkpoint else
               find_weights(_own_weights(cfg, args), cfg.filename, unset))
    # The config of a resumed training resumes; what our runs resume is another thing.
    cfg.load_from, cfg.resume = weights, False
    cfg.launcher = 'none'  # nothing is trained, so no model has to be kept in step with others
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(cfg.filename).stem}'
    return weights


def build(cfg: 'Config', args: argparse.Namespace, weights: str | None, unset: str) -> 'Runner':
    """The runner of a finished config.

    Raises:
        InputError: as :func:`prepare`.
    """
    from .weights import check_weights

    with building(cfg, args, unset) as runner:
        check_weights(runner.model, weights, args.trust_weights)
        _ = runner.test_loop  # built here, so that a wrong data set is reported as such
    return runner


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of ``sda attack``."""
    return parser('attack', 'Attack the test set of a config and evaluate it before and after.',
                  'a test config of mmdet, mmseg or mmpretrain').parse_args(argv)


def parser(command: str, description: str, config: str) -> argparse.ArgumentParser:
    """The arguments of commands that attack the test set of a config."""
    parser = common.common_arguments(command, description, config)
    parser.add_argument('--attack', metavar='NAME', help='for example sigma_zero, with its own '
                        "defaults; default: the config's 'attack', or Sparse-PGD with 1 %% of the "
                        'pixels')
    parser.add_argument('--goal', metavar='NAME', help='for example mislabel; default: the '
                        "config's 'goal', or Vanish, UntargetedPixels or Untargeted")
    parser.add_argument('--images', metavar='FOLDER', help='attack the photos of a folder instead '
                        'of the test set; what the model predicts on the clean ones is taken for '
                        'the truth')
    parser.add_argument('--limit', type=int, metavar='N', help='only the first N images')
    parser.add_argument('--channels-last', action='store_true', help='lay out the weights of '
                        'convolutions with their channels last, which many processors prefer; '
                        'results differ in the last bits')
    parser.add_argument('--amp', choices=('bf16', 'fp16'), help='let the model compute in 16 bits '
                        'while it is attacked; it is judged in full precision')
    parser.add_argument('--sync-every', type=int, metavar='N', help='look only every N iterations '
                        'which images are done; default: 1 on the CPU, 8 on a GPU')
    parser.add_argument('--compile', action='store_true', help="compile the model with torch's "
                        'compiler: slow to start, and again for each size of input; results differ '
                        'in the last bits')
    parser.add_argument('--check', action='store_true', help='attack nothing: list what the model '
                        'finds in the first images (8, or --limit) and its metrics on them')
    return parser


def check_precision(args: argparse.Namespace) -> None:
    """Refuse half precision where there is no GPU for it."""
    import torch
    if args.amp == 'fp16' and (args.device == 'cpu' or not torch.cuda.is_available()):
        raise InputError('--amp fp16 is for GPUs, and this run has none: use --amp bf16')


def _attack_and_goal(cfg: 'Config', args: argparse.Namespace) -> tuple[Any, Any]:
    """Build what the arguments, else the config, else the defaults name, after writing it and all
    ``--cfg-options`` into ``cfg``."""
    from .configs import set_options
    fallback = DEFAULTS.get(cfg.get('default_scope'), (None, None, None))
    task, defaults = fallback[0], fallback[1:]
    for key, registry, default in zip(('attack', 'goal'), (ATTACKS, GOALS), defaults, strict=True):
        if chosen := _chosen(registry, getattr(args, key), cfg.get(key) or default):
            cfg[key] = chosen
    set_options(cfg, args.config, args.cfg_options, _OWN)
    examples = dict(attack="dict(type='SparsePGD', k=0.01)", goal="dict(type='Vanish')")
    for key, example in examples.items():
        if not isinstance(cfg.get(key), dict | str):
            raise InputError(f"{args.config} has no top-level '{key}', for example "
                             f'{key} = {example}; or give --{key} NAME')
    given = cfg.to_dict()
    attack, goal = ATTACKS.build(given['attack']), GOALS.build(given['goal'])
    if task is not None:
        check_task(goal, task)
    return attack, goal


def _chosen(registry: Registry, name: str | None, own: Any) -> Any:
    """The config of an attack or a goal: ``own``, unless a ``name`` is given that is not its type.

    Raises:
        InputError: no attack or goal has this name.
    """
    own = dict(type=own) if isinstance(own, str) else own
    if name is None:
        return own
    kind = registry.get(name)
    same = isinstance(own, dict) and 'type' in own and registry.get(own['type']) is kind
    return own if same else dict(type=kind.__name__)


def _cut(dataset: Any, limit: int) -> None:
    """Keep the first images of a data set's config, of those that it chooses itself."""
    if limit < 1:
        raise InputError(f'--limit {limit}: expected at least one image')
    for wrapped, inner in (('datasets', 'datasets.0'), ('dataset', 'dataset')):
        if wrapped in dataset:  # mmengine's wrappers take no indices
            raise InputError(f"--limit cannot cut a {dataset.type}: set 'indices' of the data sets "
                             'within instead, for example --cfg-options '
                             f'test_dataloader.dataset.{inner}.indices={limit}')
    chosen = dataset.get('indices')
    if isinstance(chosen, int) and chosen < -limit:
        raise InputError(f'--limit {limit}: the config takes the last {-chosen} images (indices = '
                         f'{chosen}): write them as a list, or leave one of the two out')
    if chosen is None or isinstance(chosen, int) and chosen > limit:
        dataset.indices = limit
    elif not isinstance(chosen, int):
        dataset.indices = list(chosen)[:limit]


def _own_weights(cfg: 'Config', args: argparse.Namespace) -> str | None:
    """What a config brings along: the weights its zoo trained with it, else its ``load_from``."""
    from .weights import weights_of_config
    chosen = 'load_from' in (args.cfg_options or {})
    return (None if chosen else weights_of_config(args.config)) or cfg.get('load_from')
