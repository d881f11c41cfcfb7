"""Check an adversarial data set: files, changed pixels, budget, and the metrics of the model it was made for.

    sda verify work_dirs/spgd_yolox/dataset
    sda verify dataset --clean originals --checkpoint weights.pth
    sda verify dataset --no-score
"""
import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..screen import add_row, show
from . import common

if TYPE_CHECKING:
    from torch import Tensor

    from ..results import Entry, Manifest

__all__ = ['main', 'run']

NAMED = 3  # faults that the error line names
# How far a metric may be off: one in [0, 1], and one in per cent.
CLOSE, CLOSE_PER_CENT = 1e-3, 0.05


def main(argv: list[str] | None = None) -> int:
    return common.main(run, argv)


def run(argv: list[str] | None = None) -> None:
    """Verify as the arguments say.

    Raises:
        InputError: anything is not as the data set says; the line names it.
    """
    args = _parser().parse_args(argv)
    from ..results import Manifest

    folder = args.folder
    manifest = Manifest.load(folder)
    _refuse(folder, manifest.flaws(folder))
    show(f'{len(manifest.images)} images and {len(manifest.files)} other files are as they were '
         'written')
    clean = args.clean or Path(manifest.clean_root)
    if not clean.is_dir():
        raise InputError(f'the original images are not in {clean}: give their folder, --clean '
                         'FOLDER')
    _refuse(folder, _recount(folder, manifest, clean))
    counts = [entry.l0_pixels for entry in manifest.images]
    show(f'changed pixels are as recorded: {min(counts)} to {max(counts)} of an image')
    if args.no_score:
        return
    found = _score(folder, manifest, args)
    table, faults = _table(manifest.metrics, found)
    show(table)
    _refuse(folder, faults)
    show('metrics are as recorded')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('sda verify', description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help="the folder 'dataset' of a run")
    parser.add_argument('--clean', type=Path, metavar='FOLDER', help='where the original images '
                        'are; default: where they were')
    parser.add_argument('--checkpoint', help='weights of the model: a file, a URL or a zoo name; '
                        'default: where they were')
    parser.add_argument('--no-score', action='store_true', help='leave the metrics out: needs no '
                        'weights, and runs no code of the folder')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='default: cuda if there is one')
    parser.add_argument('--trust-weights', action='store_true', help='run the code that a file of '
                        'weights names; by default such files are refused')
    parser.add_argument('-v', '--verbose', action='store_true', help='print all that the libraries '
                        'log')
    return parser


def _refuse(folder: Path, faults: list[str]) -> None:
    if faults:
        more = f'; and {len(faults) - NAMED} more' if len(faults) > NAMED else ''
        raise InputError(f"{folder} is not what it says: {'; '.join(faults[:NAMED])}{more}")


def _recount(folder: Path, manifest: 'Manifest', clean: Path) -> list[str]:
    """Which images differ from the original ones in another way than is recorded."""
    from mmengine.registry import TRANSFORMS, DefaultScope

    from ..results import file_digest

    try:
        with DefaultScope.overwrite_default_scope(manifest.library):
            loaders = [TRANSFORMS.build(_harmless(step)) for step in manifest.loaders]
    except (KeyError, TypeError) as error:
        raise InputError(f'the images were read in a way that is not known here: {error}') from error
    allowed, faults = _budget(manifest), []
    exact = manifest.threat.get('eight_bit', True)  # what floats change, 8 bits may not show
    for entry in manifest.images:
        source = clean / entry.clean
        if not source.is_file():
            faults.append(f'there is no original image {source} of {entry.file}')
        elif file_digest(str(source)) != entry.clean_digest:
            faults.append(f'{source} is another image than the one that {entry.file} was made of')
        else:
            load = loaders[entry.part]
            found = _compare(entry, _pixels(load, folder / entry.file), _pixels(load, source),
                             allowed, exact)
            faults += [f'{entry.file} {text}' for text in found]
    return faults


def _harmless(step: dict) -> dict:
    """The config of a step that reads images; what else it could name is not built."""
    if str(step.get('type')).rpartition('.')[2] != 'LoadImageFromFile':
        raise InputError(f"the images were read by {step.get('type')}, and only LoadImageFromFile "
                         'can be asked again')
    return step


def _pixels(load: Callable, path: Path) -> 'Tensor':
    """What the pipeline reads from an image file, (1, C, H, W) float in [0, 1]."""
    import numpy as np
    import torch
    image = np.atleast_3d(load(dict(img_path=str(path)))['img'])
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def _compare(entry: 'Entry', image: 'Tensor', clean: 'Tensor', allowed: Callable,
             exact: bool) -> list[str]:
    """What is wrong with an image, whose original is ``clean``."""
    from ..ops import count_elements, count_pixels, linf_distance
    if image.shape != clean.shape:
        sizes = [tuple(one.shape[2:]) for one in (image, clean)]
        return [f'has the size {sizes[0]}, its original {sizes[1]}']
    found = dict(pixels=int(count_pixels(image, clean)), elements=int(count_elements(image, clean)))
    recorded = dict(pixels=entry.l0_pixels, elements=entry.l0_elements)
    unit, most = allowed(entry, clean)
    over = most is not None and found[unit] > most
    faults = [f'has {found[unit]} changed {unit}, the budget is {most}'] if over else []
    faults += [f'has {found[name]} changed {name}, recorded are {recorded[name]}' for name in found
               if found[name] > recorded[name] or exact and found[name] < recorded[name]]
    size = float(linf_distance(image, clean))
    if exact and abs(size - entry.linf) > 1e-6:
        faults.append(f'has values changed by {size:.4f}, recorded are {entry.linf:.4f}')
    return faults


def _budget(manifest: 'Manifest') -> Callable[['Entry', 'Tensor'], tuple[str, int | None]]:
    """Unit and size of the budget for an image, of no size where it counts other than pixels.

    A share is one of all that may change; here it is taken of the whole image.
    """
    import torch

    from ..attacks.base import BudgetAttack, MinimumAttack
    from ..groups import Pixel
    from ..ops import pixel_budget
    from ..registry import ATTACKS
    unit, k = 'pixels', None
    try:
        attack = ATTACKS.build(manifest.attack)
    except InputError:  # one of a user's own module
        attack = None
    if isinstance(attack, BudgetAttack) and attack.kernel == Pixel():
        k = attack.k
    elif isinstance(attack, MinimumAttack):
        unit, k = f'{attack.unit}s', attack.budget

    def allowed(entry: 'Entry', clean: 'Tensor') -> tuple[str, int | None]:
        if k is None:
            return unit, None
        places = torch.ones_like(clean if unit == 'elements' else clean[:, :1], dtype=torch.bool)
        return unit, int(pixel_budget(k, places, [entry.key], unit))

    return allowed


def _score(folder: Path, manifest: 'Manifest', args: argparse.Namespace) -> dict[str, Any]:
    """What the library's own pipeline and evaluator say of the images."""
    from ..results import file_digest
    from .checkpoints import guard_loading
    from .configs import read_config
    from .weights import check_weights, find_weights

    name = args.checkpoint or manifest.checkpoint
    if name is None:
        raise InputError('the weights were random, so there are none to score with: --no-score '
                         'leaves that out')
    weights = find_weights(name, unset='; give --checkpoint FILE, or --no-score')
    if weights is None:
        raise InputError('--checkpoint none: random weights reach other metrics; give the file, '
                         'or --no-score')
    urls = '://' in weights or '://' in manifest.weights
    if not urls and file_digest(weights) != manifest.weights:
        raise InputError(f'{weights} are not the weights that were attacked: its digest is '
                         f'{file_digest(weights)}, expected {manifest.weights}')
    common.check_device(args.device)
    guard_loading(args.trust_weights)
    args.config = str(folder / 'config.py')
    cfg = read_config(args.config)
    with tempfile.TemporaryDirectory() as work_dir:
        cfg.work_dir, cfg.load_from, cfg.launcher = work_dir, weights, 'none'
        with common.building(cfg, args) as runner:
            check_weights(runner.model, weights, args.trust_weights)
        return runner.test()


def _table(recorded: dict[str, Any], found: dict[str, Any]) -> tuple[Any, list[str]]:
    """Metrics side by side, and a line for each that differs."""
    from rich.table import Table
    table, faults = Table('metric', 'recorded', 'found'), []
    for name, value in recorded.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            now = found.get(name)
            add_row(table, name, f'{value:.4g}', 'none' if now is None else f'{now:.4g}')
            close = CLOSE if abs(value) <= 1 else CLOSE_PER_CENT
            if now is None or not abs(now - value) <= close:
                faults.append(f'{name} is {now}, recorded is {value}')
    return table, faults
