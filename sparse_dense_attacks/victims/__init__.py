"""Victims: one file per model library, imported only when a model of that library is attacked."""
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..errors import InputError
from .base import Victim
from .context import evaluating, gradients
from .outputs import logits_in, says_boxes
from .torch_classifier import TorchClassifier
from .torch_detector import TorchDetector, of_torchvision
from .torch_segmenter import TorchSegmenter

__all__ = ['TorchClassifier', 'TorchDetector', 'TorchSegmenter', 'library_of', 'plain_victim',
           'unwrapped', 'wrap']

LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')
# Wrappers by name, which their subclasses in mmengine keep among their bases, and where each of
# them holds the model: importing them would need mmengine, or the compiler.
WRAPPERS = {'OptimizedModule': '_orig_mod', 'FullyShardedDataParallel': 'module',
            'MMSeparateDistributedDataParallel': 'module', 'BaseAveragedModel': 'module'}


def library_of(model: nn.Module) -> str | None:
    """The OpenMMLab library that a model is of, or 'torchvision' for its detectors; None for others."""
    if of_torchvision(model):
        return 'torchvision'
    homes = {base.__module__.partition('.')[0] for base in type(model).__mro__}
    return next((library for library in LIBRARIES if library in homes), None)


def unwrapped(model: nn.Module) -> nn.Module:
    """The library model within wrappers; any other model as it is.

    Called through a wrapper, an OpenMMLab library's classifier gives logits all the same, but of images that
    have not been through its data_preprocessor. Wrappers are those for several devices (torch's and
    mmengine's), what torch.compile returns, averaged models, and nn.Sequential of one module.

    Raises:
        InputError: an nn.Sequential of a library model and something else.
    """
    inner = model
    while library_of(inner) is None:
        within = _within(inner)
        if within is None:
            return model  # none of a library: the wrapper is part of what is attacked
        inner = within
    return inner


def _within(model: nn.Module) -> nn.Module | None:
    """What a wrapper holds, None if the model is no wrapper."""
    if isinstance(model, DataParallel | DistributedDataParallel):
        return model.module
    names = [base.__name__ for base in type(model).__mro__]
    for name, place in WRAPPERS.items():
        if name in names:
            return getattr(model, place)
    if type(model) is not nn.Sequential:
        return None
    parts = [part for part in model if not isinstance(part, nn.Identity)]
    if len(parts) == 1:
        return parts[0]
    known = [inner for inner in map(unwrapped, parts) if library_of(inner)]
    if known:
        raise InputError(f'the nn.Sequential holds {len(parts) - 1} more modules beside a '
                         f'{type(known[0]).__name__} of {library_of(known[0])}: give that model '
                         'alone, it normalises by itself')
    return None


def wrap(model: nn.Module, boxes_follow_resize: bool = False, classes=None, **options):
    """The victim for a model built by an OpenMMLab library, or a detector of torchvision.

    Args:
        model: an mmdet or torchvision detector, mmseg segmenter or mmpretrain classifier, bare or
            in a wrapper, see :func:`unwrapped`.
        boxes_follow_resize: see :class:`~sparse_dense_attacks.victims.mmdet.MMDetDetector`; other
            tasks have no boxes.
        classes: names of the classes, by which goals may call them; classifiers know theirs by
            number only.
        options: arguments of the victim class.

    Raises:
        InputError: the model belongs to no supported library.
    """
    model = unwrapped(model)
    library = library_of(model)
    if library == 'mmdet':
        from .mmdet import MMDetDetector
        return MMDetDetector(model, boxes_follow_resize=boxes_follow_resize, classes=classes,
                             **options)
    if library == 'mmseg':
        from .mmseg import MMSegSegmenter
        return MMSegSegmenter(model, classes=classes, **options)
    if library == 'mmpretrain':
        from .mmpretrain import MMPretrainClassifier
        return MMPretrainClassifier(model, **options)
    if library == 'torchvision':
        return TorchDetector(model, classes=classes, **options)
    raise InputError(f'{type(model).__module__}.{type(model).__name__} is no model of a supported '
                     'library (mmdet, mmseg, mmpretrain, detectors of torchvision)')


def plain_victim(model: nn.Module, images: Tensor, **options) -> Victim:
    """The victim for a plain torch module, by what it says of the first of some images.

    Args:
        model: a classifier, a segmenter, or a detector of torchvision.
        images: (B, C, H, W) float in [0, 1]; without any the model is taken for a classifier.
        options: arguments of the victim class.

    Raises:
        InputError: a detector of another library, whose boxes :class:`TorchDetector` needs to have decoded.

    Example:
        >>> from sparse_dense_attacks.testing import Net, pictures
        >>> type(plain_victim(Net(), pictures(1, 3, 4, 4))).__name__
        'TorchClassifier'
    """
    if of_torchvision(model):
        return TorchDetector(model, **options)
    if not len(images):
        return TorchClassifier(model, **options)
    with gradients(model), evaluating(model), torch.no_grad():
        output = model(images[:1])
    if says_boxes(output):
        return TorchDetector(model, **options)
    logits = logits_in(output)
    maps = isinstance(logits, Tensor) and logits.ndim == 4
    return (TorchSegmenter if maps else TorchClassifier)(model, **options)
