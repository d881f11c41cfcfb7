"""The original grid against the libraries: are their test pipelines reproduced, and what does that cost.

    python tools/analysis_tools/geometry.py sweep
    python tools/analysis_tools/geometry.py cost configs/coco/spgd_yolox-nano_coco.py
"""
import argparse
import dataclasses
import json
import resource
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from assets import assets_root
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from mmengine.utils import import_modules_from_strings
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stopwatch import clock

from sparse_dense_attacks import InputError
from sparse_dense_attacks.cli.attack import opened
from sparse_dense_attacks.engine import configs_folder
from sparse_dense_attacks.engine.files import FileGrid
from sparse_dense_attacks.victims.pipeline import FilePipeline

LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')
FOLDERS = ('coco/val2017', 'nips17/images', 'camvid/images')  # of the assets, images of many sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser('sweep', help='every test config of the installed libraries')
    command.add_argument('libraries', nargs='*', default=LIBRARIES)
    command.add_argument('--images', type=int, default=8, help='real images for each pipeline')
    command.set_defaults(call=sweep)
    command = commands.add_parser('cost', help='time of an iteration on both grids')
    command.add_argument('config')
    command.add_argument('--batch-size', type=int, default=8)
    command.add_argument('--steps', type=int, default=10)
    command.add_argument('--rounds', type=int, default=7)
    command.add_argument('--images', help='a folder of photos in place of the test images')
    command.set_defaults(call=cost)
    args = parser.parse_args()
    args.call(args)


def sweep(args: argparse.Namespace) -> None:
    """The largest difference in grey levels between each test pipeline and its copy."""
    for library in args.libraries:
        import_modules_from_strings(f'{library}.datasets')
        pipelines, without = test_pipelines(library)
        table = Table('configs', 'transforms', 'grey levels', 'values that differ')
        followed = total = exact = 0
        refused = []
        for steps, configs in track(sorted(pipelines.items(), key=lambda item: -len(item[1])),
                                    library, console=Console(stderr=True)):
            total += len(configs)
            try:
                most, share = compare(library, json.loads(steps), args.images)
            except InputError as error:
                refused.append((len(configs), str(error), configs[0]))
                continue
            followed += len(configs)
            exact += len(configs) * (most == 0)
            table.add_row(str(len(configs)), described(json.loads(steps)), f'{most:g}',
                          f'{share:.4%}')
        console = Console(width=150)
        console.print(table)
        console.print(f'{library}: {followed} of {total} test configs are reproduced, {exact} of '
                      f'them exactly; {without} more have no test pipeline or cannot be read')
        for count, reason, config in refused:
            console.print(f'  {count} not: {reason} ({config})')


def test_pipelines(library: str) -> tuple[dict[str, list[str]], int]:
    """The distinct test pipelines of a library as JSON, with their configs; and how many have none.

    Steps that load annotations are left out.
    """
    found, without = defaultdict(list), 0
    root = Path(configs_folder(library))
    for path in track(sorted(root.rglob('*.py')), f'{library}: reading',
                      console=Console(stderr=True)):
        if '_base_' in path.parts:
            continue
        steps = test_pipeline(path)
        if steps is None:
            without += 1
        else:
            found[json.dumps(steps)].append(str(path.relative_to(root)))
    return found, without


def test_pipeline(path: Path) -> list[dict] | None:
    try:
        dataset: Any = Config.fromfile(path).test_dataloader.dataset
        while 'pipeline' not in dataset:
            dataset = dataset.dataset if 'dataset' in dataset else dataset.datasets[0]
        steps = [plain(dict(step)) for step in dataset.pipeline]
        return [step for step in steps if 'Annotation' not in step['type']]
    except Exception:  # of a config that lacks a file, a module or the parts of a test
        return None


def plain(value):
    """A step of a config in words of JSON; classes of lazy configs by their names."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()
                if name not in ('meta_keys', 'backend_args', 'file_client_args')}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value.__name__ if isinstance(value, type) else value


def tupled(value):
    """JSON has no tuples, which transforms insist on."""
    if isinstance(value, dict):
        return {name: tupled(one) for name, one in value.items()}
    if isinstance(value, list) and not any(isinstance(one, dict) for one in value):
        return tuple(value)
    return value


def compare(library: str, steps: list[dict], images: int) -> tuple[float, float]:
    """Largest difference between a pipeline and its copy, and the share of values that differ."""
    with TRANSFORMS.switch_scope_and_registry(library) as registry:
        try:
            transforms = [registry.build(tupled(step)) for step in steps]
        except Exception as error:  # of a transform that needs more than is installed
            raise InputError(f'cannot be built: {error}'.splitlines()[0]) from error
    pipeline = FilePipeline(transforms)
    most, differ, values = 0., 0, 0
    for path in real_images(images):
        image = torch.from_numpy(pipeline.load(str(path))).permute(2, 0, 1)
        found = pipeline.geometry(tuple(image.shape[1:])).forward(image / 255) * 255
        off = (found - pipeline.shown(str(path))).abs()
        most = max(most, round(float(off.max()), 2))
        differ += int((off > 0.01).sum())
        values += off.numel()
    return most, differ / values


def real_images(count: int) -> Iterator[Path]:
    """The first images of each folder in turn."""
    folders = [sorted(path for path in (assets_root() / folder).iterdir()) for folder in FOLDERS]
    for index in range(count):
        yield folders[index % len(folders)][index]


def described(steps: list[dict]) -> str:
    """The steps between loading and packing in a line."""
    lines = []
    for step in steps:
        options = ', '.join(f'{name}={value}' for name, value in step.items() if name != 'type')
        lines.append(f'{step["type"]}({options})' if options else step['type'])
    return ' > '.join(line for line in lines if 'Pack' not in line)


def cost(args: argparse.Namespace) -> None:
    """Seconds of an iteration on the grid of the network inputs and on that of the files.

    Rounds of both take turns, so that other jobs on the machine slow down both; an iteration is
    what a long run takes longer than one of half its length.
    """
    extra = ['--images', args.images] if args.images else ['--limit', str(args.batch_size)]
    attacker, batches = opened([args.config, *extra, '--work-dir', 'work_dirs/geometry',
                                '--cfg-options', f'test_dataloader.batch_size={args.batch_size}',
                                'test_dataloader.num_workers=0', 'threat.grid=original'])
    batch = {name: values for name, values in batches[0].items() if name != 'unreadable'}
    files = attacker.files
    assert isinstance(files, FileGrid)
    attackers = {grid: dataclasses.replace(
        attacker, threat=dataclasses.replace(attacker.threat, grid=grid))
        for grid in ('input', 'original')}
    seconds = {grid: [] for grid in attackers}
    for _ in range(args.rounds):
        for grid, one in attackers.items():
            spent = [clock(lambda one=one, steps=steps: dataclasses.replace(
                one, attack=dataclasses.replace(one.attack, steps=steps)).perturb(batch))[1]
                for steps in (args.steps, 2 * args.steps)]
            seconds[grid].append((spent[1] - spent[0]) / args.steps)
    ratios = [after / before for before, after in
              zip(seconds['input'], seconds['original'], strict=True)]
    for grid, values in seconds.items():
        print(f'{grid}: {statistics.median(values):.4f} s per iteration and batch')
    print(f'original over input: {statistics.median(ratios):.3f} (median of {len(ratios)}, '
          f'{min(ratios):.3f} to {max(ratios):.3f})')
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20
    print(f'peak resident memory of the process: {peak:.2f} GiB')


if __name__ == '__main__':
    main()
