"""Any mmdet 3.x detector: raw pixels in, differentiable candidate boxes and training losses out.

Everything goes through the model's own parts: its ``data_preprocessor`` inside the autograd graph, its own head to decode boxes,
its own training loss. See README.md beside this file for what had to be worked around.
"""
import contextlib
import copy
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from mmdet.models.dense_heads import CenterNetHead, CornerHead, PAAHead, RTMDetInsHead, SSDHead
from mmdet.models.detectors import BaseDetector, DetectionTransformer
from mmdet.structures.bbox import get_box_tensor
from mmengine.logging import MessageHub
from torch import Tensor

from ..errors import InputError
from ..registry import VICTIMS
from ..types import Boxes
from .base import sample_key
from .context import evaluating, frozen_training, untouched_rng

__all__ = ['DetectionScene', 'MMDetDetector']


@VICTIMS.register_module()
@dataclass(frozen=True)
class MMDetDetector:
    """A detector built by mmdet.

    Args:
        model: the detector (not wrapped for distributed training).
        boxes_follow_resize: the test pipeline loads annotations before it resizes, so that ground truth already is in input
            coordinates. mmdet's stock pipelines load them after, in coordinates of the original image.
        loss_seed: seed of training losses that sample (assigners, denoising queries), so that the same image has the same loss.
    """
    task: ClassVar[str] = 'detection'
    model: BaseDetector
    boxes_follow_resize: bool = False
    loss_seed: int = 0

    @property
    def num_classes(self) -> int | None:
        """Classes the box head scores; None if the model has no such head."""
        head = getattr(getattr(self.model, 'roi_head', self.model), 'bbox_head', None)
        return getattr(head[-1] if isinstance(head, torch.nn.ModuleList) else head, 'num_classes', None)

    def session(self):
        """Context in which the model is in evaluation mode and frozen; everything is put back on exit."""
        return evaluating(self.model)

    def open(self, data_batch: dict) -> 'DetectionScene':
        """Make a batch of the test dataloader attackable; call within :meth:`session`. The batch is not changed.

        Raises:
            InputError: no annotations in the batch; inputs that are not raw images in [0, 255].
        """
        inputs, samples = data_batch['inputs'], data_batch['data_samples']
        device = next(self.model.parameters()).device
        sizes = [tuple(image.shape[-2:]) for image in inputs]
        h, w = (max(side) for side in zip(*sizes, strict=True))
        images = torch.zeros(len(inputs), inputs[0].shape[0], h, w)
        region = torch.zeros(len(inputs), 1, h, w, dtype=torch.bool)
        prepared = []
        for b, (image, sample) in enumerate(zip(inputs, samples, strict=True)):
            _check_pixels(image, sample)
            valid_h, valid_w = _content_size(sample, image)
            images[b, :, :image.shape[-2], :image.shape[-1]] = image
            region[b, :, :valid_h, :valid_w] = True
            prepared.append(self._prepare(image, sample))
        keys = [sample_key(sample) for sample in samples]
        return DetectionScene(self, images.div_(255).to(device), region.to(device), keys, prepared, sizes)

    def _prepare(self, image: Tensor, sample):
        """A processed copy of the sample with ground truth in coordinates of the input, as the losses want it."""
        instances = sample.get('gt_instances', ())
        if 'bboxes' not in instances or 'labels' not in instances:  # without annotations PackDetInputs packs an empty element
            raise InputError(f"sample '{sample_key(sample)}' has no ground truth: add LoadAnnotations(with_bbox=True) to the "
                             'test pipeline and an annotation file to the dataset')
        if 'border' in sample.metainfo:
            raise InputError(f"sample '{sample_key(sample)}' was padded on all sides (CenterNet's RandomCenterCropPad), which "
                             'moves the ground truth: use Resize, and Pad if need be, in the test pipeline')
        sample = copy.deepcopy(sample)
        if not self.boxes_follow_resize and 'scale_factor' in sample.metainfo:
            for instances in (sample.gt_instances, sample.get('ignored_instances', ())):
                if 'bboxes' in instances:
                    boxes = get_box_tensor(instances.bboxes)
                    instances.bboxes = boxes * boxes.new_tensor(sample.scale_factor[:2]).repeat(2)
                if 'masks' in instances:
                    instances.masks = instances.masks.resize(_content_size(sample, image)).pad(tuple(image.shape[-2:]))
        preprocess = self.model.data_preprocessor
        with _without_batch_augments(preprocess), torch.no_grad():
            # training=True, because only then masks and segmentation maps are padded along
            return preprocess(dict(inputs=[image], data_samples=[sample]), training=True)['data_samples'][0]


class DetectionScene:
    """One batch opened for attack.

    Attributes:
        images: (B, C, H, W) float in [0, 1], the loader's channel order, padded right and bottom.
        region: (B, 1, H, W) bool, False at padding and letterbox.
        keys: sample ids.
        truth: ground-truth :class:`Boxes` (B, G) in input coordinates, without crowd regions.
    """

    def __init__(self, victim: MMDetDetector, images, region, keys, samples, sizes):
        self.model, self.loss_seed = victim.model, victim.loss_seed
        self.images, self.region, self.keys, self.samples, self.sizes = images, region, keys, samples, sizes
        instances = [sample.gt_instances for sample in samples]
        self.truth = _pad([i.bboxes for i in instances], [i.labels for i in instances],
                          [torch.ones(len(i), device=images.device) for i in instances])

    @cached_property
    def has_candidates(self) -> bool:
        """Whether the model's head can decode boxes before non-maximum suppression."""
        return _decoder(self.model) is not None

    def candidates(self, x: Tensor, rows: Tensor) -> Boxes:
        """Boxes before non-maximum suppression, with differentiable scores, for candidates ``x`` (b, C, H, W) of ``rows``.

        Images of equal size go through the model together, others apart, so that no image sees its neighbours' padding.

        Raises:
            InputError: the detector has no such boxes (masks only, or a head that cannot skip suppression).
        """
        decode = _decoder(self.model)
        if decode is None:
            raise self._no_candidates()
        found: list = [None] * len(rows)
        for size, group in self._by_size(rows):
            together = len(group) == len(rows)
            inputs, samples = self._network_input(x if together else x[group], rows[group], size)
            with _gradient_through_heads():
                parts = decode(self.model, self.model.extract_feat(inputs), samples)
            if inputs.requires_grad and not any(scores.requires_grad for *_, scores in parts):
                raise self._no_candidates()  # some heads call detach() in code of their own
            for position, part in zip(group.tolist(), parts, strict=True):
                found[position] = part
        return _pad(*zip(*found, strict=True))

    def losses(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Boxes | None]:
        """The detector's own training loss per image, (b,), and the boxes it predicts (without gradient, None if it has none).

        One image per call, because every mmdet loss is normalised over its batch; features are computed once for both.

        Raises:
            InputError: the model config has no ``train_cfg`` to assign targets with.
        """
        losses, found = [], []
        for row, candidate in zip(rows, x, strict=True):
            inputs, samples = self._network_input(candidate[None], row[None], self.sizes[row])
            with _shared_features(self.model):
                with frozen_training(self.model), untouched_rng(x.device, self.loss_seed):
                    losses.append(self._loss(inputs, samples))
                if self.has_candidates:
                    with torch.no_grad():
                        found += _decoder(self.model)(self.model, self.model.extract_feat(inputs), samples)
        return torch.stack(losses), _pad(*zip(*found, strict=True)) if found else None

    def _no_candidates(self) -> InputError:
        head = getattr(self.model, 'bbox_head', None) or getattr(self.model, 'roi_head', None)
        return InputError(f'{type(self.model).__name__} with head {type(head).__name__} has no differentiable boxes before '
                          "non-maximum suppression; use goal = dict(type='DetectorLoss')")

    def _loss(self, inputs, samples) -> Tensor:
        try:
            with _end_of_training():
                losses = self.model.loss(inputs, copy.deepcopy(samples))
        except (AttributeError, TypeError, AssertionError) as error:
            name = type(self.model).__name__
            if 'masks' in str(error) and any('masks' not in sample.gt_instances for sample in samples):
                raise InputError(f'the training loss of {name} needs instance masks and the ground truth has none: set '
                                 'LoadAnnotations(with_bbox=True, with_mask=True) in the test pipeline') from error
            if getattr(self.model, 'train_cfg', None) is None:
                raise InputError(f'the training loss of {name} failed ({error}) and the model config has no train_cfg: take it '
                                 'from the training config, or use a goal that needs no loss (Vanish)') from error
            raise
        # Denoising queries (DINO) are noisy copies of the ground truth: a term about the training, not about what the model sees.
        loss, _ = self.model.parse_losses({name: value for name, value in losses.items() if 'dn_' not in name})
        return loss

    def _by_size(self, rows: Tensor):
        """(size, positions in ``rows``) for every input size among ``rows``."""
        groups: dict = {}
        for position, row in enumerate(rows.tolist()):
            groups.setdefault(self.sizes[row], []).append(position)
        return [(size, torch.tensor(positions)) for size, positions in groups.items()]

    def _network_input(self, x: Tensor, rows: Tensor, size) -> tuple[Tensor, list]:
        """Run the model's own preprocessing on candidates of one size, inside the graph."""
        h, w = size
        data = self.model.data_preprocessor(dict(inputs=x[..., :h, :w] * 255, data_samples=None), training=False)
        return data['inputs'], [self.samples[r] for r in rows]


def _check_pixels(image: Tensor, sample) -> None:
    low, high = float(image.min()), float(image.max())
    scaled = image.is_floating_point() and high <= 1 and not torch.equal(image, image.round())
    if low < 0 or high > 255 or scaled:
        raise InputError(f"input of sample '{sample_key(sample)}' reaches from {low:.3g} to {high:.3g}, expected raw pixels in "
                         "[0, 255]: normalisation belongs to the model's data_preprocessor, not to the test pipeline")


def _content_size(sample, image: Tensor) -> tuple[int, int]:
    """Height and width of the resized image inside the letterbox.

    mmcv's Pad overwrites ``img_shape`` with the padded size, so it is computed from the original one.
    """
    h, w = image.shape[-2:]
    if 'ori_shape' not in sample.metainfo or 'scale_factor' not in sample.metainfo:
        return h, w
    scale_w, scale_h = sample.scale_factor[:2]
    return min(h, round(sample.ori_shape[0] * scale_h)), min(w, round(sample.ori_shape[1] * scale_w))


def _pad(boxes, labels, scores) -> Boxes:
    """Stack lists of unequal length; padding has label -1 and score 0."""
    pad = torch.nn.utils.rnn.pad_sequence
    return Boxes(pad(list(boxes), True), pad(list(labels), True, -1), pad(list(scores), True))


# Decoders: (model, features, samples) -> one (boxes, labels, scores) triple per image, in input coordinates

def _decoder(model):
    if isinstance(model, DetectionTransformer):
        return _decode_transformer
    if hasattr(model, 'rpn_head') and hasattr(getattr(model, 'roi_head', None), 'predict_bbox'):
        return _decode_two_stage
    head = getattr(model, 'bbox_head', None)
    if hasattr(head, 'predict_by_feat') and not isinstance(head, _UNDECODABLE):
        return _decode_dense
    return None


# PAA and RTMDet-Ins insist on suppression, CenterNet on the border of its own test pipeline, CornerNet pairs corners, and SSD
# cannot predict at all in mmdet 3.3 (its head lacks the attribute loss_cls).
_UNDECODABLE = (PAAHead, RTMDetInsHead, CenterNetHead, CornerHead, SSDHead)


def _decode_transformer(model, feats, samples):
    results = model.bbox_head.predict(**model.forward_transformer(feats, samples), rescale=False, batch_data_samples=samples)
    return [(r.bboxes, r.labels, r.scores) for r in results]


def _decode_dense(model, feats, samples):
    head = model.bbox_head
    cfg = copy.deepcopy(head.test_cfg)
    cfg.update(score_thr=0.0, conf_thr=-1.0)  # conf_thr: YOLOv3's second threshold
    results = head.predict_by_feat(*head(feats), batch_img_metas=[s.metainfo for s in samples], cfg=cfg, rescale=False,
                                   with_nms=False)
    return [(r.bboxes, r.labels, r.scores) for r in results]


def _decode_two_stage(model, feats, samples):
    with torch.no_grad():  # proposals only say where to look: their coordinates carry no gradient
        proposals = model.rpn_head.predict(feats, samples, rescale=False)
    results = model.roi_head.predict_bbox(feats, [s.metainfo for s in samples], proposals, rcnn_test_cfg=None, rescale=False)
    triples = []
    for r in results:
        if r.scores.dim() == 1:  # Sparse R-CNN: one class per box
            triples.append((r.bboxes, r.labels, r.scores))
            continue
        n, classes = len(r.scores), r.scores.shape[1] - 1  # the last column is the background
        boxes = r.bboxes.unflatten(1, (-1, 4)).expand(n, classes, 4)
        labels = torch.arange(classes, device=boxes.device).expand(n, classes)
        triples.append((boxes.reshape(-1, 4), labels.reshape(-1), r.scores[:, :-1].reshape(-1)))
    return triples


@contextlib.contextmanager
def _gradient_through_heads():
    """Lift the ``detach`` that mmdet's dense heads apply to their own outputs before decoding them.

    ``select_single_mlvl`` is imported by name into each head module and called with ``detach=True``, so the name is replaced
    there for the duration of one call.
    """
    modules = [module for name, module in sys.modules.items()
               if name.startswith('mmdet.models.dense_heads.') and hasattr(module, 'select_single_mlvl')]
    originals = [m.select_single_mlvl for m in modules]

    def select(mlvl_tensors, batch_id, detach=False):
        return [level[batch_id] for level in mlvl_tensors]

    for module in modules:
        module.select_single_mlvl = select
    try:
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.select_single_mlvl = original


@contextlib.contextmanager
def _end_of_training():
    """Tell losses that change in the course of training (TOOD's assigner) that this is its end.

    They read the epoch from mmengine's message hub, where a test run has none.
    """
    info = MessageHub.get_current_instance().runtime_info
    before = dict(info)
    info['epoch'] = sys.maxsize
    try:
        yield
    finally:
        info.clear()
        info.update(before)


@contextlib.contextmanager
def _shared_features(model):
    """Compute ``extract_feat`` once for the loss and the predictions on the same input."""
    extract, cache = model.extract_feat, []

    def cached(inputs, *args, **kwargs):
        if not cache:
            cache.append(extract(inputs, *args, **kwargs))
        return cache[0]

    model.extract_feat = cached  # an instance attribute shadows the method
    try:
        yield
    finally:
        del model.extract_feat


@contextlib.contextmanager
def _without_batch_augments(preprocess):
    """Batch augmentations (random resizes, fixed-size padding) belong to training and would move the ground truth."""
    augments = preprocess.batch_augments
    preprocess.batch_augments = None
    try:
        yield
    finally:
        preprocess.batch_augments = augments
