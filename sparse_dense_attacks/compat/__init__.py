"""The operators of ``mmcv._ext`` without a compiler: from torchvision and in plain torch.

See README.md beside this file.
"""
import importlib
import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType

__all__ = ['SWITCH', 'compiled_file', 'in_use', 'install']

_EXTENSION = 'mmcv._ext'
# Set to 0, this environment variable leaves a compiled module aside that does not work.
SWITCH = 'SDA_COMPILED_OPS'


def install() -> None:
    """Put our operators in the place of mmcv's compiled ones, if mmcv has none.

    Call it before ``mmcv.ops`` is imported.

    Importing ``sparse_dense_attacks`` calls it. It is cheap and may be called again: mmcv is looked
    for, but not imported.
    """
    if _EXTENSION in sys.modules or not importlib.util.find_spec('mmcv'):
        return
    if os.environ.get(SWITCH) == '0' or not compiled_file():
        sys.modules[_EXTENSION] = _operators()


def _operators() -> ModuleType:
    """Our operators, which are loaded, and torch with them, when the first of them is looked up."""
    name = f'{__name__}.operators'
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None or spec.loader is None:
        return importlib.import_module(name)
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(sys.modules[name])
    return sys.modules[name]


def compiled_file() -> str | None:
    """Where mmcv's own compiled module lies; None if mmcv was installed without it, or not at all."""
    mmcv = importlib.util.find_spec('mmcv')
    # find_spec('mmcv._ext') would import mmcv, and once ours is installed it would find that.
    if mmcv is None:
        return None
    find = importlib.machinery.PathFinder.find_spec
    found = find(_EXTENSION, mmcv.submodule_search_locations)
    return found.origin if found else None


def in_use() -> str:
    """``'plain'`` if ``mmcv.ops`` works with the operators of this package, ``'compiled'`` if with mmcv's own."""
    module = sys.modules.get(_EXTENSION)
    return 'plain' if module and module.__name__ == f'{__name__}.operators' else 'compiled'
