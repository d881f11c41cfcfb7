"""The boxes of torchvision's detectors before they are suppressed.

A forward of theirs step by step, as far as the suppression: the same operations in the same order,
so that suppressing what is found here gives the model's own predictions bit for bit.
"""
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.fcos import FCOSClassificationHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetClassificationHead
from torchvision.models.detection.ssd import SSD, SSDScoringHead
from torchvision.ops import clip_boxes_to_image

from ..errors import InputError
from .base import chosen_losses
from .context import frozen_training, untouched_rng

__all__ = ['TorchvisionReader']

SMALLEST = 1e-2  # of the sides of a box of Faster R-CNN, in pixels of its input
Found = Mapping[str, Tensor]


@dataclass(frozen=True)
class TorchvisionReader:
    """Reads Faster, Mask and Keypoint R-CNN, RetinaNet, FCOS and SSD.

    Attributes:
        model: the detector.
        decode: gives boxes (b, N, 4) or a list of b, and labels and scores, in its own input.
        labels: the classes that it knows, None if unknown.
        seed: of a loss that samples.
    """
    model: Any  # torch leaves open what the parts of a module are
    decode: Callable[..., Sequence[Found]]
    labels: range | None
    seed: int = 0

    @classmethod
    def of(cls, model: nn.Module, seed: int = 0) -> 'TorchvisionReader':
        """For a detector of torchvision.

        Raises:
            InputError: one that is none of those above.
        """
        for kind, decode, first in ((FasterRCNN, _two_stage, 1), (SSD, _per_class, 1),
                                    ((RetinaNet, FCOS), _per_level, 0)):
            if isinstance(model, kind):
                count = _count(model)
                return cls(model, decode, None if count is None else range(first, count), seed)
        raise InputError(f'TorchDetector: decode is needed for {type(model).__name__}: of '
                         'torchvision, Faster, Mask and Keypoint R-CNN, RetinaNet, FCOS and SSD '
                         'are known')

    def candidates(self, x: Tensor) -> list[Found]:
        """All boxes before suppression, with differentiable scores, in pixels of ``x``.

        RetinaNet, FCOS and SSD keep as many of the best as before a suppression of their own
        (``topk_candidates``); a threshold on scores is not applied.
        """
        images, _ = self.model.transform(list(x))
        features = self.model.backbone(images.tensors)
        if isinstance(features, Tensor):
            features = OrderedDict([('0', features)])
        found = list(self.decode(self.model, images, features))
        sizes = [(image.shape[-2], image.shape[-1]) for image in x]
        return self.model.transform.postprocess(found, images.image_sizes, sizes)

    def predict(self, x: Tensor) -> list[Found]:
        """What the model itself reports."""
        return self.model(list(x))

    def loss(self, image: Tensor, truth: Found,
             components: Sequence[str] | None = None) -> Tensor:
        """The sum of the model's own training losses, in training mode but without noise."""
        with frozen_training(self.model), untouched_rng(image.device, self.seed):
            self.model.transform.training = False  # which draws a size at random in training
            losses = self.model([image], [truth])
            return sum(chosen_losses(losses, components, self.model).values())


def _count(model) -> int | None:
    """How many classes a detector scores, None where its head is a user's own."""
    two_stage = isinstance(model, FasterRCNN)
    head = model.roi_heads.box_predictor if two_stage else model.head.classification_head
    if isinstance(head, FastRCNNPredictor):
        return head.cls_score.out_features
    if isinstance(head, SSDScoringHead):
        return head.num_columns
    if isinstance(head, RetinaNetClassificationHead | FCOSClassificationHead):
        return head.num_classes
    return None


def _two_stage(model, images: ImageList, features: OrderedDict) -> list[Found]:
    """Every proposal as a candidate of each class."""
    with torch.no_grad():  # proposals only say where to look: they carry no gradient
        proposals, _ = model.rpn(images, features)
    heads = model.roi_heads
    regions = heads.box_roi_pool(features, proposals, images.image_sizes)
    logits, deltas = heads.box_predictor(heads.box_head(regions))
    with torch.no_grad():
        boxes = heads.box_coder.decode(deltas, proposals)
    lengths = [len(one) for one in proposals]
    labels = torch.arange(1, logits.shape[1], device=logits.device)
    found: list[Found] = []
    for own, scores, size in zip(boxes.split(lengths), F.softmax(logits, -1).split(lengths),
                                 images.image_sizes, strict=True):
        own = clip_boxes_to_image(own, size)[:, 1:].flatten(0, 1)  # the first is the background
        large = (own[:, 2:] - own[:, :2] >= SMALLEST).all(1)  # others are never reported
        found.append(dict(boxes=own, labels=labels.expand(len(scores), -1).flatten(),
                          scores=scores[:, 1:].flatten() * large))
    return found


def _dense(model, images: ImageList, features: OrderedDict) -> tuple[list[Tensor], dict, Tensor]:
    """Feature maps, what the head says of every anchor, and the anchors (A, 4) of any image."""
    maps = list(features.values())
    return maps, model.head(maps), model.anchor_generator(images, maps)[0]


def _decoded(model, deltas: Tensor, anchors: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (b, N, 4) within the image."""
    coder, deltas, anchors = model.box_coder, deltas.detach(), anchors.expand_as(deltas)
    if isinstance(model, FCOS):
        boxes = coder.decode(deltas, anchors)
    else:
        boxes = coder.decode_single(deltas.flatten(0, 1), anchors.flatten(0, 1))
    return clip_boxes_to_image(boxes.view_as(deltas), size)


def _per_level(model, images: ImageList, features: OrderedDict) -> list[Found]:
    """The best pairs of box and class of each feature map."""
    maps, said, anchors = _dense(model, images, features)
    count, classes = said['cls_logits'].shape[1:]
    places = [one.shape[2] * one.shape[3] for one in maps]
    lengths = [count // sum(places) * each for each in places]
    parts = {name: values.split(lengths, 1) for name, values in said.items()}
    levels: list[tuple[Tensor, ...]] = []
    for level, where in enumerate(anchors.split(lengths)):
        deltas, scores = parts['bbox_regression'][level], _sigmoid(parts['cls_logits'][level])
        if isinstance(model, FCOS):
            scores = (scores * _sigmoid(parts['bbox_ctrness'][level])).sqrt()
        flat = scores.flatten(1)
        best, index = flat.topk(min(model.topk_candidates, flat.shape[1]))
        place = index.div(classes, rounding_mode='floor')
        chosen = deltas.gather(1, place[..., None].expand(-1, -1, 4))
        boxes = _decoded(model, chosen, where[place], images.image_sizes[0])
        levels.append((boxes, index % classes, best))
    return _each(*(torch.cat(each, 1) for each in zip(*levels, strict=True)))


def _sigmoid(logits: Tensor) -> Tensor:
    """Of each image by itself, as torchvision does: on a CPU the last bit depends on the length of a tensor."""
    return torch.stack([one.sigmoid() for one in logits])


def _per_class(model, images: ImageList, features: OrderedDict) -> list[Found]:
    """The best boxes of each class."""
    _, said, anchors = _dense(model, images, features)
    boxes = _decoded(model, said['bbox_regression'], anchors, images.image_sizes[0])
    scores = F.softmax(said['cls_logits'], -1)[..., 1:].mT  # the first is the background
    best, index = scores.topk(min(model.topk_candidates, scores.shape[2]))
    labels = torch.arange(1, 1 + scores.shape[1], device=scores.device)[:, None].expand_as(index)
    chosen = boxes.gather(1, index.flatten(1)[..., None].expand(-1, -1, 4))
    return _each(chosen, labels.flatten(1), best.flatten(1))


def _each(boxes: Tensor, labels: Tensor, scores: Tensor) -> list[Found]:
    return [dict(boxes=own, labels=classes, scores=likely)
            for own, classes, likely in zip(boxes, labels, scores, strict=True)]
