"""The sigmoid focal loss and its gradient: input (N, C) of logits, target (N,) of classes, C where there is none."""
import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float,
) -> None:  # fmt: skip
    """Loss of each element; ``weight`` (C,) is by class of the target, or empty."""
    p = input.sigmoid()
    positive, factor = _terms(input, target, weight, alpha)
    loss = torch.where(positive, -(1 - p)**gamma * _log(p), -p**gamma * _log(1 - p))
    output.copy_(factor * loss)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float,
) -> None:  # fmt: skip
    p = input.sigmoid()
    positive, factor = _terms(input, target, weight, alpha)
    slope = torch.where(positive, (1 - p)**gamma * (gamma * p * _log(p) - (1 - p)),
                        p**gamma * (p - gamma * (1 - p) * _log(1 - p)))
    grad_input.copy_(factor * slope)


def _terms(
    input: Tensor, target: Tensor, weight: Tensor, alpha: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Whether an element is its row's target, and what its loss is multiplied by."""
    positive = F.one_hot(target, input.shape[1] + 1)[:, :-1].bool()
    factor = torch.where(positive, alpha, 1 - alpha).to(input)
    return positive, factor * weight[target, None] if weight.numel() else factor


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=torch.finfo(torch.float32).tiny).log()
