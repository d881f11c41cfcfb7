"""Plain PyTorch classifiers: any module from [0, 1] images to logits."""
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..registry import VICTIMS
from .context import evaluating

__all__ = ['ClassificationScene', 'TorchClassifier']


@dataclass(frozen=True)
class ClassificationScene:
    """One batch opened for attack.

    Attributes:
        model: module from (b, C, H, W) images in [0, 1] to (b, K) logits.
        images: (B, C, H, W) float in [0, 1].
        region: (B, 1, H, W) bool.
        keys: sample ids.
        labels: (B,) int64.
    """
    model: nn.Module
    images: Tensor
    region: Tensor
    keys: list
    labels: Tensor

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        return self.model(x)


@VICTIMS.register_module()
@dataclass(frozen=True)
class TorchClassifier:
    """A classifier with its normalisation inside, called as it is.

    Args:
        model: module from (B, C, H, W) float images in [0, 1] to (B, K) logits.
    """
    task: ClassVar[str] = 'classification'
    model: nn.Module

    def session(self):
        """Context in which the model is in evaluation mode and frozen; everything is put back on exit."""
        return evaluating(self.model)

    def open(self, images: Tensor, labels: Tensor, region: Tensor | None = None, keys: list | None = None) -> ClassificationScene:
        """Check a batch and make it attackable; call within :meth:`session`.

        Args:
            images: (B, C, H, W) float in [0, 1].
            labels: (B,) int64.
            region: (B, 1, H, W) bool, pixels that may change; all by default.
            keys: one id per image; positions in the batch by default.

        Raises:
            InputError: wrong shape or type, values outside [0, 1], labels that are no classes of the model.
        """
        if images.ndim != 4 or images.dtype != torch.float32:
            raise InputError(f'images: expected float32 (B, C, H, W) in [0, 1], found {images.dtype} {tuple(images.shape)}')
        if len(images) and not (images.min() >= 0 and images.max() <= 1):
            raise InputError(f'images: values reach from {images.min():.3g} to {images.max():.3g}, expected [0, 1]; '
                             'normalisation belongs inside the model')
        if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
            raise InputError(f'labels: expected one int64 class index per image ({len(images)}), found {labels.dtype} '
                             f'{tuple(labels.shape)}')
        if len(images):
            with torch.no_grad():
                classes = self.model(images[:1]).shape[1]
            if labels.min() < 0 or labels.max() >= classes:
                raise InputError(f'labels reach from {labels.min()} to {labels.max()}, but the model has {classes} classes')
        if region is None:
            region = torch.ones_like(images[:, :1], dtype=torch.bool)
        if region.shape != images[:, :1].shape or region.dtype != torch.bool:
            raise InputError(f'region: expected bool {tuple(images[:, :1].shape)}, found {region.dtype} {tuple(region.shape)}')
        keys = list(range(len(images)) if keys is None else keys)
        if len(keys) != len(images):
            raise InputError(f'keys: expected one sample id per image ({len(images)}), found {len(keys)}')
        return ClassificationScene(self.model, images, region, keys, labels)
