"""Adversarial training: a hook for ordinary training runs of mmdet, mmseg and mmpretrain."""
import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor

from ...attacks import Attack, BudgetAttack
from ...checks import check_choice, check_config, check_int, check_mapping, check_number
from ...errors import InputError
from ...objectives.divergence import DIVERGENCES
from ...registry import ATTACKS, GOALS
from ...results import describe
from ...threat_model import ThreatModel
from ...victims import unwrapped
from ..attacker import Attacker

__all__ = ['AdversarialTrainingHook']

LOSSES = ('sAT', 'sTRADES')


@HOOKS.register_module()
class AdversarialTrainingHook(Hook):
    """Train on images that are attacked as they come out of the training pipeline.

        custom_hooks = [dict(type='AdversarialTrainingHook', goal=dict(type='Untargeted'), attack=[
            dict(type='SparsePGD', k=120, steps=20, patience=10),
            dict(type='SparsePGD', k=120, steps=20, patience=10, gradient='unprojected')])]

    These are the published settings for CIFAR-10: 20 iterations, patience 10, six times the pixels
    of the evaluation, and projected or unprojected gradients at random. The attack looks at the
    live model in evaluation mode and leaves no trace in it; images it breaks are the first
    successes, images the model gets wrong are trained on as they are (``early_stop``).

    - ``loss='sAT'``: the adversarial images take the place of the clean ones.
    - ``loss='sTRADES'``: the training loss of the clean batch plus ``weight`` times the divergence
      from the clean output to the adversarial one, with a gradient through both: Kullback-Leibler
      of the class probabilities for classifiers (mean of the images) and segmenters (mean of the
      pixels with a class), and of the matched score of every object for detectors.

    Args:
        attack: attack config or object, or a list of them, one of which is drawn for every batch.
        goal: goal config or object.
        loss: 'sAT' or 'sTRADES'.
        weight: of the divergence.
        ratio: share of the images of a batch that are attacked, the first ones.
        warmup: training iterations over which the budget of the attacks grows to their ``k``.
        threat: what the attacker may do, a :class:`~sparse_dense_attacks.ThreatModel` or a dict of
            its fields; every iteration makes a seed of its own from its ``seed``.
        victim: arguments of the victim class.
        **older: single fields of the threat model (``seed``, ``where``, ...), as configs gave them
            before.

    Training images have to be raw pixels in [0, 255], as the pipelines of these libraries yield
    them.

    Reference: arXiv 2405.05075, section on adversarial training; divergence: arXiv 1901.08573.
    """
    # After IterTimerHook has started its clock, and after hooks that change the batch.
    priority = 'VERY_LOW'

    def __init__(self, attack, goal, loss: str = 'sAT', weight: float = 3.0, ratio: float = 1.0,
                 warmup: int = 0, threat: ThreatModel | dict | None = None,
                 victim: dict | None = None, **older):
        self.goal, self.victim = goal, {} if victim is None else victim
        self.loss, self.weight = loss, weight
        self.ratio, self.warmup = ratio, warmup
        check_config(self, 'goal')
        self.goal = GOALS.build(goal)
        check_choice(self, 'loss', LOSSES)
        check_number(self, 'weight')
        check_number(self, 'ratio', 0, 1, high_ok=True)
        check_int(self, 'warmup', low=0)
        check_mapping(self, 'victim')
        listed = isinstance(attack, Sequence) and not isinstance(attack, str) and len(attack) > 0
        self.attacks: list[Any] = list(attack) if listed else [attack]
        for one in self.attacks:
            self.attack = one
            check_config(self, 'attack')
        self.attacks = [ATTACKS.build(one) for one in self.attacks]
        self.attackers: list[Attacker] = []  # from the start of the training on
        self.threat = ThreatModel.build(threat, older, 'AdversarialTrainingHook')
        if self.threat.grid != 'input':
            raise InputError(f"AdversarialTrainingHook: threat.grid = '{self.threat.grid}', but "
                             "training pipelines draw at random, so only 'input' can be attacked")

    def before_train(self, runner) -> None:
        self.model: Any = unwrapped(runner.model)
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise InputError('AdversarialTrainingHook: the model has no parameter to train '
                             '(requires_grad is False everywhere)')
        classes = runner.train_dataloader.dataset.metainfo.get('classes')
        options = dict(boxes_follow_resize=True, classes=classes) | self.victim
        self.attackers = [Attacker.of_model(self.model, one, self.goal, self.threat, **options)
                          for one in self.attacks]

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        seed = self.threat.seed
        # The same in every process.
        attacker = random.Random(f'{seed} {runner.iter}').choice(self.attackers)
        progress = (runner.iter + 1) / self.warmup if self.warmup else 1.0
        attacker = dataclasses.replace(
            attacker, attack=grown(attacker.attack, progress),
            threat=dataclasses.replace(self.threat, seed=seed * 1_000_003 + runner.iter))
        count = math.ceil(self.ratio * len(data_batch['inputs']))
        part = as_test_batch({name: values[:count] for name, values in data_batch.items()})
        try:
            perturbed = attacker.perturb(part)
        except TypeError as error:
            # Runner.call_hook replaces a TypeError by one line that names the hook only.
            raise RuntimeError(f'attack failed: {error}') from error
        if self.loss == 'sTRADES':
            with attacker.victim.session():
                scene = attacker.victim.open(part)
            self._add_divergence(DIVERGENCES[attacker.victim.task], scene, perturbed.result.images)
        else:
            clean, adversarial = data_batch['inputs'][count:], perturbed.batch['inputs']
            joined = isinstance(clean, Tensor)
            data_batch['inputs'] = (torch.cat([adversarial, clean]) if joined
                                    else [*adversarial, *clean])

    def _add_divergence(self, divergence, scene, adversarial: Tensor) -> None:
        """Let the model's next training loss include the divergence."""
        training_loss = self.model.loss

        def loss(inputs, data_samples, **kwargs):
            losses = training_loss(inputs, data_samples, **kwargs)
            return dict(losses, loss_divergence=self.weight * divergence(scene, adversarial))

        # An attribute of the object shadows the method, inside DistributedDataParallel too.
        self.model.loss = loss

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        vars(self.model).pop('loss', None)
        for name, value in (outputs or {}).items():
            if 'loss' in name and not torch.as_tensor(value).isfinite():
                raise InputError(f'{name} is {float(value)} at iteration {runner.iter + 1}: '
                                 'training stops; the checkpoints saved before, in '
                                 f'{runner.work_dir}, are good')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['adversarial_training'] = self._described()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        before, now = checkpoint.get('adversarial_training'), self._described()
        if before is not None and before != now:
            changed = ', '.join(f'{name}: {before.get(name)} before, {now[name]} now'
                                for name in now if before.get(name) != now[name])
            runner.logger.warning(f'this checkpoint was trained otherwise ({changed})')

    def before_test(self, runner) -> None:
        if not self.attackers:
            runner.logger.warning('AdversarialTrainingHook acts in training only; AttackHook '
                                  'attacks a test run')

    def _described(self) -> dict:
        return dict(attack=[describe(one) for one in self.attacks],
                    goal=describe(GOALS.build(self.goal)), loss=self.loss, weight=self.weight,
                    ratio=self.ratio, warmup=self.warmup)


def grown(attack: Attack, progress: float) -> Attack:
    """The attack with a budget grown to this share of its ``k``; those without one as they are."""
    if progress >= 1 or not isinstance(attack, BudgetAttack) or isinstance(attack.k, Mapping):
        return attack
    k = attack.k * progress
    return dataclasses.replace(attack, k=max(round(k), 1) if isinstance(attack.k, int) else k)


def as_test_batch(data_batch: dict) -> dict:
    """A training batch as a test batch: what the pipeline made of an image is the original.

    Otherwise a victim would undo the flip or the resize, or take a random crop for a letterbox.
    """
    samples = []
    for image, sample in zip(data_batch['inputs'], data_batch['data_samples'], strict=True):
        size = tuple(image.shape[-2:])
        sample = sample.new()
        sample.set_metainfo(dict(ori_shape=size, img_shape=size, pad_shape=size,
                                 scale_factor=(1.0, 1.0), flip=False))
        samples.append(sample)
    return dict(data_batch, data_samples=samples)
