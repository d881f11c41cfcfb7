"""Attacks without a config: one call on a model and a batch of images."""
import dataclasses
import inspect
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
           seed: int = 0, eight_bit: bool = True, max_forwards: int | None = None, batch_size: int | None = None,
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
        batch_size: images attacked together, 128 by default; no result depends on it. An OpenMMLab batch stays whole.
        keys: one id per image; positions by default, an OpenMMLab batch has its own.
        region: (B, 1, H, W) bool, pixels that may change; all by default. H and W of an OpenMMLab batch are those of its largest
            image.
        targets: (B,) int64, the classes a targeted goal has to reach.

    Returns:
        An :class:`AttackResult`, every entry in the order of the images.

    Raises:
        InputError: whatever does not fit the model or the images, or would be ignored.

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
    given = dict(labels=labels, region=region, targets=targets, keys=keys if keys is None else list(keys), batch_size=batch_size)
    given = {name: value for name, value in given.items() if value is not None}
    _check(victim, images, given)
    run = partial(attack, seed=seed, eight_bit=eight_bit, max_forwards=max_forwards)
    with victim.session(), torch.enable_grad():
        if isinstance(images, dict):
            objective = goal.objective(victim.open(images))
            if region is not None:
                objective.region = objective.region & _fitting(region, objective.region)
            return run(objective)
        keys, batch_size = given.pop('keys', range(len(images))), given.pop('batch_size', 128)
        parts = []
        for rows in torch.arange(len(images)).split(batch_size):
            part = {name: value[rows] for name, value in given.items()}
            parts.append(run(goal.objective(victim.open(images[rows], **part, keys=[keys[r] for r in rows]))))
    return AttackResult(*(torch.cat([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(AttackResult)))


def _check(victim, images, given: dict) -> None:
    """Refuse images the victim cannot open, and arguments that do not fit them or that it would not look at."""
    name, takes, batch = type(victim).__name__, inspect.signature(victim.open).parameters, isinstance(images, dict)
    if batch == ('keys' in takes) or not (batch or (isinstance(images, Tensor) and images.ndim == 4)):
        expected = 'a tensor (B, C, H, W)' if 'keys' in takes else "a batch (dict) of its library's test dataloader"
        raise InputError(f'images: {name} takes {expected}, found {_found(images)}')
    for argument, value in given.items():
        if argument not in (*takes, 'region' if batch else 'batch_size'):
            raise InputError(f'{argument}: {name} has no use for it, so leave it out')
        if argument == 'batch_size' and (not isinstance(value, int) or value < 1):
            raise InputError(f'batch_size = {value!r}, expected an int >= 1')
        if argument == 'keys' and len(value) != len(images):
            raise InputError(f'keys: expected one id per image ({len(images)}), found {_found(value)}')
        if argument in ('labels', 'region', 'targets') and not batch and (
                not isinstance(value, Tensor) or value.shape[:1] != images.shape[:1]):
            raise InputError(f'{argument}: expected a tensor with one entry per image ({len(images)}), found {_found(value)}')


def _fitting(region: Tensor, allowed: Tensor) -> Tensor:
    if not isinstance(region, Tensor) or region.shape != allowed.shape or region.dtype != torch.bool:
        raise InputError(f'region: expected a bool tensor {tuple(allowed.shape)}, found {_found(region)}')
    return region.to(allowed.device)


def _found(value) -> str:
    if isinstance(value, Tensor):
        return f'{value.dtype} {tuple(value.shape)}'
    return type(value).__name__ + (f' of {len(value)}' if hasattr(value, '__len__') else '')


def _victim(model):
    if not isinstance(model, nn.Module):
        if not hasattr(model, 'session'):
            raise InputError(f'model: expected a torch.nn.Module or a victim, found {type(model).__name__}')
        return model
    libraries = {base.__module__.partition('.')[0] for base in type(model).__mro__}
    return wrap(model) if libraries & {'mmdet', 'mmseg', 'mmpretrain'} else TorchClassifier(model)
