"""Architectures of the papers that mmpretrain has not; engine registers them with mmengine."""
from .preact_resnet import PreActResNet

__all__ = ['PreActResNet']
