"""Configs of the command line: files, and names of those inside installed packages."""
import ast
import difflib
import inspect
import os
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from ..engine import configs_folder
from ..errors import InputError
from ..registry import nearest
from .common import one_line

__all__ = ['find_config', 'load_config', 'packaged', 'read_config', 'set_options',
           'unset_variables']

PACKAGES = ('sparse_dense_attacks', 'mmdet', 'mmseg', 'mmpretrain')
# What mmengine's Runner looks up in a config beside its own arguments.
_RUNNER_KEYS = ('activation_checkpointing', 'compile', 'efficient_conv_bn_eval',
                'find_unused_parameters', 'model_wrapper_cfg', 'sync_bn')


def load_config(name: str, options: dict | None = None, own: tuple[str, ...] = ()) -> Config:
    """Read a config and apply ``--cfg-options``: :func:`read_config` and :func:`set_options`."""
    cfg = read_config(name)
    set_options(cfg, name, options, own)
    return cfg


def read_config(name: str) -> Config:
    """A config from its file, or from its name in a package.

    Raises:
        InputError: there is none, or it cannot be read as a config.
    """
    path = find_config(name)
    _check_bases(path, name)
    try:
        cfg = Config.fromfile(path)
        # As it is but for its looks when printed: yapf takes seconds over each of the four copies
        # that a Runner logs and keeps.
        return Config(cfg.to_dict(), cfg_text=cfg.text, filename=cfg.filename,
                      env_variables=cfg.env_variables, format_python_code=False)
    except (Exception, SystemExit) as error:  # a config is Python code and can do anything
        what = f'{type(error).__name__}: {one_line(error)}'
        raise InputError(f'config {name}: {what}{_cause(error)}') from error


def unset_variables(cfg: Config) -> str:
    """A hint for files that are not there: which environment variables the config would take."""
    names = dict.fromkeys(re.findall(r'\{\{\s*\$(\w+)\s*:', cfg.text))
    unset = [name for name in names if name not in os.environ]
    return (
        f"; the config takes its folders from {', '.join(unset)}, which is unset" if unset else ''
    )


def _cause(error: BaseException) -> str:
    """Where an import failed because of another one, that one."""
    first = error
    while first.__cause__ or first.__context__:
        first = first.__cause__ or first.__context__  # type: ignore[assignment]
    if first is error or str(first) in str(error).splitlines()[-1:]:
        return ''
    return f' (cause: {type(first).__name__}: {one_line(first)})'


def _check_bases(path: Path, name: str, below: tuple[Path, ...] = ()) -> None:
    """Refuse a config that is among its own bases: mmengine would go round until Python gives up."""
    path = path.resolve()
    if path in below:
        circle = ' -> '.join(one.name for one in (*below[below.index(path):], path))
        raise InputError(f'config {name}: its _base_ is circular: {circle}')
    for base in _bases(path):
        if base.is_file():
            _check_bases(base, name, (*below, path))


def _bases(path: Path) -> list[Path]:
    """The files that a Python config names as ``_base_``, as far as it does so in plain strings."""
    if path.suffix != '.py':
        return []
    try:
        tree = ast.parse(path.read_text(encoding='utf-8'))
    except (SyntaxError, ValueError, OSError):  # mmengine says what is wrong with it
        return []
    named: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
                isinstance(one, ast.Name) and one.id == '_base_' for one in node.targets):
            named = [one.value for one in ast.walk(node.value)
                     if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return [path.parent / base for base in named if '::' not in base]


def set_options(cfg: Config, name: str, options: dict | None, own: tuple[str, ...] = ()) -> None:
    """Apply ``--cfg-options``.

    Args:
        cfg: the config, changed in place.
        name: what the user calls it.
        options: values by dotted key.
        own: top-level keys that options may add, besides those that mmengine's Runner knows.

    Raises:
        InputError: an option that nothing would read, or that does not fit the config.
    """
    known = {*cfg, *own, *inspect.signature(Runner).parameters, *_RUNNER_KEYS}
    for key in options or {}:
        first = key.partition('.')[0]
        if first not in known:
            raise InputError(f"--cfg-options {key}: nothing reads a top-level '{first}' in {name}, "
                             f'{nearest(first, known)}')
    try:
        cfg.merge_from_dict(options or {})
    except Exception as error:
        raise InputError(f'config {name}: {type(error).__name__}: {one_line(error)}') from error


def find_config(name: str) -> Path:
    """The file of a config.

    Args:
        name: a path, or ``package::path`` for a config inside an installed package, where the
            folder and ``.py`` may be left out if one config only has that name.

    Raises:
        InputError: no such file or package; no config of that name, with the nearest; or several.
    """
    if '::' in name:
        return _in_package(*name.split('::', 1))
    path = Path(name)
    if path.is_file():
        return path
    raise InputError(f'no config file {name}; {_elsewhere(path.stem)}')


def packaged(name: str) -> tuple[str, Path] | None:
    """Package and path below its configs, if a config is named like ``package::path``.

    Raises:
        InputError: as :func:`find_config`.
    """
    if '::' not in name:
        return None
    package, wanted = name.split('::', 1)
    return package, _in_package(package, wanted).relative_to(_folder(package))


def _folder(package: str) -> Path:
    folder = configs_folder(package) if package.isidentifier() else None
    if folder is None:
        known = ', '.join(filter(configs_folder, PACKAGES))
        raise InputError(f'{package} is not installed with its configs; known are {known}')
    return folder


def _in_package(package: str, wanted: str) -> Path:
    folder = _folder(package)
    plain = wanted.removesuffix('.py')
    if (folder / f'{plain}.py').is_file():
        return folder / f'{plain}.py'
    paths = _runnable(folder)
    found = [path for path in paths if f'/{path}'.endswith(f'/{plain}.py')]
    if len(found) == 1:
        return folder / found[0]
    if found:
        names = ', '.join(map(str, found))
        raise InputError(f'{package} has {len(found)} configs of the name {wanted}: {names}')
    # The folder counts in the comparison if the user named one.
    known = {str(path.with_suffix('')) if '/' in plain else path.stem: path for path in paths}
    closest = difflib.get_close_matches(plain, known, n=1, cutoff=0)
    hint = f'; did you mean {package}::{known[closest[0]]}?' if closest else ''
    raise InputError(f'{package} has no config {wanted}{hint}')


def _runnable(folder: Path) -> list[Path]:
    """The configs below a folder that are no mere parts of others, relative to it."""
    paths = sorted(path.relative_to(folder) for path in folder.glob('**/*.py'))
    return [path for path in paths if '_base_' not in path.parts]


def _elsewhere(stem: str) -> str:
    """Where a config is whose file is not there, or where to look."""
    for package in filter(configs_folder, PACKAGES):
        for path in _runnable(_folder(package)):
            if path.stem == stem:
                return f'did you mean {package}::{path}?'
    ours = [str(path) for path in _runnable(_folder(PACKAGES[0])) if len(path.parts) == 1]
    return f'ours are {PACKAGES[0]}::{", ".join(ours)} and more'
