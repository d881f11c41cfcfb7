"""Plain PyTorch segmenters: any module from [0, 1] images to logits per pixel."""
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..defences import Defence, Shield
from ..errors import InputError
from ..registry import VICTIMS, Config
from .base import Geometry, Scene, Victim
from .outputs import kind_of, logits_in
from .torch_classifier import check_images

__all__ = ['TorchSegmentationScene', 'TorchSegmenter']


@dataclass(frozen=True, eq=False)
class TorchSegmentationScene(Scene):
    """One batch opened for attack; see :class:`~sparse_dense_attacks.victims.base.Scene`.

    Attributes:
        model: module from (b, C, H, W) images in [0, 1] to (b, K, h, w) logits, or a mapping with these under 'out' or
            'logits'.
        labels: (B, H', W') int64, 0 where nothing is valid.
        valid: (B, H', W') bool, False at pixels without a class.
        shield: the defence before the model.
    """
    model: nn.Module
    images: Tensor
    region: Tensor
    keys: Sequence
    geometry: Sequence[Geometry]
    labels: Tensor
    valid: Tensor
    classes: Sequence[str] | None = None
    shield: Shield | None = None

    @property
    def shapes(self) -> list:
        """Height and width of each image's labels."""
        return [tuple(self.labels.shape[1:])] * len(self.labels)

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        return _logits(self.model, self.seen(x, rows), self.labels.shape[1:])

    def show(self, x: Tensor, rows: Tensor) -> Any:
        return self.model(self.seen(x, rows))


@VICTIMS.register_module()
@dataclass(frozen=True)
class TorchSegmenter(Victim):
    """A segmenter with its normalisation inside, called as it is.

    Args:
        model: module from (B, C, H, W) float images in [0, 1] to (B, K, h, w) logits, or to a mapping with these under 'out', as
            torchvision's segmenters return it, or 'logits', as those of transformers. Logits of another size than the
            labels are resized bilinearly.
        reference: 'truth', or 'prediction' to take what the model says about the clean image for the truth, so that images
            without labels can be attacked.
        classes: names of the classes, if goals are to name them.
        defence, channel_order: as for every :class:`~sparse_dense_attacks.victims.base.Victim`.
    """
    task: ClassVar[str] = 'segmentation'
    takes: ClassVar[tuple[str, ...]] = ('labels', 'region', 'keys')
    model: nn.Module
    reference: str = 'truth'
    classes: Sequence[str] | None = None
    defence: Defence | Config | None = None
    channel_order: str = 'rgb'

    def __post_init__(self):
        self.check()
        self.check_classes(self.classes)

    def open(self, batch: Tensor, labels: Tensor | None = None, region: Tensor | None = None,
             keys: list | None = None, ignore_index: int = 255) -> TorchSegmentationScene:
        """Check a batch and make it attackable; call within :meth:`session`.

        Args:
            batch: (B, C, H, W) float32 images in [0, 1].
            labels: (B, H', W') int64; not needed, nor looked at, with ``reference='prediction'``.
            region: (B, 1, H, W) bool, pixels that may change; all by default.
            keys: one id per image; positions in the batch by default.
            ignore_index: label of pixels that count for nothing.

        Raises:
            InputError: wrong shape or type, values outside [0, 1], labels that are no classes of the model.
        """
        images, region, keys = check_images(batch, region, keys)
        geometry, shield = Geometry.of_memory(images), self.shield(keys)
        with torch.no_grad():
            if self.reference == 'prediction':
                seen = images if shield is None else shield(images, torch.arange(len(images)))
                labels = _logits(self.model, seen, images.shape[2:]).argmax(1)
                valid = torch.ones_like(labels, dtype=torch.bool)
                return TorchSegmentationScene(self.model, images, region, keys, geometry, labels,
                                              valid, self.classes, shield)
            if labels is None:
                raise InputError('no labels: give them with the images, or build the victim with '
                                 "reference='prediction'")
            if labels.ndim != 3 or len(labels) != len(images) or labels.dtype != torch.int64:
                raise InputError(f'labels: expected int64 ({len(images)}, height, width), found '
                                 f'{labels.dtype} {tuple(labels.shape)}')
            if len(images):
                logits = _logits(self.model, images[:1], labels.shape[1:])
                check_labels(labels, logits.shape[1], ignore_index, 'labels')
        valid = labels != ignore_index
        return TorchSegmentationScene(self.model, images, region, keys, geometry,
                                      labels.where(valid, 0), valid, self.classes, shield)


def _logits(model: nn.Module, x: Tensor, size) -> Tensor:
    logits = logits_in(model(x))
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        raise InputError(f'the model gives {kind_of(logits)}, expected logits (B, K, height, width)')
    if logits.shape[2:] == size:
        return logits
    return F.interpolate(logits, size, mode='bilinear', align_corners=False)


def check_labels(labels: Tensor, classes: int, ignore_index: int, name: str) -> None:
    """Refuse labels (..., H', W') that are neither a class nor ignored."""
    stray = labels[(labels != ignore_index) & ((labels < 0) | (labels >= classes))]
    if len(stray):
        raise InputError(f'{name}: label {stray[0]} is none of the {classes} classes of the model '
                         f'(0 to {classes - 1}) and not the ignored one ({ignore_index}): set '
                         'ignore_index, or where label 0 means no class reduce_zero_label=True '
                         'in LoadAnnotations of mmseg')
