"""Sparse adversarial attacks on classifiers, mmdet detectors and mmseg segmenters.

Importing the package imports nothing else, so that ``sda doctor`` runs where torch does not. The
public names (public.py) come with torch when the first of them is asked for, and rooms such as
``sparse_dense_attacks.victims`` with what they need. Hooks and loops are in mmengine's root
registries as soon as both packages are imported, in either order, and an mmcv without compiled
operators has those of ``compat``.
"""
import importlib
import importlib.machinery
import importlib.util
import sys
from typing import TYPE_CHECKING

from . import compat

if TYPE_CHECKING:
    from .public import *  # noqa: F403

__version__ = '0.1.0'


def __getattr__(name: str):
    if name.startswith('_') and name != '__all__':  # Python and its tools look for some
        raise AttributeError(f'module {__name__} has no attribute {name}')
    if importlib.util.find_spec(f'{__name__}.{name}'):
        return importlib.import_module(f'{__name__}.{name}')
    return getattr(importlib.import_module(f'{__name__}.public'), name)


def __dir__() -> list[str]:
    return [*globals(), *__getattr__('__all__')]


class _AfterMmengine:
    """An import finder that has mmengine's import followed by that of our hooks and loops."""

    @staticmethod
    def find_spec(name: str, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == 'mmengine' else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            importlib.import_module(f'{__name__}.engine')

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


compat.install()  # before anybody imports mmcv.ops: a user's `import mmdet.models` may be next
if sys.modules.get('mmengine'):  # a config's custom_imports come here
    importlib.import_module(f'{__name__}.engine')
else:
    sys.meta_path.insert(0, _AfterMmengine)
