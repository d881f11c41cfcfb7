"""ResNet with full pre-activation, for images of 32 x 32 pixels: what robust CIFAR classifiers are trained with."""
from torch import Tensor, nn

__all__ = ['PreActResNet']


class PreActBlock(nn.Module):
    """Two 3 x 3 convolutions, each behind its normalisation and activation; a projection sees the activated input."""

    def __init__(self, in_channels: int, channels: int, stride: int, activation: nn.Module):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(in_channels), nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.activation = activation
        self.project = None
        if stride != 1 or in_channels != channels:
            self.project = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm1(x))
        shortcut = x if self.project is None else self.project(y)
        return self.conv2(self.activation(self.norm2(self.conv1(y)))) + shortcut


class PreActResNet(nn.Module):
    """Backbone of an image classifier.

    Args:
        blocks: of each stage; (2, 2, 2, 2) is PreActResNet-18. All stages but the first halve the resolution.
        base_channels: of the first stage; every further one has twice as many.
        activation: a class of torch.nn; with 'Softplus' the loss is smooth, as in arXiv 2405.05075.

    Returns of a forward:
        One-element tuple of features (B, 8 base_channels, H / 8, W / 8) for four stages.

    Reference: arXiv 1603.05027, figure 4 (e).
    """

    def __init__(self, blocks: tuple[int, ...] = (2, 2, 2, 2), base_channels: int = 64, activation: str = 'ReLU'):
        super().__init__()
        act = getattr(nn, activation)()
        self.conv = nn.Conv2d(3, base_channels, 3, 1, 1, bias=False)
        layers, width = [], base_channels
        for stage, count in enumerate(blocks):
            for index in range(count):
                channels = base_channels * 2**stage
                layers.append(PreActBlock(width, channels, 2 if stage and not index else 1, act))
                width = channels
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(width), act)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.layers(self.conv(x)),)
