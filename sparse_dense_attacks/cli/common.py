"""What the subcommands share: the way in and out, common arguments, configs and weights."""
import argparse
import contextlib
import errno
import importlib.util
import inspect
import re
from pathlib import Path

import torch
import yaml
from mmengine.config import Config, DictAction
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader, Runner
from rich.console import Console

from .. import compat
from ..errors import InputError
from ..registry import nearest

__all__ = ['CONFIG_ERRORS', 'check_device', 'check_ops', 'check_weights', 'common_arguments', 'find_weights',
           'load_config', 'main', 'one_line', 'writing_to']

# Failures of mmengine, mmcv and the model libraries that mean a wrong config rather than a bug of theirs or ours.
CONFIG_ERRORS = (KeyError, TypeError, AttributeError, ValueError, AssertionError, OSError, ImportError, SyntaxError)
# What mmengine's Runner looks up in a config beside its own arguments.
_RUNNER_KEYS = ('activation_checkpointing', 'compile', 'efficient_conv_bn_eval', 'find_unused_parameters', 'model_wrapper_cfg',
                'sync_bn')
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def main(run, argv: list[str] | None = None, kept: str = 'all finished images are safe') -> int:
    """Run a command; bad input is one line on stderr and status 2, an interrupted run says what it ``kept`` and how to go on."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        run(argv)
    except InputError as error:
        console.print(f'error: {error}', markup=False)
        return 2
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        console.print(f'error: disk full ({error.filename or "where results go"}); {kept}: free some space and add --resume')
        return 2
    except KeyboardInterrupt:
        console.print(f'stopped; {kept}: add --resume to go on')
        return 130
    return 0


def common_arguments(description: str, config: str) -> argparse.ArgumentParser:
    """The arguments of every command that builds a Runner."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help=config)
    parser.add_argument('--checkpoint', help='weights: a file, a URL, a zoo name such as mmdet::faster-rcnn_r50_fpn_1x_coco, or '
                        "'none' for random weights; default: the config's load_from")
    parser.add_argument('--work-dir', help="where results go; default: the config's, or work_dirs/<name of the config>")
    parser.add_argument('--cfg-options', nargs='+', action=_KeyValues, metavar='KEY=VALUE', help='for example attack.k=500')
    parser.add_argument('--resume', action='store_true', help='go on with the run in the work dir')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='default: cuda if there is one')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


class _KeyValues(DictAction):
    """Answers with one line where mmengine's action fails on what it cannot split."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError) as error:
            raise InputError(f"--cfg-options {' '.join(values)}: expected KEY=VALUE, such as attack.k=500, and closed "
                             'brackets') from error


@contextlib.contextmanager
def writing_to(work_dir: str):
    """A write to a full disk names no file; let it name the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            error.filename = error.filename or work_dir
        raise


def check_device(device: str | None) -> None:
    if device == 'cuda' and not torch.cuda.is_available():
        raise InputError('--device cuda: torch sees no GPU; use --device cpu, or run sda doctor')


def load_config(path: str, options: dict | None = None, own: tuple[str, ...] = ()) -> Config:
    """Read a config and apply ``--cfg-options``.

    Args:
        path: the config.
        options: values by dotted key.
        own: top-level keys that options may add, besides those that mmengine's Runner knows.

    Raises:
        InputError: no such file, it cannot be read as a config, or an option that nothing would read.
    """
    if not Path(path).is_file():
        raise InputError(f'no config file {path}; ours are in configs/')
    try:
        cfg = Config.fromfile(path)
        known = {*cfg, *own, *inspect.signature(Runner).parameters, *_RUNNER_KEYS}
        for key in options or {}:
            first = key.partition('.')[0]
            if first not in known:
                raise InputError(f"--cfg-options {key}: nothing reads a top-level '{first}' in {path}, {nearest(first, known)}")
        cfg.merge_from_dict(options or {})
    except InputError:
        raise
    except Exception as error:  # a config is Python code and can raise anything
        raise InputError(f'config {path}: {type(error).__name__}: {one_line(error)}') from error
    return cfg


def find_weights(name: str | None) -> str | None:
    """The checkpoint to load: a local path, a URL as it is, or the URL of a zoo model; None for 'none'.

    Raises:
        InputError: nothing given, no such file, no such model.
    """
    if name is None:
        raise InputError('no weights: give --checkpoint FILE, or set load_from in the config (--checkpoint none: random weights)')
    if name == 'none':
        return None
    if '://' in name:
        return name
    zoo = re.fullmatch(r'(\w+)::([\w.-]+)', name)
    if zoo:
        return zoo_weights(*zoo.groups())
    if not Path(name).is_file():
        raise InputError(f'no checkpoint file {name}')
    return name


def zoo_weights(package: str, model: str) -> str:
    """URL of a zoo model's weights, read from the metafiles inside the installed library (never from the network).

    Raises:
        InputError: the library or the model is not there.
    """
    spec = importlib.util.find_spec(package)
    folder = Path(spec.submodule_search_locations[0], '.mim') if spec else None
    if folder is None or not (folder / 'model-index.yml').is_file():
        raise InputError(f'{package}::{model}: {package} is not installed with its model index')
    for metafile in yaml.safe_load((folder / 'model-index.yml').read_text())['Import']:
        content = yaml.safe_load((folder / metafile).read_text())
        for entry in content['Models'] if isinstance(content, dict) else content:
            if model in (entry.get('Name'), *entry.get('Alias', ())) and entry.get('Weights'):
                return entry['Weights']
    raise InputError(f'{package} has no weights of a model named {model} in its model index')


def check_weights(model: torch.nn.Module, path: str | None) -> None:
    """Refuse weights that do not fit: mmengine would load what fits and only warn about the rest.

    Raises:
        InputError: unreadable file, missing or misshapen entries. Superfluous ones, such as another head, are never loaded.
    """
    if path is None:
        Console(stderr=True).print('warning: attacking random weights', style='yellow')
        return
    try:
        state = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    except Exception as error:  # unpickling a wrong file can raise anything
        raise InputError(f'cannot read weights {path}: {type(error).__name__}: {one_line(error)}') from error
    state = state.get('state_dict', state) if isinstance(state, dict) else {}
    state = {re.sub(r'^module\.', '', name): tensor for name, tensor in state.items()}
    wanted = (model.module if is_model_wrapper(model) else model).state_dict()
    misshapen = [f'{name} is {tuple(state[name].shape)} in the file and {tuple(tensor.shape)} in the model'
                 for name, tensor in wanted.items() if name in state and state[name].shape != tensor.shape]
    if misshapen:
        hint = ' (class count of weights and config differ?)' if any('cls' in line for line in misshapen) else ''
        raise InputError(f'weights {path} do not fit the config: {misshapen[0]}; {len(misshapen)} such entries{hint}')
    # Counters and priors that some versions save and others do not carry no learned value.
    missing = sorted(name for name in wanted.keys() - state.keys() if not name.endswith('num_batches_tracked'))
    if missing:
        raise InputError(f'weights {path} do not fit the config: {len(missing)} of {len(wanted)} entries are missing, the first '
                         f'is {missing[0]}')


def check_ops() -> None:
    """One call of an mmcv op: a compiled one that was made for another torch may be imported and fail only here."""
    try:
        from mmcv.ops import nms
        nms(torch.tensor([[0., 0., 1., 1.]]), torch.tensor([1.]), 0.5)
    except (ImportError, RuntimeError) as error:
        way_out = f'do without the compiled ones: export {compat.SWITCH}=0; or ' if compat.compiled_file() else ''
        raise InputError(f'mmcv ops do not work ({one_line(error)}); {way_out}run: sda doctor') from error


def one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
