"""Is this environment able to run the attacks, and if not, what repairs it?

    sda doctor
    sda doctor zoo mmdet --only detr dino --out zoo.json

Prints one line per check, with the fix for everything that fails. Exit status: 0 all good, 2 something needs fixing.
The OpenMMLab stack is optional (attacks on plain PyTorch classifiers need none of it), so its absence is only noted.
With `zoo`, which config families of the installed model libraries can be attacked (zoo.py); all take a quarter of an hour.
"""
import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

OLDEST_PYTHON = (3, 10)
# Import name -> distribution names, upstream's first. All of them write into the same folder of site-packages.
LIBRARIES = {
    'mmengine': ('mmengine', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'onedl-mmcv', 'mmcv-full', 'mmcv-lite'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
}
# The tested stacks; their exact versions are those of the constraint files.
STACKS = {'onedl': 'constraints.txt', 'upstream': 'constraints-upstream.txt'}

OTHER_TORCH = 'mmcv was compiled for another torch'
REBUILD = (
    "do without mmcv's compiled operators: export SDA_COMPILED_OPS=0; or compile them again: "
    'pip install --no-cache-dir --no-build-isolation --no-deps --force-reinstall '
    '--no-binary {dist} {dist}=={version}'
)
IMPORT_FIRST = (
    'import sparse_dense_attacks before mmcv.ops, mmdet.models and the like; in a config: '
    "custom_imports = dict(imports=['sparse_dense_attacks'])"
)
OWN_PACKAGE = f'pip install --no-deps -e {ROOT}'
TORCHVISION_FIX = (
    'install torch and torchvision of the same release and the same CUDA or CPU build, in one '
    'command'
)
OLD_SETUPTOOLS = 'pip install "setuptools<81"'
OLD_NUMPY = 'pip install "numpy<2"'
ONE_STACK = (
    'take all libraries from one stack: the onedl-* ones (make env) or upstream\'s (make '
    'env-upstream)'
)

# What the known failures say, what they mean, and the fix.
KNOWN_FAILURES = (
    (r'implementation for device \S+ not found', OTHER_TORCH, REBUILD),
    (r'not linked with support for cuda devices', OTHER_TORCH, REBUILD),
    (r'mmcv\S*: undefined symbol', OTHER_TORCH, REBUILD),
    (
        r'killed by signal',
        'a compiled library crashed, most likely one made for another torch',
        REBUILD,
    ),
    (
        r"No module named 'mmcv\._ext'",
        'this mmcv has no compiled operators, and ours were not put in their place',
        IMPORT_FIRST,
    ),
    (r"No module named 'sparse_dense_attacks'", 'this package is not installed', OWN_PACKAGE),
    (
        r'operator torchvision::nms does not exist',
        'torchvision was built for another torch',
        TORCHVISION_FIX,
    ),
    (
        r"No module named '(ftfy|regex)'",
        'mmsegmentation 1.2 does not declare what it needs',
        'pip install ftfy regex',
    ),
    (
        r"No module named 'pkg_resources'",
        'setuptools no longer ships pkg_resources from 82 on',
        OLD_SETUPTOOLS,
    ),
    (
        r'MMCV==\S+ is (used but )?incompatible',
        'this library does not accept the installed mmcv',
        ONE_STACK,
    ),
    (
        r'libGL\.so',
        'opencv-python needs libGL',
        'pip uninstall opencv-python, then pip install opencv-python-headless',
    ),
    (
        r'sctypes. was removed',
        'imgaug 0.4.0 does not run on numpy 2',
        'pip uninstall imgaug, then pip install imaug',
    ),
    (
        r'NoneType takes no arguments',
        'transformers 5 no longer has all that mmpretrain imports from it',
        'pip install "transformers<5"',
    ),
    (
        r'compiled using NumPy 1|Numpy is not available',
        'this torch was built for numpy 1',
        OLD_NUMPY,
    ),
)

NMS = 'nms(torch.tensor([[0., 0, 4, 4], [0, 0, 4, 4]]), torch.tensor([1., .5]), {threshold})'
TORCHVISION_TEST = f"""
import torch
from torchvision.ops import nms
assert len({NMS.format(threshold=.5)}) == 1
"""
MMCV_TEST = f"""
import torch
from sparse_dense_attacks import compat
from mmcv.ops import nms, roi_align
boxes, kept = {NMS.format(threshold=.5)}
assert kept.tolist() == [0], kept
image, roi = torch.ones(1, 1, 8, 8, requires_grad=True), torch.tensor([[0., 0, 0, 4, 4]])
roi_align(image, roi, (2, 2)).sum().backward()
assert abs(image.grad.sum().item() - 4) < 1e-4, image.grad
print(compat.in_use())
"""
CUDA_OPS_TEST = """
from sparse_dense_attacks import compat
from mmcv.ops import get_compiling_cuda_version
assert compat.in_use() == 'plain' or get_compiling_cuda_version() != 'not available'
"""
OPS_IN_USE = {
    'compiled': "mmcv's own, compiled",
    'plain': 'those of sparse_dense_attacks.compat (torchvision and plain torch)',
}


class Check(NamedTuple):
    """One line of the report; ``status`` is 'ok', 'note' (worth knowing, nothing is broken) or 'fail'."""

    name: str
    status: str
    found: str
    fix: str = ''


def installed(*distributions: str) -> dict[str, str]:
    """The versions of those distributions that are installed."""
    versions = {}
    for name in distributions:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def importable(module: str) -> bool:
    return util.find_spec(module) is not None


def release(version: str) -> tuple[int, ...]:
    """``'2.11.0+cu130'`` -> ``(2, 11, 0)``."""
    numbers = re.match(r'[\d.]*\d', version)
    return tuple(int(part) for part in numbers.group().split('.')) if numbers else ()


def pins(stack: str) -> dict[str, str]:
    """Distribution -> tested version, for one of the ``STACKS``."""
    lines = Path(__file__).parents[1].joinpath('.mim', STACKS[stack]).read_text().splitlines()
    return dict(line.split('==') for line in lines if '==' in line and not line.startswith('#'))


def run_python(code: str) -> tuple[str, str]:
    """The error ``code`` ends with in a fresh interpreter, '' if none, and the last word it prints.

    A crash there cannot take the report down.
    """
    done = subprocess.run([sys.executable, '-c', code], check=False, capture_output=True, text=True)
    if done.returncode == 0:
        return '', (done.stdout.split() or [''])[-1]
    if done.returncode < 0:
        return f'killed by signal {-done.returncode}', ''
    return done.stderr.strip() or f'exit status {done.returncode}', ''


def explain(name: str, error: str) -> Check:
    """A failed check, with cause and fix if the error is a known one."""
    dist, version = next(
        iter(installed(*LIBRARIES['mmcv']).items()), ('onedl-mmcv', pins('onedl')['onedl-mmcv'])
    )
    last = error.splitlines()[-1].strip()
    for pattern, cause, fix in KNOWN_FAILURES:
        if re.search(pattern, error):
            return Check(name, 'fail', f'{cause}: {last}', fix.format(dist=dist, version=version))
    return Check(
        name, 'fail', last, 'not a failure this tool knows; make clean env installs a tested stack'
    )


def python_version() -> Check:
    found = '.'.join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return Check('Python', 'fail', found, 'use Python 3.11 (tested) or any from 3.10')
    return Check('Python', 'ok', found)


def own_package() -> Check:
    if not importable('sparse_dense_attacks'):
        return Check('sparse_dense_attacks', 'fail', 'not importable', OWN_PACKAGE)
    error, _ = run_python('from sparse_dense_attacks import attack')
    return (
        explain('sparse_dense_attacks', error)
        if error
        else Check('sparse_dense_attacks', 'ok', 'imports')
    )


def torch_pair() -> Check:
    """torch 2.N belongs to torchvision 0.(15 + N)."""
    found = installed('torch', 'torchvision')
    text = (
        ', '.join(f'{name} {version}' for name, version in found.items()) or 'neither is installed'
    )
    if len(found) < 2:
        return Check('torch pair', 'fail', text, 'pip install torch torchvision')
    torch, torchvision = release(found['torch']), release(found['torchvision'])
    if torch[0] == 2 and torchvision[:2] != (0, 15 + torch[1]):
        return Check(
            'torch pair',
            'fail',
            text,
            f'pip install "torchvision==0.{15 + torch[1]}.*", made for this torch',
        )
    return Check('torch pair', 'ok', text)


def torchvision_ops() -> Check:
    error, _ = run_python(TORCHVISION_TEST)
    return (
        explain('torchvision ops', error) if error else Check('torchvision ops', 'ok', 'nms runs')
    )


def library(name: str) -> Check:
    """Version of one OpenMMLab library, and whether it really comes from one distribution."""
    found = installed(*LIBRARIES[name])
    text = ' and '.join(f'{dist} {version}' for dist, version in found.items())
    if not found:
        return Check(
            name,
            'note',
            'not installed',
            "only needed for that library's models; make env installs all five",
        )
    if len(found) > 1:
        return Check(name, 'fail', f'{text}, one on top of the other',
                     f'pip uninstall {" ".join(found)}, then install one of them again')
    return Check(name, 'ok', text)


def known_good() -> Check:
    """Compares what is installed with the two tested stacks."""
    names = (
        'torch',
        'torchvision',
        'numpy',
        *(dist for dists in LIBRARIES.values() for dist in dists),
    )
    found = {name: version.split('+')[0] for name, version in installed(*names).items()}
    if found.keys() <= {'torch', 'torchvision', 'numpy'}:
        return Check('tested stack', 'note', 'no OpenMMLab library is installed')
    differences = {}
    for stack in STACKS:
        tested = {name: version for name, version in pins(stack).items() if name in names}
        differences[stack] = [
            f'{name} {found.get(name, "missing")} (tested: {tested.get(name, "none")})'
            for name in sorted(found.keys() | tested.keys())
            if found.get(name) != tested.get(name)
        ]
    closest = min(differences, key=lambda stack: len(differences[stack]))
    if not differences[closest]:
        return Check('tested stack', 'ok', closest)
    text = f'differs from {closest}: ' + ', '.join(differences[closest])
    return Check(
        'tested stack',
        'note',
        text,
        f'none if all else is ok; the tested versions are in {STACKS[closest]}',
    )


def mmcv_limit() -> Check:
    """Upstream mmdet, mmseg and mmpretrain refuse to be imported with a newer mmcv than they know."""
    mmcv = installed(*LIBRARIES['mmcv'])
    limits = {'mmdet': (2, 2), 'mmsegmentation': (2, 2), 'mmpretrain': (2, 4)}
    refusing = [
        dist
        for dist in installed(*limits)
        if any(release(v) >= limits[dist] for v in mmcv.values())
    ]
    if refusing:
        found = ', '.join(f'{dist} {version}' for dist, version in mmcv.items())
        return Check(
            'mmcv limit', 'fail', f'{found} is too new for {", ".join(refusing)}', ONE_STACK
        )
    return Check('mmcv limit', 'ok', 'no library refuses the installed mmcv')


def mmcv_ops() -> Check:
    if not installed(*LIBRARIES['mmcv']):
        return Check(
            'mmcv ops', 'note', 'mmcv is not installed', 'only needed for mmdet and mmseg models'
        )
    error, in_use = run_python(MMCV_TEST)
    return (
        explain('mmcv ops', error)
        if error
        else Check('mmcv ops', 'ok', f'nms and roi_align run: {OPS_IN_USE[in_use]}')
    )


def models(name: str) -> Check:
    """Importing a library proves little: version checks, compiled ops and torchvision come in with its models."""
    if not installed(*LIBRARIES[name]):
        return Check(f'{name}.models', 'note', f'{name} is not installed')
    error, _ = run_python(f'import sparse_dense_attacks, {name}.models')
    return explain(f'{name}.models', error) if error else Check(f'{name}.models', 'ok', 'imports')


def package_resources() -> Check:
    """Upstream mmengine imports pkg_resources, which left setuptools with version 82."""
    if installed('mmengine') and not importable('pkg_resources'):
        version = installed('setuptools').get('setuptools', 'missing')
        return Check(
            'pkg_resources',
            'fail',
            f'gone (setuptools {version}), but upstream mmengine imports it',
            OLD_SETUPTOOLS,
        )
    return Check('pkg_resources', 'ok', 'there, or not needed')


def numpy_version() -> Check:
    """torch before 2.3 and the upstream libraries were built for numpy 1."""
    found = installed('numpy', 'torch', 'mmcv', 'mmdet')
    if 'numpy' not in found:
        return Check('numpy', 'fail', 'not installed', 'pip install numpy')
    old = [f'{name} {found[name]}' for name in ('mmcv', 'mmdet') if name in found]
    if 'torch' in found and release(found['torch']) < (2, 3):
        old.append(f'torch {found["torch"]}')
    if release(found['numpy']) >= (2,) and old:
        return Check(
            'numpy',
            'fail',
            f'{found["numpy"]}, but {", ".join(old)} was built for numpy 1',
            OLD_NUMPY,
        )
    return Check('numpy', 'ok', found['numpy'])


def gpu() -> Check:
    """mmcv ops that were compiled for the CPU only are of no use on a GPU; ours run on both."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return explain('GPU', str(error))
    if not torch.cuda.is_available():
        return Check('GPU', 'ok', 'none visible, attacks run on the CPU')
    found = torch.cuda.get_device_name(0)
    if installed(*LIBRARIES['mmcv']) and run_python(CUDA_OPS_TEST)[0]:
        fix = ('export SDA_COMPILED_OPS=0, which takes operators that run on a GPU as well; or '
               '--device cpu')
        return Check('GPU', 'fail', f'{found}, but the compiled mmcv ops have no CUDA part', fix)
    return Check('GPU', 'ok', found)


def diagnose() -> list[Check]:
    """All checks, cheapest causes first."""
    return [
        python_version(), torch_pair(), torchvision_ops(), numpy_version(), own_package(),
        *map(library, LIBRARIES), known_good(), mmcv_limit(), package_resources(), mmcv_ops(),
        *map(models, ('mmdet', 'mmseg', 'mmpretrain')), gpu(),
    ]  # fmt: skip


def zoo(args: argparse.Namespace) -> int:
    try:
        from sparse_dense_attacks.cli.zoo import run
        from sparse_dense_attacks.errors import InputError
    except ImportError as error:
        print(f'error: {error}; run sda doctor without arguments', file=sys.stderr)
        return 2
    try:
        return run(args.libraries, args.only, args.out, args.time_limit)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser('sda doctor', description=__doc__.splitlines()[0])
    zoo = parser.add_subparsers(dest='command').add_parser(
        'zoo', help='which config families can be attacked'
    )
    libraries = ('mmdet', 'mmseg', 'mmpretrain')
    zoo.add_argument(
        'libraries', nargs='*', metavar='LIBRARY', help=f'of {", ".join(libraries)}; default: all'
    )
    zoo.add_argument(
        '--only', nargs='+', metavar='FAMILY', help='folders of configs, for example faster_rcnn'
    )
    zoo.add_argument(
        '--out', type=Path, metavar='FILE', help='write the table and the coverage as JSON as well'
    )
    zoo.add_argument(
        '--time-limit',
        type=float,
        default=120,
        metavar='S',
        help='seconds for each config (default: 120)',
    )
    args = parser.parse_args(argv)
    if args.command:
        args.libraries = args.libraries or list(libraries)
        if unknown := set(args.libraries) - set(libraries):
            parser.error(
                f'no zoo is known of {", ".join(sorted(unknown))}; expected {", ".join(libraries)}'
            )
    return args


def main(argv: Sequence[str] = ()) -> int:
    args = arguments(argv)
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        print(
            f'rich is missing, and this package needs it: {sys.executable} -m pip install rich',
            file=sys.stderr,
        )
        return 2
    if args.command == 'zoo':
        return zoo(args)
    checks = diagnose()
    colours = {'ok': 'green', 'note': 'yellow', 'fail': 'red'}
    table = Table('check', 'status', 'found', title=sys.executable)
    for check in checks:
        table.add_row(check.name, f'[{colours[check.status]}]{check.status}', escape(check.found))
    console = Console()
    console.print(table)
    for check in checks:
        if check.fix:
            # One plain line each, not wrapped into a cell, so that commands can be copied.
            name = f'[{colours[check.status]}]{check.name}[/]'
            console.print(f'{name}: {escape(check.fix)}', soft_wrap=True, highlight=False)
    failed = sum(check.status == 'fail' for check in checks)
    console.print(f'{failed} of {len(checks)} checks need fixing' if failed else 'all good')
    return 2 if failed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
