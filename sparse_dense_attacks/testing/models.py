"""Classifiers whose answers can be worked out.

They compute in double, so that results do not hang on the order of float32 sums.
"""
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ['Answers', 'Linear', 'Net']


class Linear(nn.Module):
    """Two classes whose logits differ by ``bias + sum(weight * x)``: class 1 where it is positive.

    The optimal sparse attack is known: the pixels of the largest :meth:`pixel_gains`.

    Args:
        weight: (C, H, W), one factor for each channel value.
        bias: the gap between the logits of a black image.

    Example:
        >>> model = Linear(torch.ones(1, 2, 2), -0.5)
        >>> model(torch.zeros(1, 1, 2, 2)).argmax(1), model(torch.ones(1, 1, 2, 2)).argmax(1)
        (tensor([0]), tensor([1]))
    """

    def __init__(self, weight: Tensor, bias: float):
        super().__init__()
        self.weight = weight.double()
        self.bias = torch.tensor(bias).double()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2) logits of images (B, C, H, W), in their type."""
        gap = (self.weight * x.double()).flatten(1).sum(1) + self.bias
        return torch.stack([torch.zeros_like(gap), gap], 1).to(x.dtype)

    def pixel_gains(self, x: Tensor) -> Tensor:
        """(B, H * W), what each pixel can add to the gap, every channel at its best end."""
        return torch.maximum(self.weight * (1 - x), -self.weight * x).sum(1).flatten(1)


class Net(nn.Module):
    """A smooth convolution, a global sum and a linear layer: images of any size, even 1 x 1.

    Args:
        channels: of the images.
        classes: how many logits.
        seed: decides the weights.
        gain: factor of all weights; a steeper network is easier to break.

    Example:
        >>> Net(classes=5)(torch.rand(2, 3, 7, 6)).shape
        torch.Size([2, 5])
    """

    def __init__(self, channels: int = 3, classes: int = 4, seed: int = 0, gain: float = 1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = nn.Conv2d(channels, 6, 3, padding=1).double()
        self.head = nn.Linear(6, classes).double()
        with torch.no_grad():
            for parameter in self.parameters():
                scale = gain / parameter[0].numel() ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, classes) logits of images (B, C, H, W), in their type."""
        return self.head((2 * self.conv(x.double() - 0.5)).tanh().sum((2, 3))).to(x.dtype)


class Answers(nn.Module):
    """Any function from images to outputs as a module.

    Example:
        >>> Answers(lambda x: x.flatten(1))(torch.zeros(2, 1, 3, 3)).shape
        torch.Size([2, 9])
    """

    def __init__(self, answer: Callable[[Tensor], Tensor]):
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(x)
