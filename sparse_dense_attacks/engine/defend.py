"""Defences in configs: of image files a step of the test pipeline, of network inputs a hook."""
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS

from ..checks import check_value
from ..defences import Defence, defend_batch
from ..errors import InputError
from ..registry import DEFENCES
from ..victims.base import sample_key
from ..victims.pipeline import DEFENDED_AS
from .data import leaves
from .pictures import channel_order, preprocessing

__all__ = ['Defend', 'DefenceHook', 'built_defence', 'defence_of_inputs', 'defend_files',
           'defend_picture', 'defends_files']


def built_defence(cfg: Any) -> Defence:
    """A defence of its name, a dict with a type, or as it is.

    Raises:
        InputError: it is none.
    """
    check_value('defence', cfg)
    defence = DEFENCES.build(cfg)
    if not isinstance(defence, Defence):
        raise InputError(f'defence = {type(defence).__name__}, expected one of '
                         f'{", ".join(DEFENCES)}')
    return defence


def defence_of_inputs(cfg: Any, who: str) -> Defence:
    """A defence of network inputs, for victims that know no other.

    Raises:
        InputError: it is none, or one of files.
    """
    defence = built_defence(cfg)
    if defence.space != 'input':
        raise InputError(f"{who}: defence.space = 'original', but this victim has no test pipeline "
                         "before which files could be defended: leave it out")
    return defence


def defend_picture(defence: Defence, image: np.ndarray, sample: Mapping) -> np.ndarray:
    """What a defence makes of a file as mmcv loads it, (h, w, 3) uint8 BGR.

    Args:
        sample: what is known about the image, by which its draws are found.
    """
    batch = dict(inputs=[torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)])
    [seen] = defend_batch(defence, batch, [sample_key(sample)], 'bgr')['inputs']
    return np.ascontiguousarray(seen.permute(1, 2, 0).numpy())


@TRANSFORMS.register_module()
class Defend:
    """A step of a test pipeline, right after LoadImageFromFile: a defence of the image file.

        dict(type='Defend', defence=dict(type='JPEG', quality=75, space='original'))

    Args:
        defence: a defence, its name or config; its space has to be 'original'.
    """

    def __init__(self, defence: Any):
        self.defence = built_defence(defence)
        if self.defence.space != 'original':
            raise InputError("Defend: defence.space = 'input', expected 'original' for a step of "
                             "the pipeline that sees the file; of network inputs it is a hook's")

    def __call__(self, results: dict) -> dict:
        known = results.pop(DEFENDED_AS, results)
        results['img'] = defend_picture(self.defence, results['img'], known)
        return results


@HOOKS.register_module()
class DefenceHook(Hook):
    """Defends the network inputs of an ordinary test or validation run, under stock scripts.

        custom_hooks = [dict(type='DefenceHook', defence=dict(type='JPEG', quality=75))]

    Beside an AttackHook it comes after the attack, which knows nothing of it; for one that looks
    through the defence it belongs into the AttackHook's ``victim``.

    Args:
        defence: a defence, its name or config; its space has to be 'input'.

    Raises:
        InputError: in a loop of ours, which attacks later than hooks are called.
    """
    priority = 'LOWEST'

    def __init__(self, defence: Any):
        self.defence = built_defence(defence)
        if self.defence.space != 'input':
            raise InputError("DefenceHook: defence.space = 'original', expected 'input'; of files "
                             'it is the step Defend of the test pipeline')

    def before_test(self, runner) -> None:
        self._order(runner, runner.test_dataloader.dataset, runner.test_loop)

    def before_val(self, runner) -> None:
        self._order(runner, runner.val_dataloader.dataset, runner.val_loop)

    def _order(self, runner, dataset, loop) -> None:
        from .loops import AttackLoop, AttackValLoop  # which know of this file
        if isinstance(loop, AttackLoop | AttackValLoop):
            raise InputError(f'DefenceHook: {type(loop).__name__} would attack what is defended '
                             'already: name the defence in its victim, '
                             'victim=dict(defence=dict(type=...))')
        self.order = channel_order(dataset, preprocessing(runner.cfg))

    def before_test_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        keys = [sample_key(sample) for sample in data_batch['data_samples']]
        # in place: the loop goes on with this object
        data_batch.update(defend_batch(self.defence, data_batch, keys, self.order))

    before_val_iter = before_test_iter


def defends_files(dataset: Any) -> bool:
    """Whether a test pipeline of a data set's config defends the files."""
    return any(str(step.get('type')).rpartition('.')[2] == 'Defend'
               for leaf in leaves(dataset) for step in leaf.get('pipeline', ()))


def defend_files(dataset: Any, defence: Mapping) -> None:
    """Put a defence of image files into the test pipelines of a data set's config.

    Raises:
        InputError: a pipeline loads no files.
    """
    for leaf in leaves(dataset):
        names = [str(step.get('type')).rpartition('.')[2] for step in leaf['pipeline']]
        if 'LoadImageFromFile' not in names:
            raise InputError("defence.space = 'original', but the test pipeline has no step "
                             "LoadImageFromFile: set space='input'")
        place = names.index('LoadImageFromFile') + 1
        leaf['pipeline'].insert(place, dict(type='Defend', defence=dict(defence)))
