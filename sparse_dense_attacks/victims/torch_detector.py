"""Plain PyTorch detectors: any module whose boxes can be had before they are suppressed."""
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..checks import check_int, check_number, shown
from ..defences import Defence, Shield
from ..errors import InputError
from ..ops.boxes import covered
from ..registry import VICTIMS, Config
from ..types import Boxes
from .base import Geometry, Scene, Victim, padded_boxes
from .outputs import kind_of
from .torch_classifier import check_images

__all__ = ['TorchDetectionScene', 'TorchDetector', 'of_torchvision']

Found = Mapping[str, Tensor]  # of an image: boxes (N, 4), labels (N,) int64, scores (N,)
Decode = Callable[[nn.Module, Tensor], Sequence[Found]]

CONTRACT = ('decode(model, images) takes images (b, C, H, W) in [0, 1] and returns for each a dict '
            'of boxes (N, 4) float, x1 y1 x2 y2 in pixels of the image, labels (N,) int64 and '
            'scores (N,) in [0, 1] with gradient, of all candidates before suppression')


def of_torchvision(model: nn.Module) -> bool:
    """Whether a model is one of torchvision's detectors, which this does not import."""
    return any(base.__module__.startswith('torchvision.models.detection')
               for base in type(model).__mro__)


class Reader(Protocol):
    """How the boxes of a detector are read.

    Attributes:
        labels: the classes that it knows, None if unknown.
    """
    @property
    def labels(self) -> range | None: ...

    def candidates(self, x: Tensor) -> Sequence[Found]:
        """Of each image (b, C, H, W) all boxes before suppression, with differentiable scores."""
        ...

    def predict(self, x: Tensor) -> Sequence[Found]:
        """Of each image (b, C, H, W) the boxes that are reported."""
        ...

    def loss(self, image: Tensor, truth: Found,
             components: Sequence[str] | None = None) -> Tensor:
        """The training loss of an image (C, H, W), a number; of its parts those of these names."""
        ...


@dataclass(frozen=True)
class Decoded:
    """Reads a detector with the function of a user."""
    model: nn.Module
    decode: Decode
    labels: range | None = None

    def candidates(self, x: Tensor) -> Sequence[Found]:
        found = self.decode(self.model, x)
        _check_candidates(found, len(x))
        return found

    def predict(self, x: Tensor) -> Sequence[Found]:
        """What is left of the candidates after suppression of each class at an overlap of 0.5."""
        from torchvision.ops import batched_nms
        reported = []
        for one in self.candidates(x):
            kept = batched_nms(one['boxes'].float(), one['scores'].float(), one['labels'], 0.5)
            reported.append({name: values[kept] for name, values in one.items()})
        return reported

    def loss(self, image: Tensor, truth: Found,
             components: Sequence[str] | None = None) -> Tensor:
        raise InputError(f'DetectorLoss: the training loss of a {type(self.model).__name__} is not '
                         "known, only those of torchvision's and mmdet's detectors are: use a goal "
                         'that needs no loss (Vanish)')


@dataclass(frozen=True, eq=False)
class TorchDetectionScene(Scene):
    """One batch opened for attack; see :class:`~sparse_dense_attacks.victims.base.Scene`.

    Attributes:
        reader: of the detector's boxes.
        truth: what is right, :class:`Boxes` (B, G) in pixels of the images, without crowds.
        unjudged: crowds, likewise.
        loss_seed: that of :class:`TorchDetector`.
        shield: the defence before the model.
    """
    model: nn.Module
    images: Tensor
    region: Tensor
    keys: Sequence
    geometry: Sequence[Geometry]
    reader: Reader
    truth: Boxes
    unjudged: Boxes
    loss_seed: int = 0
    num_classes: int | None = None
    classes: Sequence[str] | None = None
    shield: Shield | None = None

    def objects(self, classes: Sequence[int] | None = None) -> Tensor:
        """(B, 1, H, W) bool, pixels whose centre lies in a box of the truth.

        Args:
            classes: objects of these classes only.
        """
        return self._covered(self.truth, self._chosen(classes))

    def _chosen(self, classes: Sequence[int] | None) -> Tensor:
        """(B, G) bool, objects of these classes."""
        if classes is None:
            return self.truth.valid
        wanted = torch.isin(self.truth.labels, self.truth.labels.new_tensor(classes))
        return self.truth.valid & wanted

    def boxes(self, classes: Sequence[int] | None = None) -> Tensor:
        chosen = self._chosen(classes)
        found = [boxes[kept] for boxes, kept in zip(self.truth.boxes, chosen, strict=True)]
        return padded_boxes(found)

    def ignored(self) -> Tensor:
        """(B, 1, H, W) bool, pixels of crowds."""
        return self._covered(self.unjudged, self.unjudged.valid)

    def _covered(self, boxes: Boxes, chosen: Tensor) -> Tensor:
        h, w = self.images.shape[-2:]
        return covered(boxes.boxes, chosen, (h, w))[:, None]

    def candidates(self, x: Tensor, rows: Tensor, rivals: Sequence[int] = ()) -> Boxes:
        """Boxes before suppression, with differentiable scores, for candidates ``x`` (b, C, H, W).

        Raises:
            InputError: a user's ``decode`` does not keep what it promises.
        """
        if not len(x):
            return self.truth[rows]
        found = _padded(self.reader.candidates(self.seen(x, rows)))
        if x.requires_grad and torch.is_grad_enabled() and not found.scores.requires_grad:
            if found.scores.numel():
                raise InputError('decode: its scores have no gradient: leave out detach(), no_grad '
                                 'and whatever picks the best of the boxes by number')
            # nothing found, zero gradient
            return dataclasses.replace(found, scores=found.scores + 0 * x.flatten(1)[:, :1])
        return found

    def losses(self, x: Tensor, rows: Tensor,
               components: Sequence[str] | None = None) -> tuple[Tensor, Boxes]:
        """The detector's own training loss per image, (b,), and its boxes, without gradient.

        One image per call, because these losses are normalised over their batch.

        Args:
            components: names of the parts of the loss that are added up; all by default.

        Raises:
            InputError: the loss of this detector is not known; a name of no part of it.
        """
        losses = [self.reader.loss(image, self._target(row), components)
                  for row, image in zip(rows.tolist(), self.seen(x, rows), strict=True)]
        with torch.no_grad():
            found = self.candidates(x, rows)
        return torch.stack(losses), found

    def _target(self, row: int) -> Found:
        there = self._counts[row]
        return dict(boxes=self.truth.boxes[row, :there], labels=self.truth.labels[row, :there])

    @cached_property
    def _counts(self) -> list[int]:
        """How many objects each image has; asked once, because it waits for the device."""
        return self.truth.valid.sum(1).tolist()

    def show(self, x: Tensor, rows: Tensor) -> Any:
        return self.reader.candidates(self.seen(x, rows))


@VICTIMS.register_module()
@dataclass(frozen=True)
class TorchDetector(Victim):
    """A detector with its normalisation inside, called as it is.

    Args:
        model: Faster, Mask or Keypoint R-CNN, RetinaNet, FCOS or SSD of torchvision, or any module with a ``decode``.
        decode: takes the model and images (b, C, H, W) float in [0, 1], and returns for each image a dict of all candidates
            before suppression: ``boxes`` (N, 4) float, x1 y1 x2 y2 in pixels of the image, ``labels`` (N,) int64 and ``scores``
            (N,) in [0, 1] with gradient. None for the detectors of torchvision, which are known.
        reference: what is right: 'truth', the given boxes, or 'prediction', what the model itself detects on the clean image, so
            that images without annotations can be attacked.
        reference_thr: least score of a detection that is taken for right.
        loss_seed: seed of training losses that sample, so that the same image has the same loss.
        classes: names of the classes, if goals are to name them.
        defence, channel_order: as for every :class:`~sparse_dense_attacks.victims.base.Victim`.

    Raises:
        InputError: no ``decode`` for a detector that is not known.
    """
    task: ClassVar[str] = 'detection'
    takes: ClassVar[tuple[str, ...]] = ('labels', 'region', 'keys')
    model: nn.Module
    decode: Decode | None = None
    reference: str = 'truth'
    reference_thr: float = 0.3
    loss_seed: int = 0
    classes: Sequence[str] | None = None
    defence: Defence | Config | None = None
    channel_order: str = 'rgb'

    def __post_init__(self):
        self.check()
        self.check_classes(self.classes)
        check_number(self, 'reference_thr', 0, 1, low_ok=True)
        check_int(self, 'loss_seed', low=None)
        if self.decode is not None and not callable(self.decode):
            raise InputError(f'TorchDetector: decode = {shown(self.decode)}, expected a function: '
                             f'{CONTRACT}')
        if self.decode is None and not of_torchvision(self.model):
            raise InputError(f'TorchDetector: decode is needed, because {type(self.model).__name__} '
                             f"is none of torchvision's detectors: {CONTRACT}")

    @cached_property
    def reader(self) -> Reader:
        """How the boxes of the model are read."""
        if self.decode is not None:
            return Decoded(self.model, self.decode)
        from .torchvision import TorchvisionReader
        return TorchvisionReader.of(self.model, self.loss_seed)

    @property
    def num_classes(self) -> int | None:
        """Classes that the model knows, torchvision's background among them; None if unknown."""
        return None if self.reader.labels is None else self.reader.labels.stop

    def predict(self, images: Tensor) -> Sequence[Found]:
        """What the model reports about images (b, C, H, W): boxes, labels and scores of each.

        Torchvision's say it themselves; of a ``decode`` it is what suppression leaves.
        """
        with torch.no_grad(), self.session():
            return self.reader.predict(images)

    def open(self, batch: Tensor, labels: Sequence[Found] | None = None,
             region: Tensor | None = None, keys: list | None = None) -> TorchDetectionScene:
        """Check a batch and make it attackable; call within :meth:`session`.

        Args:
            batch: (B, C, H, W) float32 images in [0, 1].
            labels: for each image a dict of ``boxes`` (G, 4), x1 y1 x2 y2 in its pixels, and ``labels`` (G,) int64, and
                ``iscrowd`` (G,) where there are crowds; not needed, nor looked at, with ``reference='prediction'``.
            region: (B, 1, H, W) bool, pixels that may change; all by default.
            keys: one id per image; positions in the batch by default.

        Raises:
            InputError: wrong shape or type, values outside [0, 1], boxes or labels that are none.
        """
        images, region, keys = check_images(batch, region, keys)
        shield = self.shield(keys)
        with torch.no_grad():
            if self.reference == 'prediction':
                seen = images if shield is None else shield(images, torch.arange(len(images)))
                labels = [_above(one, self.reference_thr) for one in self.reader.predict(seen)]
            elif labels is None:
                raise InputError('no labels: give them with the images, a dict of boxes and labels '
                                 "for each, or build the victim with reference='prediction'")
            if self.decode is not None and len(images):
                _check_values(self.reader.candidates(images[:1]))
        truth, crowds = _truth(labels, images, self.reader.labels)
        return TorchDetectionScene(self.model, images, region, keys, Geometry.of_memory(images),
                                   self.reader, truth, crowds, self.loss_seed, self.num_classes,
                                   self.classes, shield)


def _above(found: Found, least: float) -> Found:
    """What scores at least so much and is somewhere: a box without area overlaps none."""
    boxes = found['boxes']
    keep = (found['scores'] >= least) & (boxes[:, :2] < boxes[:, 2:]).all(1)
    return dict(boxes=boxes[keep], labels=found['labels'][keep])


def _padded(found: Sequence[Found]) -> Boxes:
    """Stack lists of unequal length; padding has label -1 and score 0."""
    boxes, labels, scores = ([one[name] for one in found] for name in ('boxes', 'labels', 'scores'))
    return Boxes(pad_sequence(boxes, True), pad_sequence(labels, True, -1),
                 pad_sequence(scores, True))


def _truth(labels: Sequence[Found], images: Tensor,
           known: range | None) -> tuple[Boxes, Boxes]:
    """What is right about images, and their crowds, or a clear refusal."""
    if isinstance(labels, str | bytes | Mapping) or not isinstance(labels, Sequence):
        raise InputError('labels: expected a list with a dict of boxes and labels for each image, '
                         f'found {type(labels).__name__}')
    if len(labels) != len(images):
        raise InputError(f'labels: expected a dict of boxes and labels for each image '
                         f'({len(images)}), found {len(labels)}')
    judged: list[Found] = []
    crowds: list[Found] = []
    for number, one in enumerate(labels):
        boxes, classes, crowd = _checked(one, f'labels of image {number}', known)
        boxes, classes, crowd = (part.to(images.device) for part in (boxes, classes, crowd))
        for chosen, where in ((~crowd, judged), (crowd, crowds)):
            where.append(dict(boxes=boxes[chosen].float(), labels=classes[chosen],
                              scores=torch.ones_like(classes[chosen], dtype=torch.float32)))
    if not judged:  # no image
        none = images.new_zeros(0, 0)
        empty = Boxes(none.new_zeros(0, 0, 4), none.long(), none)
        return empty, empty
    return _padded(judged), _padded(crowds)


def _checked(given: Any, who: str, known: range | None) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (G, 4), classes (G,) and whether a crowd (G,) of one image, or a clear refusal."""
    if not isinstance(given, Mapping) or 'boxes' not in given or 'labels' not in given:
        raise InputError(f'{who}: expected a dict of boxes and labels, found {shown(given)}')
    boxes, classes = given['boxes'], given['labels']
    if not isinstance(boxes, Tensor) or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f'{who}: boxes: expected a tensor (G, 4) of x1 y1 x2 y2, found '
                         f'{kind_of(boxes)}')
    crowd = given.get('iscrowd', torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device))
    for name, value in (('labels', classes), ('iscrowd', crowd)):
        if not isinstance(value, Tensor) or value.shape != boxes.shape[:1]:
            raise InputError(f'{who}: {name}: expected a tensor with one entry per box '
                             f'({len(boxes)}), found {kind_of(value)}')
    if classes.dtype != torch.int64:
        raise InputError(f'{who}: labels: expected int64 class indices, found {classes.dtype}')
    sound = (boxes[:, :2] < boxes[:, 2:]).all(1) & boxes.isfinite().all(1)
    if not sound.all():
        raise InputError(f'{who}: box {boxes[~sound][0].tolist()} is none, expected x1 < x2 and '
                         'y1 < y2 in pixels of the image')
    if len(classes) and known is not None:
        low, high = int(classes.min()), int(classes.max())
        if low not in known or high not in known:
            raise InputError(f'{who}: labels reach from {low} to {high}, but the model knows '
                             f'{known.start} to {known.stop - 1}')
    if len(classes) and classes.min() < 0:
        raise InputError(f'{who}: label {int(classes.min())}, expected class indices of at least 0')
    return boxes, classes, crowd.bool()


def _check_candidates(found: Any, count: int) -> None:
    """Refuse what a user's ``decode`` returns if it is not what it has to be; reads no value."""
    if isinstance(found, str | bytes | Mapping) or not isinstance(found, Sequence) \
            or len(found) != count:
        of = f' of {len(found)}' if isinstance(found, list | tuple) else ''
        raise InputError(f'decode gives {type(found).__name__}{of} for {count} images: {CONTRACT}')
    for one in found:
        if not isinstance(one, Mapping) or {'boxes', 'labels', 'scores'} - one.keys():
            raise InputError(f'decode gives {shown(one)} for an image: {CONTRACT}')
        boxes, labels, scores = (one[name] for name in ('boxes', 'labels', 'scores'))
        fits = all(isinstance(part, Tensor) for part in (boxes, labels, scores))
        fits = fits and boxes.shape == (*scores.shape, 4) and labels.shape == scores.shape
        if not fits or scores.ndim != 1 or labels.dtype != torch.int64:
            raise InputError(f'decode gives boxes {kind_of(boxes)}, labels {kind_of(labels)} and scores '
                             f'{kind_of(scores)}: {CONTRACT}')


def _check_values(found: Sequence[Found]) -> None:
    """Refuse candidates whose numbers make no sense."""
    for one in found:
        scores, labels = one['scores'], one['labels']
        if not len(scores):
            continue
        if not (scores.min() >= 0 and scores.max() <= 1):
            raise InputError(f'decode: scores reach from {scores.min():.3g} to {scores.max():.3g}, '
                             'expected probabilities in [0, 1]: apply the sigmoid or softmax')
        if labels.min() < 0:
            raise InputError(f'decode: label {int(labels.min())}, expected class indices of at '
                             'least 0')
