"""What an inner layer of a model says about images; imports no model library."""
import contextlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from ..registry import nearest

__all__ = ['layer_output']


class _Reached(BaseException):
    """The layer has answered; no library that catches Exception keeps it."""


def layer_output(model: nn.Module, layer: str, look: Callable[[], Any], images: int) -> Tensor:
    """The first output of a layer while the model looks at images; what comes after it is not run.

    Args:
        model: the model.
        layer: dotted name of one of its modules. Of several maps that it gives, as backbones and
            necks do, the last is taken, which of a backbone is the deepest.
        look: lets the model look.
        images: how many images it looks at.

    Returns:
        (images, ...) float.

    Raises:
        InputError: no such layer, one that is not reached, or whose output is not one map for each
            image.
    """
    modules = dict(model.named_modules())
    if layer not in modules or not layer:
        outer = [name for name in modules if name and name.count('.') <= layer.count('.')]
        raise InputError(f"{type(model).__name__} has no layer '{layer}': "
                         f'{nearest(layer, outer[:40])}')
    outputs: list[Any] = []

    def keep(module, inputs, output):
        outputs.append(output)
        raise _Reached

    handle = modules[layer].register_forward_hook(keep)
    try:
        with contextlib.suppress(_Reached):
            look()
    finally:
        handle.remove()
    if not outputs:
        raise InputError(f"layer '{layer}' of {type(model).__name__} is not asked on the way to "
                         'its features: choose one of the backbone or the neck')
    found = outputs[0]
    while isinstance(found, tuple | list) and len(found):
        found = found[-1]
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise InputError(f"layer '{layer}' gives a {type(found).__name__}, expected features")
    if found.ndim < 2 or len(found) != images:
        raise InputError(f"layer '{layer}' gives {tuple(found.shape)} for {images} images, "
                         'expected one map for each: choose a layer further out')
    return found
