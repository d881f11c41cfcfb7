"""How far a model's output on adversarial images is from its clean output, with a gradient through both (arXiv 1901.08573)."""
import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Boxes
from .detection import inside, matches, object_scores

__all__ = ['DIVERGENCES']


def class_divergence(scene, adversarial: Tensor) -> Tensor:
    """KL(clean, adversarial) of class probabilities, mean of images."""
    return _divergence(scene, adversarial).mean()


def pixel_divergence(scene, adversarial: Tensor) -> Tensor:
    """KL(clean, adversarial) of class probabilities, mean of pixels with a class."""
    return _divergence(scene, adversarial)[scene.valid].sum() / scene.valid.sum().clamp(min=1)


def _divergence(scene, adversarial: Tensor) -> Tensor:
    rows = torch.arange(len(adversarial))
    clean = F.log_softmax(scene.logits(scene.images, rows), 1)
    attacked = F.log_softmax(scene.logits(adversarial, rows), 1)
    return F.kl_div(attacked, clean, reduction='none', log_target=True).sum(1)


def object_divergence(scene, adversarial: Tensor, iou_thr: float = 0.5) -> Tensor:
    """KL(clean, adversarial) of "detected or not", mean of the objects: their best score among boxes of their class and place."""
    rows = torch.arange(len(adversarial))
    p = _detected(scene.candidates(scene.images, rows), scene.truth, iou_thr)
    q = _detected(scene.candidates(adversarial, rows), scene.truth, iou_thr)
    divergence = p * (p.log() - q.log()) + (1 - p) * ((-p).log1p() - (-q).log1p())
    return divergence[scene.truth.valid].sum() / scene.truth.valid.sum().clamp(min=1)


def _detected(found: Boxes, truth: Boxes, iou_thr: float) -> Tensor:
    """(B, G), the probability that each object is detected, kept off 0 and 1."""
    # float, because under autocast a sure score is 1 and so is 1 - 1e-6
    return inside(object_scores(found, matches(found, truth, iou_thr)).float())


DIVERGENCES = dict(classification=class_divergence, segmentation=pixel_divergence,
                   detection=object_divergence)
