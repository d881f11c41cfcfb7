"""Refusal of hyper-parameters that make no sense."""
from .errors import InputError
from .registry import nearest

__all__ = ['check_bool', 'check_choice', 'check_int', 'check_number', 'class_index']


def check_bool(owner, name: str) -> None:
    """An attribute must be True or False."""
    if not isinstance(getattr(owner, name), bool):
        _refuse(owner, name, 'True or False')


def check_int(owner, name: str, low: int | None = 1) -> None:
    """An attribute must be an int, of at least ``low`` if that is given."""
    value = getattr(owner, name)
    number = isinstance(value, int) and not isinstance(value, bool)
    if not number or (low is not None and value < low):
        _refuse(owner, name, 'an int' if low is None else f'an int >= {low}')


def check_number(owner, name: str, low: float = 0, high: float = float('inf'), low_ok: bool = False, high_ok: bool = False):
    """An attribute must be a number between ``low`` and ``high``; the ends themselves only where ``low_ok``, ``high_ok``."""
    value = getattr(owner, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low < value < high or (low_ok and value == low) or (high_ok and value == high)):
        ends = f'{"[" if low_ok else "("}{low}, {high}{"]" if high_ok else ")"}'
        _refuse(owner, name, f'a number in {ends}')


def check_choice(owner, name: str, choices: tuple) -> None:
    """An attribute must be one of ``choices``."""
    value = getattr(owner, name)
    if value not in choices:
        _refuse(owner, name, f'one of {", ".join(choices)}; {nearest(value, choices)}')


def _refuse(owner, name, expected):
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
    if not 0 <= wanted < (wanted + 1 if count is None else count):
        raise InputError(f'{who} = {wanted}, but the classes are 0 to {count - 1}' if count else f'{who} = {wanted}: no class')
    return wanted
