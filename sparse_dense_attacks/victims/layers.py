"""What an inner layer of a model says about images; imports no model library."""
import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..registry import nearest

__all__ = ['layer_and_gradient', 'layer_output']


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
    module = _module(model, layer)
    outputs: list[Any] = []

    def keep(module, inputs, output):
        outputs.append(output)
        raise _Reached

    handle = module.register_forward_hook(keep)
    try:
        with contextlib.suppress(_Reached):
            look()
    finally:
        handle.remove()
    if not outputs:
        raise InputError(f"layer '{layer}' of {type(model).__name__} is not asked on the way to "
                         'its features: choose one of the backbone or the neck')
    found = _deepest(outputs[0], layer)
    if found.ndim < 2 or len(found) != images:
        raise InputError(f"layer '{layer}' gives {tuple(found.shape)} for {images} images, "
                         'expected one map for each: choose a layer further out')
    return found


def layer_and_gradient(model: nn.Module, layer: str, score: Callable[[], Tensor]) -> tuple[
        Tensor, Tensor, tuple[int, int]]:
    """A layer's map of one image, and the gradient of a score with respect to it.

    Args:
        model, layer: as for :func:`layer_output`.
        score: lets the model look at one image, whose pixels require a gradient, and gives a score,
            one number.

    Returns:
        Map and gradient, (K, h, w) each, without gradient; the gradient is zero where the score does
        not hang on the map. And height and width of what the backbone was shown (the model, if it
        has none), padding of its own included.

    Raises:
        InputError: no such layer, one whose output is no map, or that is asked several times, as in
            sliding windows.
    """
    module = _module(model, layer)
    sizes: list[tuple[int, int]] = []
    outputs: list[Any] = []
    outer = dict(model.named_modules()).get('backbone', model)
    handles = [
        outer.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:]))),
        module.register_forward_hook(lambda _, inputs, output: outputs.append(output))]
    try:
        with torch.enable_grad():
            value = score()
    finally:
        for handle in handles:
            handle.remove()
    if len(outputs) != 1 or len(sizes) != 1:
        raise InputError(f"layer '{layer}' of {type(model).__name__} is asked {len(outputs)} times "
                         'for an image, expected once (no sliding window)')
    found = _deepest(outputs[0], layer)
    if found.ndim != 4 or len(found) != 1:
        raise InputError(f"layer '{layer}' gives {tuple(found.shape)}, expected a map (1, channels, "
                         'height, width): name a layer that gives one')
    slope, = torch.autograd.grad(value.sum(), found, allow_unused=True)
    slope = torch.zeros_like(found) if slope is None else slope
    return found[0].detach(), slope[0].detach(), sizes[0]


def _module(model: nn.Module, layer: str) -> nn.Module:
    modules = dict(model.named_modules())
    if layer not in modules or not layer:
        outer = [name for name in modules if name and name.count('.') <= layer.count('.')]
        raise InputError(f"{type(model).__name__} has no layer '{layer}': "
                         f'{nearest(layer, outer[:40])}')
    return modules[layer]


def _deepest(output: Any, layer: str) -> Tensor:
    """Of the maps that a layer gives the last one."""
    while isinstance(output, tuple | list) and len(output):
        output = output[-1]
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise InputError(f"layer '{layer}' gives a {type(output).__name__}, expected features")
    return output
