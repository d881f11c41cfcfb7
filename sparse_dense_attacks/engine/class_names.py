"""Class names of weights and of the data set: a number has to mean the same to both."""
from collections.abc import Sequence

from ..errors import InputError
from .warn import warn

__all__ = ['check_class_names', 'names_in_checkpoint']


def names_in_checkpoint(checkpoint: dict) -> list[str] | None:
    """The classes that the weights were trained for, in their order; None where they name none."""
    meta = checkpoint.get('meta') or {}
    described = meta.get('dataset_meta') or meta
    names = described.get('classes', described.get('CLASSES'))
    return [str(name) for name in names] if isinstance(names, list | tuple) and names else None


def check_class_names(weights: Sequence[str] | None, dataset) -> None:
    """Compare the classes of weights with those of the data set they are tested on.

    Upper and lower case, spaces, hyphens and underscores do not count.

    Args:
        weights: what :func:`names_in_checkpoint` found; a warning says so where that is nothing.
        dataset: of the test run.

    Raises:
        InputError: they differ in order or spelling; both lists are shown.
    """
    classes = dataset.metainfo.get('classes')
    if not classes:
        return
    if weights is None:
        warn('the weights name no classes, so whether the data set numbers them alike cannot be '
             f'checked; the data set: {_listed(classes)}')
        return
    ours, theirs = [_plain(name) for name in classes], [_plain(name) for name in weights]
    if ours == theirs:
        return
    pairs = enumerate(zip(weights, classes, strict=False))
    place = next((i for i, (one, other) in pairs if _plain(one) != _plain(other)),
                 min(len(ours), len(theirs)))
    kind = 'in another order' if sorted(ours) == sorted(theirs) else 'other ones'
    raise InputError(
        f'the classes of the data set are {kind} than those of the weights (the first that differs '
        f'is number {place}): weights: {_listed(weights, place)}; data set: '
        f"{_listed(classes, place)}. Set test_dataloader.dataset.metainfo.classes to the weights' "
        'classes in their order')


def _plain(name) -> str:
    return ''.join(letter for letter in str(name).lower() if letter not in ' _-')


def _listed(names: Sequence, place: int = 0, most: int = 20) -> str:
    """The names around a place, all of them if they are few."""
    start = max(min(place - most // 2, len(names) - most), 0)
    shown = ', '.join(map(str, names[start:start + most]))
    before, after = '..., ' * (start > 0), ', ...' * (start + most < len(names))
    return f'{before}{shown}{after}'
