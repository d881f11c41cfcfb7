"""Backward functions from forward functions."""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradients(
    function: Callable, inputs: Sequence[Tensor], grad_output: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The gradient of ``(function(*inputs) * grad_output).sum()`` with respect to each input, through a new graph."""
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        return torch.autograd.grad(function(*inputs), inputs, grad_output)
