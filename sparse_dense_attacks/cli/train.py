"""Train a model, for example adversarially, and validate it clean and under attack.

    sda train sparse_dense_attacks::training/resnet18_demo_strades.py
    sda train my_config.py --work-dir work_dirs/mine --resume
"""
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from . import common
from .common import building, check_device, writing_to
from .launch import join

if TYPE_CHECKING:
    import torch
    from mmengine.runner import Runner

__all__ = ['main', 'prepare_training', 'train_from_command_line']


def main(argv: list[str] | None = None) -> int:
    return common.main(train_from_command_line, argv, kept='the last checkpoint is safe')


def train_from_command_line(argv: list[str] | None = None) -> 'torch.nn.Module':
    """Train as the arguments say and return the model."""
    runner = prepare_training(argv)
    with writing_to(runner.work_dir):
        return runner.train()


def prepare_training(argv: list[str] | None = None) -> 'Runner':
    """Parse and check what can be checked before the first iteration, and build the runner.

    Raises:
        InputError: whatever the user can mend.
    """
    parser = common.common_arguments(
        'train', 'Train the model of a config, with whatever hooks and loops the config names.',
        'a training config of mmdet, mmseg or mmpretrain')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    args = parser.parse_args(argv)

    import torch

    from .checkpoints import guard_loading
    from .configs import load_config, unset_variables
    from .weights import find_weights

    on_gpu = args.device != 'cpu' and torch.cuda.is_available()
    if not on_gpu:  # mmengine makes groups of GPUs only
        join(args.launcher, args.device)
    guard_loading(args.trust_weights)
    cfg = load_config(args.config, args.cfg_options)
    unset = unset_variables(cfg)
    for key in ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'):
        if cfg.get(key) is None:
            raise InputError(f"{args.config} has no '{key}': is it a training config?")
    if cfg.get('defence') is not None:
        raise InputError(f"{args.config}: 'defence' means nothing to a training, whose model learns "
                         'from images as they are: leave it out')
    check_device(args.device)
    if args.amp and not torch.cuda.is_available():
        raise InputError('--amp: mixed precision needs a GPU, and torch sees none')
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(cfg.filename).stem}'
    if args.resume and not (Path(cfg.work_dir) / 'last_checkpoint').is_file():
        raise InputError(f'nothing to resume: {cfg.work_dir} has no last_checkpoint')
    start = args.checkpoint or cfg.get('load_from')
    beside = '' if args.checkpoint else cfg.filename
    cfg.load_from = find_weights(start, beside, unset) if start and not args.resume else None
    cfg.resume, cfg.launcher = args.resume, args.launcher
    if args.launcher != 'none' and not on_gpu:
        unused = cfg.get('find_unused_parameters', False)
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None,
                                     broadcast_buffers=False, find_unused_parameters=unused)
    if args.amp:
        cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale = 'AmpOptimWrapper', 'dynamic'
    with building(cfg, args, unset, progress_lines=True) as runner:
        _ = runner.train_loop, runner.val_loop  # here, so that a wrong data set is reported as such
    return runner
