"""The one vocabulary in which hyper-parameters are refused: type, range, finite.

Every check reads an attribute of its owner and refuses it in one line, ``Class: field = value, expected ...``. A bool is no
int and no number, NaN lies in no range, and infinity is no number.
"""
from collections.abc import Mapping
from math import isfinite

from .errors import InputError
from .registry import nearest

__all__ = ['check_budget', 'check_choice', 'check_flag', 'check_int', 'check_number', 'check_numbers',
           'check_range', 'class_index']

INFINITE = float('inf')


def check_int(owner, name: str, low: int | None = 1, high: int | None = None) -> None:
    """An attribute must be an int, of at least ``low`` and at most ``high`` where these are given."""
    value = getattr(owner, name)
    if not _is_int(value) or (low is not None and value < low) or (high is not None and value > high):
        ends = '' if low is None else f' >= {low}' if high is None else f' from {low} to {high}'
        _refuse(owner, name, f'an int{ends}')


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
    """An attribute must be a tuple or list of ``count`` numbers, each as :func:`check_number` wants it."""
    values = getattr(owner, name)
    if (not isinstance(values, tuple | list) or len(values) != count
            or not all(_is_within(value, low, high, low_ok, high_ok) for value in values)):
        _refuse(owner, name, f'{count} numbers in {_interval(low, high, low_ok, high_ok)}')


def check_range(owner, name: str) -> None:
    """An attribute must be two positive numbers, the lower end of a range and the upper one."""
    ends = getattr(owner, name)
    numbers = isinstance(ends, tuple | list) and all(_is_within(end, 0, INFINITE, False, False) for end in ends)
    if not numbers or len(ends) != 2 or ends[0] > ends[1]:
        _refuse(owner, name, 'two numbers with 0 < low <= high')


def check_choice(owner, name: str, choices) -> None:
    """An attribute must be one of the strings ``choices``."""
    value = getattr(owner, name)
    if not isinstance(value, str) or value not in choices:
        _refuse(owner, name, f'one of {", ".join(choices)}; {nearest(value, choices)}')


def check_budget(owner, name: str, per_image: bool = False) -> None:
    """An attribute must be a count (int >= 1) or a share (0 < float < 1); or, ``per_image``, a dict from sample id to count."""
    value = getattr(owner, name)
    if per_image and isinstance(value, Mapping):
        for key, count in value.items():
            if not _is_int(count) or count < 1:
                raise InputError(f'{type(owner).__name__}: {name} = {count!r} for image {key!r}, expected an int >= 1')
    elif not (_is_within(value, 0, 1, False, False) if isinstance(value, float) else _is_int(value) and value >= 1):
        _refuse(owner, name, 'a count (int >= 1) or a share of the region (0 < float < 1)')


def _is_int(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_within(value, low: float, high: float, low_ok: bool, high_ok: bool) -> bool:
    if not (_is_int(value) or isinstance(value, float)) or not isfinite(value):
        return False
    return low < value < high or (low_ok and value == low) or (high_ok and value == high)


def _interval(low: float, high: float, low_ok: bool, high_ok: bool) -> str:
    return f'{"[" if low_ok else "("}{low}, {high}{"]" if high_ok else ")"}'


def _refuse(owner, name: str, expected: str) -> None:
    raise InputError(f'{type(owner).__name__}: {name} = {getattr(owner, name)!r}, expected {expected}')


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
    if wanted < 0 or (count is not None and wanted >= count):
        known = f'but the classes are 0 to {count - 1}' if count else 'no class'
        raise InputError(f'{who} = {wanted}{"," if count else ":"} {known}')
    return wanted
