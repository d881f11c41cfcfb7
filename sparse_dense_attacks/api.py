"""Attacks without a config: one call on a model and a batch of images."""
import dataclasses
from functools import partial

import torch
from torch import Tensor, nn

from .attacks import Attack
from .errors import InputError
from .objectives import Untargeted
from .registry import ATTACKS, GOALS
from .types import AttackResult
from .victims import TorchClassifier, wrap

__all__ = ['attack']


def attack(model, images, labels: Tensor | None = None, attack: Attack | dict | str = 'sigma_zero', *, goal=None,
           seed: int = 0, eight_bit: bool = True, max_forwards: int | None = None, batch_size: int = 128,
           keys: list | None = None, region: Tensor | None = None, targets: Tensor | None = None, **options) -> AttackResult:
    """Attack a batch.

    Args:
        model: a module from [0, 1] images to logits, a victim, or a model of mmdet, mmseg or mmpretrain.
        images: (B, C, H, W) float in [0, 1]; for the OpenMMLab libraries a batch of their own test dataloader.
        labels: (B,) int64 class indices, or whatever the victim's ``open`` takes; None for OpenMMLab batches, which hold them.
        attack: an attack, its name (``'sigma_zero'``, ``'SparsePGD'``) with its ``options``, or a config dict.
        goal: a goal, its name or config; any wrong class by default.
        seed: together with an image's key it decides every random draw.
        eight_bit: attack what an 8-bit file can hold (default), or float images as published codes do.
        max_forwards: hard budget of forwards per image.
        batch_size: images attacked together; no result depends on it.
        keys: one id per image; positions by default.
        region: (B, 1, H, W) bool, pixels that may change; all by default.
        targets: (B,) int64, the classes a targeted goal has to reach.

    Returns:
        An :class:`AttackResult`, every entry in the order of the images.

    Example:
        >>> result = attack(model, images, labels, 'sparse_pgd', k=20, steps=100)
        >>> result.success, result.l0_pixels
    """
    if options and not isinstance(attack, str | dict):
        raise InputError(f'options {", ".join(options)} belong to an attack given by name; this one is built already')
    attack, goal = ATTACKS.build(attack, **options), GOALS.build(goal or Untargeted())
    victim = _victim(model)
    if goal.task != victim.task:
        raise InputError(f'{type(goal).__name__} is a goal of {goal.task}, but the model does {victim.task}')
    run = partial(attack, seed=seed, eight_bit=eight_bit, max_forwards=max_forwards)
    with victim.session(), torch.enable_grad():
        if isinstance(images, dict):
            return run(goal.objective(victim.open(images)))
        keys = list(range(len(images))) if keys is None else list(keys)
        given = dict(labels=labels, region=region, targets=targets)
        parts = []
        for rows in torch.arange(len(images)).split(batch_size):
            part = {name: value[rows] for name, value in given.items() if value is not None}
            parts.append(run(goal.objective(victim.open(images[rows], **part, keys=[keys[r] for r in rows]))))
    return AttackResult(*(torch.cat([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(AttackResult)))


def _victim(model):
    if not isinstance(model, nn.Module):
        if not hasattr(model, 'session'):
            raise InputError(f'model: expected a torch.nn.Module or a victim, found {type(model).__name__}')
        return model
    libraries = {base.__module__.partition('.')[0] for base in type(model).__mro__}
    return wrap(model) if libraries & {'mmdet', 'mmseg', 'mmpretrain'} else TorchClassifier(model)
