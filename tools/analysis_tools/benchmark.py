"""Measure attacks: their strength on real images, and their cost against the bare model, as ratios within one run.

    python tools/analysis_tools/benchmark.py cifar10                     every attack on ResNet-20, beside adversarial-library's (make env-bench)
    python tools/analysis_tools/benchmark.py detector                    every attack on a detector (YOLOX-nano and 16 COCO images)
    python tools/analysis_tools/benchmark.py memory                      peak memory after 10 and after 1000 iterations
    python tools/analysis_tools/benchmark.py overhead                    time per iteration of every core on ResNet-20, batch 128
    python tools/analysis_tools/benchmark.py overhead configs/coco/spgd_yolox-nano_coco.py --batch-size 8
    python tools/analysis_tools/benchmark.py training --model faster_rcnn --steps 5    time of adversarial training over plain training
"""
import argparse
import importlib.util
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from assets import load_cifar, load_model
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from sparse_dense_attacks import (
    ASLO,
    GSE,
    PGD0,
    WIFGSM,
    Attack,
    AttackResult,
    BudgetSearch,
    ForeignAttack,
    InputError,
    RandomPixels,
    SigmaZero,
    SparseAutoAttack,
    SparsePGD,
    SparseRS,
    StructuredSparsePGD,
    SwapPGD,
    attack,
)
from sparse_dense_attacks.cli.attack import opened
from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.cli.configs import load_config
from sparse_dense_attacks.evaluation import clusters, draw_curves
from sparse_dense_attacks.groups import Patch
from sparse_dense_attacks.ops import changed_pixels
from sparse_dense_attacks.ops.neighbourhood import windows_changed

BUDGETS = (10, 5, 3)


def suite(steps: int, queries: int) -> dict[str, Attack]:
    """What `cifar10` measures, by the names its table shows."""
    attacks: dict[str, Attack] = {
        'SigmaZero': SigmaZero(steps=steps),
        'SigmaZero pixel': SigmaZero(steps=steps, unit='pixel'),
        'ASLO': ASLO(steps=steps),
        'ASLO no threshold': ASLO(steps=steps, threshold='none'),
        'WIFGSM': WIFGSM(),
        "WIFGSM l0='none'": WIFGSM(l0='none'),
        'GSE': GSE(),
    }
    for k in BUDGETS:
        attacks |= {
            f'SparsePGD k={k}': SparsePGD(k=k, steps=steps),
            f'SparsePGD unprojected k={k}': SparsePGD(k=k, steps=steps, gradient='unprojected'),
            f'SwapPGD k={k}': SwapPGD(k=k, steps=steps),
            f'SparseRS k={k}': SparseRS(k=k, steps=queries),
            f'SparseAutoAttack k={k}': SparseAutoAttack(k=k, steps=steps, queries=queries),
            f'PGD0 k={k}': PGD0(k=k, steps=steps),
            f'RandomPixels k={k}': RandomPixels(k=k, steps=steps),
        }
    attacks |= {
        'one row': StructuredSparsePGD(steps=steps, kernel='row'),
        'one column': StructuredSparsePGD(steps=steps, kernel='column'),
        'one 5x5 patch': StructuredSparsePGD(steps=steps, kernel=Patch(5, 5)),
        'search SparsePGD': BudgetSearch(SparsePGD(k=8, steps=steps)),
        'search SparseRS': BudgetSearch(SparseRS(k=8, steps=queries)),
        'search PGD0': BudgetSearch(PGD0(k=32, steps=steps)),
    }
    if importlib.util.find_spec('adv_lib'):
        attacks |= {
            'adv-lib sigma_zero': ForeignAttack('adv_lib.attacks.sigma_zero', dict(num_steps=steps), batched=True),
            'adv-lib vfga': ForeignAttack('adv_lib.attacks.vfga', dict(targeted=False)),
            'adv-lib pdpgd': ForeignAttack('adv_lib.attacks.pdpgd', dict(norm=0, num_steps=steps), batched=True),
        }
    return attacks


def detector_suite(steps: int, queries: int, k: int) -> dict[str, Attack]:
    """What `detector` measures: the minimum question in pixels, and the budget question with k pixels or a few groups."""
    budget = dict(k=k, steps=steps)
    return {
        'SigmaZero pixel': SigmaZero(steps=steps, unit='pixel'),
        'SigmaZero': SigmaZero(steps=steps),
        'ASLO pixel': ASLO(steps=steps, unit='pixel'),
        'GSE': GSE(mu=0.1, sigma=0.05, k_hat=50, q=0.9, iters=steps, search_steps=6, steepness=1.0),
        'WIFGSM': WIFGSM(steps=steps),
        'search SparsePGD': BudgetSearch(SparsePGD(**budget), searches=6),
        f'SparsePGD k={k}': SparsePGD(**budget),
        f'SparsePGD unprojected k={k}': SparsePGD(**budget, gradient='unprojected'),
        f'SwapPGD k={k}': SwapPGD(**budget),
        f'SparseRS k={k}': SparseRS(k=k, steps=queries),
        f'SparseAutoAttack k={k}': SparseAutoAttack(**budget, queries=queries),
        f'PGD0 k={k}': PGD0(**budget),
        f'RandomPixels k={k}': RandomPixels(**budget),
        'five rows': StructuredSparsePGD(k=5, steps=steps, kernel='row'),
        'five columns': StructuredSparsePGD(k=5, steps=steps, kernel='column'),
        'five 8x8 patches': StructuredSparsePGD(k=5, steps=steps, kernel=Patch(8, 8)),
    }


def cifar10(args: argparse.Namespace) -> None:
    """Strength and cost of every attack on the CIFAR-10 images that the model gets right."""
    model, (images, labels) = load_model(args.model), load_cifar()
    with torch.no_grad():
        right = model(images).argmax(1) == labels
    images, labels = images[right][:args.images], labels[right][:args.images]
    options = dict(seed=args.seed, batch_size=args.batch_size, eight_bit=args.eight_bit)
    if not importlib.util.find_spec('adv_lib'):
        Console().print('adversarial-library is not installed, so its attacks are left out; `make env-bench` installs it')

    def measure(one: Attack) -> dict:
        watched = Watched(model)
        result, spent = _clock(lambda: attack(watched, images, labels, one, **options))
        return measured(result, images) | dict(over_bare=(spent - watched.lost) / watched.bare())

    title = f'{args.model}, {len(images)} images, {"8-bit" if args.eight_bit else "float"} attacks, seed {args.seed}'
    compare(suite(args.steps, args.queries), measure, args, dict(model=args.model, images=len(images), **options), title)


def detector(args: argparse.Namespace) -> None:
    """Every core with the goal of a config on its first images: success, how few pixels, and how they lie."""
    attacker, batches = opened([args.config, '--limit', str(args.limit), '--work-dir', str(args.out / 'run'), '--cfg-options',
                                f'test_dataloader.batch_size={args.batch_size}'])

    def measure(one: Attack) -> dict:
        rows: dict[str, list] = {}
        for batch in batches:
            with attacker.victim.session(), torch.enable_grad():
                scene = attacker.victim.open(batch)
                result = one(attacker.goal.objective(scene), args.seed)
            counted = result.clean_correct & result.defined
            for name, values in measured(result, scene.images).items():
                rows.setdefault(name, []).extend(v for v, c in zip(values, counted.tolist(), strict=True) if c)
        return rows

    title = f'{args.config}, {type(attacker.goal).__name__}, {args.limit} images, 8-bit, seed {args.seed}'
    compare(detector_suite(args.steps, args.queries, args.k), measure, args,
            dict(config=args.config, limit=args.limit, goal=repr(attacker.goal), seed=args.seed), title)


def compare(attacks: dict[str, Attack], measure, args: argparse.Namespace, settings: dict, title: str) -> None:
    """Measure attacks, show a table and draw a chart; what an earlier run measured is not measured again.

    Args:
        measure: from an attack to a dict of columns, one entry per image.
        settings: all beside the attack that the figures depend on.
    """
    chosen = {name: one for name, one in attacks.items() if not args.only or any(word in name for word in args.only)}
    if not chosen:
        raise InputError(f'no attack is called {" or ".join(args.only)}: {", ".join(attacks)}')
    args.out.mkdir(parents=True, exist_ok=True)
    store, console = args.out / f'{args.command}.json', Console()
    console.width = max(console.width, 120)  # a wrapped line is easier to read than columns cut to three letters
    known = json.loads(store.read_text()) if store.exists() else {}
    for name, one in track(chosen.items(), 'measuring', console=Console(stderr=True)):
        setup = settings | dict(attack=repr(one))
        if known.get(name, {}).get('setup') != setup:
            known[name] = dict(setup=setup, **measure(one))
            part = store.with_suffix('.part')
            part.write_text(json.dumps(known, indent=1))
            part.replace(store)  # a killed run leaves what was measured before
    show(console, {name: known[name] for name in chosen}, title)
    curves = {name: (known[name]['l0_pixels'], known[name]['success_8bit']) for name in chosen}
    draw_curves(curves, store.with_suffix('.png'), title=title)
    console.print(f'results in {store}, chart in {store.with_suffix(".png")}')


class Watched(nn.Module):
    """A model that repeats every eighth call on its own, so that the time of the bare passes is known from the same minutes.

    Attributes:
        lost: seconds spent on these repetitions.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.lost, self.calls = model, 0.0, 0
        passes = ('look', 'forward', 'backward')  # without a graph, with one, and through it
        self.images, self.sampled, self.seconds = (dict.fromkeys(passes, 0) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        name, self.calls = 'forward' if x.requires_grad else 'look', self.calls + 1
        self.images[name] += len(x)
        if not self.sampled[name] or self.calls % 8 == 0:
            _, spent = _clock(lambda: self._sample(name, x.detach()))
            self.lost += spent
        if not x.requires_grad:
            return self.model(x)
        x = x.view_as(x)
        x.register_hook(self._count_backward)  # attacks do not go back through every graph
        return self.model(x)

    def bare(self) -> float:
        """Seconds that all passes would have taken without an attack around them."""
        return sum(self.seconds[name] * count / self.sampled[name] for name, count in self.images.items() if count)

    def _count_backward(self, grad: Tensor) -> None:
        self.images['backward'] += len(grad)

    def _sample(self, name: str, x: Tensor) -> None:
        if not self.sampled[name]:
            bare_pass(self.model, x, name == 'forward')  # the first of its kind has memory to fetch
        for part, seconds in zip((name, 'backward'), bare_pass(self.model, x, name == 'forward'), strict=False):
            self.sampled[part] += len(x)
            self.seconds[part] += seconds


def bare_pass(model: nn.Module, x: Tensor, wants_grad: bool) -> list[float]:
    """One forward, and a backward to the images if wanted, and nothing else; the seconds of each."""
    with torch.set_grad_enabled(wants_grad):
        x = x.clone().requires_grad_(wants_grad)
        logits, forward = _clock(lambda: model(x))
        return [forward, _clock(lambda: torch.autograd.grad(logits.sum(), x))[1]] if wants_grad else [forward]


def measured(result: AttackResult, images: Tensor) -> dict:
    changed = changed_pixels(result.images, images)
    everywhere = torch.ones_like(images[:, :1], dtype=torch.bool)
    columns = dict(success=result.success_float, success_8bit=result.success, l0_elements=result.l0_elements,
                   l0_pixels=result.l0_pixels, clusters=clusters(changed), windows=windows_changed(changed, everywhere),
                   forwards=result.forwards, backwards=result.backwards)
    return {name: column.tolist() for name, column in columns.items()}


def show(console: Console, rows: dict[str, dict], title: str) -> None:
    """One line per attack; sparsity over the float successes, failures counting as infinitely many in the median."""
    table = Table('attack', 'success', '8-bit', 'elements\nmedian', '\nmean', 'pixels\nmedian', '\nmean', 'clusters\nANC',
                  'd_2,0', 'forwards', 'backwards', 'over\nbare', title=title)
    for name, row in rows.items():
        def median(key, row=row):
            return statistics.median(v if s else float('inf') for v, s in zip(row[key], row['success'], strict=True))

        def mean(key, row=row):
            values = [v for v, s in zip(row[key], row['success'], strict=True) if s]
            return statistics.fmean(values) if values else float('nan')

        cells = [median('l0_elements'), mean('l0_elements'), median('l0_pixels'), mean('l0_pixels'), mean('clusters'),
                 mean('windows'), statistics.fmean(row['forwards']), statistics.fmean(row['backwards'])]
        rates = (f'{statistics.fmean(row[key]):.3f}' for key in ('success', 'success_8bit'))
        ratio = f'{row["over_bare"]:.2f}' if 'over_bare' in row else '-'
        table.add_row(name, *rates, *(f'{cell:.4g}' for cell in cells), ratio)
    console.print(table)


def memory(args: argparse.Namespace) -> None:
    """Peak resident memory of short and long runs over that of the bare model, each in a process of its own."""
    # Large tensors then come from and go back to the system one by one, so that the peak is not blurred by the allocator's cache.
    os.environ |= dict(MALLOC_MMAP_THRESHOLD_='65536', MALLOC_ARENA_MAX='1', OMP_NUM_THREADS='1')
    context = multiprocessing.get_context('spawn')
    names = ['bare', *args.attacks]
    peaks = {}
    for name in track(names, 'measuring', console=Console(stderr=True)):
        for steps in args.steps:
            with context.Pool(1) as pool:
                peaks[name, steps] = pool.apply(peak_memory, (name, steps, args.batch_size))
    tensor = args.batch_size * 3 * 32 * 32 * 4
    table = Table('attack', *(f'{steps} iterations, MiB' for steps in args.steps), 'image batches over bare',
                  title=f'peak memory, ResNet-20, batch {args.batch_size}; one image batch is {tensor / 2 ** 20:.2f} MiB')
    for name in names:
        row = [peaks[name, steps] for steps in args.steps]
        extra = (row[-1] - peaks['bare', args.steps[-1]]) / tensor
        table.add_row(name, *(f'{peak / 2 ** 20:.1f}' for peak in row), f'{extra:.1f}')
    Console().print(table)


def peak_memory(name: str, steps: int, batch_size: int) -> int:
    """Bytes; the process must do nothing else."""
    model, (images, labels) = load_model('resnet20'), load_cifar()
    images, labels = (t.repeat(-(-batch_size // len(t)), *[1] * (t.ndim - 1))[:batch_size] for t in (images, labels))
    if name == 'bare':
        for _ in range(steps):
            bare_pass(model, images, True)
    else:
        attack(model, images, labels, cores(steps)[name], batch_size=batch_size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cores(steps: int) -> dict[str, Attack]:
    """One of each core, all of whose iterations see the whole batch."""
    budget = dict(k=3, steps=steps, early_stop=False)
    return dict(SigmaZero=SigmaZero(steps=steps), ASLO=ASLO(steps=steps), WIFGSM=WIFGSM(steps=steps),
                GSE=GSE(iters=steps, search_steps=1), SparsePGD=SparsePGD(**budget), SwapPGD=SwapPGD(**budget),
                StructuredSparsePGD=StructuredSparsePGD(**budget, kernel=Patch(3, 3)), PGD0=PGD0(**budget),
                SparseRS=SparseRS(**budget))


def overhead(args: argparse.Namespace) -> None:
    """Time of one attack iteration over one bare forward and backward on the same batch.

    The loops alternate round by round, so that a machine that slows down slows all of them; the median round counts.
    """
    if args.config is None:
        cifar_overhead(args.batch_size or 128, args.steps, args.rounds)
    else:
        config_overhead(args.config, args.batch_size or 8, args.steps, args.rounds)


def cifar_overhead(batch_size: int, steps: int, rounds: int) -> None:
    """Every core against the same passes through ResNet-20 without an attack around them, which alternate with the attack's."""
    model, (images, labels) = load_model('resnet20'), load_cifar()
    images, labels = (t.repeat(-(-batch_size // len(t)), *[1] * (t.ndim - 1))[:batch_size] for t in (images, labels))
    attacks, ratios = cores(steps), {}
    for round_ in track(range(rounds + 1), 'measuring', console=Console(stderr=True)):  # the first round warms up
        for name, one in attacks.items():
            watched = Watched(model)
            _, spent = _clock(lambda one=one, watched=watched: attack(watched, images, labels, one, batch_size=batch_size))
            if round_:
                ratios.setdefault(name, []).append((spent - watched.lost) / watched.bare())
    table = Table('attack', 'over bare', 'lowest', 'highest',
                  title=f'ResNet-20, batch {batch_size}, {steps} iterations, median of {rounds} rounds')
    for name, values in ratios.items():
        table.add_row(name, *(f'{value:.3f}' for value in (statistics.median(values), min(values), max(values))))
    Console().print(table)


def config_overhead(config: str, batch_size: int, steps: int, rounds: int) -> None:
    """The attack of a config against its network alone, and against network and objective."""
    attacker, (batch,) = opened([config, '--limit', str(batch_size), '--work-dir', 'work_dirs/benchmark', '--cfg-options',
                                 f'test_dataloader.batch_size={batch_size}'])
    attack, model = replace(attacker.attack, steps=steps, early_stop=False), attacker.victim.model
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

        for _ in range(rounds + 1):  # the first round warms up
            for name, run in (('network', network), ('network + objective', bare)):
                seconds.setdefault(name, []).append(_clock(lambda run=run: [run() for _ in range(steps)])[1])
            spent = attack(objective).seconds.sum().item()
            seconds.setdefault(type(attack).__name__, []).append(spent)

    median = {name: statistics.median(times[1:]) / steps for name, times in seconds.items()}
    table = Table('loop', 'ms per iteration', 'over network', 'over network + objective',
                  title=f'{config}, batch {len(scene.images)}, {steps} iterations, median of {rounds} rounds')
    for name, value in median.items():
        ratios = (f'{value / median[base]:.3f}' for base in ('network', 'network + objective'))
        table.add_row(name, f'{1000 * value:.1f}', *ratios)
    Console().print(table)


GOALS = dict(resnet18='Untargeted', semantic_fpn='UntargetedPixels', faster_rcnn='Vanish', yolox='Vanish')


def training(args: argparse.Namespace) -> None:
    """Time of an adversarial training iteration over a plain one, as it is and per forward and backward, of which it has 1 + T.

    All images are attacked with all T steps. sAT has T passes of the attack and one of the training. sTRADES cannot have fewer
    than 2 + T, as its loss has a clean part and an adversarial one; it has 3 + T, as the divergence looks at the clean images
    again. Runs alternate; every round is a run of its own from the demo weights, whose first iteration only warms up.
    """
    hook = dict(type='AdversarialTrainingHook', goal=GOALS[args.model],
                attack=dict(type='SparsePGD', k=0.01, steps=args.steps, early_stop=False))
    variants = dict(plain=[], sAT=[dict(hook, loss='sAT')], sTRADES=[dict(hook, loss='sTRADES')])
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in track(range(args.rounds), 'measuring', console=Console(stderr=True)):
        for name, hooks in variants.items():
            seconds[name].append(training_seconds(args.model, args.iterations, hooks, args.out / name))
    passes = 1 + args.steps
    table = Table('training', 'ms', 'over plain', f'over {passes} plain', 'lowest', 'highest',
                  title=f'an iteration of {args.model}, T = {args.steps}, median of {args.rounds} rounds',
                  caption=f'sTRADES: about {(passes + 1) / passes:.2f} at least, its loss looks at the clean images too')
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(values, seconds['plain'], strict=True)]
        shares = [ratio / (passes if variants[name] else 1) for ratio in ratios]
        table.add_row(name, f'{1000 * statistics.median(values):.1f}', f'{statistics.median(ratios):.3f}',
                      *(f'{value:.3f}' for value in (statistics.median(shares), min(shares), max(shares))))
    Console().print(table)


def training_seconds(model: str, iterations: int, hooks: list[dict], work_dir: Path) -> float:
    """Seconds per iteration of the config of a demo model with these hooks, the median; on the 64 unseen scenes."""
    marks = []

    class Marks(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            marks.append(_now())

    cfg = load_config(f'configs/training/{model}_demo.py', dict(
        work_dir=str(work_dir), log_level='ERROR', load_from=f'sparse_dense_attacks/demo/weights/{model}.pth', visualizer=None,
        train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=iterations + 1), param_scheduler=None,
        val_dataloader=None, val_evaluator=None, val_cfg=None, custom_hooks=hooks,
        train_dataloader=dict(num_workers=0, persistent_workers=False, dataset=dict(split='val', count=64, seed=1, indices=None)),
        default_hooks=dict(checkpoint=None, logger=None)))
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Marks())
    runner.train()
    return statistics.median(after - before for before, after in itertools.pairwise(marks))


def _now() -> float:
    """Seconds; without a GPU those of the processor, which other jobs do not lengthen."""
    _wait()
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def _clock(run):
    """What ``run()`` returns, and its seconds."""
    started = _now()
    return run(), _now() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _tensors(outputs):
    """All tensors with a gradient in nested outputs."""
    if isinstance(outputs, torch.Tensor):
        return [outputs] if outputs.requires_grad else []
    return [t for part in (outputs.values() if isinstance(outputs, dict) else outputs) for t in _tensors(part)]


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)

    command = commands.add_parser('cifar10', help='strength and cost of every attack beside adversarial-library')
    command.add_argument('--model', default='resnet20', choices=['resnet20', 'resnet32'])
    command.add_argument('--images', type=int, help='the first N that the model gets right; all by default')
    command.add_argument('--steps', type=int, default=100)
    command.add_argument('--queries', type=int, default=1000, help='of Sparse-RS')
    command.add_argument('--only', nargs='+', help='attacks whose names contain one of these words')
    command.add_argument('--seed', type=int, default=0)
    command.add_argument('--batch-size', type=int, default=128)
    command.add_argument('--eight-bit', action='store_true', help='attack 8-bit images; float by default, as published codes do')
    command.add_argument('--out', type=Path, default=Path('work_dirs/benchmark'))
    command.set_defaults(call=cifar10)

    command = commands.add_parser('detector', help='every core on the first images of a detector config')
    command.add_argument('config', nargs='?', default='configs/coco/spgd_yolox-nano_coco.py')
    command.add_argument('--limit', type=int, default=16)
    command.add_argument('--batch-size', type=int, default=8)
    command.add_argument('--steps', type=int, default=100)
    command.add_argument('--queries', type=int, default=500, help='of Sparse-RS')
    command.add_argument('--k', type=int, default=300, help='pixels')
    command.add_argument('--only', nargs='+', help='attacks whose names contain one of these words')
    command.add_argument('--seed', type=int, default=0)
    command.add_argument('--out', type=Path, default=Path('work_dirs/benchmark'))
    command.set_defaults(call=detector)

    command = commands.add_parser('memory', help='peak memory over that of the bare model')
    command.add_argument('--steps', type=int, nargs='+', default=[10, 1000])
    command.add_argument('--batch-size', type=int, default=128)
    command.add_argument('--attacks', nargs='+', default=['SigmaZero', 'ASLO', 'SparsePGD', 'PGD0', 'WIFGSM', 'GSE', 'SparseRS'])
    command.set_defaults(call=memory)

    command = commands.add_parser('overhead', help='time per iteration over the bare forward and backward')
    command.add_argument('config', nargs='?', help='its attack on its model; by default every core on a ResNet-20')
    command.add_argument('--batch-size', type=int, help='default: 8, of the ResNet-20 128')
    command.add_argument('--steps', type=int, default=20, help='iterations per round')
    command.add_argument('--rounds', type=int, default=5)
    command.set_defaults(call=overhead)

    command = commands.add_parser('training', help='time of an adversarial training iteration over a plain one')
    command.add_argument('--model', default='resnet18', choices=GOALS)
    command.add_argument('--steps', type=int, default=5, help='T, of the attack')
    command.add_argument('--iterations', type=int, default=4, help='per round')
    command.add_argument('--rounds', type=int, default=5)
    command.add_argument('--out', type=Path, default=Path('work_dirs/benchmark/training'))
    command.set_defaults(call=training)
    args = parser.parse_args(argv)
    args.call(args)


if __name__ == '__main__':
    sys.exit(main(run))
