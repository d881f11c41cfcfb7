"""Any mmdet 3.x detector: raw pixels in, differentiable candidate boxes and training losses out.

Everything goes through the model's own parts: its ``data_preprocessor`` inside the autograd graph, its own head to decode boxes,
its own training loss. See README.md beside this file for what had to be worked around.
"""
import contextlib
import copy
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from mmdet.models.dense_heads import (
    CenterNetHead,
    CornerHead,
    DecoupledSOLOHead,
    GuidedAnchorHead,
    PAAHead,
    RTMDetHead,
    RTMDetInsHead,
    SABLRetinaHead,
    SOLOHead,
    SSDHead,
    YOLOXHead,
)
from mmdet.models.detectors import BaseDetector, DetectionTransformer, MaskFormer
from mmdet.models.roi_heads import MultiInstanceRoIHead
from mmdet.structures.bbox import get_box_tensor
from mmdet.structures.mask import BitmapMasks, mask2bbox
from mmdet.utils import dist_utils
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import Tensor

from ..checks import check_flag, check_int, check_number
from ..defences import Defence, Shield
from ..errors import InputError
from ..ops.boxes import covered
from ..registry import VICTIMS, Config
from ..types import Boxes
from .base import (
    Geometry,
    Scene,
    Victim,
    by_size,
    chosen_losses,
    geometry_of,
    padded_boxes,
    sample_key,
    stack_inputs,
)
from .context import frozen_training, untouched_rng
from .pipeline import FileGeometry

__all__ = ['DetectionScene', 'MMDetDetector']


@VICTIMS.register_module()
@dataclass(frozen=True)
class MMDetDetector(Victim):
    """A detector built by mmdet.

    Args:
        model: the detector (not wrapped for distributed training).
        boxes_follow_resize: the test pipeline loads annotations before it resizes, so that ground truth already is in input
            coordinates. mmdet's stock pipelines load them after, in coordinates of the original image.
        loss_seed: seed of training losses that sample (assigners, denoising queries), so that the same image has the same loss.
        reference: what is right: ``'truth'``, the annotations, or ``'prediction'``, what the model itself detects on the clean
            image, so that images without annotations can be attacked.
        reference_thr: least score of a detection that is taken for right.
        use_masks: objects are where their masks are (True) or their boxes (False); see :meth:`DetectionScene.objects`.
        classes: names of the classes; by default those that came with the model's weights, if any.
        defence, channel_order: as for every :class:`~sparse_dense_attacks.victims.base.Victim`.
    """
    task: ClassVar[str] = 'detection'
    model: BaseDetector
    boxes_follow_resize: bool = False
    loss_seed: int = 0
    reference: str = 'truth'
    reference_thr: float = 0.3
    use_masks: bool = False
    classes: Sequence[str] | None = None
    defence: Defence | Config | None = None
    channel_order: str = 'bgr'

    def __post_init__(self):
        self.check()
        self.check_classes(self.classes)
        check_flag(self, 'boxes_follow_resize')
        check_int(self, 'loss_seed', low=None)
        check_number(self, 'reference_thr', 0, 1, low_ok=True)
        check_flag(self, 'use_masks')

    @property
    def num_classes(self) -> int | None:
        """Classes the model's head scores; None if it has no such head."""
        part = getattr(self.model, 'roi_head', self.model)
        heads = (getattr(part, name, None) for name in ('bbox_head', 'mask_head', 'panoptic_head'))
        head = next((head for head in heads if head is not None), None)
        last = head[-1] if isinstance(head, torch.nn.ModuleList) else head
        return getattr(last, 'num_classes', None)

    def open(self, batch: dict) -> 'DetectionScene':
        """Make a batch of the test dataloader attackable; call within :meth:`session`. The batch is not changed.

        Raises:
            InputError: no annotations in the batch; inputs that are not raw images in [0, 255].
        """
        inputs, samples = batch['inputs'], batch['data_samples']
        device = next(self.model.parameters()).device
        opened = stack_inputs(inputs, samples, device)
        prepared = [self._prepare(image, sample)
                    for image, sample in zip(inputs, samples, strict=True)]
        classes = self.classes or (getattr(self.model, 'dataset_meta', None) or {}).get('classes')
        keys = [sample_key(sample) for sample in samples]
        stock = self.reference == 'truth' and not self.boxes_follow_resize
        return DetectionScene(self.model, opened[0], opened[1], keys, opened[2], prepared,
                              _truth(prepared, device), self.loss_seed, self.use_masks, self.num_classes, classes,
                              samples if stock else None, self.shield(keys))

    def _prepare(self, image: Tensor, sample):
        """A processed copy of the sample with ground truth in coordinates of the input, as the losses want it."""
        if 'border' in sample.metainfo:
            raise InputError(f"sample '{sample_key(sample)}' was padded on all sides (CenterNet's "
                             'RandomCenterCropPad), which moves the ground truth: use Resize, and '
                             'Pad if need be, in the test pipeline')
        if self.reference == 'prediction':
            sample = self._predicted(image, sample)
        else:
            sample = self._annotated(image, sample)
        preprocess = self.model.data_preprocessor
        with _without_batch_augments(preprocess), torch.no_grad():
            # training=True, because only then masks and segmentation maps are padded along
            data = dict(inputs=[image], data_samples=[sample])
            return preprocess(data, training=True)['data_samples'][0]

    def _annotated(self, image: Tensor, sample):
        instances = sample.get('gt_instances', ())
        # without annotations PackDetInputs packs an empty element
        if 'bboxes' not in instances or 'labels' not in instances:
            raise InputError(f"sample '{sample_key(sample)}' has no ground truth: add "
                             'LoadAnnotations(with_bbox=True) to the test pipeline and an '
                             "annotation file to the dataset, or set reference='prediction'")
        if self.use_masks and 'masks' not in instances:
            raise InputError(f"use_masks=True, but sample '{sample_key(sample)}' has no masks: set "
                             'LoadAnnotations(with_bbox=True, with_mask=True) in the test pipeline')
        sample = copy.deepcopy(sample)
        resized = sample.metainfo.get('boxes_follow_resize', self.boxes_follow_resize)
        if not resized and 'scale_factor' in sample.metainfo:
            geometry = geometry_of(sample, image)
            scale = sample.scale_factor[:2]
            if geometry.resized:  # also by several steps, of which scale_factor tells the last
                h, w = geometry.content
                height, width = geometry.original
                scale = w / width, h / height
            for instances in (sample.gt_instances, sample.get('ignored_instances', ())):
                if 'bboxes' in instances:
                    boxes = get_box_tensor(instances.bboxes)
                    instances.bboxes = boxes * boxes.new_tensor(scale).repeat(2)
                if 'masks' in instances:
                    masks = instances.masks.resize(geometry.content)
                    instances.masks = masks.pad(tuple(image.shape[-2:]))
        return sample

    def _predicted(self, image: Tensor, sample):
        """The sample with the model's own detections in place of annotations."""
        blank = type(sample)(metainfo=_unscaled(sample))
        data = self.defended(dict(inputs=[image], data_samples=[blank]))
        data = self.model.data_preprocessor(data, training=False)
        with torch.no_grad():
            said = self.model.predict(data['inputs'], data['data_samples'], rescale=False)
        found = said[0].get('pred_instances')
        if found is None:
            raise InputError(f'{type(self.model).__name__} predicts no instances, which '
                             "reference='prediction' needs")
        found = found[found.scores >= self.reference_thr]
        instances = InstanceData(bboxes=_boxes(found), labels=found.labels.long())
        if 'masks' in found:
            masks = found.masks.cpu().numpy().astype(np.uint8)
            instances.masks = BitmapMasks(masks, *masks.shape[1:]).pad(tuple(image.shape[-2:]))
        elif self.use_masks:
            raise InputError(f'use_masks=True, but {type(self.model).__name__} predicts no masks')
        return type(sample)(metainfo=sample.metainfo, gt_instances=instances)


@dataclass(frozen=True, eq=False)
class DetectionScene(Scene):
    """One batch opened for attack; see :class:`~sparse_dense_attacks.victims.base.Scene`.

    Attributes:
        model: the detector.
        samples: data samples with ground truth in input coordinates.
        truth: what is right, :class:`Boxes` (B, G) in input coordinates, without crowd regions.
        loss_seed, use_masks: those of :class:`MMDetDetector`.
        loaded: the loader's samples, where their ground truth is in coordinates of the files.
        shield: the defence before the model.
    """
    model: BaseDetector
    images: Tensor
    region: Tensor
    keys: Sequence
    geometry: Sequence[Geometry]
    samples: Sequence
    truth: Boxes
    loss_seed: int = 0
    use_masks: bool = False
    num_classes: int | None = None
    classes: Sequence[str] | None = None
    loaded: Sequence | None = None
    shield: Shield | None = None

    def on_files(self, files: Sequence[FileGeometry]) -> 'DetectionScene':
        """As :meth:`Scene.on_files`; ground truth that was annotated on the files is taken as it is.

        Raises:
            InputError: the pipeline flips or crops images before it loads their annotations.
        """
        loaded = self.loaded or [None] * len(files)
        for key, file, sample in zip(self.keys, files, loaded, strict=True):
            if sample is not None and file.moves and not sample.metainfo.get('boxes_follow_resize'):
                raise InputError(f"sample '{key}': the test pipeline flips or crops the image before it loads the "
                                 'annotations, which do not fit it then: put LoadAnnotations before these steps')
        moved = [_on_file(sample, file, original, self.use_masks)
                 for sample, file, original in zip(self.samples, files, loaded, strict=True)]
        return dataclasses.replace(super().on_files(files), samples=moved)

    @cached_property
    def unjudged(self) -> Boxes:
        """Crowds, difficult and ignored objects, :class:`Boxes` (B, G) in input coordinates."""
        device = self.images.device
        instances = [sample.get('ignored_instances') for sample in self.samples]
        known = [i is not None and 'bboxes' in i and 'labels' in i for i in instances]
        none = torch.zeros(0, 4, device=device)
        boxes = [get_box_tensor(i.bboxes).to(device) if there else none
                 for i, there in zip(instances, known, strict=True)]
        labels = [i.labels.to(device) if there else none[:, 0].long()
                  for i, there in zip(instances, known, strict=True)]
        return _pad(boxes, labels, [torch.ones(len(one), device=device) for one in boxes])

    def objects(self, classes: Sequence[int] | None = None) -> Tensor:
        """(B, 1, H, W) bool, pixels of what is right: the union of its boxes, or of its masks if the victim uses them.

        Args:
            classes: objects of these classes only.
        """
        chosen = [sample.gt_instances for sample in self.samples]
        if classes is not None:
            chosen = [i[torch.isin(i.labels, i.labels.new_tensor(classes))] for i in chosen]
        return self._covered(chosen)

    def boxes(self, classes: Sequence[int] | None = None) -> Tensor:
        found = []
        for sample in self.samples:
            boxes, labels = get_box_tensor(sample.gt_instances.bboxes), sample.gt_instances.labels
            if classes is not None:
                boxes = boxes[torch.isin(labels, labels.new_tensor(classes))]
            found.append(boxes)
        return padded_boxes(found).to(self.images.device)

    def ignored(self) -> Tensor:
        """(B, 1, H, W) bool, pixels of crowds, difficult and ignored objects."""
        return self._covered([sample.get('ignored_instances') for sample in self.samples])

    def _covered(self, chosen: Sequence) -> Tensor:
        """(B, 1, H, W) bool, where the instances of each image are, by masks or by boxes."""
        found = torch.zeros_like(self.region)
        h, w = found.shape[-2:]
        for inside, instances in zip(found, chosen, strict=True):
            if instances is None or not len(instances):
                continue
            if self.use_masks and 'masks' in instances:
                shape = instances.masks.to_tensor(torch.bool, found.device).any(0)[:h, :w]
                inside[0, :shape.shape[0], :shape.shape[1]] = shape
                continue
            boxes = get_box_tensor(instances.bboxes).to(found.device)[None]
            inside[:] = covered(boxes, boxes.new_ones(boxes.shape[:2]).bool(), (h, w))
        return found

    @cached_property
    def has_candidates(self) -> bool:
        """Whether the model's head can decode boxes before non-maximum suppression, and gives their scores a gradient."""
        heads = (getattr(self.model, name, None) for name in ('bbox_head', 'mask_head'))
        detached = any(isinstance(head, _DETACHED) for head in heads)
        return _decoder(self.model) is not None and not detached

    def candidates(self, x: Tensor, rows: Tensor, rivals: Sequence[int] = ()) -> Boxes:
        """Boxes before non-maximum suppression, with differentiable scores, for candidates ``x`` (b, C, H, W) of ``rows``.

        Args:
            rivals: classes of interest. Where a head (YOLOX) reports the best class of each box only, the best of these is added
                for each box, with :attr:`Boxes.below` set.

        Raises:
            InputError: the detector has no such boxes, or their scores have no gradient.
        """
        decode = _decoder(self.model)
        if not self.has_candidates:
            raise self._no_candidates()

        def look(candidates: Tensor, which: Tensor) -> list:
            inputs, samples = self._network_input(candidates, which)
            with _gradient_through_heads():
                return decode(self.model, self.model.extract_feat(inputs), samples, rivals)

        boxes = _pad(*zip(*by_size(self.geometry, x, rows, look), strict=True))
        if x.requires_grad and not boxes.scores.requires_grad:
            if boxes.scores.numel():
                # a head outside mmdet may call detach() in code of its own
                raise self._no_candidates()
            # nothing found, zero gradient
            return dataclasses.replace(boxes, scores=boxes.scores + 0 * x.flatten(1)[:, :1])
        return boxes

    def losses(self, x: Tensor, rows: Tensor,
               components: Sequence[str] | None = None) -> tuple[Tensor, Boxes | None]:
        """The detector's own training loss per image, (b,), and the boxes it predicts (without gradient, None if it has none).

        One image per call, because every mmdet loss is normalised over its batch; features are computed once for both.

        Args:
            components: names of the parts of the loss that are added up; all by default.

        Raises:
            InputError: the model config has no ``train_cfg`` to assign targets with; a name of no part of the loss.
        """
        losses, found = [], []
        for row, candidate in zip(rows, x, strict=True):
            h, w = self.geometry[row].input
            inputs, samples = self._network_input(candidate[None, :, :h, :w], row[None])
            decode = _decoder(self.model)
            with _shared_features(self.model):
                with (frozen_training(self.model), untouched_rng(x.device, self.loss_seed),
                      _own_process()):
                    losses.append(self._loss(inputs, samples, components))
                if decode is not None:
                    with torch.no_grad():
                        found += decode(self.model, self.model.extract_feat(inputs), samples)
        return torch.stack(losses), _pad(*zip(*found, strict=True)) if found else None

    def show(self, x: Tensor, rows: Tensor) -> Any:
        inputs, _ = self._network_input(x, rows)
        return self.model.extract_feat(inputs)

    def _no_candidates(self) -> InputError:
        head = getattr(self.model, 'bbox_head', None) or getattr(self.model, 'roi_head', None)
        return InputError(f'{type(self.model).__name__} with head {type(head).__name__} has no '
                          'differentiable boxes before non-maximum suppression; use '
                          "goal = dict(type='DetectorLoss')")

    def _loss(self, inputs, samples, components: Sequence[str] | None) -> Tensor:
        samples = copy.deepcopy(samples)
        head = getattr(self.model, 'bbox_head', None)
        if isinstance(head, RTMDetHead) and not isinstance(head, RTMDetInsHead):
            # its assigner takes any masks for those of RTMDet-Ins, which are no BitmapMasks
            for sample in samples:
                sample.gt_instances.pop('masks', None)
        try:
            with _end_of_training():
                losses = self.model.loss(inputs, samples)
        except (AttributeError, TypeError, AssertionError) as error:
            name = type(self.model).__name__
            bare = any('masks' not in sample.gt_instances for sample in samples)
            if 'masks' in str(error) and bare:
                raise InputError(f'the training loss of {name} needs instance masks and the ground '
                                 'truth has none: set LoadAnnotations(with_bbox=True, '
                                 'with_mask=True) in the test pipeline') from error
            if getattr(self.model, 'train_cfg', None) is None:
                raise InputError(f'the training loss of {name} failed ({error}) and the model '
                                 'config has no train_cfg: take it from the training config, or '
                                 'use a goal that needs no loss (Vanish)') from error
            raise
        # Denoising queries (DINO) are noisy copies of the ground truth: a term about the training, not about what the model sees.
        terms = {name: value for name, value in losses.items() if 'dn_' not in name}
        if components is not None:
            # mmengine adds up what is called a loss; the rest, such as accuracies, is for the log
            known = {name: value for name, value in terms.items() if 'loss' in name}
            terms = chosen_losses(known, components, self.model)
        return self.model.parse_losses(terms)[0]

    def _network_input(self, x: Tensor, rows: Tensor) -> tuple[Tensor, list]:
        """Run the model's own preprocessing on candidates of one size, inside the graph."""
        data = dict(inputs=self.seen(x, rows) * 255, data_samples=None)
        data = self.model.data_preprocessor(data, training=False)
        return data['inputs'], [self.samples[r] for r in rows]


@contextlib.contextmanager
def _own_process():
    """Losses that average their normalisers over all processes (mmdet's ``reduce_mean``) keep to this one.

    Processes look at different images, so they ask for different numbers of losses and would wait for each other for ever.
    """
    everybody, dist_utils.dist = dist_utils.dist, SimpleNamespace(is_available=lambda: False)
    try:
        yield
    finally:
        dist_utils.dist = everybody


def _truth(samples: Sequence, device: torch.device) -> Boxes:
    instances = [sample.gt_instances for sample in samples]
    return _pad([i.bboxes for i in instances], [i.labels for i in instances],
                [torch.ones(len(i), device=device) for i in instances])


def _pad(boxes, labels, scores, below=None) -> Boxes:
    """Stack lists of unequal length; padding has label -1 and score 0."""
    pad = torch.nn.utils.rnn.pad_sequence
    below = None if below is None else pad(list(below), True)
    return Boxes(boxes=pad(list(boxes), True), labels=pad(list(labels), True, -1),
                 scores=pad(list(scores), True), below=below)


def _on_file(sample, file: FileGeometry, loaded, use_masks: bool):
    """A prepared sample with its instances in coordinates of the image file.

    Args:
        loaded: the sample with annotations of the file, None if there is none.
    """
    moved = type(sample)(metainfo=sample.metainfo)
    for name in ('gt_instances', 'ignored_instances'):
        instances = sample.get(name)
        if instances is None or 'bboxes' not in instances:
            continue
        found = InstanceData(bboxes=file.onto_file(get_box_tensor(instances.bboxes)), labels=instances.labels)
        if use_masks and 'masks' in instances:
            annotated = None if loaded is None else loaded.get(name).masks
            if annotated is None or (annotated.height, annotated.width) != file.source:
                annotated = _masks_on_file(instances.masks, file)
            found.masks = annotated
        moved.set_field(found, name)
    return moved


def _masks_on_file(masks: BitmapMasks, file: FileGeometry) -> BitmapMasks:
    """Masks of the network input on the file: each pixel is what lies at its centre."""
    h, w = file.source
    found = np.zeros((len(masks), h, w), np.uint8)
    rows, columns = (file.onto_input(axis) for axis in (0, 1))
    inside = [(places >= 0) & (places < side) for places, side in
              ((rows, masks.height), (columns, masks.width))]
    cut = masks.to_ndarray()[:, rows[inside[0]]][:, :, columns[inside[1]]]
    found[np.ix_(range(len(masks)), inside[0], inside[1])] = cut
    return BitmapMasks(found, h, w)


def _unscaled(sample) -> dict:
    """Meta data that make mmdet leave predictions in input coordinates, also those heads that ignore ``rescale=False``."""
    return dict(sample.metainfo, ori_shape=sample.img_shape, scale_factor=(1.0, 1.0))


def _boxes(results) -> Tensor:
    """The boxes of predictions; box-less heads leave them zero, but have masks."""
    masks_only = 'masks' in results and not results.bboxes.any()
    return mask2bbox(results.masks) if masks_only else get_box_tensor(results.bboxes)


# Decoders: (model, features, samples, rivals) -> boxes, labels, scores (and below) of each image, in input coordinates

def _decoder(model):
    if isinstance(model, DetectionTransformer):
        return _decode_transformer
    if isinstance(model, MaskFormer):
        return _decode_queries
    if hasattr(model, 'rpn_head') and hasattr(getattr(model, 'roi_head', None), 'predict_bbox'):
        return _decode_two_stage
    head = getattr(model, 'bbox_head', None)
    if hasattr(head, 'predict_by_feat') and not isinstance(head, CornerHead):  # which pairs corners
        return _decode_dense
    if isinstance(getattr(model, 'mask_head', None), SOLOHead):
        return _decode_masks
    return None


# Heads that call detach() on their scores in code of their own.
_DETACHED = (SABLRetinaHead, GuidedAnchorHead, DecoupledSOLOHead)


def _decode_transformer(model, feats, samples, rivals=()):
    outputs = model.forward_transformer(feats, samples)
    results = model.bbox_head.predict(**outputs, rescale=False, batch_data_samples=samples)
    return [(r.bboxes, r.labels, r.scores) for r in results]


def _decode_queries(model, feats, samples, rivals=()):
    """Mask2Former and its like; boxes are those of the masks, whose own part in the score carries no gradient."""
    triples = []
    found = model.panoptic_head.predict(feats, samples)
    for scores, masks, sample in zip(*found, samples, strict=True):
        h, w = sample.img_shape[:2]
        r = model.panoptic_fusion_head.instance_postprocess(scores, masks[:, :h, :w].detach())
        triples.append((r.bboxes, r.labels, r.scores))
    return triples


def _decode_masks(model, feats, samples, rivals=()):
    """SOLO and SOLOv2: what is left after their own soft suppression; boxes are those of the masks."""
    metas = [_unscaled(sample) for sample in samples]
    results = model.mask_head.predict_by_feat(*model.mask_head(feats), batch_img_metas=metas)
    return [(_boxes(r), r.labels.long(), r.scores) for r in results]


def _decode_dense(model, feats, samples, rivals=()):
    head = model.bbox_head
    options: dict[str, Any] = dict(batch_img_metas=[s.metainfo for s in samples], rescale=False)
    own: dict[str, Any] = {}
    if not isinstance(head, GuidedAnchorHead):  # which always suppresses
        options['with_nms'] = isinstance(head, PAAHead)
    if isinstance(head, CenterNetHead):
        # an image that was not padded
        options['batch_img_metas'] = [dict(border=(0.0,) * 4, **s.metainfo) for s in samples]
    else:
        options['cfg'] = copy.deepcopy(head.test_cfg)
        options['cfg'].update(score_thr=0.0, conf_thr=-1.0)  # conf_thr: YOLOv3's second threshold
    if isinstance(head, PAAHead):  # insists on suppression, and so does RTMDet-Ins
        own['_bbox_post_process'] = lambda results, *_: results
    if isinstance(head, RTMDetInsHead):
        own['_bbox_mask_post_process'] = lambda results, **_: results
    # mmdet 3.3 asks for what this head never had
    if isinstance(head, SSDHead) and not hasattr(head, 'loss_cls'):
        own['loss_cls'] = None
    outs = head(feats)
    with _shadowed(head, **own):
        results = head.predict_by_feat(*outs, **options)
    if isinstance(head, PAAHead):
        return [_every_class(r.bboxes, (r.scores * r.score_factors[:, None]).sqrt())
                for r in results]
    parts: list[tuple] = [(r.bboxes, r.labels, r.scores) for r in results]
    if rivals and isinstance(head, YOLOXHead):
        levels = [_less_its_best(level, rivals) for level in outs[0]]
        others = head.predict_by_feat(levels, *outs[1:], **options)
        second = [(r.bboxes, r.labels, r.scores) for r in others]
        parts = [(*(torch.cat(pair) for pair in zip(part, other, strict=True)),
                  torch.cat([torch.zeros_like(part[2]), part[2]]))
                 for part, other in zip(parts, second, strict=True)]
    return parts


def _decode_two_stage(model, feats, samples, rivals=()):
    with torch.no_grad():  # proposals only say where to look: their coordinates carry no gradient
        proposals = model.rpn_head.predict(feats, samples, rescale=False)
    head, context = model.roi_head, {}
    for name in ('semantic', 'glbctx'):  # what HTC and SCNet add to the features of every region
        if getattr(head, f'with_{name}', False):
            context[f'{name}_feat'] = getattr(head, f'{name}_head')(feats)[1]
    metas = [sample.metainfo for sample in samples]
    results = head.predict_bbox(feats, metas, proposals, rcnn_test_cfg=None, rescale=False,
                                **context)
    # Sparse R-CNN gives one class per box; elsewhere the last column is the background, in CrowdDet the first.
    real = slice(1, None) if isinstance(head, MultiInstanceRoIHead) else slice(-1)
    return [(r.bboxes, r.labels, r.scores) if r.scores.dim() == 1
            else _every_class(r.bboxes, r.scores[:, real]) for r in results]


def _every_class(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (n, 4) or (n, 4 K) with scores (n, K) as n K candidates of one class each."""
    n, classes = scores.shape
    labels = torch.arange(classes, device=boxes.device).expand(n, classes)
    boxes = boxes.unflatten(1, (-1, 4)).expand(n, classes, 4)
    return boxes.reshape(-1, 4), labels.reshape(-1), scores.reshape(-1)


def _less_its_best(scores: Tensor, wanted: Sequence[int]) -> Tensor:
    """Class logits (B, K, H, W) of the wanted classes alone, without the best of each place."""
    keep = torch.zeros_like(scores, dtype=torch.bool)
    keep[:, list(wanted)] = True
    return scores.masked_fill(~keep.scatter(1, scores.argmax(1, keepdim=True), False), -torch.inf)


@contextlib.contextmanager
def _shadowed(module, **attributes):
    """Let attributes of the instance stand before those of its class for a while."""
    vars(module).update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del vars(module)[name]


@contextlib.contextmanager
def _gradient_through_heads():
    """Lift the ``detach`` that mmdet's dense heads apply to their own outputs before decoding them.

    ``select_single_mlvl`` is imported by name into each head module and called with ``detach=True``, so the name is replaced
    there for the duration of one call.
    """
    modules: list[Any] = [module for name, module in sys.modules.items()
               if name.startswith('mmdet.models.dense_heads.')
               and hasattr(module, 'select_single_mlvl')]
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
    extract = model.extract_feat
    cache: list = []

    def cached(inputs, *args, **kwargs):
        if not cache:
            cache.append(extract(inputs, *args, **kwargs))
        return cache[0]

    with _shadowed(model, extract_feat=cached):
        yield


@contextlib.contextmanager
def _without_batch_augments(preprocess):
    """Batch augmentations (random resizes, fixed-size padding) belong to training and would move the ground truth."""
    augments = preprocess.batch_augments
    preprocess.batch_augments = None
    try:
        yield
    finally:
        preprocess.batch_augments = augments
