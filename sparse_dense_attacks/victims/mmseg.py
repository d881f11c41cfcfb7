"""Any mmseg 1.x encoder-decoder segmenter: raw pixels in, differentiable logits at the size of the ground truth out.

Everything goes through the model's own parts: its ``data_preprocessor`` inside the autograd graph, its own whole or sliding
inference, its own way back to the original size. See README.md beside this file for what had to be worked around.
"""
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmseg.models.segmentors import (
    BaseSegmentor,
    DepthEstimator,
    EncoderDecoder,
    MultimodalEncoderDecoder,
)
from mmseg.structures import SegDataSample
from torch import Tensor

from ..checks import check_int
from ..defences import Defence, Shield
from ..errors import InputError
from ..registry import VICTIMS, Config
from .base import Geometry, Scene, Victim, by_size, sample_key, stack_inputs
from .torch_segmenter import check_labels

__all__ = ['MMSegSegmenter', 'SegmentationScene']


@VICTIMS.register_module()
@dataclass(frozen=True)
class MMSegSegmenter(Victim):
    """A segmenter built by mmseg.

    Args:
        model: the segmenter (not wrapped for distributed training).
        reference: 'truth', or 'prediction' to take what the model says about the clean image for the truth, so that images
            without annotations can be attacked.
        ignore_index: label of pixels that count for nothing; by default that of the model's decode head.
        classes: names of the classes; by default those that came with the model's weights, if any.
        defence, channel_order: as for every :class:`~sparse_dense_attacks.victims.base.Victim`.

    Raises:
        InputError: a model without class logits per pixel (depth estimation, test-time augmentation).
    """
    task: ClassVar[str] = 'segmentation'
    model: BaseSegmentor
    reference: str = 'truth'
    ignore_index: int | None = None
    classes: Sequence[str] | None = None
    defence: Defence | Config | None = None
    channel_order: str = 'bgr'

    def __post_init__(self):
        self.check()
        self.check_classes(self.classes)
        if self.ignore_index is not None:
            check_int(self, 'ignore_index', low=None)
        name = type(self.model).__name__
        known = isinstance(self.model, EncoderDecoder | MultimodalEncoderDecoder)
        if not known or isinstance(self.model, DepthEstimator):
            raise InputError(f'{name} gives no class logits for pixels; expected an EncoderDecoder '
                             'of mmseg or a subclass, without test-time augmentation')
        told = self.model.num_classes == 2 and self._head.threshold is not None
        if self.model.out_channels == 1 and not told:
            raise InputError(f'{name} has one output channel and '
                             f'num_classes={self.model.num_classes}: which of two classes a pixel '
                             'belongs to needs num_classes=2 and a threshold in the decode head')

    @property
    def num_classes(self) -> int:
        """Classes a pixel can have."""
        return self.model.num_classes

    @property
    def _head(self):
        head = self.model.decode_head
        return head[-1] if isinstance(head, torch.nn.ModuleList) else head

    def open(self, batch: dict) -> 'SegmentationScene':
        """Make a batch of the test dataloader attackable; call within :meth:`session`. The batch is not changed.

        Raises:
            InputError: no annotations in the batch (unless the prediction is the reference), annotations that are no classes of
                the model or of another size than the predictions; inputs that are not raw images in [0, 255].
        """
        samples = batch['data_samples']
        device = next(self.model.parameters()).device
        opened = stack_inputs(batch['inputs'], samples, device)
        images, geometry = opened[0], opened[2]
        shapes = [one.original for one in geometry]
        largest = map(max, zip(*shapes, strict=True))
        labels = torch.zeros(len(images), *largest, dtype=torch.int64, device=device)
        valid = torch.zeros_like(labels, dtype=torch.bool)
        for inside, (h, w) in zip(valid, shapes, strict=True):
            inside[:h, :w] = True
        classes = self.classes or (getattr(self.model, 'dataset_meta', None) or {}).get('classes')
        keys = [sample_key(sample) for sample in samples]
        scene = SegmentationScene(
            self.model, images, opened[1], keys, geometry,
            labels, valid, shapes, [sample.metainfo for sample in samples],
            self._head.threshold if self.model.out_channels == 1 else None, self.num_classes,
            classes, self.shield(keys))
        if self.reference == 'prediction':
            with torch.no_grad():
                logits = scene.logits(images, torch.arange(len(images)))
                return dataclasses.replace(scene, labels=logits.argmax(1))
        for row, sample in enumerate(samples):
            h, w = shapes[row]
            truth, known = self._truth(scene.keys[row], shapes[row], sample)
            labels[row, :h, :w] = truth
            valid[row, :h, :w] = known
        return scene

    def _truth(self, key, shape: tuple[int, int], sample) -> tuple[Tensor, Tensor]:
        """Labels (h, w) of one image, 0 where there is no class, and where there is one."""
        ignore = self.ignore_index
        if ignore is None:
            ignore = getattr(self._head, 'ignore_index', 255)
        if 'gt_sem_seg' not in sample:
            raise InputError(f"sample '{key}' has no ground truth: add LoadAnnotations() to the "
                             'test pipeline and a seg_map_path to the data_prefix of the dataset, '
                             "or use reference='prediction'")
        labels = sample.gt_sem_seg.data[0].long()
        if labels.shape != shape:
            raise InputError(f"sample '{key}': the ground truth is {tuple(labels.shape)}, but "
                             f'predictions have the size of the original image, {shape}: put '
                             'LoadAnnotations after Resize and Pad in the test pipeline')
        check_labels(labels, self.num_classes, ignore, f"sample '{key}'")
        return labels.where(labels != ignore, 0), labels != ignore


@dataclass(frozen=True, eq=False)
class SegmentationScene(Scene):
    """One batch opened for attack; see :class:`~sparse_dense_attacks.victims.base.Scene`.

    Attributes:
        model: the segmenter.
        labels: (B, H', W') int64 at the size of the original images, padded right and bottom; 0 where nothing is valid.
        valid: (B, H', W') bool, False at padding and at pixels without a class.
        shapes: height and width of each original image.
        metas: meta data of each sample.
        threshold: of a single output channel that tells two classes apart; None where each class has a channel.
        shield: the defence before the model.
    """
    model: BaseSegmentor
    images: Tensor
    region: Tensor
    keys: Sequence
    geometry: Sequence[Geometry]
    labels: Tensor
    valid: Tensor
    shapes: Sequence[tuple[int, int]]
    metas: Sequence[dict]
    threshold: float | None = None
    num_classes: int | None = None
    classes: Sequence[str] | None = None
    shield: Shield | None = None

    def objects(self, classes: Sequence[int] | None = None) -> Tensor:
        """(B, 1, H, W) bool, pixels of the network input where :attr:`labels` says one of these classes.

        Args:
            classes: all but 'background' by default.
        """
        if classes is None:
            names = self.classes or ()
            if 'background' not in names:
                raise InputError('the model has no class named background, so say which classes '
                                 'are objects')
            classes = [index for index, name in enumerate(names) if name != 'background']
        chosen = torch.isin(self.labels, self.labels.new_tensor(classes))
        return self._onto_input(chosen & self.valid)

    def ignored(self) -> Tensor:
        """(B, 1, H, W) bool, pixels of the network input without a class."""
        return self._onto_input(~self.valid)

    def _onto_input(self, chosen: Tensor) -> Tensor:
        """Pixels of the labels (B, H', W') bool as pixels of the network input (B, 1, H, W) bool."""
        found = torch.zeros_like(self.region)
        for inside, one, labelled in zip(found, self.geometry, chosen, strict=True):
            h, w = one.original
            height, width = one.input
            inside[0, :height, :width] = one.onto_input(labelled[:h, :w])
        return found

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        """(b, K, H', W') class logits for candidates ``x`` (b, C, H, W) of ``rows``; 0 at padding."""
        h, w = self.labels.shape[1:]
        found = by_size(self.geometry, x, rows, self._predict)
        return torch.stack([F.pad(part, (0, w - part.shape[2], 0, h - part.shape[1]))
                            for part in found])

    def show(self, x: Tensor, rows: Tensor) -> Any:
        """The whole image at once, also where the model predicts in a sliding window."""
        return self.model.extract_feat(self._network_input(x, rows)['inputs'])

    def _network_input(self, x: Tensor, rows: Tensor) -> dict:
        """The model's own preprocessing of candidates of one size, inside the graph."""
        # new samples: the model writes into them
        samples = [SegDataSample(metainfo=self.metas[row]) for row in rows.tolist()]
        data = dict(inputs=self.seen(x, rows) * 255, data_samples=samples)
        return self.model.data_preprocessor(data, training=False)

    def _predict(self, x: Tensor, rows: Tensor) -> list[Tensor]:
        """Logits (K, h', w') of candidates of one size, as ``model.predict`` finds them."""
        data = self._network_input(x, rows)
        metas = [sample.metainfo for sample in data['data_samples']]
        logits = self.model.inference(data['inputs'], metas)
        if self.threshold is not None:
            # of a single channel mmseg would keep the probability only
            logits = logits.expand(-1, 2, -1, -1)
        if self._final(logits, data['data_samples']):
            parts = list(logits)
        else:
            finished = self.model.postprocess_result(logits, data['data_samples'])
            parts = [sample.seg_logits.data for sample in finished]
        if self.threshold is None:
            return parts
        return [_two_classes(part[:1], self.threshold) for part in parts]

    def _final(self, logits: Tensor, samples: list) -> bool:
        """Whether mmseg has no padding to take off, no flip to undo and nothing to resize.

        Then its arg max, which nobody asks for, is saved: on a CPU it takes as long as a small network.
        """
        metas = [sample.metainfo for sample in samples]
        return type(self.model).postprocess_result is BaseSegmentor.postprocess_result and not any(
            meta.get('flip') or any(meta.get('img_padding_size', meta.get('padding_size', ()))) or
            tuple(meta['ori_shape'][:2]) != tuple(logits.shape[2:]) for meta in metas)


def _two_classes(z: Tensor, threshold: float) -> Tensor:
    """Logits (2, h, w) whose arg max is exactly the library's ``sigmoid(z) > threshold``, for z (1, h, w)."""
    gap = z - torch.logit(z.new_tensor(threshold))
    with torch.no_grad():  # rounding may put a pixel at the threshold on the other side
        above = gap.clamp(min=torch.finfo(z.dtype).tiny)
        right = torch.where(z.sigmoid() > threshold, above, gap.clamp(max=0))
    return torch.cat([torch.zeros_like(z), gap + (right - gap).detach()])
