"""The one vocabulary in which hyper-parameters are refused: type, range, finite.

Every check reads an attribute of its owner and refuses it in one line, ``Class: field = value,
expected ...``. A bool is no int and no number, NaN lies in no range, infinity is no number, and no
number is beyond 64 bits.
"""
from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import isfinite
from pathlib import Path, PurePath
from typing import Any

from .errors import InputError
from .registry import GOALS, nearest

__all__ = ['check_budget', 'check_choice', 'check_config', 'check_flag', 'check_int',
           'check_mapping', 'check_names', 'check_number', 'check_numbers', 'check_path',
           'check_range', 'check_task', 'check_text', 'check_value', 'class_index', 'files_for',
           'from_fields', 'is_count', 'shown']

INFINITE = float('inf')
LARGEST = 2 ** 63  # no int reaches it: torch counts in 64 bits


def check_int(owner, name: str, low: int | None = 1, high: int | None = None) -> None:
    """An attribute must be an int, of at least ``low`` and at most ``high`` where these are given."""
    value = getattr(owner, name)
    fits = _is_int(value) and (low is None or value >= low) and (high is None or value <= high)
    if not fits:
        ends = '' if low is None else f' >= {low}' if high is None else f' from {low} to {high}'
        too_large = isinstance(value, int) and abs(value) >= LARGEST
        _refuse(owner, name, f'an int{ends}' + (' and below 2 ** 63' if too_large else ''))


def check_flag(owner, name: str) -> None:
    """An attribute must be True or False."""
    if not isinstance(getattr(owner, name), bool):
        _refuse(owner, name, 'True or False')


def check_number(owner, name: str, low: float = 0, high: float = INFINITE,
                 low_ok: bool = False, high_ok: bool = False) -> None:
    """An attribute must be a finite number between ``low`` and ``high``.

    The ends themselves count only where ``low_ok`` and ``high_ok`` say so.
    """
    if not _is_within(getattr(owner, name), low, high, low_ok, high_ok):
        _refuse(owner, name, f'a number in {_interval(low, high, low_ok, high_ok)}')


def check_numbers(owner, name: str, count: int, low: float = 0, high: float = INFINITE,
                  low_ok: bool = False, high_ok: bool = False) -> None:
    """An attribute must be ``count`` numbers, each as :func:`check_number` wants it."""
    values = getattr(owner, name)
    if (not isinstance(values, tuple | list) or len(values) != count
            or not all(_is_within(value, low, high, low_ok, high_ok) for value in values)):
        _refuse(owner, name, f'{count} numbers in {_interval(low, high, low_ok, high_ok)}')


def check_range(owner, name: str) -> None:
    """An attribute must be two positive numbers, the lower end of a range and the upper one."""
    ends = getattr(owner, name)
    fits = isinstance(ends, tuple | list) and len(ends) == 2 and all(
        _is_within(end, 0, INFINITE, False, False) for end in ends)
    if not fits or ends[0] > ends[1]:
        _refuse(owner, name, 'two numbers with 0 < low <= high')


def check_choice(owner, name: str, choices) -> None:
    """An attribute must be one of the strings ``choices``."""
    value = getattr(owner, name)
    if not isinstance(value, str) or value not in choices:
        _refuse(owner, name, f'one of {", ".join(choices)}; {nearest(value, choices)}')


def check_choices(owner, name: str, choices) -> None:
    """An attribute must be a list or tuple of some of the strings ``choices``; it may be empty."""
    values = getattr(owner, name)
    if (not isinstance(values, tuple | list)
            or not all(isinstance(value, str) and value in choices for value in values)):
        _refuse(owner, name, f'a list of some of {", ".join(map(repr, choices))}')


def check_text(owner, name: str) -> None:
    """An attribute must be a string."""
    if not isinstance(getattr(owner, name), str):
        _refuse(owner, name, 'a string')


def check_path(owner, name: str) -> None:
    """An attribute must be a string or a path."""
    if not isinstance(getattr(owner, name), str | Path):
        _refuse(owner, name, 'the path of a file or folder')


def check_config(owner, name: str) -> None:
    """An attribute must be what a registry builds from: a name, a dict with a type, or an object."""
    check_value(name, getattr(owner, name), type(owner).__name__)


def check_value(name: str, value, who: str = '') -> None:
    """The same for a value that is no attribute."""
    if value is None or isinstance(value, int | float | list | tuple | set) or value == {}:
        raise InputError(f'{who}{": " if who else ""}{name} = {shown(value)}, expected a name, a '
                         'dict with a type, or a finished object')


def check_mapping(owner, name: str) -> None:
    """An attribute must be a dict."""
    if not isinstance(getattr(owner, name), Mapping):
        _refuse(owner, name, 'a dict')


def check_names(owner, name: str, indices: bool = False, what: str = 'class') -> None:
    """An attribute must be a list or tuple of strings that is not empty.

    Args:
        indices: ints of at least 0 will do, too.
        what: they are names of.
    """
    values = getattr(owner, name)
    fits = isinstance(values, Sequence) and not isinstance(values, str | bytes) and len(values) > 0
    if not fits or not all(isinstance(value, str) or (indices and _is_int(value) and value >= 0)
                           for value in values):
        names = 'class names' if what == 'class' else f'names of {what}'
        _refuse(owner, name, f'a list of {names}' + (' or indices' if indices else ''))


def check_budget(owner, name: str, per_image: bool = False) -> None:
    """An attribute must be a count (int >= 1) or a share (0 < float < 1).

    Args:
        per_image: a dict from sample id to count will do, too.
    """
    value = getattr(owner, name)
    if per_image and isinstance(value, Mapping) and value:
        for key, count in value.items():
            if not _is_int(count) or count < 1:
                raise InputError(f'{type(owner).__name__}: {name} = {shown(count)} for image '
                                 f'{key!r}, expected an int >= 1')
    elif not (_is_int(value) and value >= 1
              or isinstance(value, float) and _is_within(value, 0, 1, False, False)):
        _refuse(owner, name, 'a count (int >= 1) or a share of the region (0 < float < 1)')


def is_count(value) -> bool:
    """Whether a value is an int of at least 1."""
    return _is_int(value) and value >= 1


def shown(value) -> str:
    """A value as an error line can hold it."""
    if isinstance(value, int) and abs(value) >= LARGEST:
        return f'{"-" if value < 0 else ""}2 ** {value.bit_length() - 1} or more'
    text = repr(value)
    return text if len(text) <= 200 else f'{text[:200]}...'


def _is_int(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST


def _is_within(value, low: float, high: float, low_ok: bool, high_ok: bool) -> bool:
    if not (_is_int(value) or isinstance(value, float)) or not isfinite(value):
        return False
    return low < value < high or (low_ok and value == low) or (high_ok and value == high)


def _interval(low: float, high: float, low_ok: bool, high_ok: bool) -> str:
    return f'{"[" if low_ok else "("}{low}, {high}{"]" if high_ok else ")"}'


def _refuse(owner, name: str, expected: str) -> None:
    raise InputError(f'{type(owner).__name__}: {name} = {shown(getattr(owner, name))}, '
                     f'expected {expected}')


def from_fields(kind: Any, given: Any, who: str) -> Any:
    """A dataclass from a dict of its fields, or a finished one as it is.

    Args:
        kind: the dataclass.
        who: what the fields are of, for errors.

    Raises:
        InputError: a field that it has not, or a value that makes no sense.
    """
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise InputError(f'{who} = {shown(given)}, expected a dict of fields')
    valid = [field.name for field in fields(kind)]
    for name in given:
        if name not in valid:
            raise InputError(f"{who} has no field '{name}': {nearest(name, valid)}")
    return kind(**given)


def class_index(wanted: int | str, names, count: int | None, who: str) -> int:
    """The index of a class that an option names.

    Args:
        wanted: its index or its name.
        names: the names of all classes, or None.
        count: how many classes the model knows, None if unknown.
        who: the option's name, for errors.

    Raises:
        InputError: no such class.
    """
    if isinstance(wanted, str):
        if not names:
            raise InputError(f"{who} = '{wanted}', but no class names are known: use the index")
        if wanted not in names:
            raise InputError(f"{who}: no class '{wanted}': {nearest(wanted, names)}")
        return list(names).index(wanted)
    if not _is_int(wanted):
        raise InputError(f'{who} = {shown(wanted)}, expected the index or the name of a class')
    if wanted < 0 or (count is not None and wanted >= count):
        known = f'but the classes are 0 to {count - 1}' if count else 'no class'
        raise InputError(f'{who} = {wanted}{"," if count else ":"} {known}')
    return wanted


def check_task(goal, task: str) -> None:
    """Refuse a goal of another task than the model's, and name those that fit."""
    if goal.task not in (task, 'any'):
        fitting = ', '.join(name for name in GOALS if GOALS.get(name).task in (task, 'any'))
        raise InputError(f'{type(goal).__name__} is a goal of {goal.task}, but the model does '
                         f'{task}: set goal to one of {fitting}')


def files_for(folder: Path, images: Sequence[str], who: str) -> list[Path]:
    """The PNG in a folder that belongs to each image, by relative path first, then by name.

    Of ``data/seq1/0001.jpg`` that is ``data/seq1/0001.png`` in the folder, else ``seq1/0001.png``,
    else ``0001.png``.

    Args:
        folder: where the files are.
        images: paths or ids of the images.
        who: what the files are, for errors.

    Raises:
        InputError: an image without a file, or a file that two images would share.
    """
    found: list[Path] = []
    owner: dict[Path, str] = {}
    for image in images:
        path = _file_for(folder, PurePath(image))
        if not path.is_file():
            kind, thing = who.rsplit(': ', 1)
            raise InputError(f"{kind}: no {thing} '{path}', or no readable PNG "
                             f"(for image '{image}')")
        if owner.setdefault(path, image) != image:
            raise InputError(f"{who} '{path}' fits two images, '{owner[path]}' and '{image}': put "
                             'it into a folder named like that of its image')
        found.append(path)
    return found


def _file_for(folder: Path, image: PurePath) -> Path:
    parts = [part for part in image.parts[:-1] if part not in (image.anchor, '.', '..')]
    for start in range(len(parts)):
        path = folder.joinpath(*parts[start:], f'{image.stem}.png')
        if path.is_file():
            return path
    return folder / f'{image.stem}.png'
