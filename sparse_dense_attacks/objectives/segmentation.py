"""Goals on class logits per pixel; they know no model library."""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_flag, check_int, check_number, class_index, files_for, shown
from ..errors import InputError
from ..registry import GOALS
from ..types import Verdict
from .base import Objective

__all__ = ['TargetedPixels', 'UntargetedPixels']

FREE = 255  # in a label map: anything will do


@dataclass(frozen=True)
class _PixelGoal:
    """
    Args:
        theta: share of the pixels that have to be as wanted.
        reweight: spend loss and gradient on the other pixels only.
    """
    task: ClassVar[str] = 'segmentation'
    theta: float = 0.99
    reweight: bool = True

    def __post_init__(self):
        check_number(self, 'theta', 0, 1, high_ok=True)
        check_flag(self, 'reweight')


class _PixelObjective(Objective):
    """``sign * gap`` is the margin of each pixel, where ``gap`` is the logit of its class less the largest other one.

    ``scene`` offers ``images``, ``region``, ``keys``, ``labels`` and ``valid`` (B, H', W'), ``shapes`` (height and width of each
    image's labels), ``classes`` (names or None) and ``logits(x, rows) -> (b, K, H', W')``.

    Attributes:
        pixels: (B, H', W') bool, the pixels that count.
        wanted: (B, H', W') int64, the class each of them is to leave (``sign`` 1) or to reach (``sign`` -1).
        parts: (B,) int64, how many count.
    """
    sign: ClassVar[int]
    parts: Tensor

    def __init__(self, goal, scene):
        self.goal, self.scene = goal, scene
        self.images, self.keys = scene.images, scene.keys
        rows = torch.arange(len(self.images))
        with torch.no_grad():
            logits = scene.logits(self.images, rows)
            self.pixels, self.wanted = self.choose(logits)
            self.parts = self.pixels.flatten(1).sum(1)
            self.clean = self.judge(logits, rows)
        self.region = scene.region & (self.parts > 0)[:, None, None, None]

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """``pixels`` and ``wanted``, given the clean logits (B, K, H', W')."""
        raise NotImplementedError

    def share(self, x: Tensor, rows: Tensor) -> Tensor:
        """(b,) float64, share of the pixels of candidates ``x`` that are as wanted, NaN for images without such pixels.

        Success at any theta can be read from it; costs one forward.
        """
        with torch.no_grad():
            return self._share(self._done(self.scene.logits(x, rows), rows), rows)

    def _done(self, logits: Tensor, rows: Tensor) -> Tensor:
        """(b, H', W') bool, pixels that are as wanted."""
        # not argmax, which takes a CPU several times as long for the same
        return self.pixels[rows] & ((logits.max(1).indices == self.wanted[rows]) == (self.sign < 0))

    def _share(self, done: Tensor, rows: Tensor) -> Tensor:
        return done.flatten(1).sum(1).double() / self.parts[rows]

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        return self.judge(self.scene.logits(x, rows), rows)

    def judge(self, logits: Tensor, rows: Tensor) -> Verdict:
        pixels, wanted = self.pixels[rows], self.wanted[rows]
        done = self._done(logits, rows)
        others = logits.scatter(1, wanted[:, None], -torch.inf).amax(1)
        gap = logits.gather(1, wanted[:, None])[:, 0] - others
        loss = self.sign * F.cross_entropy(logits, wanted, reduction='none')
        if self.goal.reweight:
            # The most that a pixel which is not done can reach, so that another pixel done never lowers the loss.
            loss = torch.where(done, math.log(logits.shape[1]) if self.sign > 0 else 0., loss)
        success = ~(self._share(done, rows) < self.goal.theta)  # true where no pixel counts
        count = self.parts[rows].clamp(min=1)
        margin = _sum(self.sign * gap, pixels & ~done) / count * ~success
        return Verdict(loss=_sum(loss, pixels) / count, margin=margin, success=success)


def _sum(values: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, values, 0).flatten(1).sum(1)


@GOALS.register_module()
@dataclass(frozen=True)
class UntargetedPixels(_PixelGoal):
    """Any wrong class for the pixels that are right on the clean image.

    ``loss`` is their mean cross-entropy, where a fooled pixel counts ``log K`` and draws no gradient (``reweight``).
    ``margin`` is the mean of how far the true logit is above the largest other one, 0 for fooled pixels. ``success``: at least
    ``theta`` of them are fooled. Pixels without a class never count. An image that has no others is left alone and its success
    undefined; one without a pixel that is right is left alone and counts as broken before the attack.

    Args:
        theta: share of these pixels that has to be fooled. The default is the convention for dense attacks; few changed pixels
            rarely reach it, so read the share of fooled pixels as well.
        reweight: let fooled pixels draw no gradient. False ascends the plain cross-entropy, which a few pixels can dominate.
    """

    def objective(self, scene) -> '_PixelObjective':
        return _UntargetedPixelsObjective(self, scene)


class _UntargetedPixelsObjective(_PixelObjective):
    sign = 1

    def choose(self, logits):
        labels, valid = self.scene.labels, self.scene.valid
        return valid & (logits.argmax(1) == labels), labels

    @property
    def eligible(self) -> Tensor:
        return self.parts > 0

    @property
    def defined(self) -> Tensor:
        return self.scene.valid.flatten(1).any(1)


@GOALS.register_module()
@dataclass(frozen=True)
class TargetedPixels(_PixelGoal):
    """A class of the attacker's choice for every pixel that counts; give ``target`` or ``erase``.

    The pixels that count are those whose true class is another one; where there are none, nothing is attacked and success is
    undefined. ``loss`` is minus the mean cross-entropy of the wanted classes, where a pixel that carries its target counts 0 and
    draws no gradient (``reweight``). ``margin`` is the mean of how far the largest other logit is above the wanted one, 0 for
    pixels that carry their target. ``success``: at least ``theta`` of the pixels carry it. An image counts in the success rate if
    the clean one is no success yet.

    Args:
        theta: share of the pixels that has to carry its target.
        reweight: let pixels that carry their target draw no gradient.
        target: a class index for all pixels, or a folder with a label map for each image, in the
            size of the ground truth; values are class indices, 255 (or transparent) where anything
            will do. The map of ``seq1/0001.jpg`` is ``seq1/0001.png`` in that folder, or
            ``0001.png`` if no other image is called so; or it has the sample id for a name.
        erase: class index or name. Pixels of that class are to become what the model finds
            likeliest, on the clean image, among the other classes.

    Raises:
        InputError: both or neither given, no such class, folder or label map, a label map of
            another size or one that fits two images.
    """
    target: int | str | Path | None = None
    erase: int | str | None = None

    def __post_init__(self):
        super().__post_init__()
        given = self.erase if self.target is None else self.target
        kinds = int | str if self.target is None else int | str | Path
        if ((self.target is None) == (self.erase is None) or isinstance(given, bool)
                or not isinstance(given, kinds)):
            raise InputError('TargetedPixels: give either target (a class index, or a folder of '
                             'label maps) or erase (a class index or name), found target = '
                             f'{shown(self.target)} and erase = {shown(self.erase)}')
        if isinstance(given, int):
            check_int(self, 'erase' if self.target is None else 'target', low=None)
        if isinstance(self.target, str | Path) and not Path(self.target).is_dir():
            raise InputError(f"TargetedPixels: target = '{self.target}' is no folder; expected a "
                             'class index, or a folder of label maps')

    @property
    def folder(self) -> Path | None:
        """The folder of label maps, None for a class."""
        return None if self.target is None or isinstance(self.target, int) else Path(self.target)

    def files_for(self, images: Sequence[str], keys: Sequence) -> list[Path]:
        """The label map of each image, by its file or by its sample id."""
        folder = Path(str(self.target))
        ids = [folder / f'{key}.png' for key in keys]
        if all(path.is_file() for path in ids):
            return ids
        return files_for(folder, images, 'TargetedPixels: label map')

    def objective(self, scene) -> '_PixelObjective':
        return _TargetedPixelsObjective(self, scene)


class _TargetedPixelsObjective(_PixelObjective):
    sign = -1

    def choose(self, logits):
        labels, valid = self.scene.labels, self.scene.valid
        classes = logits.shape[1]
        if self.goal.erase is not None:
            erase = class_index(self.goal.erase, self.scene.classes, classes,
                                'TargetedPixels: erase')
            others = logits.index_fill(1, labels.new_tensor([erase]), -torch.inf)
            return valid & (labels == erase), others.argmax(1)
        if isinstance(self.goal.target, int):
            index = class_index(self.goal.target, None, classes, 'TargetedPixels: target')
            target = torch.full_like(labels, index)
            return valid & (labels != target), target
        target = torch.full_like(labels, FREE)
        images = [str(key) if one.file is None else one.file
                  for key, one in zip(self.keys, self.scene.geometry, strict=True)]
        files = self.goal.files_for(images, self.keys)
        for row, path, (h, w) in zip(target, files, self.scene.shapes, strict=True):
            row[:h, :w] = _label_map(path, (h, w), classes)
        valid, target = valid & (target != FREE), target.where(target != FREE, 0)
        return valid & (labels != target), target

    @property
    def eligible(self) -> Tensor:
        return self.defined & ~self.clean.success

    @property
    def defined(self) -> Tensor:
        return self.parts > 0


def _label_map(path: Path, shape: tuple[int, int], classes: int) -> Tensor:
    """The label map of an image, (h, w) int64."""
    labels = _read(path)
    if labels.shape != shape:
        raise InputError(f"TargetedPixels: '{path}' is {tuple(labels.shape)}, the ground truth "
                         f'{tuple(shape)}')
    stray = labels[(labels >= classes) & (labels != FREE)]
    if len(stray):
        raise InputError(f"TargetedPixels: '{path}' holds {stray[0]}, but the model has {classes} "
                         f'classes (0 to {classes - 1}), and {FREE} is for pixels where anything '
                         'will do')
    return labels


def _read(path: Path) -> Tensor:
    """An index image, (height, width) int64; transparent pixels are free."""
    from PIL import Image
    try:
        with Image.open(path) as image:
            mode, size = image.mode, (image.height, image.width)
            alpha = image.getchannel('A').tobytes() if mode == 'LA' else None
            indices = (image.getchannel('L') if mode == 'LA' else image).tobytes()
    except OSError as error:
        raise InputError(f"TargetedPixels: no label map '{path}', or no readable PNG") from error
    if mode not in ('L', 'LA', 'P'):
        raise InputError(f"TargetedPixels: '{path}' has mode {mode}, expected class indices (one "
                         '8-bit channel)')
    labels = _bytes(indices, size)
    return labels if alpha is None else labels.where(_bytes(alpha, size) > 0, FREE)


def _bytes(content: bytes, size: tuple[int, int]) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(size).long()
