"""The attack under unmodified test scripts."""
import math
import statistics
from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...checks import check_config, check_mapping
from ...registry import ATTACKS, GOALS
from ...threat_model import ThreatModel
from ..attacker import DISAGREES, attacker_for
from ..class_names import check_class_names, names_in_checkpoint
from ..measures import Measures
from ..warn import warn

__all__ = ['AttackHook']


@HOOKS.register_module()
class AttackHook(Hook):
    """Attack every batch of an ordinary test run, under the library's own tools/test.py.

        custom_hooks = [dict(type='AttackHook', attack=dict(type='SparsePGD', k=300),
                             goal=dict(type='Vanish'))]

    The evaluator then reports adversarial metrics. Nothing is stored; for records, pictures and
    clean metrics beside the adversarial ones use
    :class:`~sparse_dense_attacks.engine.loops.AttackLoop`.

    Args:
        attack: attack config or object.
        goal: goal config or object.
        threat: what the attacker may do, a :class:`~sparse_dense_attacks.ThreatModel` or a dict of
            its fields.
        measures: what to measure of every image, such as ``['anc', 'is']``; the evaluator
            ``dict(type='AttackMeasures')`` reports the means.
        victim: arguments of the victim class, for example ``dict(reference='prediction')``.
        **older: single fields of the threat model (``seed``, ``where``, ...), as configs gave them
            before.
    """
    priority = 'VERY_LOW'  # after IterTimerHook has started its clock

    def __init__(self, attack, goal, threat: ThreatModel | dict | None = None,
                 victim: dict | None = None, measures: Sequence = (), **older):
        self.attack, self.goal = attack, goal
        self.victim = {} if victim is None else victim
        check_config(self, 'attack')
        check_config(self, 'goal')
        check_mapping(self, 'victim')
        self.attack, self.goal = ATTACKS.build(attack), GOALS.build(goal)
        self.threat = ThreatModel.build(threat, older, 'AttackHook')
        self.measures = measures
        Measures(measures)  # refused before the first image
        self.loaded: list[dict] = []  # what the weights' file says about itself

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self.loaded = [dict(meta=checkpoint.get('meta'))]

    def before_test(self, runner) -> None:
        dataset = runner.test_dataloader.dataset
        self.attacker = attacker_for(runner, dataset, self.victim, self.attack, self.goal,
                                     self.threat, self.measures)
        for checkpoint in self.loaded:
            check_class_names(names_in_checkpoint(checkpoint), dataset)
        self.successes: list[bool] = []
        self.images = 0
        self.disagreements = 0
        runner.logger.info(f'attack under {self.threat}')

    def before_test_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        try:
            perturbed = self.attacker.perturb(data_batch)
        except TypeError as error:
            # Runner.call_hook replaces a TypeError by one line that names the hook only.
            raise RuntimeError(f'attack failed: {error}') from error
        # in place: the loop goes on with this object
        data_batch.update(self.attacker.victim.defended(perturbed.batch))
        result = perturbed.result
        counted = result.clean_correct & result.defined
        self.successes += result.success[counted].tolist()
        self.images += int(result.defined.sum())
        self.disagreements += sum(one.get(DISAGREES, False) for one in perturbed.measures)

    def after_test_epoch(self, runner, metrics=None) -> None:
        if self.images and not self.successes:
            warn(f'the model had none of the {self.images} clean images right: check weights, '
                 'classes and labels')
        rate = statistics.fmean(self.successes) if self.successes else math.nan
        runner.logger.info(f'attack success rate {rate:.4f} over {len(self.successes)} images the '
                           'victim got right')
        if self.threat.grid == 'original':
            runner.logger.info(f'attack/geometry_disagreements {self.disagreements}: images on whose '
                               'success the test pipeline and its differentiable copy differ')
