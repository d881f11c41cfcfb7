"""Victims: one file per model library, imported only when a model of that library is attacked."""
from torch import nn

from ..errors import InputError
from .torch import TorchClassifier

__all__ = ['TorchClassifier', 'wrap']


def wrap(model: nn.Module, **options):
    """The victim for a model built by an OpenMMLab library.

    Args:
        model: an mmdet detector.
        options: arguments of the victim class.

    Raises:
        InputError: the model belongs to no supported library.
    """
    libraries = {base.__module__.partition('.')[0] for base in type(model).__mro__}
    if 'mmdet' in libraries:
        from .mmdet import MMDetDetector
        return MMDetDetector(model, **options)
    raise InputError(f'{type(model).__module__}.{type(model).__name__} is no model of a supported library (mmdet)')
