"""Goals on class logits."""
import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_int, check_text, shown
from ..errors import InputError
from ..registry import GOALS, nearest
from ..types import Verdict
from .base import Objective

__all__ = ['Targeted', 'Untargeted']


class _ClassificationObjective(Objective):
    """``scene`` offers ``images``, ``region``, ``keys``, ``labels`` (B,) and ``logits(x, rows) -> (b, K)``."""

    def __init__(self, scene):
        self.scene = scene
        self.images, self.region = scene.images, scene.region
        self.keys = scene.keys

    @cached_property
    def clean_logits(self) -> Tensor:
        if self.scene.clean_logits is not None:
            return _single(self.scene.clean_logits)
        with torch.no_grad():
            return self._logits(self.images, torch.arange(len(self.images)))

    @cached_property
    def clean(self) -> Verdict:
        return self.judge(self.clean_logits, torch.arange(len(self.images)))

    @property
    def eligible(self) -> Tensor:
        return self.clean_logits.argmax(1) == self.scene.labels

    def __call__(self, x: Tensor, rows: Tensor) -> Verdict:
        return self.judge(self._logits(x, rows), rows)

    def _logits(self, x: Tensor, rows: Tensor) -> Tensor:
        return _single(self.scene.logits(x, rows))

    def judge(self, logits: Tensor, rows: Tensor) -> Verdict:
        """What logits (b, K) of the images ``rows`` mean for the goal."""
        raise NotImplementedError


def _single(logits: Tensor) -> Tensor:
    """In single precision at least: losses are, of models that compute in half precision, too."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@GOALS.register_module()
@dataclass(frozen=True)
class Untargeted:
    """Any wrong class.

    ``loss`` is the cross-entropy of the true class, ``margin`` the true logit less the largest other one, ``success`` a different
    arg max.
    """
    task: ClassVar[str] = 'classification'

    def objective(self, scene) -> '_UntargetedObjective':
        return _UntargetedObjective(scene)


class _UntargetedObjective(_ClassificationObjective):

    @cached_property
    def defined(self) -> Tensor:
        return torch.ones(len(self.images), dtype=torch.bool, device=self.images.device)

    def judge(self, logits: Tensor, rows: Tensor) -> Verdict:
        labels = self.scene.labels[rows]
        classes = logits.shape[1]
        turn = (labels[:, None] + torch.arange(classes, device=logits.device)) % classes
        turned = logits.gather(1, turn)  # the true class first
        return Verdict(loss=F.cross_entropy(logits, labels, reduction='none'),
                       margin=turned[:, 0] - turned[:, 1:].amax(1),
                       success=logits.argmax(1) != labels, logits=turned)


RULES = ('least_likely', 'runner_up', 'random')


@GOALS.register_module()
@dataclass(frozen=True)
class Targeted:
    """One certain wrong class.

    ``loss`` is minus the cross-entropy of the target, ``margin`` the largest other logit less the target's, ``success`` the
    target as arg max. An image that the model already takes for its target is a success as it is. Where the target is the true
    class there is nothing to attack and success is undefined.

    Args:
        target: a class; 'least_likely' or 'runner_up', the class with the smallest or largest logit on the clean image, the true
            one apart; 'random', any class but the true one; a dict from sample key to class; the path of a CSV file; or None for
            the ``targets`` that were given with the images. Dict and file may name an image by its key, or by its file name with
            or without the extension.
        seed: with a sample's key it decides the class of 'random'.
        key_column, target_column: names of the CSV file's columns; the defaults are those of the NIPS 2017 development set.
        offset: what dict and file call the first class; 1 for NIPS 2017.

    Raises:
        InputError: no such rule or file; no target, or one outside the model's classes, for an image.
    """
    task: ClassVar[str] = 'classification'
    target: int | str | Mapping | None = None
    seed: int = 0
    key_column: str = 'ImageId'
    target_column: str = 'TargetClass'
    offset: int = 0

    def __post_init__(self):
        known = isinstance(self.target, Mapping | Path | int | None) and self.target != {}
        if isinstance(self.target, str):
            known = self.target in RULES or self.target.endswith('.csv')
        if not known or isinstance(self.target, bool):
            raise InputError(f'Targeted: target = {shown(self.target)}, expected a class, a dict '
                             f"from key to class, a .csv file or one of {', '.join(RULES)}; "
                             f'{nearest(shown(self.target), RULES)}')
        if isinstance(self.target, int):
            check_int(self, 'target', low=None)
        check_int(self, 'seed', low=None)
        check_int(self, 'offset', low=None)
        check_text(self, 'key_column')
        check_text(self, 'target_column')
        _ = self.entries  # a bad list is refused before the first image

    @cached_property
    def entries(self) -> dict[str, int] | None:
        """The listed classes, counted from 0; None if the target is no list."""
        listed: Iterable[tuple]
        if isinstance(self.target, Mapping):
            listed = self.target.items()
        elif isinstance(self.target, Path | str) and self.target not in RULES:
            try:
                listed = self._rows(Path(self.target))
            except UnicodeDecodeError as error:
                raise InputError(f'Targeted: {self.target} is no UTF-8 text ({error.reason}): '
                                 'save it as UTF-8') from error
        else:
            return None
        return {str(key): _class_index(key, entry) - self.offset for key, entry in listed}

    def _rows(self, path: Path) -> list[tuple[str, str]]:
        if not path.is_file():
            raise InputError(f'Targeted: no file {path}')
        with path.open(newline='', encoding='utf-8-sig') as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            for column in (self.key_column, self.target_column):
                if column not in columns:
                    hint = nearest(column, columns)
                    raise InputError(f"Targeted: {path} has no column '{column}', {hint}; "
                                     'set key_column and target_column')
            return [(row[self.key_column], row[self.target_column]) for row in reader]

    def objective(self, scene) -> '_TargetedObjective':
        return _TargetedObjective(self, scene)

    def choose(self, scene, clean_logits: Tensor) -> Tensor:
        """The target of every image, (B,) int64.

        Args:
            scene: offers ``keys``, ``labels`` and ``targets`` (None unless they were given).
            clean_logits: (B, K).
        """
        labels, classes = scene.labels, clean_logits.shape[1]
        if self.target is None:
            targets = scene.targets
            if targets is None:
                raise InputError('Targeted without targets: set its target, for example '
                                 "target='least_likely', or give targets with the images")
        elif self.entries is not None:
            targets = labels.new_tensor(self.listed(scene.keys))
        elif isinstance(self.target, int):
            targets = torch.full_like(labels, self.target)
        elif self.target == 'random':
            draws = labels.new_tensor([_draw(self.seed, key, classes - 1) for key in scene.keys])
            targets = draws + (draws >= labels)
        elif self.target == 'least_likely':
            targets = clean_logits.scatter(1, labels[:, None], torch.inf).argmin(1)
        else:  # the runner-up
            targets = clean_logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
        for key, target in zip(scene.keys, targets.tolist(), strict=True):
            if not 0 <= target < classes:
                raise InputError(f"Targeted: image '{key}' has target {target}, but the model's "
                                 f'classes are 0 to {classes - 1}; a list that counts from 1 needs '
                                 'offset=1')
        return targets

    def listed(self, keys: Sequence) -> list[int]:
        """The listed class of each image.

        Raises:
            InputError: an image is not in the list, or two share a name and with it an entry.
        """
        entries = self.entries or {}
        owner: dict[str, str] = {}
        found = []
        for key in map(str, keys):
            path = PurePath(key)
            name = next((name for name in (key, path.name, path.stem) if name in entries), None)
            if name is None:
                raise InputError(f"Targeted: no target for image '{key}'; the list has "
                                 f'{len(entries)} images, for example '
                                 f"{', '.join(list(entries)[:3])}")
            if owner.setdefault(name, key) != key:
                raise InputError(f"Targeted: '{name}' in the list fits two images, "
                                 f"'{owner[name]}' and '{key}': give their keys there")
            found.append(entries[name])
        return found


class _TargetedObjective(_ClassificationObjective):

    def __init__(self, goal: Targeted, scene):
        super().__init__(scene)
        self.targets = goal.choose(scene, self.clean_logits)
        self.defined = self.targets != scene.labels
        self.region = self.region & self.defined[:, None, None, None]

    def judge(self, logits: Tensor, rows: Tensor) -> Verdict:
        targets = self.targets[rows]
        target = logits.gather(1, targets[:, None])[:, 0]
        others = logits.scatter(1, targets[:, None], -torch.inf).amax(1)
        return Verdict(loss=-F.cross_entropy(logits, targets, reduction='none'),
                       margin=others - target,
                       success=(logits.argmax(1) == targets) & self.defined[rows])


def _class_index(key, entry) -> int:
    try:
        index = int(entry)
    except (TypeError, ValueError, OverflowError):
        index = None
    if index is None or isinstance(entry, bool | float) or abs(index) >= 2 ** 63:
        raise InputError(f"Targeted: the target of image '{key}' is {shown(entry)}, expected the "
                         'number of a class')
    return index


def _draw(seed: int, key, count: int) -> int:
    """A number below ``count`` that depends on seed and key only."""
    name = f'target\0{seed}\0{key}'.encode(errors='surrogateescape')  # it may be no UTF-8
    digest = hashlib.blake2b(name, digest_size=8).digest()
    return int.from_bytes(digest, 'little') % count
