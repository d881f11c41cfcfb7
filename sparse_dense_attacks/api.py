"""Attacks without a config: one call on a model and a batch of images."""
from collections.abc import Sequence, Sized
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .attacks import Attack
from .attacks.base import warn_if_random
from .checks import check_task, check_value, is_count, shown
from .defences import Defence
from .errors import InputError
from .objectives import Untargeted, UntargetedPixels, Vanish
from .objectives.expected import expected
from .ops import to_8bit
from .registry import ATTACKS, GOALS, Config
from .threat_model import ThreatModel
from .types import AttackResult
from .victims import TorchClassifier, TorchSegmenter, library_of, plain_victim, unwrapped, wrap
from .victims.base import Scene, Victim
from .victims.context import gradients
from .victims.surroundings import surrounded

__all__ = ['attack']

DEFAULTS = {'classification': Untargeted, 'segmentation': UntargetedPixels, 'detection': Vanish}


def attack(model, images, labels=None, attack: Attack | Config = 'sigma_zero', *,
           goal=None, threat: ThreatModel | dict | None = None, batch_size: int | None = None,
           keys: list | None = None, region: Tensor | None = None, targets: Tensor | None = None,
           seed: int | None = None, eight_bit: bool | None = None,
           max_forwards: int | None = None, where=None, rechecks: int | None = None,
           defence: Defence | Config | None = None, **options) -> AttackResult:
    """Attack a batch.

    Args:
        model: a module from [0, 1] images to logits (a classifier), to logits per pixel (a
            segmenter) or a mapping with these under 'logits' or 'out'; a detector of torchvision;
            a victim; or a model of mmdet, mmseg or mmpretrain, bare or in a wrapper (DataParallel,
            torch.compile and the like).
        images: (B, C, H, W) float in [0, 1]; for the OpenMMLab libraries a batch of their own test
            dataloader.
        labels: (B,) int64 class indices; of segmenters (B, H', W'); of detectors for each image a
            dict of ``boxes`` (G, 4), x1 y1 x2 y2 in its pixels, and ``labels`` (G,); None for
            OpenMMLab batches, which hold them.
        attack: an attack, its name (``'sigma_zero'``, ``'SparsePGD'``) with its ``options``, or a
            config dict.
        goal: a goal, its name or config; by default ``Untargeted``, ``UntargetedPixels`` or
            ``Vanish``, as the model's task is.
        threat: what the attacker may do, a :class:`~sparse_dense_attacks.ThreatModel` or a dict of
            its fields.
        batch_size: images attacked together, 128 by default; no result depends on it. An OpenMMLab
            batch stays whole.
        keys: one id per image; positions by default, an OpenMMLab batch has its own.
        region: (B, 1, H, W) bool, pixels that may change; all by default. H and W of an OpenMMLab
            batch are those of its largest image, or file on the original grid.
        targets: (B,) int64, the classes a targeted goal has to reach.
        seed, eight_bit, max_forwards, where, rechecks: single fields of the threat model, in place
            of ``threat``.
        defence: what happens to images before the model sees them, a
            :class:`~sparse_dense_attacks.defences.Defence`, its name or config. The attack looks
            through it, and the model behind it judges.

    Returns:
        An :class:`AttackResult`, every entry in the order of the images.

    Raises:
        InputError: whatever does not fit the model or the images, or would be ignored.

    Example:
        >>> from sparse_dense_attacks.testing import Net, pictures
        >>> model, images = Net(), pictures(4, 3, 8, 8)
        >>> result = attack(model, images, model(images).argmax(1), 'sparse_pgd', k=20, steps=100)
        >>> result.success.tolist(), bool((result.l0_pixels <= 20).all())
        ([True, True, True, True], True)
    """
    if options and not isinstance(attack, str | dict):
        raise InputError(f'options {", ".join(options)} belong to an attack given by name; this '
                         'one is built already')
    check_value('attack', attack)
    attack = ATTACKS.build(attack, **options)
    if goal is not None:
        check_value('goal', goal)
        goal = GOALS.build(goal)
    fields = _given(seed=seed, eight_bit=eight_bit, max_forwards=max_forwards, where=where,
                    rechecks=rechecks)
    threat = ThreatModel.build(threat, fields, 'attack()')
    victim = _victim(model, images, None if goal is None else goal.task)
    goal = DEFAULTS[victim.task]() if goal is None else goal
    if defence is not None:
        check_value('defence', defence)
        victim = replace(victim, defence=defence)  # type: ignore[type-var]  # is a dataclass
    check_task(goal, victim.task)
    if keys is not None and not isinstance(keys, Sequence):
        raise InputError(f'keys: expected one id per image, found {_found(keys)}')
    keys = None if keys is None else list(keys)
    given = _given(labels=labels, region=region, targets=targets, keys=keys, batch_size=batch_size)
    _check(victim, images, given)

    def run(scene: Scene, first: bool) -> AttackResult:
        scene = scene.restricted(threat.where(scene))
        objective = expected(goal.objective(scene), victim.draws)
        # plain tensors are RGB unless the attack says otherwise
        objective = surrounded(objective, attack, scene, 'rgb' if victim.takes else None)
        known = victim.defence is not None and victim.defence.random
        # that takes two forwards, which a budget of them does not allow
        if first and threat.rechecks == 1 and threat.max_forwards is None and not known:
            warn_if_random(objective)
        result = attack(objective, threat.seed, threat.eight_bit, threat.max_forwards,
                        threat.rechecks)
        if not threat.limited:
            return result
        sizes = [geometry.input for geometry in scene.geometry]
        allowed = threat.extent(to_8bit(objective.images), to_8bit(result.images), sizes).allowed
        return replace(result, success=result.success & allowed,
                       success_float=result.success_float & allowed)

    if threat.grid == 'original':
        return _on_files(victim, images, attack, goal, threat, region)
    with gradients(victim.model), victim.session():
        if not victim.takes:
            return run(victim.open(images).restricted(region), True)
        keys, batch_size = given.pop('keys', range(len(images))), given.pop('batch_size', 128)
        parts: list[AttackResult] = []
        for rows in torch.arange(len(images)).split(batch_size):
            part = {name: _of_rows(value, rows) for name, value in given.items()}
            scene = victim.open(images[rows], **part, keys=[keys[r] for r in rows])
            parts.append(run(scene, not parts))
    return AttackResult.joined(parts)


def _on_files(victim: Victim, images, attack: Attack, goal, threat: ThreatModel,
              region: Tensor | None) -> AttackResult:
    """Attack the files behind a batch of an OpenMMLab library's test dataloader."""
    if victim.takes:
        raise InputError(f"threat.grid = 'original': images of {type(victim).__name__} come from "
                         'memory and not through a test pipeline from files; expected a model of '
                         "mmdet, mmseg or mmpretrain, or grid='input'")
    from .engine.attacker import Attacker  # needs mmengine, as these libraries do
    from .engine.files import FileGrid
    attacker = Attacker(victim, attack, goal, threat, FileGrid.of_model(victim.model))
    return attacker.perturb(images, region).result


def _given(**arguments: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


def _check(victim: Victim, images, given: dict) -> None:
    """Refuse images the victim cannot open, and arguments that do not fit them or that it would not look at."""
    name, tensors = type(victim).__name__, bool(victim.takes)
    fits = isinstance(images, Tensor) and images.ndim == 4 if tensors else isinstance(images, dict)
    if not fits:
        expected = "a batch (dict) of its library's test dataloader"
        expected = 'a tensor (B, C, H, W)' if tensors else expected
        raise InputError(f'images: {name} takes {expected}, found {_found(images)}')
    for argument, value in given.items():
        if argument not in (*victim.takes, 'batch_size' if tensors else 'region'):
            raise InputError(f'{argument}: {name} has no use for it, so leave it out')
        if argument == 'batch_size' and not is_count(value):
            raise InputError(f'batch_size = {shown(value)}, expected an int >= 1')
        if argument == 'keys' and len(value) != len(images):
            raise InputError(f'keys: expected one id per image ({len(images)}), found '
                             f'{_found(value)}')
        if argument == 'region' and not isinstance(value, Tensor):
            raise InputError(f'region: expected a bool tensor, found {_found(value)}')
        if argument == 'labels' and victim.task == 'detection':
            if not isinstance(value, list | tuple) or len(value) != len(images):
                raise InputError('labels: expected a list with a dict of boxes and labels for each '
                                 f'image ({len(images)}), found {_found(value)}')
        elif argument in ('labels', 'region', 'targets') and tensors and (
                not isinstance(value, Tensor) or value.shape[:1] != images.shape[:1]):
            raise InputError(f'{argument}: expected a tensor with one entry per image '
                             f'({len(images)}), found {_found(value)}')


def _of_rows(value: Any, rows: Tensor) -> Any:
    """Entries of a tensor, or of a list."""
    return value[rows] if isinstance(value, Tensor) else [value[r] for r in rows.tolist()]


def _found(value) -> str:
    if isinstance(value, Tensor):
        return f'{value.dtype} {tuple(value.shape)}'
    return type(value).__name__ + (f' of {len(value)}' if isinstance(value, Sized) else '')


def _victim(model, images, task: str | None) -> Victim:
    """What attacks the model; of a plain one the task decides, or what it says of an image."""
    if not isinstance(model, nn.Module):
        if not isinstance(model, Victim):
            raise InputError('model: expected a torch.nn.Module or a victim, found '
                             f'{type(model).__name__}')
        return model
    model = unwrapped(model)
    if library_of(model):
        return wrap(model)
    if task == 'segmentation':
        return TorchSegmenter(model)
    fit = isinstance(images, Tensor) and images.ndim == 4 and images.is_floating_point()
    if task == 'classification' or not fit:
        return TorchClassifier(model)
    return plain_victim(model, images)
