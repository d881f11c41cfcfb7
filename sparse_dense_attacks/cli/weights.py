"""Weights of the command line: where they are, and whether they fit."""
import re
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader
from rich.console import Console

from ..engine import configs_folder
from ..errors import InputError
from .common import one_line
from .configs import packaged

__all__ = ['check_weights', 'find_weights', 'weights_of_config', 'zoo_weights']


def find_weights(name: str | None) -> str | None:
    """The checkpoint to load: a path, a URL as it is, or the URL of a zoo model; None for 'none'.

    Raises:
        InputError: nothing given, no such file, no such model.
    """
    if name is None:
        raise InputError('no weights: give --checkpoint FILE, or set load_from in the config '
                         '(--checkpoint none: random weights)')
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
    """URL of a zoo model's weights, read from the metafiles inside the installed library.

    Raises:
        InputError: the library or the model is not there.
    """
    for entry in _models(package):
        if model in (entry.get('Name'), *entry.get('Alias', ())) and entry.get('Weights'):
            return entry['Weights']
    raise InputError(f'{package} has no weights of a model named {model} in its model index')


def weights_of_config(name: str) -> str | None:
    """URL of the weights that a zoo has for one of its configs, None for any other config.

    Raises:
        InputError: the zoo has no weights for it.
    """
    found = packaged(name)
    if found is None or _index(found[0]) is None:
        return None
    package, path = found
    for entry in _models(package, Path('configs', path)):
        if entry.get('Config') == f'configs/{path}' and entry.get('Weights'):
            return entry['Weights']  # where there are several, mmengine takes the first, too
    raise InputError(f'no weights: {package} has none for {path}; give --checkpoint FILE '
                     '(--checkpoint none: random weights)')


def _index(package: str) -> Path | None:
    folder = configs_folder(package)
    index = folder and folder.parent / 'model-index.yml'
    return index if index and index.is_file() else None


def _models(package: str, config: Path | None = None) -> Iterator[dict]:
    """What a package's metafiles, all or those beside and above a config, say of its models."""
    index = _index(package)
    if index is None:
        raise InputError(f'{package} is not installed with its model index')
    for metafile in yaml.safe_load(index.read_text())['Import']:
        if config is None or Path(metafile).parent in config.parents:
            content = yaml.safe_load((index.parent / metafile).read_text())
            yield from content['Models'] if isinstance(content, dict) else content


def check_weights(model: torch.nn.Module, path: str | None) -> None:
    """Refuse weights that do not fit: mmengine would load what fits and only warn about the rest.

    Raises:
        InputError: unreadable file, missing or misshapen entries. Superfluous ones, such as another
            head, are never loaded.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if path is None:
        console.print('warning: attacking random weights', style='yellow')
        return
    if '://' in path:
        console.print(f'weights: {path}', markup=False)
    try:
        state = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    except Exception as error:  # unpickling a wrong file can raise anything
        found = f'{type(error).__name__}: {one_line(error)}'
        raise InputError(f'cannot read weights {path}: {found}') from error
    state = state.get('state_dict', state) if isinstance(state, dict) else {}
    state = {re.sub(r'^module\.', '', name): tensor for name, tensor in state.items()}
    inner = model.get_submodule('module') if is_model_wrapper(model) else model
    wanted = inner.state_dict()
    shapes = {name: (tuple(state[name].shape), tuple(tensor.shape))
              for name, tensor in wanted.items() if name in state}
    misshapen = [f'{name} is {found} in the file and {expected} in the model'
                 for name, (found, expected) in shapes.items() if found != expected]
    if misshapen:
        classes = any('cls' in line for line in misshapen)
        hint = ' (class count of weights and config differ?)' if classes else ''
        raise InputError(f'weights {path} do not fit the config: {misshapen[0]}; {len(misshapen)} '
                         f'such entries{hint}')
    # Counters and priors that some versions save and others do not carry no learned value.
    missing = sorted(name for name in wanted.keys() - state.keys()
                     if not name.endswith('num_batches_tracked'))
    if missing:
        raise InputError(f'weights {path} do not fit the config: {len(missing)} of {len(wanted)} '
                         f'entries are missing, the first is {missing[0]}')
