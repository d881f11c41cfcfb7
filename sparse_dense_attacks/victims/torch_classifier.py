"""Plain PyTorch classifiers: any module from [0, 1] images to logits."""
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..defences import Defence, Shield
from ..errors import InputError
from ..registry import VICTIMS, Config
from .base import Geometry, Scene, Victim
from .outputs import kind_of, logits_in, says_boxes

__all__ = ['ClassificationScene', 'TorchClassifier']


@dataclass(frozen=True, eq=False)
class ClassificationScene(Scene):
    """One batch opened for attack; see :class:`~sparse_dense_attacks.victims.base.Scene`.

    Attributes:
        model: module from (b, C, H, W) images in [0, 1] to (b, K) logits, or a mapping with these under 'logits'.
        labels: (B,) int64, the classes to leave.
        targets: (B,) int64, the classes to reach, for targeted goals that name none.
        shield: the defence before the model.
    """
    model: nn.Module
    images: Tensor
    region: Tensor
    keys: Sequence
    geometry: Sequence[Geometry]
    labels: Tensor
    targets: Tensor | None = None
    shield: Shield | None = None
    clean_logits: Tensor | None = None

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        return logits_in(self.model(self.seen(x, rows)))

    def show(self, x: Tensor, rows: Tensor) -> Tensor:
        return self.model(self.seen(x, rows))


@VICTIMS.register_module()
@dataclass(frozen=True)
class TorchClassifier(Victim):
    """A classifier with its normalisation inside, called as it is.

    Args:
        model: module from (B, C, H, W) float images in [0, 1] to (B, K) logits, as timm's, or to a mapping with these under
            'logits', as those of transformers.
        reference: what counts as the true class: 'truth' the given labels, 'prediction' what the model says about the clean
            image, so that images without labels can be attacked.
        defence, channel_order: as for every :class:`~sparse_dense_attacks.victims.base.Victim`.
    """
    task: ClassVar[str] = 'classification'
    takes: ClassVar[tuple[str, ...]] = ('labels', 'region', 'keys', 'targets')
    model: nn.Module
    reference: str = 'truth'
    defence: Defence | Config | None = None
    channel_order: str = 'rgb'

    def __post_init__(self):
        self.check()

    def open(self, batch: Tensor, labels: Tensor | None = None, region: Tensor | None = None,
             keys: list | None = None, targets: Tensor | None = None) -> ClassificationScene:
        """Check a batch and make it attackable; call within :meth:`session`.

        Args:
            batch: (B, C, H, W) float images in [0, 1].
            labels: (B,) int64; not needed, nor looked at, with ``reference='prediction'``.
            region: (B, 1, H, W) bool, pixels that may change; all by default.
            keys: one id per image; positions in the batch by default.
            targets: (B,) int64, the classes to reach, for a targeted goal that names none.

        Raises:
            InputError: wrong shape or type, values outside [0, 1], labels or targets that are no classes of the model.
        """
        images, region, keys = check_images(batch, region, keys)
        if labels is None and self.reference != 'prediction':
            raise InputError('no labels: give them with the images, or build the victim with '
                             "reference='prediction'")
        shield, logits = self.shield(keys), None
        if len(images):
            with torch.no_grad():
                seen = images if shield is None else shield(images, torch.arange(len(images)))
                logits = checked_logits(self.model, seen)
        if self.reference == 'prediction':
            labels = (torch.zeros(0, dtype=torch.int64, device=images.device) if logits is None
                      else logits.argmax(1))
        assert labels is not None
        for name, classes in (('labels', labels), ('targets', targets)):
            if classes is None:
                continue
            if classes.shape != images.shape[:1] or classes.dtype != torch.int64:
                raise InputError(f'{name}: expected one int64 class index per image '
                                 f'({len(images)}), found {classes.dtype} {tuple(classes.shape)}')
            if logits is not None and (classes.min() < 0 or classes.max() >= logits.shape[1]):
                raise InputError(f'{name} reach from {classes.min()} to {classes.max()}, but the '
                                 f'model has {logits.shape[1]} classes')
        return ClassificationScene(self.model, images, region, keys, Geometry.of_memory(images),
                                   labels, targets, shield, logits)


def checked_logits(model: nn.Module, images: Tensor) -> Tensor:
    """What a classifier says about a batch, (B, K), or a clear refusal."""
    output = model(images)
    logits = logits_in(output)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        raise InputError(f'the model gives {kind_of(logits)} for {len(images)} images, expected '
                         f'logits ({len(images)}, classes): {_advice(output)}')
    if logits.shape[1] < 2:
        raise InputError(f'the model gives one logit per image ({len(images)}, 1), expected those '
                         'of at least two classes: return torch.cat([0 * z, z], 1) from a module '
                         'around it')
    return logits


def _advice(output: Any) -> str:
    """What to do about a model that is no classifier."""
    maps = logits_in(output)
    if says_boxes(output):
        return ('this is a detector: give TorchDetector(model, decode=...) of '
                'sparse_dense_attacks.victims, labels (a dict of boxes and labels for each image) '
                "and goal='vanish', 'mislabel' or 'fabricate'")
    if isinstance(maps, Tensor) and maps.ndim == 4:
        return ("this looks like a segmenter: give it labels (B, height, width) and "
                "goal='untargeted_pixels' or 'targeted_pixels'")
    return 'wrap it in a module that returns these alone'


def check_images(images: Tensor, region: Tensor | None,
                 keys: list | None) -> tuple[Tensor, Tensor, list]:
    """Images in [0, 1], the region and the keys, or a clear refusal.

    By default the region is everything, and keys are positions in the batch.
    """
    if images.ndim != 4 or images.dtype != torch.float32:
        raise InputError('images: expected float32 (B, C, H, W) in [0, 1], found '
                         f'{images.dtype} {tuple(images.shape)}')
    # undoing a normalisation leaves a little behind
    if len(images) and not (images.min() >= -1e-6 and images.max() <= 1 + 1e-6):
        raise InputError(f'images: values reach from {images.min():.3g} to '
                         f'{images.max():.3g}, expected [0, 1]; normalisation belongs '
                         'inside the model')
    if region is None:
        region = torch.ones_like(images[:, :1], dtype=torch.bool)
    if region.shape != images[:, :1].shape or region.dtype != torch.bool:
        raise InputError(f'region: expected bool {tuple(images[:, :1].shape)}, found '
                         f'{region.dtype} {tuple(region.shape)}')
    keys = list(range(len(images)) if keys is None else keys)
    if len(keys) != len(images):
        raise InputError(f'keys: expected one sample id per image ({len(images)}), found '
                         f'{len(keys)}')
    return images.detach().clamp(0, 1), region, keys
