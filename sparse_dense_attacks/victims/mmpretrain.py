"""Any mmpretrain 1.x classifier that predicts one class by a soft-max: raw pixels in, the logits of that soft-max out."""
import contextlib
import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmpretrain.models.classifiers import BaseClassifier
from torch import Tensor

from ..defences import Defence
from ..errors import InputError
from ..registry import VICTIMS, Config
from .base import Victim, by_size, sample_key, stack_inputs
from .torch_classifier import ClassificationScene

__all__ = ['MMPretrainClassifier', 'MMPretrainScene']


@dataclass(frozen=True, eq=False)
class MMPretrainScene(ClassificationScene):
    """One batch opened for attack; ``model`` is the mmpretrain classifier."""

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        """What the model's own prediction soft-maxes, (b, K), for candidates ``x`` (b, C, H, W) of ``rows``."""
        found = by_size(self.geometry, x, rows, self._scores)
        return found if isinstance(found, Tensor) else torch.stack(found)

    def show(self, x: Tensor, rows: Tensor) -> Tensor:
        return self._scores(x, rows)

    def _scores(self, x: Tensor, rows: Tensor) -> Tensor:
        """(n, K) for candidates of one size."""
        model: Any = self.model
        data = dict(inputs=self.seen(x, rows) * 255, data_samples=None)
        inputs = model.data_preprocessor(data, training=False)['inputs']
        with _scores_for_predictions(model):
            return model.predict(inputs)


@VICTIMS.register_module()
@dataclass(frozen=True)
class MMPretrainClassifier(Victim):
    """A classifier built by mmpretrain.

    Args:
        model: the classifier (not wrapped for distributed training).
        reference: what counts as the true class: 'truth' the samples' ``gt_label``, 'prediction' what the model says about the
            clean image, so that images without labels can be attacked.
        defence, channel_order: as for every :class:`~sparse_dense_attacks.victims.base.Victim`.

    Raises:
        InputError: the model does not predict one class by a soft-max.
    """
    task: ClassVar[str] = 'classification'
    model: BaseClassifier
    reference: str = 'truth'
    defence: Defence | Config | None = None
    channel_order: str = 'bgr'

    def __post_init__(self):
        self.check()
        judge, scores = _judge(self.model), torch.arange(1000.)[None].remainder(7)
        if not hasattr(judge, '_get_predictions') or not torch.equal(
                judge._get_predictions(scores, None)[0].pred_score, F.softmax(scores, 1)[0]):
            raise InputError(f'{type(self.model).__name__} with head {type(judge).__name__} does '
                             'not predict one class by a soft-max: multi-label, multi-task, '
                             'regression and retrieval models cannot be attacked')

    @property
    def num_classes(self) -> int | None:
        """Classes of the head, or of the backbone where that holds the last layer; None if neither says."""
        parts = [_judge(self.model)]
        parts += [getattr(self.model, name, None) for name in ('backbone', 'model')]
        counts = (getattr(part, 'num_classes', None) for part in parts)
        return next((count for count in counts if count and count > 0), None)

    def open(self, batch: dict) -> MMPretrainScene:
        """Make a batch of the test dataloader attackable; call within :meth:`session`. The batch is not changed.

        Args:
            batch: ``inputs``, a list of raw images (C, h, w) or one tensor of them, and ``data_samples``.

        Raises:
            InputError: inputs that are not raw images in [0, 255]; labels that are missing, several, or no classes of the model.
        """
        inputs, samples = batch['inputs'], batch['data_samples']
        if any(image.ndim != 3 for image in inputs):
            raise InputError(f'inputs: expected images (C, H, W), found {tuple(inputs[0].shape)}: '
                             'test-time augmentation is not supported')
        device = next(self.model.parameters()).device
        opened = stack_inputs(inputs, samples, device)
        images = opened[0]
        keys = [sample_key(sample) for sample in samples]
        unknown = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        scene = MMPretrainScene(self.model, images, opened[1], keys, opened[2], unknown,
                                shield=self.shield(keys))
        with torch.no_grad():
            if self.reference == 'prediction':
                logits = scene.logits(images, torch.arange(len(images)))
                return dataclasses.replace(scene, labels=logits.argmax(1), clean_logits=logits)
            labels = torch.cat([_label(sample) for sample in samples]).to(images.device)
            classes = self.num_classes
            if classes is None:
                classes = scene.logits(images[:1], torch.tensor([0])).shape[1]
        for key, label in zip(scene.keys, labels.tolist(), strict=True):
            if not 0 <= label < classes:
                raise InputError(f"sample '{key}' has label {label}, but the model has {classes} "
                                 f'classes, 0 to {classes - 1}')
        return dataclasses.replace(scene, labels=labels)


def _label(sample) -> Tensor:
    label = sample.get('gt_label')
    if label is None:
        raise InputError(f"sample '{sample_key(sample)}' has no gt_label: take a labelled data "
                         "set, or the model's prediction as the truth (reference='prediction')")
    if len(label) != 1:
        raise InputError(f"sample '{sample_key(sample)}' has {len(label)} labels, "
                         f'{label.tolist()}: expected one, multi-label data cannot be attacked')
    return label


def _judge(model):
    """The module that turns scores into predictions: the head, or the model itself where it wraps another library's."""
    head = getattr(model, 'head', None)
    return model if head is None else head


@contextlib.contextmanager
def _scores_for_predictions(model):
    """Let ``model.predict`` return the scores that it makes its predictions from.

    Heads combine their outputs on the way there, each in its own way (Conformer adds two), so ``forward`` does not do.
    """
    judge = _judge(model)
    # an instance attribute shadows the method
    judge._get_predictions = lambda scores, samples=None: scores
    try:
        yield
    finally:
        del judge._get_predictions
