"""Files of weights, read as data: what is in them is never run unless the user trusts them.

``torch.load`` runs whatever code a pickle names, unless it is told ``weights_only=True``. mmengine
tells it so, but falls back to ``False``; hence :func:`guard_loading`.
"""
import os
import re
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import (
    load_from_http,
    load_from_mmcls,
    load_from_openmmlab,
    load_from_torchvision,
)

from ..errors import InputError
from .common import one_line

__all__ = ['guard_loading', 'read_checkpoint', 'refusal']

SWITCH = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'  # torch's own: overrules what callers of torch.load say
_REMOTE = {
    load_from_http: ('http://', 'https://'),
    load_from_torchvision: ('modelzoo://', 'torchvision://'),
    load_from_openmmlab: ('open-mmlab://', 'openmmlab://'),
    load_from_mmcls: ('mmcls://',),
}


def guard_loading(trust: bool = False) -> None:
    """Decide for this process, and those it starts, how weights are read, by whatever road.

    Args:
        trust: run the code that a file of weights names, as mmengine does.
    """
    if trust:
        os.environ.pop(SWITCH, None)
    else:
        os.environ[SWITCH] = '1'
        _allow_harmless_classes()

    def load_from_file(filename: str, map_location=None):
        return read_checkpoint(os.path.expanduser(filename), trust, map_location)

    CheckpointLoader.register_scheme('', load_from_file, force=True)
    for loader, prefixes in _REMOTE.items():
        CheckpointLoader.register_scheme(
            prefixes, loader if trust else _guarded(loader), force=True
        )


def read_checkpoint(path: str, trust: bool = False, map_location: Any = 'cpu') -> Any:
    """What a file of ``torch.save`` holds.

    Args:
        path: the file.
        trust: run the code that it names.
        map_location: as for ``torch.load``.

    Raises:
        InputError: no such file; it holds other things than weights, or code.
    """
    if not Path(path).is_file():
        raise InputError(f'no checkpoint file {path}')
    if found := _other_kind(Path(path)):
        raise InputError(f'weights {path}: this is {found}, expected a file of torch.save')
    try:
        return torch.load(path, map_location=map_location, weights_only=not trust)
    except UnpicklingError as error:
        raise InputError(refusal(error, path)) from error
    except Exception as error:  # reading a broken file can raise anything
        what = f'{type(error).__name__}: {one_line(error)}'
        raise InputError(f'cannot read weights {path}: {what}') from error


def refusal(error: UnpicklingError, path: str = 'the file') -> str:
    """What to say of weights that torch would not read as data."""
    text = str(error)
    named = (re.search(r'(?:GLOBAL|Unsupported class) ([\w.]+)', text)
             or re.search(r"<(?:class|function|built-in function) '?([\w.]+)", text))
    if named is None:
        return f'cannot read weights {path}: {text.splitlines()[0] if text else repr(error)}'
    return (f'weights {path} hold {named[1]}, which is no weight and could run code: nothing was '
            'run; if you trust whoever made the file, add --trust-weights')


def _guarded(load: Callable) -> Callable:
    """A loader of mmengine that says in one line what was refused."""
    def load_from_afar(filename: str, map_location=None):
        try:
            return load(filename, map_location=map_location)
        except UnpicklingError as error:
            raise InputError(refusal(error, filename)) from error
    return load_from_afar


def _other_kind(path: Path) -> str | None:
    """What a file is that ``torch.save`` has not written: that begins with a zip or a pickle."""
    with path.open('rb') as file:
        start = file.read(512)
    if not start:
        return 'an empty file'
    if start.startswith((b'PK', b'\x80')):
        return None
    if start.startswith(b'version https://git-lfs'):
        return 'a Git LFS pointer to a file that has not been fetched'
    if start.lstrip().lower().startswith((b'<!doctype', b'<html', b'<?xml')):
        return 'a web page'
    return 'a text file' if start.isascii() else 'something else'


def _allow_harmless_classes() -> None:
    """Let torch read what checkpoints of mmengine hold beside weights: numbers and their history.

    torch before 2.6 cannot be told; there such files need ``--trust-weights``.
    """
    if _older_than(2, 6):
        return
    kinds = {type(np.dtype(kind)) for kind in '?bBhHiIlLqQefdgFDSU'}
    named: list[Any] = [(_statistics_method, 'builtins.getattr')]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # of numpy 1 and 2
        named.append((np.float64(0).__reduce__()[0], f'{module}.scalar'))
        named.append((np.zeros(0).__reduce__()[0], f'{module}._reconstruct'))
    torch.serialization.add_safe_globals([HistoryBuffer, np.ndarray, np.dtype, *kinds, *named])


def _older_than(*release: int) -> bool:
    return tuple(int(part) for part in torch.__version__.split('.')[:2]) < release


def _statistics_method(owner: Any, name: str) -> Any:
    """Stands for ``getattr`` in the pickle of a HistoryBuffer, which names its own methods."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise UnpicklingError('GLOBAL builtins.getattr')
    return getattr(owner, name)
