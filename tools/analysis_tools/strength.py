"""benchmark.py cifar10 | detector: how strong every attack is, and what it costs."""
import argparse
import importlib.util
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from assets import load_cifar, load_model
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.special import stdtrit
from stopwatch import over_bare
from suites import budget_suite, foreign_suite, minimum_suite, pick, search_suite
from torch import Tensor

from sparse_dense_attacks import Attack, AttackResult, InputError, screen
from sparse_dense_attacks.cli.attack import opened
from sparse_dense_attacks.evaluation import clusters, draw_curves
from sparse_dense_attacks.groups import Column, Kernel, Patch, Row
from sparse_dense_attacks.ops import changed_pixels
from sparse_dense_attacks.ops.neighbourhood import windows_changed

BUDGETS = (10, 5, 3)
UNITS = ('l0_elements', 'l0_pixels')


def add_commands(commands) -> None:
    """The arguments of ``cifar10`` and ``detector``."""
    command = commands.add_parser('cifar10', help='every attack beside adversarial-library')
    command.add_argument('--model', default='resnet20', choices=['resnet20', 'resnet32', 'cnn_a_adv'])
    command.add_argument('--images', type=int,
                         help='the first N that the model gets right; all by default')
    command.add_argument('--eight-bit', action='store_true',
                         help='attack 8-bit images; float by default, as published')
    _common(command, batch_size=128, queries=1000)
    command.set_defaults(call=cifar10)

    command = commands.add_parser('detector', help='every core on the first images of a config')
    command.add_argument('config', nargs='?', default='configs/coco/spgd_yolox-nano_coco.py')
    command.add_argument('--limit', type=int, default=16)
    command.add_argument('--k', type=int, default=300, help='pixels')
    _common(command, batch_size=8, queries=500)
    command.set_defaults(call=detector)


def _common(command: argparse.ArgumentParser, batch_size: int, queries: int) -> None:
    command.add_argument('--batch-size', type=int, default=batch_size)
    command.add_argument('--steps', type=int, default=100)
    command.add_argument('--queries', type=int, default=queries, help='of Sparse-RS')
    command.add_argument('--only', nargs='+', help='attacks whose names contain one of these words')
    command.add_argument('--seeds', type=int, nargs='+', default=[0])
    command.add_argument('--out', type=Path, default=Path('work_dirs/benchmark'))


def suite(steps: int, queries: int) -> dict[str, Attack]:
    """What ``cifar10`` measures, by the names its table shows."""
    attacks = pick(minimum_suite('cifar10', steps), 'SigmaZero', 'SigmaZero pixel', 'Descent',
                   'Descent pixel', 'ASLO',
                   'ASLO no threshold', 'WIFGSM', "WIFGSM l0='none'", 'GSE')
    for k in BUDGETS:
        attacks |= _with_budget(budget_suite(k, steps, queries), k)
    attacks |= _of_groups(1, steps, queries, {
        'one row': Row(), 'one column': Column(), 'one 5x5 patch': Patch(5, 5)})
    small, large = budget_suite(8, steps, queries), budget_suite(32, steps, queries)
    searched = pick(small, 'SparsePGD', 'SparseRS') | pick(large, 'PGD0')
    attacks |= search_suite(searched) | search_suite(searched, warm=True)
    return attacks | foreign_suite(steps) if importlib.util.find_spec('adv_lib') else attacks


def detector_suite(steps: int, queries: int, k: int) -> dict[str, Attack]:
    """What ``detector`` measures: the minimum question in pixels, and the budget question."""
    budget = budget_suite(k, steps, queries)
    attacks = pick(minimum_suite('detector', steps), 'SigmaZero pixel', 'SigmaZero',
                   'Descent pixel', 'ASLO pixel',
                   'GSE', 'WIFGSM')
    attacks |= search_suite(pick(budget, 'SparsePGD'), searches=6) | _with_budget(budget, k)
    return attacks | _of_groups(5, steps, queries, {
        'five rows': Row(), 'five columns': Column(), 'five 8x8 patches': Patch(8, 8)})


def _with_budget(attacks: Mapping[str, Attack], k: int) -> dict[str, Attack]:
    return {f'{name} k={k}': attack for name, attack in attacks.items()}


def _of_groups(k: int, steps: int, queries: int,
               kernels: Mapping[str, Kernel]) -> dict[str, Attack]:
    return {name: budget_suite(k, steps, queries, kernel=kernel)['StructuredSparsePGD']
            for name, kernel in kernels.items()}


def cifar10(args: argparse.Namespace) -> None:
    """Strength and cost of every attack on the CIFAR-10 images that the model gets right."""
    model = load_model(args.model)
    images, labels = load_cifar()
    with torch.no_grad():
        right = model(images).argmax(1) == labels
    images, labels = images[right][:args.images], labels[right][:args.images]
    options = dict(batch_size=args.batch_size, eight_bit=args.eight_bit)
    if not importlib.util.find_spec('adv_lib'):
        screen.say('adversarial-library is not installed, so its attacks are left out; '
                   '`make env-bench` installs it')

    def measure(one: Attack, seed: int) -> dict:
        result, ratio = over_bare(model, images, labels, one, seed=seed, **options)
        return measured(result, images) | dict(over_bare=ratio)

    kind = '8-bit' if args.eight_bit else 'float'
    compare(suite(args.steps, args.queries), measure, args,
            settings=dict(model=args.model, images=len(images), **options),
            subject=f'{args.model} {kind}',
            title=f'{args.model}, {len(images)} images, {kind} attacks')


def detector(args: argparse.Namespace) -> None:
    """Every core with the goal of a config on its first images."""
    attacker, batches = opened([
        args.config, '--limit', str(args.limit), '--work-dir', str(args.out / 'run'),
        '--cfg-options', f'test_dataloader.batch_size={args.batch_size}'])

    def measure(one: Attack, seed: int) -> dict:
        rows: dict[str, list] = {}
        for batch in batches:
            with attacker.victim.session(), torch.enable_grad():
                scene = attacker.victim.open(batch)
                result = one(attacker.goal.objective(scene), seed)
            counted = (result.clean_correct & result.defined).tolist()
            for name, values in measured(result, scene.images).items():
                rows.setdefault(name, []).extend(
                    value for value, counts in zip(values, counted, strict=True) if counts)
        return rows

    goal = attacker.goal
    compare(detector_suite(args.steps, args.queries, args.k), measure, args,
            settings=dict(config=args.config, limit=args.limit, goal=repr(goal)),
            subject=f'{args.config} {goal!r}',
            title=f'{args.config}, {type(goal).__name__}, {args.limit} images, 8-bit')


def compare(attacks: Mapping[str, Attack], measure: Callable[[Attack, int], dict],
            args: argparse.Namespace, settings: dict, subject: str, title: str) -> None:
    """Measure attacks, show a table and draw a chart; what an earlier run measured is kept.

    Args:
        measure: from an attack and a seed to a dict of columns, one entry per image.
        settings: all beside attack and seed that the figures depend on.
        subject: what was attacked, under which the best counts are kept in ``envelope.json``.
    """
    chosen = {name: one for name, one in attacks.items()
              if not args.only or any(word in name for word in args.only)}
    if not chosen:
        raise InputError(f'no attack is called {" or ".join(args.only)}: {", ".join(attacks)}')
    args.out.mkdir(parents=True, exist_ok=True)
    store, envelopes = args.out / f'{args.command}.json', args.out / 'envelope.json'
    known, best = _read(store), _read(envelopes)
    for name, one in track(chosen.items(), 'measuring', console=Console(stderr=True)):
        setup = settings | dict(attack=repr(one))
        if known.get(name, {}).get('setup') != setup:
            known[name] = dict(setup=setup, runs={})
        runs = known[name]['runs']
        for seed in map(str, args.seeds):
            if seed not in runs:
                runs[seed] = measure(one, int(seed))
                _write(store, known)
                best[subject] = lowered(best.get(subject, {}), runs[seed])
                _write(envelopes, best)
    rows = {name: [known[name]['runs'][str(seed)] for seed in args.seeds] for name in chosen}
    show(rows, best.get(subject, {}), f'{title}, seeds {" ".join(map(str, args.seeds))}')
    curves = {name: (runs[0]['l0_pixels'], runs[0]['success_8bit']) for name, runs in rows.items()}
    draw_curves(curves, store.with_suffix('.png'), title=title)
    screen.show(f'results in {store}, chart in {store.with_suffix(".png")}')


def _read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def _write(path: Path, content: dict) -> None:
    part = path.with_suffix('.part')
    part.write_text(json.dumps(content, indent=1))
    part.replace(path)  # a killed run leaves what was measured before


def lowered(envelope: dict, run: dict) -> dict:
    """The best count known of each image, by unit, None where no run has broken it yet.

    Args:
        envelope: what was known; it may be about fewer or more images.
        run: the columns of a further run.
    """
    found = {}
    for unit in UNITS:
        before = envelope.get(unit, [])
        now = [count if success else None
               for count, success in zip(run[unit], run['success'], strict=True)]
        longest = max(len(before), len(now))
        pairs = zip(*(counts + [None] * (longest - len(counts)) for counts in (before, now)),
                    strict=True)
        found[unit] = [min((count for count in pair if count is not None), default=None)
                       for pair in pairs]
    return found


def measured(result: AttackResult, images: Tensor) -> dict:
    """The columns of a result, a list with one entry per image each."""
    changed = changed_pixels(result.images, images)
    everywhere = torch.ones_like(images[:, :1], dtype=torch.bool)
    columns = dict(
        success=result.success_float, success_8bit=result.success, l0_elements=result.l0_elements,
        l0_pixels=result.l0_pixels, clusters=clusters(changed),
        windows=windows_changed(changed, everywhere),
        forwards=result.forwards, backwards=result.backwards)
    return {name: column.tolist() for name, column in columns.items()}


def show(rows: Mapping[str, Sequence[dict]], envelope: dict, title: str) -> None:
    """One line per attack: means over its seeds, with the half width of their 95 % interval.

    Sparsity is over the float successes, failures infinite in the median. A gap is the mean
    distance from the best count that any run of any attack has found for the image.
    """
    table = Table('attack', 'success', '8-bit', 'elements\nmedian', '\nmean', '\ngap',
                  'pixels\nmedian', '\nmean', '\ngap', 'clusters\nANC', 'd_2,0', 'forwards',
                  'backwards', 'over\nbare', title=title)
    for name, runs in rows.items():
        cells = [_over(runs, lambda run: statistics.fmean(run['success']), '.3f'),
                 _over(runs, lambda run: statistics.fmean(run['success_8bit']), '.3f')]
        for unit in UNITS:
            cells += [_over(runs, lambda run, unit=unit: _median(run, unit)),
                      _over(runs, lambda run, unit=unit: _mean(run, unit)),
                      _over(runs, lambda run, unit=unit: gap(run, envelope, unit))]
        for key in ('clusters', 'windows'):
            cells.append(_over(runs, lambda run, key=key: _mean(run, key)))
        for key in ('forwards', 'backwards'):
            cells.append(_over(runs, lambda run, key=key: statistics.fmean(run[key])))
        timed = all('over_bare' in run for run in runs)
        cells.append(_over(runs, lambda run: run['over_bare'], '.2f') if timed else '-')
        table.add_row(name, *cells)
    screen.show(table, width=160)  # a wrapped line reads better than narrow columns


def gap(run: dict, envelope: dict, unit: str) -> float:
    """Mean over the images it has broken of a run's count less the best known one."""
    known = envelope.get(unit, [])
    gaps = [count - best for count, success, best
            in zip(run[unit], run['success'], known, strict=False) if success]
    return statistics.fmean(gaps) if gaps else math.nan


def _over(runs: Sequence[dict], value: Callable[[dict], float], spec: str = '.4g') -> str:
    """The mean of a value over runs, and where there are several half the width of Student's 95 % interval."""
    values = [value(run) for run in runs]
    mean = statistics.fmean(values)
    if len(values) == 1 or not math.isfinite(mean):
        return f'{mean:{spec}}'
    half = stdtrit(len(values) - 1, 0.975) * statistics.stdev(values) / math.sqrt(len(values))
    return f'{mean:{spec}} ±{half:.2g}'


def _median(row: dict, key: str) -> float:
    return statistics.median(value if success else float('inf')
                             for value, success in zip(row[key], row['success'], strict=True))


def _mean(row: dict, key: str) -> float:
    values = [value for value, success in zip(row[key], row['success'], strict=True) if success]
    return statistics.fmean(values) if values else float('nan')
