"""Measure attacks against the bare model, as ratios within one run.

    python tools/benchmark.py overhead configs/coco/spgd_yolox-nano_coco.py --batch-size 8
"""
import argparse
import statistics
import sys
import time
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from sparse_dense_attacks.engine.launch import main, prepare


def overhead(args: argparse.Namespace) -> None:
    """Time of one attack iteration over one bare forward and backward on the same batch.

    The loops alternate round by round, so that a machine that slows down slows all of them; the median round counts.
    """
    runner = prepare([args.config, '--limit', str(args.batch_size), '--work-dir', 'work_dirs/benchmark', '--cfg-options',
                      f'test_dataloader.batch_size={args.batch_size}'])
    runner.call_hook('before_run')
    runner.load_or_resume()
    attacker, batch = runner.test_loop.attacker, next(iter(runner.test_loop.dataloader))
    attack, model = replace(attacker.attack, steps=args.steps, early_stop=False), attacker.victim.model
    seconds: dict[str, list[float]] = {}
    with attacker.victim.session(), torch.enable_grad():
        scene = attacker.victim.open(batch)
        objective = attacker.goal.objective(scene)
        rows = torch.arange(len(scene.images))

        def network() -> None:
            x = scene.images.clone().requires_grad_()
            inputs = model.data_preprocessor(dict(inputs=x * 255, data_samples=None))['inputs']
            total = sum(t.sum() for t in _tensors(model(inputs, scene.samples, mode='tensor')))
            torch.autograd.grad(total, x)

        def bare() -> None:
            x = scene.images.clone().requires_grad_()
            torch.autograd.grad(objective(x, rows).loss.sum(), x)

        for _ in range(args.rounds + 1):  # the first round warms up
            for name, run in (('network', network), ('network + objective', bare)):
                seconds.setdefault(name, []).append(_clock(lambda run=run: [run() for _ in range(args.steps)], scene.images))
            spent = attack(objective).seconds.sum().item()
            seconds.setdefault(type(attack).__name__, []).append(spent)

    median = {name: statistics.median(times[1:]) / args.steps for name, times in seconds.items()}
    table = Table('loop', 'ms per iteration', 'over network', 'over network + objective',
                  title=f'{args.config}, batch {len(scene.images)}, {args.steps} iterations, median of {args.rounds} rounds')
    for name, value in median.items():
        ratios = (f'{value / median[base]:.3f}' for base in ('network', 'network + objective'))
        table.add_row(name, f'{1000 * value:.1f}', *ratios)
    Console().print(table)


def _clock(run, images: torch.Tensor) -> float:
    started = time.perf_counter()
    run()
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - started


def _tensors(outputs):
    """All tensors with a gradient in nested outputs."""
    if isinstance(outputs, torch.Tensor):
        return [outputs] if outputs.requires_grad else []
    return [t for part in (outputs.values() if isinstance(outputs, dict) else outputs) for t in _tensors(part)]


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    command = commands.add_parser('overhead', help='time per iteration over the bare forward and backward')
    command.add_argument('config', nargs='?', default='configs/spgd_faster_rcnn.py')
    command.add_argument('--batch-size', type=int, default=8)
    command.add_argument('--steps', type=int, default=20, help='iterations per round')
    command.add_argument('--rounds', type=int, default=5)
    command.set_defaults(call=overhead)
    args = parser.parse_args(argv)
    args.call(args)


if __name__ == '__main__':
    sys.exit(main(run))
