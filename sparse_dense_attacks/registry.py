"""Our own registries: attacks, goals, victims, defences, structured kernels and placements of patches.

They offer the part of mmengine's ``Registry`` that configs use (``register_module`` and ``build`` of dicts with a ``type``), but
need no OpenMMLab package, know no scopes, and answer a misspelt name with the nearest valid one. Hooks, loops and metrics are
registered in mmengine's root registries instead, where configs of every library find them.
"""
import difflib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import InputError

__all__ = ['ATTACKS', 'DEFENCES', 'GOALS', 'KERNELS', 'PLACEMENTS', 'VICTIMS', 'Config', 'Registry', 'nearest']

Config = Any  # what build() makes an object of: a name, or a dict with a type


def nearest(name: str, valid) -> str:
    """A hint that names the valid spelling closest to ``name``, or lists them all."""
    valid = sorted(valid)
    close = difflib.get_close_matches(str(name).lower(), [v.lower() for v in valid], n=1, cutoff=0.5)
    match = next((v for v in valid if close and v.lower() == close[0]), None)
    return f"did you mean '{match}'?" if match else f"valid: {', '.join(valid) or 'none'}"


def snake_case(name: str) -> str:
    """``SparsePGD`` -> ``sparse_pgd``."""
    return re.sub(r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', name).lower()


class Registry:
    """Maps names to classes and builds them from config dicts.

    Example:
        >>> ATTACKS.build(dict(type='SparsePGD', k=20)) == ATTACKS.build('sparse_pgd', k=20)
        True
        >>> ATTACKS.build('sparse_gpd')
        Traceback (most recent call last):
        sparse_dense_attacks.errors.InputError: unknown attack 'sparse_gpd': did you mean 'SparsePGD'?
    """

    def __init__(self, name: str):
        self.name = name
        self._classes: dict[str, type] = {}

    def register_module(self) -> Callable[[type], type]:
        """Class decorator; a name that another class has already is refused with a KeyError, as mmengine does."""
        def register(cls):
            known = self._classes.get(cls.__name__)
            if known and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):  # the same again: a reload
                raise KeyError(f"{self.name} '{cls.__name__}' is registered already, by {known.__module__}")
            self._classes[cls.__name__] = cls
            return cls
        return register

    def __iter__(self):
        return iter(self._classes)

    def get(self, name: str | type) -> Any:
        """A class by its name, by its dotted name as pure-Python configs give it, or as it is.

        Raises:
            InputError: no such class is registered.
        """
        for known, cls in self._classes.items():
            if name in (known, snake_case(known), cls):
                return cls
        if isinstance(name, type):
            raise InputError(f'{name.__module__}.{name.__qualname__} is no registered {self.name}: '
                             f'{nearest(name.__name__, self._classes)}')
        if '.' in name:
            try:
                found = pkgutil.resolve_name(name)
            except (ImportError, AttributeError, ValueError) as error:
                raise InputError(f"unknown {self.name} '{name}': {error}; "
                                 f"{nearest(name.rpartition('.')[2], self._classes)}") from error
            if isinstance(found, type):
                return self.get(found)
        raise InputError(f"unknown {self.name} '{name}': {nearest(name, self._classes)}")

    def build(self, cfg: Any, **defaults) -> Any:
        """Build from a dict with ``type``, from a name, or pass a finished object through.

        Raises:
            InputError: unknown type or unknown argument (with the nearest valid name), or a value the class refuses.
        """
        if isinstance(cfg, str):
            cfg = dict(type=cfg)
        if not isinstance(cfg, Mapping):
            return cfg
        arguments = {**defaults, **cfg}
        if not isinstance(arguments.get('type'), str | type):
            raise InputError(f"{self.name} config {dict(cfg)} needs a 'type': {nearest('', self._classes)}")
        cls = self.get(arguments.pop('type'))
        arguments.pop('_scope_', None)  # mmengine marks dicts inherited from another library
        valid = list(inspect.signature(cls).parameters)
        for name in arguments:
            if name not in valid:
                raise InputError(f"{cls.__name__} has no argument '{name}': {nearest(name, valid)}")
        try:
            return cls(**arguments)
        except TypeError as error:
            raise InputError(f'{cls.__name__}: {error}') from error


ATTACKS = Registry('attack')
GOALS = Registry('goal')
VICTIMS = Registry('victim')
KERNELS = Registry('kernel')
DEFENCES = Registry('defence')
PLACEMENTS = Registry('placement')
