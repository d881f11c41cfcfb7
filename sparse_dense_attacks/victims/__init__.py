"""Victims: one file per model library, imported only when a model of that library is attacked."""
from torch import nn

from ..errors import InputError
from .torch_classifier import TorchClassifier
from .torch_segmenter import TorchSegmenter

__all__ = ['TorchClassifier', 'TorchSegmenter', 'wrap']


def wrap(model: nn.Module, boxes_follow_resize: bool = False, classes=None, **options):
    """The victim for a model built by an OpenMMLab library.

    Args:
        model: an mmdet detector, mmseg segmenter or mmpretrain classifier.
        boxes_follow_resize: see :class:`~sparse_dense_attacks.victims.mmdet.MMDetDetector`; other tasks have no boxes.
        classes: names of the classes, by which goals may call them; classifiers know theirs by number only.
        options: arguments of the victim class.

    Raises:
        InputError: the model belongs to no supported library.
    """
    libraries = {base.__module__.partition('.')[0] for base in type(model).__mro__}
    if 'mmdet' in libraries:
        from .mmdet import MMDetDetector
        return MMDetDetector(model, boxes_follow_resize=boxes_follow_resize, classes=classes, **options)
    if 'mmseg' in libraries:
        from .mmseg import MMSegSegmenter
        return MMSegSegmenter(model, classes=classes, **options)
    if 'mmpretrain' in libraries:
        from .mmpretrain import MMPretrainClassifier
        return MMPretrainClassifier(model, **options)
    raise InputError(f'{type(model).__module__}.{type(model).__name__} is no model of a supported library '
                     '(mmdet, mmseg, mmpretrain)')
