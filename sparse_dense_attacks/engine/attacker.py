"""Perturbs one batch of a test dataloader; loops and hooks share it."""
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import Attack
from ..attacks.base import warn_if_random
from ..checks import check_config, check_task, files_for, shown
from ..errors import InputError
from ..objectives import Targeted, TargetedPixels
from ..registry import ATTACKS, GOALS, Config
from ..threat_model import ThreatModel
from ..types import AttackResult
from ..victims import wrap
from ..victims.base import Victim, sample_key
from ..victims.context import gradients
from ..victims.geometry import trace_content
from .data import victim_options
from .truth import check_truth

__all__ = ['Attacker', 'Perturbed', 'attacker_for', 'with_inputs']


@dataclass(frozen=True)
class Perturbed:
    """An attacked batch.

    Attributes:
        batch: the data batch with adversarial inputs, ready for ``model.test_step``.
        keys: sample ids.
        result: what the attack reports, on padded images.
    """
    batch: dict
    keys: Sequence
    result: AttackResult


@dataclass(frozen=True)
class Attacker:
    """An attack with a goal on a victim under a threat model, for batch after batch.

    Args:
        victim: the model, made attackable.
        attack: an attack, its name or config.
        goal: a goal, its name or config.
        threat: what the attacker may do.

    Raises:
        InputError: the goal is one of another task.
    """
    victim: Victim
    attack: Attack | Config
    goal: Any
    threat: ThreatModel = ThreatModel()
    asked: list = field(default_factory=list, repr=False, compare=False)  # whether random, once

    def __post_init__(self):
        check_config(self, 'attack')
        check_config(self, 'goal')
        object.__setattr__(self, 'attack', ATTACKS.build(self.attack))
        object.__setattr__(self, 'goal', GOALS.build(self.goal))
        check_task(self.goal, self.victim.task)

    @classmethod
    def of_model(cls, model: nn.Module, attack: Attack | Config, goal,
                 threat: ThreatModel | dict | None = None, **options) -> 'Attacker':
        """For a model of an OpenMMLab library (unwrapped from distributed training).

        Args:
            **options: arguments of the victim class.
        """
        return cls(wrap(model, **options), attack, goal, ThreatModel.build(threat))

    def perturb(self, data_batch: dict) -> Perturbed:
        """Attack a batch of raw images; neither the batch nor the model is changed.

        The stock test loops run hooks under ``no_grad``, so gradients are switched on here.

        An image that failed in company is attacked once more alone: some heads let a non-finite
        image poison its neighbours (mmdet's RoI extractors add zero times the sum of unused
        levels), and results must not depend on the batch.
        """
        with gradients(self.victim.model), self.victim.session():
            keys, result = self._attack(data_batch)
            for row in result.failed.nonzero()[:, 0].tolist() if len(keys) > 1 else ():
                one = {name: [values[row]] for name, values in data_batch.items()}
                _, alone = self._attack(one)
                result = result.with_row(row, alone)
        return Perturbed(with_inputs(data_batch, result.images), keys, result)

    def _attack(self, data_batch: dict) -> tuple[Sequence, AttackResult]:
        scene = self.victim.open(data_batch)
        objective = self.goal.objective(scene.restricted(self.threat.where(scene)))
        threat = self.threat
        if threat.rechecks == 1 and not self.asked:
            self.asked.append(True)
            warn_if_random(objective)
        result = self.attack(objective, threat.seed, threat.eight_bit,
                             threat.max_forwards, threat.rechecks)
        return scene.keys, result


def attacker_for(runner, dataset, victim: dict | None, attack, goal,
                 threat: ThreatModel) -> Attacker:
    """The attacker of a runner's model on a data set of the same classes.

    Args:
        victim: arguments of the victim class beside those that the data set decides.

    Raises:
        InputError: another number of classes, or annotations that :func:`check_truth` refuses.
    """
    if not isinstance(victim, dict | None):
        raise InputError(f'victim = {shown(victim)}, expected a dict of arguments of the victim')
    trace_content(dataset)
    options = victim_options(dataset) | (victim or {})
    attacker = Attacker.of_model(runner.model, attack, goal, threat, **options)
    known, classes = attacker.victim.num_classes, dataset.metainfo.get('classes')
    if known is not None and classes is not None and len(classes) != known:
        raise InputError(f'the model has {known} classes, the data set {len(classes)}: '
                         f'{", ".join(classes[:5])}, ...')
    _check_files(attacker, dataset)
    check_truth(dataset)
    return attacker


def _check_files(attacker: Attacker, dataset) -> None:
    """Refuse, before the first image, files of the user's that are missing or fit two images."""
    where, goal = attacker.threat.where, attacker.goal
    maps = goal if isinstance(goal, TargetedPixels) and goal.folder else None
    classes = goal if isinstance(goal, Targeted) and goal.entries is not None else None
    if where.folder is None and maps is None and classes is None:
        return
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    keys = [sample_key(info) for info in infos]
    files = [info.get('img_path') or key for info, key in zip(infos, keys, strict=True)]
    if where.folder is not None:
        files_for(where.folder, files, 'where: mask')
    if maps is not None:
        maps.files_for(files, keys)
    if classes is not None:
        classes.listed(keys)


def with_inputs(data_batch: dict, images: Tensor) -> dict:
    """A copy of a data batch that shows ``images`` (B, C, H, W) in [0, 1], cropped to each input's
    size, rounded to its type.

    ``inputs`` stays what the data set's collate function made of it, a list or one tensor.
    """
    inputs = []
    for original, image in zip(data_batch['inputs'], images, strict=True):
        h, w = original.shape[-2:]
        pixels = image[:, :h, :w] * 255
        if not original.is_floating_point():
            pixels = pixels.round()
        inputs.append(pixels.to(original))
    batched = isinstance(data_batch['inputs'], Tensor)
    samples = copy.deepcopy(data_batch['data_samples'])
    return dict(data_batch, inputs=torch.stack(inputs) if batched else inputs, data_samples=samples)
