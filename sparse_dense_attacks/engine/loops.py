"""The main vehicle: a test loop that evaluates the clean and the attacked data set in one pass."""
import contextlib
import copy
import math
import os
import statistics
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import barrier, get_world_size, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.registry import LOOPS
from mmengine.runner import TestLoop, ValLoop
from rich.table import Table

from .. import screen
from ..errors import InputError
from ..results import Record, ResultStore
from ..threat_model import ThreatModel
from ..victims.base import sample_key
from .attacker import Perturbed, attacker_for
from .data import from_picture, to_picture, tolerant

__all__ = ['AttackLoop', 'AttackValLoop', 'summarize']

THETAS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)  # shares of broken objects or pixels at which success is reported


@LOOPS.register_module()
class AttackLoop(TestLoop):
    """Attack a test set and evaluate it before and after with the victim's own evaluator.

    For every batch: clean prediction, attack, PNG and record to disk, adversarial prediction. A finished image is never attacked
    again when the run is resumed; its PNG is evaluated instead.

    Args:
        runner, dataloader, evaluator: as for mmengine's TestLoop.
        attack: attack config or object.
        goal: goal config or object.
        threat: what the attacker may do, a :class:`~sparse_dense_attacks.ThreatModel` or a dict of its fields.
        victim: arguments of the victim class, for example ``dict(reference='prediction')``.
        resume: go on with the run in the runner's work_dir.
        run_info: what to keep in run.json beside the identity of the run.
        **older: single fields of the threat model (``seed``, ``where``, ...), as configs gave them before.
    """

    def __init__(self, runner, dataloader, evaluator, attack, goal, threat: ThreatModel | dict | None = None,
                 victim: dict | None = None, resume: bool = False, run_info: dict | None = None, **older):
        clean_evaluator = _apart(evaluator, 'clean')
        super().__init__(runner, tolerant(dataloader) if isinstance(dataloader, dict) else dataloader, evaluator)
        self.clean_evaluator: Evaluator = runner.build_evaluator(clean_evaluator)
        self.clean_evaluator.dataset_meta = self.evaluator.dataset_meta
        threat = ThreatModel.build(threat, older, 'AttackLoop')
        self.attacker = attacker_for(runner, self.dataloader.dataset, victim, attack, goal, threat)
        self.store, self.resume = ResultStore(runner.work_dir), resume
        self.run_info = run_info or {'identity': {}}
        self.clean_batch: dict = {}  # the last batch and its clean predictions, for hooks that draw them
        self.clean_outputs: list = []

    def run(self) -> dict:
        """Attack and evaluate; returns (and writes to metrics.json) the flat dict of metrics."""
        with contextlib.closing(self.store):
            return self._run()

    def _run(self) -> dict:
        if is_main_process():
            self.store.start(self.run_info, self.resume)
            for note in screen.first(self.store.notes):
                screen.say(f'warning: {note}')
        barrier()
        self.store.reload()
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        self.runner.model.eval()
        images = len(self.dataloader.dataset) / get_world_size()
        with screen.progress(images, shown=is_main_process()) as advance:
            for idx, data_batch in enumerate(self.dataloader):
                unreadable = data_batch.pop('unreadable', ())
                for key, reason in unreadable:
                    if not self.store.add(Record(key, note=reason)).skipped:
                        raise InputError(f"image '{key}' could be read when the run began but cannot be now: {reason}")
                if len(data_batch['inputs']):
                    self.run_iter(idx, data_batch)
                advance(len(data_batch['inputs']) + len(unreadable))
        metrics = self._evaluate()
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        self.runner.call_hook('after_test')
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        self.runner.call_hook('before_test_iter', batch_idx=idx, data_batch=data_batch)
        keys = [sample_key(sample) for sample in data_batch['data_samples']]
        copies = copy.deepcopy(data_batch['data_samples'])  # some libraries write predictions into the samples they are given
        self.clean_batch, self.clean_outputs = data_batch, self._predict(dict(data_batch, data_samples=copies))
        self.clean_evaluator.process(data_samples=self.clean_outputs, data_batch=data_batch)
        if all(key in self.store.records for key in keys):
            adversarial = self._stored(data_batch, keys)
        else:
            # A batch that was cut short is attacked as a whole, so that results do not depend on where a run was killed.
            perturbed = self.attacker.perturb(data_batch)
            self._record(perturbed)
            adversarial = perturbed.batch
        outputs = self._predict(adversarial)
        self.evaluator.process(data_samples=outputs, data_batch=adversarial)
        self.runner.call_hook('after_test_iter', batch_idx=idx, data_batch=adversarial, outputs=outputs)

    def _predict(self, data_batch: dict) -> list:
        try:
            return self.runner.model.test_step(data_batch)
        except AssertionError as error:  # the libraries' terse answer to what they cannot take
            with self.attacker.victim.session():
                self.attacker.victim.open(data_batch)  # says what a sample lacks
            if len({image.shape for image in data_batch['inputs']}) > 1:
                raise InputError('this model takes batches of images of one size: set test_dataloader.batch_size=1') from error
            raise

    def _record(self, perturbed: Perturbed) -> None:
        for row, (key, image) in enumerate(zip(perturbed.keys, perturbed.batch['inputs'], strict=True)):
            self.store.add(Record.of(key, perturbed.result, row), image=to_picture(image))

    def _stored(self, data_batch: dict, keys: list[str]) -> dict:
        """The batch with the adversarial images of an earlier run."""
        inputs = []
        for key, original in zip(keys, data_batch['inputs'], strict=True):
            if self.store.records[key].skipped:
                raise InputError(f"image '{key}' could not be read when the run began but can be now; use a new --work-dir")
            image = from_picture(self.store.image(key))
            if image.shape != original.shape:
                raise InputError(f'{self.store.records[key].file} is {tuple(image.shape[1:])}, but the pipeline now gives '
                                 f'{tuple(original.shape[1:])}')
            inputs.append(image.to(original))
        return dict(data_batch, inputs=inputs, data_samples=copy.deepcopy(data_batch['data_samples']))

    def _evaluate(self) -> dict:
        """Metrics before and after, and the attack's own, over the images of the data set that could be read."""
        barrier()
        keys = _keys(self.dataloader.dataset)  # the work_dir of a resumed run may hold more
        records = [record for record in self.store.reload() if record.key in keys]
        attacked = [record for record in records if not record.skipped]
        if not attacked:
            raise InputError(f'none of the {len(records)} images could be read; the first: {records[0].note}' if records else
                             'the test data set is empty')
        metrics = _scores(self.clean_evaluator, self.evaluator, self.dataloader.dataset, {record.key for record in attacked})
        metrics |= summarize(records)
        if is_main_process():
            # JSON knows no NaN: a median over no image is null
            nan = {name for name, value in metrics.items() if isinstance(value, float) and math.isnan(value)}
            self.store.write_json('metrics.json', metrics | dict.fromkeys(nan))
            _print_table(metrics, self.store.work_dir)
        return metrics


@LOOPS.register_module()
class AttackValLoop(ValLoop):
    """Validate a model in training on clean and on attacked data, with the same evaluator.

        val_cfg = dict(type='AttackValLoop', attack=dict(type='SparsePGD', k=20), goal=dict(type='Untargeted'))
        default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='adv/accuracy/top1'))

    The evaluator's metrics appear twice, as ``clean/...`` and ``adv/...``, in the log and in every visualizer backend.

    Args:
        runner, dataloader, evaluator: as for mmengine's ValLoop.
        attack, goal, threat, victim, older: as for :class:`AttackLoop`.
    """

    def __init__(self, runner, dataloader, evaluator, attack, goal, threat: ThreatModel | dict | None = None,
                 victim: dict | None = None, **older):
        attacked_evaluator = _apart(evaluator, 'adv')
        super().__init__(runner, dataloader, evaluator)
        self.attacked_evaluator: Evaluator = runner.build_evaluator(attacked_evaluator)
        self.attacked_evaluator.dataset_meta = self.evaluator.dataset_meta
        threat = ThreatModel.build(threat, older, 'AttackValLoop')
        self.attacker = attacker_for(runner, self.dataloader.dataset, victim, attack, goal, threat)

    def run(self) -> dict:
        """Evaluate before and after the attack; returns the flat dict of metrics."""
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.runner.model.eval()
        for idx, data_batch in enumerate(self.dataloader):
            self.run_iter(idx, data_batch)
        dataset = self.dataloader.dataset
        metrics = _scores(self.evaluator, self.attacked_evaluator, dataset, _keys(dataset))
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        self.runner.call_hook('before_val_iter', batch_idx=idx, data_batch=data_batch)
        adversarial = self.attacker.perturb(data_batch).batch
        copies = copy.deepcopy(data_batch['data_samples'])
        outputs = self.runner.model.val_step(dict(data_batch, data_samples=copies))
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.attacked_evaluator.process(data_samples=self.runner.model.val_step(adversarial), data_batch=adversarial)
        self.runner.call_hook('after_val_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)


def _apart(evaluator: Evaluator | dict | list, name: str) -> Evaluator | dict | list:
    """A second evaluator like the first, whose metrics dump what they dump into files of their own."""
    evaluator = copy.deepcopy(evaluator)
    for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
        for option in {'outfile_prefix', 'out_file_path', 'output_dir'} & set(metric if isinstance(metric, dict) else ()):
            if metric[option]:
                path = Path(metric[option])
                metric[option] = str(path.with_name(f'{name}_{path.name}'))
    return evaluator


def _keys(dataset) -> set[str]:
    return {sample_key(dataset.get_data_info(index)) for index in range(len(dataset))}


def _scores(clean: Evaluator, attacked: Evaluator, dataset, keys: set[str]) -> dict:
    """Metrics of both evaluators over the images with these keys."""
    metrics: dict[str, float] = {}
    for prefix, evaluator in (('clean', clean), ('adv', attacked)):
        _restrict(evaluator, dataset, keys)
        scores = evaluator.evaluate(len(dataset)) or {}
        metrics |= {f'{prefix}/{name}': _number(value) for name, value in scores.items()}
    return metrics


def summarize(records: list[Record]) -> dict:
    """The attack's own metrics.

    Success rates are over the images the victim got right (``attack/success_rate``) and over all images on which success is
    defined (``..._all``, where a clean error counts as broken). Sparsity is over the successes among the images the victim got
    right, cost is the mean over all attacked images. Goals that break objects or pixels add which share of them is broken, over
    the images the victim got right: ``attack/share`` the mean of the images, ``attack/share_pooled`` of all objects or pixels,
    ``attack/success_rate_at_<theta>`` the images of which at least that share is broken.
    """
    attacked = [r for r in records if not r.skipped]
    defined = [r for r in attacked if r.success is not None]
    right = [r for r in defined if r.clean_correct]
    broken = [r for r in right if r.success]

    def mean(values):
        values = list(values)
        return statistics.fmean(values) if values else math.nan

    metrics = {
        'attack/success_rate': mean(r.success for r in right),
        'attack/success_rate_all': mean(r.success for r in defined),
        'attack/success_rate_float': mean(r.success_float for r in right),
    }
    if divided := [(r.share, r.parts) for r in right if r.share is not None]:
        metrics['attack/share'] = mean(share for share, _ in divided)
        pooled = sum(share * parts for share, parts in divided)
        metrics['attack/share_pooled'] = pooled / max(sum(parts for _, parts in divided), 1)
        metrics |= {f'attack/success_rate_at_{theta}': mean(share >= theta for share, _ in divided) for theta in THETAS}
    for name in ('l0_pixels', 'l0_elements'):
        counts = [getattr(r, name) for r in broken]
        metrics[f'attack/{name}_median'] = statistics.median(counts) if counts else math.nan
        metrics[f'attack/{name}_mean'] = mean(counts)
    for name in ('forwards', 'backwards', 'seconds'):
        metrics[f'attack/{name}'] = mean(getattr(r, name) for r in attacked)
    metrics['attack/images'] = len(attacked)
    metrics['attack/images_right'] = len(right)
    metrics['attack/images_undefined'] = len(attacked) - len(defined)
    metrics['attack/images_failed'] = [r.key for r in attacked if r.note]
    metrics['attack/images_skipped'] = {r.key: r.note for r in records if r.skipped}
    return metrics


def _number(value):
    """A metric as JSON can hold it: mmseg's are numpy's float32, of which the shortest decimal is meant."""
    if isinstance(value, np.floating):
        return float(str(value))
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value


def _restrict(evaluator: Evaluator, dataset, keys: set[str]) -> None:
    """Score a subset of COCO or LVIS as that subset: otherwise their metrics count every image of the annotation file as missed.

    Others look at what they were shown only.
    """
    for metric in evaluator.metrics:
        if any(getattr(metric, api, None) is not None for api in ('_coco_api', '_lvis_api')):
            ids = (dataset.get_data_info(i)['img_id'] for i in range(len(dataset)))
            metric.img_ids = [i for i in ids if str(i) in keys]


def _print_table(metrics: dict, work_dir) -> None:
    table = Table('metric', 'clean', 'adversarial')
    for name, value in metrics.items():
        if name.startswith('clean/') and not isinstance(value, list):
            attacked = metrics.get(name.replace('clean/', 'adv/', 1))
            screen.add_row(table, name.removeprefix('clean/'), _show(value), _show(attacked))
    table.add_section()
    at = 'attack/success_rate_at_'
    for name, value in metrics.items():
        if name.startswith('attack/') and not name.startswith(at):
            screen.add_row(table, name, '', _show(value))
    if shares := [f'{name.removeprefix(at)}: {_show(value)}' for name, value in metrics.items()
                  if name.startswith(at)]:
        screen.add_row(table, f'{at}...', '', ', '.join(shares))
    screen.show(table)
    relative = os.path.relpath(work_dir)
    screen.show(f'results in {work_dir if relative.startswith("..") else relative}')


def _show(value) -> str:
    if isinstance(value, float):
        return f'{value:.4g}'
    return str(len(value)) if isinstance(value, list | dict) else str(value)
