"""benchmark.py memory | overhead: what an attack costs beyond the passes it makes."""
import argparse
import multiprocessing
import os
import resource
import statistics
from dataclasses import replace

import torch
from assets import load_cifar, load_model
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stopwatch import bare_pass, clock, over_bare
from suites import cost_suite
from torch import Tensor

from sparse_dense_attacks import attack, screen
from sparse_dense_attacks.attacks import BudgetAttack
from sparse_dense_attacks.cli.attack import opened

MEMORY = ['SigmaZero', 'ASLO', 'SparsePGD', 'PGD0', 'WIFGSM', 'GSE', 'SparseRS']


def add_commands(commands) -> None:
    """The arguments of ``memory`` and ``overhead``."""
    command = commands.add_parser('memory', help='peak memory over that of the bare model')
    command.add_argument('--steps', type=int, nargs='+', default=[10, 1000])
    command.add_argument('--batch-size', type=int, default=128)
    command.add_argument('--attacks', nargs='+', default=MEMORY)
    command.set_defaults(call=memory)

    command = commands.add_parser('overhead', help='time per iteration over forward and backward')
    command.add_argument('config', nargs='?',
                         help='its attack on its model; by default every core on --model')
    command.add_argument('--model', default='resnet20',
                         choices=['resnet20', 'resnet32', 'cnn_a_adv'])
    command.add_argument('--batch-size', type=int, help='default: 8, of --model 128')
    command.add_argument('--steps', type=int, default=20, help='iterations per round')
    command.add_argument('--rounds', type=int, default=5)
    command.set_defaults(call=overhead)


def memory(args: argparse.Namespace) -> None:
    """Peak resident memory of short and long runs over the bare model's, one process each."""
    # Large tensors then come from and go back to the system one by one, so that the peak is not
    # blurred by the allocator's cache.
    os.environ |= dict(MALLOC_MMAP_THRESHOLD_='65536', MALLOC_ARENA_MAX='1', OMP_NUM_THREADS='1')
    context = multiprocessing.get_context('spawn')
    names = ['bare', *args.attacks]
    peaks = {}
    for name in track(names, 'measuring', console=Console(stderr=True)):
        for steps in args.steps:
            with context.Pool(1) as pool:
                peaks[name, steps] = pool.apply(peak_memory, (name, steps, args.batch_size))
    batch = args.batch_size * 3 * 32 * 32 * 4
    size = f'batch {args.batch_size}; one image batch is {batch / 2 ** 20:.2f} MiB'
    heads = (f'{steps} iterations, MiB' for steps in args.steps)
    table = Table('attack', *heads, 'image batches over bare',
                  title=f'peak memory, ResNet-20, {size}')
    for name in names:
        row = [peaks[name, steps] for steps in args.steps]
        extra = (row[-1] - peaks['bare', args.steps[-1]]) / batch
        table.add_row(name, *(f'{peak / 2 ** 20:.1f}' for peak in row), f'{extra:.1f}')
    screen.show(table)


def peak_memory(name: str, steps: int, batch_size: int) -> int:
    """Bytes; the process must do nothing else."""
    model = load_model('resnet20')
    images, labels = cifar_batch(batch_size)
    if name == 'bare':
        for _ in range(steps):
            bare_pass(model, images, True)
    else:
        attack(model, images, labels, cost_suite(steps)[name], batch_size=batch_size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cifar_batch(size: int) -> tuple[Tensor, Tensor]:
    """So many images and labels, repeated where there are fewer."""
    images, labels = load_cifar()
    rows = torch.arange(size) % len(images)
    return images[rows], labels[rows]


def overhead(args: argparse.Namespace) -> None:
    """Time of one attack iteration over one bare forward and backward on the same batch.

    The loops alternate round by round, so that a machine that slows down slows all of them; the
    median round counts.
    """
    if args.config is None:
        cifar_overhead(args.model, args.batch_size or 128, args.steps, args.rounds)
    else:
        config_overhead(args.config, args.batch_size or 8, args.steps, args.rounds)


def cifar_overhead(name: str, batch_size: int, steps: int, rounds: int) -> None:
    """Every core against the same passes through a model without an attack around them."""
    model = load_model(name)
    images, labels = cifar_batch(batch_size)
    ratios: dict[str, list[float]] = {}
    for round_ in track(range(rounds + 1), 'measuring', console=Console(stderr=True)):
        for core, one in cost_suite(steps).items():
            _, ratio = over_bare(model, images, labels, one, batch_size=batch_size)
            if round_:  # the first round warms up
                ratios.setdefault(core, []).append(ratio)
    size = f'batch {batch_size}, {steps} iterations, median of {rounds} rounds'
    table = Table('attack', 'over bare', 'lowest', 'highest', title=f'{name}, {size}')
    for core, values in ratios.items():
        cells = (statistics.median(values), min(values), max(values))
        table.add_row(core, *(f'{value:.3f}' for value in cells))
    screen.show(table)


def config_overhead(config: str, batch_size: int, steps: int, rounds: int) -> None:
    """The attack of a config against its network alone, and against network and objective."""
    attacker, (batch,) = opened([
        config, '--limit', str(batch_size), '--work-dir', 'work_dirs/benchmark',
        '--cfg-options', f'test_dataloader.batch_size={batch_size}'])
    to_the_end = dict(early_stop=False) if isinstance(attacker.attack, BudgetAttack) else {}
    chosen, model = replace(attacker.attack, steps=steps, **to_the_end), attacker.victim.model
    seconds: dict[str, list[float]] = {}
    with attacker.victim.session(), torch.enable_grad():
        scene = attacker.victim.open(batch)
        objective = attacker.goal.objective(scene)
        rows = torch.arange(len(scene.images))

        def network() -> None:
            x = scene.images.clone().requires_grad_()
            inputs = model.data_preprocessor(dict(inputs=x * 255, data_samples=None))['inputs']
            outputs = model(inputs, scene.samples, mode='tensor')
            torch.autograd.grad(sum(t.sum() for t in _tensors(outputs)), x)

        def with_objective() -> None:
            x = scene.images.clone().requires_grad_()
            torch.autograd.grad(objective(x, rows).loss.sum(), x)

        loops = {'network': network, 'network + objective': with_objective}
        for _ in range(rounds + 1):  # the first round warms up
            for name, loop in loops.items():
                _, spent = clock(lambda loop=loop: [loop() for _ in range(steps)])
                seconds.setdefault(name, []).append(spent)
            attacked = chosen(objective).seconds.sum().item()
            seconds.setdefault(type(chosen).__name__, []).append(attacked)

    median = {name: statistics.median(times[1:]) / steps for name, times in seconds.items()}
    size = f'batch {len(rows)}, {steps} iterations, median of {rounds} rounds'
    table = Table('loop', 'ms per iteration', *(f'over {name}' for name in loops),
                  title=f'{config}, {size}')
    for name, value in median.items():
        ratios = (f'{value / median[base]:.3f}' for base in loops)
        table.add_row(name, f'{1000 * value:.1f}', *ratios)
    screen.show(table)


def _tensors(outputs) -> list[Tensor]:
    """All tensors with a gradient in nested outputs."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.requires_grad else []
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for part in parts for tensor in _tensors(part)]
