"""Weights of the command line: where they are, and whether they fit."""
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader

from ..engine import configs_folder
from ..errors import InputError
from .checkpoints import read_checkpoint
from .common import one_line, say
from .configs import packaged

__all__ = ['check_weights', 'find_weights', 'weights_of_config', 'zoo_weights']


def find_weights(name: str | None, beside: str | Path = '', unset: str = '') -> str | None:
    """The checkpoint to load: a path, a URL as it is, or the URL of a zoo model; None for 'none'.

    Args:
        name: what the user or the config calls it.
        beside: a file in whose folder a relative path is looked for, too.
        unset: a hint to add where there is no such file.

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
    places = [Path(name), Path(beside).parent / name] if beside else [Path(name)]
    for place in places:
        if place.is_file():
            return str(place)
    folder = f' here or beside {beside}' if beside and not Path(name).is_absolute() else ''
    raise InputError(f'no checkpoint file {name}{folder}{unset}')


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


def check_weights(model: torch.nn.Module, path: str | None, trust: bool = False) -> None:
    """Refuse weights that do not fit: mmengine would load what fits and only warn about the rest.

    Args:
        model: what they are for.
        path: a file or a URL; None for random weights, of which a line is said.
        trust: run the code that the file names.

    Raises:
        InputError: unreadable file, entries that are missing, misshapen, no tensors or NaN.
            Superfluous ones, such as another head, are never loaded.
    """
    if path is None:
        say('warning: attacking random weights')
        return
    if '://' in path:
        say(f'weights: {path}')
        found = _downloaded(path)
    else:
        found = read_checkpoint(path, trust)
    state = found.get('state_dict', found) if isinstance(found, Mapping) else found
    if not isinstance(state, Mapping):
        raise InputError(
            f'weights {path} hold a {type(state).__name__}, expected a dict of tensors'
        )
    state = {re.sub(r'^module\.', '', str(name)): value for name, value in state.items()}
    inner = model.get_submodule('module') if is_model_wrapper(model) else model
    wanted = inner.state_dict()
    _check_values({name: state[name] for name in wanted if name in state}, path)
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


def _downloaded(url: str) -> Any:
    """What a URL's file holds, by mmengine's loaders as :func:`guard_loading` left them."""
    try:
        return CheckpointLoader.load_checkpoint(url, map_location='cpu', logger='silent')
    except InputError:
        raise
    except Exception as error:  # a download and what it brings can raise anything
        what = f'{type(error).__name__}: {one_line(error)}'
        raise InputError(f'cannot read weights {url}: {what}') from error


def _check_values(state: dict[str, Any], path: str) -> None:
    """The entries that would be loaded have to be tensors without NaN."""
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f'weights {path}: {name} is a {type(value).__name__}, expected a '
                             'tensor: save state_dict() of the model with torch.save')
    spoilt = [name for name, value in state.items()
              if value.is_floating_point() and value.isnan().any()]
    if spoilt:
        raise InputError(f'weights {path}: {len(spoilt)} of {len(state)} entries hold NaN, the '
                         f'first is {spoilt[0]}: the training has diverged, take an earlier file')
