"""Curves of a training run's validations on clean and on attacked data."""
import json
from pathlib import Path

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...evaluation import draw_validations
from ...results import ResultStore

__all__ = ['ValidationCurveHook']


@HOOKS.register_module()
class ValidationCurveHook(Hook):
    """Keeps the metrics of every validation by an AttackValLoop in ``validations.json`` and draws
    them: ``curves.png``.

    A resumed training run goes on with both.
    """
    priority = 'VERY_LOW'

    def __init__(self):
        self.history: list[dict] = []

    def before_train(self, runner) -> None:
        path = Path(runner.work_dir) / 'validations.json'
        if runner.iter and path.is_file():
            earlier = json.loads(path.read_text())
            self.history = [one for one in earlier if one['iter'] <= runner.iter]

    @master_only
    def after_val_epoch(self, runner, metrics=None) -> None:
        scores = {name: value for name, value in metrics.items()
                  if name.startswith(('clean/', 'adv/')) and np.isscalar(value)}
        self.history.append(dict(epoch=runner.epoch, iter=runner.iter, **scores))
        store = ResultStore(runner.work_dir)
        store.write_json('validations.json', self.history)
        draw_validations(self.history, store.work_dir / 'curves.png')
