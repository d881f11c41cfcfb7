"""benchmark.py training: the time of adversarial training over that of plain training."""
import argparse
import itertools
import statistics
from pathlib import Path

import stopwatch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sparse_dense_attacks import screen
from sparse_dense_attacks.cli.configs import load_config

GOALS = dict(resnet18='Untargeted', semantic_fpn='UntargetedPixels', faster_rcnn='Vanish',
             yolox='Vanish')


def add_commands(commands) -> None:
    """The arguments of ``training``."""
    command = commands.add_parser('training', help='adversarial training over plain training')
    command.add_argument('--model', default='resnet18', choices=GOALS)
    command.add_argument('--steps', type=int, default=5, help='T, of the attack')
    command.add_argument('--iterations', type=int, default=4, help='per round')
    command.add_argument('--rounds', type=int, default=5)
    command.add_argument('--out', type=Path, default=Path('work_dirs/benchmark/training'))
    command.set_defaults(call=training)


def training(args: argparse.Namespace) -> None:
    """Time of an adversarial training iteration over a plain one, whole and per pass.

    There are 1 + T of these, as all images are attacked with all T steps. sAT has T passes of the
    attack and one of the training. sTRADES cannot have fewer than 2 + T, as its loss has a clean
    part and an adversarial one; it has 3 + T, as the divergence looks at the clean images again.
    Runs alternate; every round is a run of its own from the demo weights, whose first iteration
    only warms up.
    """
    attack = dict(type='SparsePGD', k=0.01, steps=args.steps, early_stop=False)
    hook = dict(type='AdversarialTrainingHook', goal=GOALS[args.model], attack=attack)
    variants = dict(plain=[], sAT=[dict(hook, loss='sAT')], sTRADES=[dict(hook, loss='sTRADES')])
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in track(range(args.rounds), 'measuring', console=Console(stderr=True)):
        for name, hooks in variants.items():
            spent = training_seconds(args.model, args.iterations, hooks, args.out / name)
            seconds[name].append(spent)
    passes = 1 + args.steps
    least = f'{(passes + 1) / passes:.2f}'
    size = f'T = {args.steps}, median of {args.rounds} rounds'
    table = Table('training', 'ms', 'over plain', f'over {passes} plain', 'lowest', 'highest',
                  title=f'an iteration of {args.model}, {size}', caption=f'sTRADES: about {least} '
                  'at least, its loss looks at the clean images too')
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(values, seconds['plain'], strict=True)]
        shares = [ratio / (passes if variants[name] else 1) for ratio in ratios]
        cells = (statistics.median(ratios), statistics.median(shares), min(shares), max(shares))
        milliseconds = 1000 * statistics.median(values)
        table.add_row(name, f'{milliseconds:.1f}', *(f'{value:.3f}' for value in cells))
    screen.show(table)


def training_seconds(model: str, iterations: int, hooks: list[dict], work_dir: Path) -> float:
    """Median seconds per iteration of a demo config with these hooks, on 64 unseen scenes."""
    marks = []

    class Marks(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            marks.append(stopwatch.now())

    loop = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=iterations + 1)
    scenes = dict(split='val', count=64, seed=1, indices=None)
    cfg = load_config(f'configs/training/{model}_demo.py', dict(
        work_dir=str(work_dir), load_from=f'sparse_dense_attacks/demo/weights/{model}.pth',
        train_cfg=loop, param_scheduler=None, custom_hooks=hooks,
        train_dataloader=dict(num_workers=0, persistent_workers=False, dataset=scenes),
        val_dataloader=None, val_evaluator=None, val_cfg=None,
        log_level='ERROR', visualizer=None, default_hooks=dict(checkpoint=None, logger=None)))
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Marks())
    runner.train()
    return statistics.median(after - before for before, after in itertools.pairwise(marks))
