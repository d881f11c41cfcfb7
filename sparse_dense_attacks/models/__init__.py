"""Architectures of the papers that mmpretrain has not; registered in mmengine's root registry."""
from .preact_resnet import PreActResNet

__all__ = ['PreActResNet']
