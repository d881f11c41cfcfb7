"""The operators of ``mmcv._ext`` without a compiler: from torchvision and in plain torch. See README.md beside this file."""
import importlib.machinery
import importlib.util
import os
import sys

__all__ = ['SWITCH', 'compiled_file', 'in_use', 'install']

_EXTENSION = 'mmcv._ext'
SWITCH = 'SDA_COMPILED_OPS'  # set to 0, this environment variable leaves a compiled module aside that does not work


def install() -> None:
    """Put our operators in the place of mmcv's compiled ones, if mmcv has none. Call it before ``mmcv.ops`` is imported.

    Importing ``sparse_dense_attacks`` calls it. It is cheap and may be called again: mmcv is looked for, but not imported.
    """
    if _EXTENSION in sys.modules or not importlib.util.find_spec('mmcv'):
        return
    if os.environ.get(SWITCH) == '0' or not compiled_file():
        from . import operators
        sys.modules[_EXTENSION] = operators


def compiled_file() -> str | None:
    """Where mmcv's own compiled module lies; None if mmcv was installed without it, or not at all."""
    mmcv = importlib.util.find_spec('mmcv')
    # find_spec('mmcv._ext') would import mmcv, and once ours is installed it would find that.
    found = mmcv and importlib.machinery.PathFinder.find_spec(_EXTENSION, mmcv.submodule_search_locations)
    return found.origin if found else None


def in_use() -> str:
    """``'plain'`` if ``mmcv.ops`` works with the operators of this package, ``'compiled'`` if with mmcv's own."""
    module = sys.modules.get(_EXTENSION)
    return 'plain' if module and module.__name__ == f'{__name__}.operators' else 'compiled'
