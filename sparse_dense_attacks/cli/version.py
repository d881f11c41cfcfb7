"""What ``sda --version`` prints: all that a report of a bug needs."""
import importlib
import os
import platform
from collections.abc import Callable

from .. import __version__

__all__ = ['describe']


def describe() -> str:
    """Versions of this package and of all below it, and of the machine; the first line is the package's alone."""
    return '\n'.join([f'sda {__version__}',
                      f'Python {platform.python_version()}, {platform.platform()}, '
                      f'{os.cpu_count()} cores',
                      *_told(_installed), *_told(_devices)])


def _told(ask: Callable[[], list[str]]) -> list[str]:
    """What is answered, or why it is not: this is asked where something is broken."""
    try:
        return ask()
    except Exception as error:
        return [f'{type(error).__name__}: {error}'.splitlines()[0]]


def _installed() -> list[str]:
    results = importlib.import_module('..results', __package__)
    return [f'{name} {version}' for name, version in results.versions().items()
            if name not in ('python', 'sparse-dense-attacks')]


def _devices() -> list[str]:
    torch = importlib.import_module('torch')
    if not torch.cuda.is_available():
        return ['no CUDA device']
    return [f'{torch.cuda.get_device_name(number)}, CUDA {torch.version.cuda}'
            for number in range(torch.cuda.device_count())]
