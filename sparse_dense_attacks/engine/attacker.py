"""Perturbs one batch of a test dataloader; the loop and the hook share it."""
import copy
import dataclasses
from dataclasses import dataclass

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from ..attacks import Attack
from ..errors import InputError
from ..registry import ATTACKS, GOALS
from ..types import AttackResult
from ..victims import wrap
from ..victims.where import Where
from .data import victim_options

__all__ = ['Attacker', 'Perturbed', 'attacker_for']


@dataclass(frozen=True)
class Perturbed:
    """An attacked batch.

    Attributes:
        batch: the data batch with adversarial inputs, ready for ``model.test_step``.
        keys: sample ids.
        result: what the attack reports, on padded images.
    """
    batch: dict
    keys: list
    result: AttackResult


class Attacker:
    """Applies an attack with a goal to the batches of a model.

    Args:
        model: the model (unwrapped from distributed training).
        attack: an :class:`~sparse_dense_attacks.attacks.Attack` or its config.
        goal: a goal or its config.
        seed: with a sample's key it decides every random draw.
        eight_bit: attack what an 8-bit file can hold (default), or float images as published codes do.
        max_forwards: hard budget of forwards per image.
        where: which pixels may change, see :class:`Where`.
        **options: arguments of the victim class.
    """

    def __init__(self, model: nn.Module, attack: Attack | dict, goal, seed: int = 0, eight_bit: bool = True,
                 max_forwards: int | None = None, where: Where | dict | str = 'anywhere', **options):
        self.victim = wrap(model, **options)
        self.attack, self.goal = ATTACKS.build(attack), GOALS.build(goal)
        if self.goal.task != self.victim.task:
            fitting = ', '.join(name for name in GOALS if GOALS.get(name).task == self.victim.task)
            name, task = type(self.goal).__name__, self.goal.task
            raise InputError(f'{name} is a goal of {task}, but the model does {self.victim.task}: {fitting}')
        self.seed, self.eight_bit, self.max_forwards, self.where = seed, eight_bit, max_forwards, Where.build(where)

    def perturb(self, data_batch: dict) -> Perturbed:
        """Attack a batch of raw images; neither the batch nor the model is changed.

        The stock test loops run hooks under ``no_grad``, so gradients are switched on here.

        An image that failed in company is attacked once more alone: some heads let a non-finite image poison its neighbours
        (mmdet's RoI extractors add zero times the sum of unused levels), and results must not depend on the batch.
        """
        with self.victim.session(), torch.enable_grad():
            keys, result = self._attack(data_batch)
            for row in result.failed.nonzero()[:, 0].tolist() if len(keys) > 1 else ():
                _, alone = self._attack({name: [values[row]] for name, values in data_batch.items()})
                h, w = alone.images.shape[-2:]
                result.images[row, :, :h, :w] = alone.images[0]
                for field in dataclasses.fields(result):
                    if field.name != 'images':
                        getattr(result, field.name)[row] = getattr(alone, field.name)[0]
        return Perturbed(with_inputs(data_batch, result.images), keys, result)

    def _attack(self, data_batch: dict) -> tuple[list, AttackResult]:
        scene = self.victim.open(data_batch)
        objective, allowed = self.goal.objective(scene), self.where(scene, data_batch['data_samples'])
        if allowed is not None:
            objective.region = objective.region & allowed
        return scene.keys, self.attack(objective, self.seed, self.eight_bit, self.max_forwards)


def attacker_for(runner, dataset, victim: dict | None, **settings) -> Attacker:
    """The attacker of a runner's model on a data set of the same classes."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    attacker = Attacker(model, **settings, **victim_options(dataset) | (victim or {}))
    known, classes = attacker.victim.num_classes, dataset.metainfo.get('classes')
    if known is not None and classes is not None and len(classes) != known:
        raise InputError(f'the model has {known} classes, the data set {len(classes)}: {", ".join(classes[:5])}, ...')
    return attacker


def with_inputs(data_batch: dict, images: Tensor) -> dict:
    """A copy of a data batch that shows ``images`` (B, C, H, W) in [0, 1], cropped to each input's size, rounded to its type.

    ``inputs`` stays what the data set's collate function made of it, a list or one tensor.
    """
    inputs = []
    for original, image in zip(data_batch['inputs'], images, strict=True):
        h, w = original.shape[-2:]
        pixels = image[:, :h, :w] * 255
        if not original.is_floating_point():
            pixels = pixels.round()
        inputs.append(pixels.to(original))
    if isinstance(data_batch['inputs'], Tensor):
        inputs = torch.stack(inputs)
    return dict(data_batch, inputs=inputs, data_samples=copy.deepcopy(data_batch['data_samples']))
