"""Modes a victim is put into for a while, and out of again without a trace."""
import contextlib

import torch
from torch import nn

from ..errors import InputError

__all__ = ['evaluating', 'frozen_training', 'gradients']

# Modules whose arithmetic is random or updates statistics in training mode. Names, because mmcv's
# and mmengine's variants are not subclasses of torch's, and because DropPath and DropBlock exist
# once per library.
_NOISY = ('BatchNorm', 'SyncBN', 'SyncBatchNorm', 'InstanceNorm', 'Dropout', 'DropPath',
          'DropBlock', 'MultiheadAttention')


@contextlib.contextmanager
def _restored(model: nn.Module):
    """Put back training flags and requires_grad of the whole tree on exit."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


@contextlib.contextmanager
def _private_state(model: nn.Module):
    """Let modules write into copies of their buffers; put back attributes and lists on exit.

    Losses keep records there: GHM and Seesaw running counts in buffers, Dynamic R-CNN a history of
    overlaps in a list. Buffers are swapped rather than written back, because the graph of the loss
    outlives this context.
    """
    state = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    lists = [(value, list(value)) for _, attributes, _ in state
             for value in attributes.values() if type(value) is list]
    try:
        for module, _, buffers in state:
            if module.training:
                module._buffers.update({name: buffer.clone() for name, buffer in buffers.items()
                                        if buffer is not None})
        yield
    finally:
        for module, attributes, buffers in state:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.update(buffers)
        for value, content in lists:
            value[:] = content


@contextlib.contextmanager
def evaluating(model: nn.Module):
    """Evaluation mode with frozen parameters."""
    with _restored(model):
        model.eval()
        yield model


@contextlib.contextmanager
def frozen_training(model: nn.Module):
    """Training mode, so that heads take the branches their losses need, but nothing more.

    That is without noise and without updated statistics. Setting the flags directly rather than
    through ``train()`` leaves overridden ``train`` methods (frozen stages) out of it.
    """
    with _restored(model):
        for module in model.modules():
            module.training = not any(name in base.__name__
                                      for base in type(module).__mro__ for name in _NOISY)
        with _private_state(model):
            yield model


@contextlib.contextmanager
def gradients(model: nn.Module):
    """Gradients are recorded, also within ``torch.no_grad()`` and ``torch.inference_mode()``.

    Raises:
        InputError: the model was made in inference mode, so that no gradient goes through it.
    """
    if any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers())):
        raise InputError('the model was built or loaded within torch.inference_mode(), which keeps '
                         'gradients from its weights: build it outside, the attack may stay within')
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextlib.contextmanager
def untouched_rng(device: torch.device, seed: int):
    """A fixed seed for losses that sample (assigners, denoising queries).

    The global generators are left as they were.
    """
    devices = [device] if device.type == 'cuda' else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
