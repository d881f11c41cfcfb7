"""The main vehicle: a test loop that evaluates the clean and the attacked data set in one pass."""
import contextlib
import copy
import json
import math
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from mmengine.dist import is_main_process
from mmengine.registry import LOOPS
from mmengine.runner import TestLoop, ValLoop
from rich.table import Table

from .. import screen
from ..checks import check_flag, check_int, check_mapping
from ..errors import InputError
from ..evaluation import patch_score
from ..evaluation.measures import BEFORE_AND_AFTER, measure_intervals
from ..results import Record, ResultStore, Run
from ..threat_model import ThreatModel
from ..victims.base import geometry_of, sample_key
from .attacker import BROKEN_BY, DISAGREES, Perturbed, attacker_for, channels_of
from .data import check_keys, digest_of, keys_of, tolerant
from .export import check_exportable, write_dataset
from .first_look import ENOUGH, Look, complaint, look
from .hooks.class_names_hook import ClassNamesHook
from .hooks.views_hook import ViewsHook
from .outcomes import outcome
from .pictures import from_picture, to_picture
from .ranks import Ranks, shared_out
from .scores import Scores, apart
from .truth import check_files, check_metrics
from .warn import warn

__all__ = ['AttackLoop', 'AttackValLoop', 'grid_of_file', 'summarize']

# Shares of broken objects or pixels at which success is reported.
DETECTED = 0.3  # score from which the patch score counts a box
THETAS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
GRID_NOTE = """These pictures are what the network was shown: resized, cropped or padded by the test
pipeline, so their pixels lie on another grid than those of the original files. Annotations of the
original files do not fit them: scored against those, a detector looks broken that is not. The
metrics of the run (metrics.json) are computed on the right grid. Each PNG says its own in the text
field "grid": sizes as [height, width] of the original file, of the content (from the top left
corner, the rest is padding) and of the network input; "resized" is false where it was cropped.
"""
FILES_NOTE = """These pictures are the attacked image files, pixel for pixel on the grid of the
originals as the test pipeline loads them (upright, three channels of 8 bits), so annotations of
the original files fit them. They were judged through the stock test pipeline, as any image is.
"""


@LOOPS.register_module()
class AttackLoop(TestLoop):
    """Attack a test set and evaluate it before and after with the victim's own evaluator.

    For every batch: clean prediction, attack, PNG and record to disk, adversarial prediction. A
    finished image is never attacked again when the run is resumed; its PNG is evaluated instead.

    Within a process group its processes share the images: each takes the next batch that nobody has
    taken, and what is found does not depend on how many there are.

    Args:
        runner, dataloader, evaluator: as for mmengine's TestLoop.
        attack: attack config or object.
        goal: goal config or object.
        threat: what the attacker may do, a :class:`~sparse_dense_attacks.ThreatModel` or a dict of
            its fields.
        victim: arguments of the victim class, for example ``dict(reference='prediction')``.
        resume: go on with the run in the runner's work_dir.
        run_info: what to keep in run.json beside the identity of the run.
        measures: what to measure of every image, see :mod:`.measures`, for example
            ``['anc', 'is', 'detections']``; kept in its record.
        check: where above 0, attack nothing, but show what the model finds in so many images.
        shown: work dir of another run, whose images are shown to the victim in place of an attack.
        amp: 'bf16' or 'fp16', what the model computes in while it is attacked, see
            :class:`.attacker.Attacker`.
        sync_every: how often an attack looks which images are done, see there.
        **older: single fields of the threat model (``seed``, ``where``, ...), as configs gave them
            before.
    """

    def __init__(self, runner, dataloader, evaluator, attack, goal,
                 threat: ThreatModel | dict | None = None, victim: dict | None = None,
                 resume: bool = False, run_info: dict | None = None, check: int = 0,
                 measures: Sequence = (), shown: str | None = None, amp: str | None = None,
                 sync_every: int | None = None, **older):
        self.shown = shown
        self.resume, self.check = resume, check
        self.run_info = {'identity': {}} if run_info is None else run_info
        check_flag(self, 'resume')
        check_int(self, 'check', low=0)
        check_mapping(self, 'run_info')
        check_files(dataloader, evaluator)
        clean_evaluator = apart(evaluator, 'clean')
        dataloader = tolerant(dataloader) if isinstance(dataloader, dict) else dataloader
        self.ranks = Ranks()
        if self.ranks.several:
            if check:
                raise InputError('--check looks at a few images: leave --launcher out')
            dataloader = shared_out(dataloader)
        super().__init__(runner, dataloader, evaluator)
        clean_evaluator = runner.build_evaluator(clean_evaluator)
        clean_evaluator.dataset_meta = self.evaluator.dataset_meta
        self.scores = Scores(clean_evaluator, self.evaluator)
        self.clean_evaluator = clean_evaluator
        threat = ThreatModel.build(threat, older, 'AttackLoop')
        dataset = self.dataloader.dataset
        self.attacker = attacker_for(runner, dataset, victim, attack, goal, threat, measures, amp,
                                     sync_every)
        check_keys(dataset)
        self.places = keys_of(dataset)
        if threat.grid == 'original':
            check_exportable(dataset)
        check_metrics(self.evaluator, dataset.metainfo.get('classes'))
        self.channels = channels_of(runner, dataset, self.attacker.files)
        runner.register_hook(ClassNamesHook(dataset))
        learned_on, weights = self.attacker.attack.learned_on, self.run_info['identity'].get('weights')
        if learned_on and weights and learned_on != weights:
            warn(f'what {type(self.attacker.attack).__name__} applies was learned on other weights '
                 f'({learned_on}) than these ({weights}): what is measured is how it transfers')
        runner.register_hook(ViewsHook())
        self.store = ResultStore(runner.work_dir, self.ranks.rank)
        self.looks: list[Look] = []  # at the first images, before they are attacked
        # The last batch for hooks that draw it: images on the grid of the threat model, before and
        # after, and the clean predictions.
        self.clean_images: Sequence[torch.Tensor] = ()
        self.attacked_images: Sequence[torch.Tensor] = ()
        self.clean_outputs: list = []

    def run(self) -> dict:
        """Attack and evaluate; returns (and writes to metrics.json) the flat dict of metrics."""
        if self.check:
            return self._check(self.check)
        with contextlib.closing(self.store):
            return self._run()

    def _run(self) -> dict:
        if self.ranks.several:
            identity = json.dumps(self.run_info['identity'], sort_keys=True, default=str)
            self.ranks.agree('settings', identity)
            self.ranks.agree('images', digest_of(self.dataloader.dataset))
        self.ranks.first_does(self._start)
        self.store.reload()
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        self.runner.model.eval()
        images = len(self.dataloader.dataset)
        with screen.progress(images, shown=is_main_process()) as advance:
            for idx, data_batch in enumerate(self.dataloader):
                unreadable = data_batch.pop('unreadable', ())
                for key, reason in unreadable:
                    if not self.store.add(Record(key, note=reason)).skipped:
                        raise InputError(f"image '{key}' could be read when the run began but "
                                         f'cannot be now: {reason}')
                if len(data_batch['inputs']):
                    self._run_batch(idx, data_batch)
                done = len(data_batch['inputs']) + len(unreadable)
                advance(self.ranks.finished(done))
            if self.ranks.several:
                self.ranks.wait()
                advance(self.ranks.finished(0))
        metrics = self._evaluate()
        self._export(metrics)
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        self.runner.call_hook('after_test')
        return metrics

    def _start(self) -> None:
        self.store.start(self.run_info, self.resume)
        note = FILES_NOTE if self.attacker.files else GRID_NOTE
        (self.store.work_dir / 'images/README.txt').write_text(note)
        for note in screen.first(self.store.notes):
            warn(note)
        if said := self.attacker.measures.note(self.attacker.goal):
            screen.show(f'note: {said}')

    def _run_batch(self, idx: int, data_batch: dict) -> None:
        """What :meth:`run_iter` does; where memory is short, one line with what fits.

        Raises:
            InputError: the memory of the GPU is too small for the batch.
        """
        with contextlib.suppress(torch.cuda.OutOfMemoryError):
            return self.run_iter(idx, data_batch)
        # here the tensors of the failure are gone
        images = len(data_batch['inputs'])
        fit = self.attacker.images_that_fit(data_batch)
        if not fit:
            raise InputError('the memory of the GPU is too small for a single image: use a smaller '
                             'model or images, or --device cpu')
        option = f'--cfg-options test_dataloader.batch_size={fit}'
        raise InputError(f'the memory of the GPU is too small for {images} images at once, {fit} '
                         f'fit: add {option} and --resume')

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        self.runner.call_hook('before_test_iter', batch_idx=idx, data_batch=data_batch)
        keys = [sample_key(sample) for sample in data_batch['data_samples']]
        clean = self._predict_clean(data_batch)
        self.clean_outputs, outputs = clean, None
        self._look(data_batch, clean)
        # The victim looks at the ground truth before any metric does: what it refuses is one line.
        if all(key in self.store.records for key in keys):
            adversarial = self._stored(data_batch, keys)
            self._measure_stored(data_batch, keys)
        else:
            # A batch that was cut short is attacked as a whole, so that results do not depend on
            # where a run was killed.
            perturbed = (self.attacker.perturb(data_batch) if self.shown is None else
                         self.attacker.show(data_batch, self._of_other_run(keys)))
            adversarial = perturbed.batch
            limit = self.attacker.threat.max_area
            if limit is not None and self.attacker.victim.task == 'detection':
                outputs = self._predict(adversarial)
                scored = self._scored(perturbed, limit, clean, outputs)
                perturbed = replace(perturbed, measures=scored)
            self._record(perturbed)
            self.clean_images, self.attacked_images = perturbed.clean, perturbed.pictures
        self.clean_evaluator.process(data_samples=clean, data_batch=data_batch)
        outputs = self._predict(adversarial) if outputs is None else outputs
        self._measure_outputs(data_batch, keys, clean, outputs)
        self.evaluator.process(data_samples=outputs, data_batch=adversarial)
        self.scores.mark(self.places[keys[0]])
        self.runner.call_hook('after_test_iter', batch_idx=idx, data_batch=adversarial,
                              outputs=outputs)

    @torch.no_grad()
    def _check(self, images: int) -> dict:
        """Show what the model finds in the first images, and its metrics on them; attacks nothing.

        Returns:
            The clean metrics of these images.
        """
        self.runner.model.eval()
        shown, keys = 0, set[str]()
        for data_batch in self.dataloader:
            for key, reason in data_batch.pop('unreadable', ()):
                screen.show(f'{key}: cannot be read: {reason}')
            if not data_batch['inputs']:
                continue
            outputs = self._predict_clean(data_batch)
            self._look(data_batch, outputs, images)
            for one in self.looks[shown:]:
                screen.show(f'{one.key}: truth: {one.truth}; found: {one.found}')
            shown = len(self.looks)
            self.clean_evaluator.process(data_samples=outputs, data_batch=data_batch)
            keys |= {sample_key(sample) for sample in data_batch['data_samples']}
            if len(keys) >= images:
                break
        metrics, failed = self.scores.evaluate(self.dataloader.dataset, keys)
        found = {name: value for name, value in metrics.items() if name.startswith('clean/')}
        for name, value in found.items():
            if not isinstance(value, list):
                screen.show(f'{name} {_show(value)} ({len(keys)} images)')
        _warn_of_failures({n: reason for n, reason in failed.items() if n.startswith('clean/')})
        return found

    def _predict_clean(self, data_batch: dict) -> list:
        # Some libraries write predictions into the samples they are given.
        copies = copy.deepcopy(data_batch['data_samples'])
        return self._predict(dict(data_batch, data_samples=copies))

    @torch.no_grad()
    def clean_predictions(self) -> Iterator:
        """What the model says of each readable image of the data set."""
        for data_batch in self.dataloader:
            data_batch.pop('unreadable', None)
            if len(data_batch['inputs']):
                yield from self._predict_clean(data_batch)

    def _look(self, data_batch: dict, outputs: list, images: int = ENOUGH) -> None:
        """Look at the first images; says once if the model finds nothing in them."""
        if len(self.looks) >= images:
            return
        follow = getattr(self.attacker.victim, 'boxes_follow_resize', False)
        classes = self.dataloader.dataset.metainfo.get('classes')
        found = (look(sample, output, classes, follow)
                 for sample, output in zip(data_batch['data_samples'], outputs, strict=True))
        self.looks += [one for one in found if one is not None]
        if len(self.looks) >= images and (text := complaint(self.looks)):
            warn(text)

    def _scored(self, perturbed: Perturbed, limit: float, clean: list,
                outputs: list) -> list[dict]:
        """The measures with the score of patches, where anything is detected on the clean image."""
        found = []
        for measures, *said in zip(perturbed.measures, clean, outputs, strict=True):
            before, after = (int((one.pred_instances.scores >= DETECTED).sum()) for one in said)
            score = patch_score(measures['area'], limit, before, after)
            if score is not None:
                measures = dict(measures, patch_score=score if measures['within_limits'] else 0.0)
            found.append(measures)
        return found

    def _predict(self, data_batch: dict) -> list:
        try:
            return self.runner.model.test_step(self.attacker.victim.defended(data_batch))
        except AssertionError as error:  # the libraries' terse answer to what they cannot take
            with self.attacker.victim.session():
                self.attacker.victim.open(data_batch)  # says what a sample lacks
            if len({image.shape for image in data_batch['inputs']}) > 1:
                raise InputError('this model takes batches of images of one size: set '
                                 'test_dataloader.batch_size=1') from error
            raise

    def _record(self, perturbed: Perturbed) -> None:
        for row, key in enumerate(perturbed.keys):
            image, sample = perturbed.pictures[row], perturbed.batch['data_samples'][row]
            record = Record.of(key, perturbed.result, row, perturbed.measures[row])
            if not self.attacker.attack.structured:
                record = replace(record, groups=None)
            grid = grid_of_file(image) if self.attacker.files else _grid(sample, image)
            self.store.add(record, to_picture(image, self.channels), grid)

    def _of_other_run(self, keys: list[str]) -> list[torch.Tensor]:
        """The images of the run that is shown."""
        run = self._other_run
        records = {record.key: record for record in run.records if not record.skipped}
        for key in keys:
            if key not in records:
                raise InputError(f"{run.work_dir} holds no image for '{key}': finish that run first, "
                                 'on the same data set')
        return [from_picture(run.image(records[key]), self.channels) for key in keys]

    @cached_property
    def _other_run(self) -> Run:
        return Run.load(str(self.shown))

    def _stored(self, data_batch: dict, keys: list[str]) -> dict:
        """The batch with the adversarial images of an earlier run."""
        files, samples = self.attacker.files, copy.deepcopy(data_batch['data_samples'])
        for key in keys:
            if self.store.records[key].skipped:
                raise InputError(f"image '{key}' could not be read when the run began but can be "
                                 'now; use a new --work-dir')
        clean = (data_batch['inputs'] if files is None
                 else [files.pixels(sample) for sample in samples])
        pictures = [from_picture(self.store.image(key), self.channels) for key in keys]
        for key, image, original in zip(keys, pictures, clean, strict=True):
            if image.shape != original.shape:
                source = 'the file is now' if files else 'the pipeline now gives'
                raise InputError(f'{self.store.records[key].file} is {tuple(image.shape[1:])}, but '
                                 f'{source} {tuple(original.shape[1:])}')
        self.clean_images, self.attacked_images = clean, pictures
        inputs = [image.to(original) for image, original in zip(pictures, clean, strict=True)]
        if files is not None:
            paths = [self.store.work_dir / self.store.records[key].file for key in keys]
            inputs = [files.stored(*pair) for pair in zip(samples, paths, strict=True)]
        return dict(data_batch, inputs=inputs, data_samples=samples)

    def measure(self) -> list[Record]:
        """Take the measures of a finished or half-finished run from what is stored of it.

        Returns:
            The records with their measures, which are in ``records.jsonl``, too.

        Raises:
            InputError: a clean image is gone or another one than was attacked; a measure that the
                task, the goal or the model does not have.
        """
        with self.store.locked():
            self.runner.model.eval()
            with screen.progress(len(self.store.records), what='measure') as advance:
                for data_batch in self.dataloader:
                    advance(self._measure_batch(data_batch))
            return list(self.store.records.values())

    @torch.no_grad()
    def _measure_batch(self, data_batch: dict) -> int:
        """How many images of a batch have been attacked, and are measured now."""
        for key, reason in data_batch.pop('unreadable', ()):
            if key in self.store.records and not self.store.records[key].skipped:
                raise InputError(f"the clean image of '{key}' cannot be read, and measures compare "
                                 f'with it: {reason}')
        keys = [sample_key(sample) for sample in data_batch['data_samples']]
        there = [row for row, key in enumerate(keys) if key in self.store.records]
        if not there:
            return 0
        part = {name: [values[row] for row in there] for name, values in data_batch.items()}
        keys = [keys[row] for row in there]
        adversarial = self._stored(part, keys)
        self._measure_stored(part, keys)
        if self.attacker.measures.of_outputs:
            clean, outputs = self._predict_clean(part), self._predict(adversarial)
            self._measure_outputs(part, keys, clean, outputs)
        return len(keys)

    def _measure_stored(self, data_batch: dict, keys: list[str]) -> None:
        """Measures that are not known yet of images that :meth:`_stored` has just loaded."""
        records, names = [self.store.records[key] for key in keys], self.attacker.measures.names
        if all(names <= record.measures.keys() for record in records):
            return
        for record, clean, picture in zip(records, self.clean_images, self.attacked_images,
                                          strict=True):
            pixels = int((clean.round() != picture.to(clean)).any(0).sum())
            if self.attacker.threat.eight_bit and pixels != record.l0_pixels:
                raise InputError(f"'{record.key}': the clean image is not the one that was "
                                 f'attacked ({pixels} pixels differ from {record.file}, recorded '
                                 f'are {record.l0_pixels})')
        found = self.attacker.measured(data_batch, self.attacked_images,
                                       [bool(record.success) for record in records])
        for key, values in zip(keys, found, strict=True):
            self.store.measure(key, values)

    def _measure_outputs(self, data_batch: dict, keys: list[str], clean: list,
                         attacked: list) -> None:
        """What became of the objects, before and after, if that is asked for."""
        if not self.attacker.measures.of_outputs:
            return
        follow = getattr(self.attacker.victim, 'boxes_follow_resize', False)
        for key, sample, *both in zip(keys, data_batch['data_samples'], clean, attacked,
                                      strict=True):
            counts: dict[str, float | int | None] = {}
            for when, output in zip(BEFORE_AND_AFTER, both, strict=True):
                found = outcome(sample, output, follow).counts()
                counts |= {f'{when}{name}': value for name, value in found.items()}
            self.store.measure(key, counts)

    def _export(self, metrics: dict) -> None:
        """Leave a data set that others can score, where the images are on the files' own grid."""
        if self.attacker.threat.grid != 'original' or not is_main_process():
            return
        keys = keys_of(self.dataloader.dataset)
        records = [record for record in self.store.records.values() if record.key in keys]
        try:
            screen.show(f'data set for other tools in {write_dataset(self, records, metrics)}')
        except InputError as error:  # the run is finished all the same
            warn(f'no data set was written: {error}')

    def _evaluate(self) -> dict:
        """Metrics before and after, and the attack's own, over the images that could be read."""
        dataset = self.dataloader.dataset
        if self.ranks.several:
            if is_main_process():
                self.store.reload()
                self.store.merge(self.places)
            self.ranks.wait()
        self.store.reload()
        # the work_dir of a resumed run may hold more
        records = sorted((one for one in self.store.records.values() if one.key in self.places),
                         key=lambda one: self.places[one.key])
        attacked = [record for record in records if not record.skipped]
        if not attacked:
            first = f'; the first: {records[0].note}' if records else ''
            raise InputError(f'none of the {len(records)} images could be read{first}')
        seen = {record.key for record in attacked}
        metrics, failed = self.scores.evaluate_shared(self.ranks, dataset, seen)
        metrics |= summarize(records)
        if failed:
            metrics['attack/metrics_failed'] = failed
        if is_main_process():
            # JSON knows no NaN: a median over no image is null
            nan = {name for name, value in metrics.items()
                   if isinstance(value, float) and math.isnan(value)}
            self.store.write_json('metrics.json', metrics | dict.fromkeys(nan))
            _print_table(metrics, self.store.work_dir)
        return metrics


@LOOPS.register_module()
class AttackValLoop(ValLoop):
    """Validate a model in training on clean and on attacked data, with the same evaluator.

        val_cfg = dict(type='AttackValLoop', attack=dict(type='SparsePGD', k=20),
                       goal=dict(type='Untargeted'))
        default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='adv/accuracy/top1'))

    The evaluator's metrics appear twice, as ``clean/...`` and ``adv/...``, in the log and in every
    visualizer backend.

    Args:
        runner, dataloader, evaluator: as for mmengine's ValLoop.
        attack, goal, threat, victim, older: as for :class:`AttackLoop`.
    """

    def __init__(self, runner, dataloader, evaluator, attack, goal,
                 threat: ThreatModel | dict | None = None, victim: dict | None = None, **older):
        attacked_evaluator = apart(evaluator, 'adv')
        super().__init__(runner, dataloader, evaluator)
        attacked_evaluator = runner.build_evaluator(attacked_evaluator)
        attacked_evaluator.dataset_meta = self.evaluator.dataset_meta
        self.scores = Scores(self.evaluator, attacked_evaluator)
        self.attacked_evaluator = attacked_evaluator
        threat = ThreatModel.build(threat, older, 'AttackValLoop')
        dataset = self.dataloader.dataset
        self.attacker = attacker_for(runner, dataset, victim, attack, goal, threat)

    def run(self) -> dict:
        """Evaluate before and after the attack; returns the flat dict of metrics."""
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.runner.model.eval()
        self.measures: list[dict] = []
        for idx, data_batch in enumerate(self.dataloader):
            self.run_iter(idx, data_batch)
        dataset = self.dataloader.dataset
        metrics, failed = self.scores.evaluate(dataset, keys_of(dataset))
        metrics |= _disagreements(self.measures)
        _warn_of_failures(failed)
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        self.runner.call_hook('before_val_iter', batch_idx=idx, data_batch=data_batch)
        perturbed = self.attacker.perturb(data_batch)
        self.measures += perturbed.measures
        adversarial = perturbed.batch
        copies = copy.deepcopy(data_batch['data_samples'])
        shielded = self.attacker.victim.defended
        outputs = self.runner.model.val_step(shielded(dict(data_batch, data_samples=copies)))
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        attacked = self.runner.model.val_step(shielded(adversarial))
        self.attacked_evaluator.process(data_samples=attacked, data_batch=adversarial)
        self.runner.call_hook('after_val_iter', batch_idx=idx, data_batch=data_batch,
                              outputs=outputs)


def _grid(sample, image: torch.Tensor) -> dict[str, str]:
    """What a PNG says of its own pixels."""
    geometry = geometry_of(sample, image)
    return dict(grid=json.dumps(dict(original=geometry.original, content=geometry.content,
                                     input=geometry.input, resized=geometry.resized)))


def grid_of_file(image: torch.Tensor) -> dict[str, str]:
    """The text of a PNG whose pixels are those of the file (C, h, w)."""
    size = tuple(image.shape[-2:])
    return dict(grid=json.dumps(dict(original=size, content=size, input=size, resized=True)))


def summarize(records: list[Record]) -> dict:
    """The attack's own metrics.

    Success rates are over the images the victim got right (``attack/success_rate``) and over all
    images on which success is defined (``..._all``, where a clean error counts as broken). Sparsity
    is over the successes among the images the victim got right, cost is the mean over all attacked
    images. Goals that break objects or pixels add which share of them is broken, over the images
    the victim got right: ``attack/share`` the mean of the images, ``attack/share_pooled`` of all
    objects or pixels, ``attack/success_rate_at_<theta>`` the images of which at least that share is
    broken. On the original grid ``attack/geometry_disagreements`` counts the images on whose success
    the test pipeline and its differentiable copy differ; it is the pipeline that is believed. Where
    the threat model limits pieces or area, ``attack/images_beyond_limits`` counts the images that
    exceed them, and of detectors ``attack/patch_score`` is the mean of :func:`~..evaluation.patch_score`.
    Of cascades ``attack/broken_by`` counts the images that each member was the first to break.
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
        for theta in THETAS:
            reached = mean(share >= theta for share, _ in divided)
            metrics[f'attack/success_rate_at_{theta}'] = reached
    for name in ('l0_pixels', 'l0_elements'):
        counts = [getattr(r, name) for r in broken]
        metrics[f'attack/{name}_median'] = statistics.median(counts) if counts else math.nan
        metrics[f'attack/{name}_mean'] = mean(counts)
    for name in ('forwards', 'backwards', 'queries', 'seconds'):
        metrics[f'attack/{name}'] = mean(getattr(r, name) for r in attacked)
    metrics |= _disagreements([r.measures for r in attacked])
    metrics |= {f'attack/{name}': interval.value
                for name, interval in measure_intervals(attacked).items()}
    scores = [r.measures['patch_score'] for r in attacked if 'patch_score' in r.measures]
    if scores:
        metrics['attack/patch_score'] = mean(scores)
    limited = [r.measures['within_limits'] for r in attacked if 'within_limits' in r.measures]
    if limited:
        metrics['attack/images_beyond_limits'] = sum(not one for one in limited)
    for name in ('patches', 'left_alone'):  # objects without one
        if counts := [r.measures[name] for r in attacked if name in r.measures]:
            metrics[f'attack/{name}'] = sum(counts)
    credited = Counter(r.measures[BROKEN_BY] for r in broken if BROKEN_BY in r.measures)
    if credited:
        metrics['attack/broken_by'] = dict(credited.most_common())
    metrics['attack/images'] = len(attacked)
    metrics['attack/images_right'] = len(right)
    metrics['attack/images_undefined'] = len(attacked) - len(defined)
    metrics['attack/images_failed'] = [r.key for r in attacked if r.failed]
    metrics['attack/images_too_small'] = [r.key for r in attacked if r.too_small]
    metrics['attack/images_skipped'] = {r.key: r.note for r in records if r.skipped}
    return metrics


def _disagreements(measures: list[dict]) -> dict[str, int]:
    """How often a test pipeline and its copy differed on success, where files were attacked."""
    differ = [one[DISAGREES] for one in measures if DISAGREES in one]
    return {'attack/geometry_disagreements': sum(differ)} if differ else {}


def _print_table(metrics: dict, work_dir) -> None:
    table = Table('metric', 'clean', 'adversarial')
    for name, value in metrics.items():
        if name.startswith('clean/') and not isinstance(value, list):
            after = metrics.get(name.replace('clean/', 'adv/', 1))
            screen.add_row(table, name.removeprefix('clean/'), _show(value), _show(after))
    table.add_section()
    at = 'attack/success_rate_at_'
    for name, value in metrics.items():
        if name.startswith('attack/') and not name.startswith(at):
            screen.add_row(table, name, '', _show(value))
    if shares := [f'{name.removeprefix(at)}: {_show(value)}' for name, value in metrics.items()
                  if name.startswith(at)]:
        screen.add_row(table, f'{at}...', '', ', '.join(shares))
    screen.show(table)
    skipped = [f'skipped {key}: {why}' for key, why in metrics['attack/images_skipped'].items()]
    for line in screen.first(skipped, 10):
        screen.show(line)
    _warn_of_failures(metrics.get('attack/metrics_failed', {}))
    judged = metrics['attack/images'] - metrics['attack/images_undefined']
    if judged and not metrics['attack/images_right']:
        warn(f'the model had none of the {judged} clean images right, so there is no success rate '
             'over those: check weights, classes and labels (sda attack --check)')
    relative = os.path.relpath(work_dir)
    screen.show(f'results in {work_dir if relative.startswith("..") else relative}')


def _warn_of_failures(failed: dict[str, str]) -> None:
    for name, reason in failed.items():
        warn(f'metric {name} failed and is left out ({reason})')


def _show(value) -> str:
    if isinstance(value, dict) and all(isinstance(count, int) for count in value.values()):
        return ', '.join(f'{name} {count}' for name, count in value.items()) or '0'
    if isinstance(value, float):
        return 'none' if math.isnan(value) else f'{value:.4g}'
    return str(len(value)) if isinstance(value, list | dict) else str(value)
