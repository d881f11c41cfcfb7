"""Learns a patch on a training split and judges it on images that were not in it."""
import copy
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import LOOPS
from mmengine.runner import TestLoop
from rich.table import Table

from .. import screen
from ..attacks import UniversalPatch
from ..attacks.base import left_to_attack
from ..checks import check_flag, check_mapping, check_value, from_fields, shown
from ..errors import InputError
from ..evaluation import markdown_table
from ..evaluation.judged_curves import draw_judged
from ..objectives import Objective
from ..ops import generator_of
from ..patches import Artefact, BesideObjects, Learner, OnObjects, Pixels, Recipe
from ..results import describe
from ..results.lock import Lock
from ..threat_model import ThreatModel
from ..victims.context import gradients
from .attacker import Task, attacker_for
from .data import check_keys, keys_of, tolerant
from .hooks.class_names_hook import ClassNamesHook
from .judging import judge_versions
from .truth import check_files, check_metrics
from .warn import warn

__all__ = ['FitLoop', 'Judging']

CHECKPOINT = 'fit.pth'
WRITTEN = (CHECKPOINT, 'patch.json', 'patch.png', 'judging.json', 'judging.md', 'curves.png',
           'pictures')
KEPT = 2 ** 28  # channel values of images (1 GiB) that stay in memory from one epoch to the next
CURVES = ('scale', 'rotation', 'brightness', 'gap')
SHOWN = ('AP_50', 'AP_50_model', 'hidden_all', 'hidden_small', 'hidden_medium', 'hidden_large',
         'hallucinations', 'changed', 'success', 'patches', 'left_alone')


@dataclass(frozen=True)
class Judging:
    """Beside what a patch is judged.

    Args:
        foreign: other artefacts (``patch.json``), whose colours are put into the same places.
        curves: values of 'scale', 'rotation' (degrees), 'brightness', or 'gap' (distance from the
            object, as a share of its diagonal) to draw a curve over; the learned patch and the grey one.

    Raises:
        InputError: no such curve, or no values.
    """
    foreign: Sequence[str] = ()
    curves: Mapping[str, Sequence[float]] | None = None

    def __post_init__(self):
        if not isinstance(self.foreign, list | tuple):
            raise InputError(f"judge: foreign = {shown(self.foreign)}, expected a list such as "
                             "['other/patch.json']")
        if self.curves is not None:
            check_mapping(self, 'curves')
        for name, values in (self.curves or {}).items():
            if name not in CURVES:
                raise InputError(f"judge: no curve '{name}', expected one of {', '.join(CURVES)}")
            if not isinstance(values, list | tuple) or not values:
                raise InputError(f'judge: curves.{name} = {shown(values)}, expected a list of numbers')

    def versions(self, artefact: Artefact) -> dict[str, UniversalPatch]:
        """What is put into the images, by name."""
        contents = ['learned', 'grey', 'noise']
        if isinstance(artefact.placement, Pixels):
            contents.append('random places')
        found = {content: UniversalPatch(artefact, content) for content in contents}
        for path in self.foreign:
            name = f'foreign {Path(path).parent.name}'
            found[f'foreign {path}' if name in found else name] = UniversalPatch(artefact, str(path))
        for name, values in (self.curves or {}).items():
            for value in values:
                for content in ('learned', 'grey'):
                    found[f'{name} {value} {content}'] = self._point(artefact, content, name, value)
        return found

    def _point(self, artefact: Artefact, content: str, name: str, value: float) -> UniversalPatch:
        if name != 'gap':
            return UniversalPatch(artefact, content, **{name: value})  # type: ignore[arg-type]
        placed = artefact.placement
        if not isinstance(placed, OnObjects | BesideObjects):
            raise InputError(f'judge: curves.gap is about objects, but the patch is '
                             f'{type(placed).__name__}')
        beside = BesideObjects(placed.classes, placed.scale, placed.measure, placed.smallest, gap=value)
        return UniversalPatch(artefact, content, beside)


@LOOPS.register_module()
class FitLoop(TestLoop):
    """Learn an artefact on a training split, then judge it on the test set.

    After every epoch ``fit.pth`` has all that is needed to go on; loss and success of every
    iteration go to the visualizer's backends. Then ``patch.json`` and ``patch.png`` are written,
    and ``judging.json``, ``judging.md`` with clean images, the patch, and others beside it.

    Args:
        runner, dataloader, evaluator: as for mmengine's TestLoop; the images to judge on.
        train: dataloader config of the training split.
        recipe: what is learned, a :class:`~sparse_dense_attacks.patches.Recipe` or its fields.
        goal: what it is to do to the victim.
        judge: beside what it is judged, a :class:`Judging` or its fields.
        threat: a :class:`~sparse_dense_attacks.ThreatModel` or a dict of its fields.
        victim: arguments of the victim class.
        resume: go on with the fit in the runner's work_dir.
        story: what to keep in ``patch.json`` beside the settings; ``weights`` identifies the model,
            ``settings`` how it and its data set are set up.
    """

    def __init__(self, runner, dataloader, evaluator, train: dict, recipe: Recipe | dict, goal,
                 judge: Judging | dict | None = None, threat: ThreatModel | dict | None = None,
                 victim: dict | None = None, resume: bool = False, story: dict | None = None):
        self.resume, self.story = resume, story or {}
        check_flag(self, 'resume')
        check_mapping(self, 'story')
        check_value('goal', goal, 'FitLoop')
        check_files(dataloader, train, evaluator)
        self.recipe, self.judging = from_fields(Recipe, recipe, 'fit'), from_fields(Judging, judge or {}, 'judge')
        self.evaluator_config = copy.deepcopy(evaluator)
        self.threat = ThreatModel.build(threat)
        super().__init__(runner, tolerant(dataloader), evaluator)
        sampler = dict(type='DefaultSampler', shuffle=True, seed=self.threat.seed)
        self.train = runner.build_dataloader(tolerant(dict(train, sampler=sampler)))
        dataset = self.dataloader.dataset
        device = next(runner.model.parameters()).device
        self.learner = Learner(self.recipe, self.threat.seed, device)
        patch = UniversalPatch(self.learner.artefact())
        self.attacker = attacker_for(runner, dataset, victim, patch, goal, self.threat)
        self.teacher = attacker_for(runner, self.train.dataset, victim, patch, goal, self.threat)
        check_keys(dataset)
        check_metrics(self.evaluator, dataset.metainfo.get('classes'))
        runner.register_hook(ClassNamesHook(dataset))
        known = keys_of(self.train.dataset)
        if both := sorted(known.keys() & keys_of(dataset).keys()):
            raise InputError(f'{len(both)} images are in the training split and in the test set '
                             f"(such as '{both[0]}'), where a patch would be judged on what it was "
                             'learned on: set fit_dataloader.dataset and test_dataloader.dataset '
                             'apart, for example by their indices')
        self.judging.versions(self.learner.artefact())  # what cannot be read is said now
        split = hashlib.sha256('\n'.join(sorted(known)).encode()).hexdigest()[:16]
        self.identity = dict(
            recipe=describe(self.recipe), goal=describe(self.attacker.goal), victim=victim,
            threat=describe(self.threat), split=split, batch_size=self.train.batch_size,
            weights=self.story.get('weights'), settings=self.story.get('settings'))
        self.folder = Path(runner.work_dir)
        self.kept: list[Task] | None = None
        self.counts: dict[str, int] = {}  # of the last epoch

    def run(self) -> dict:
        """Learn and judge; returns the judged numbers of every version."""
        lock = Lock(self.folder)
        try:
            self._start()
            self._learn()
            artefact = self.learner.artefact(self._page())
            path = artefact.write(self.folder)
            screen.show(f'artefact in {os.path.relpath(path)}')
            return self._judge(artefact)
        finally:
            lock.release()

    def _start(self) -> None:
        """Take over what was learned, or set it aside."""
        path = self.folder / CHECKPOINT
        now = json.loads(json.dumps(self.identity, default=str))
        if not self.resume:
            self._set_aside()
            return
        if not path.is_file():
            raise InputError(f'nothing to resume: {self.folder} has no {CHECKPOINT}')
        kept = torch.load(path, weights_only=True, map_location=self.learner.pattern.device)
        before = json.loads(kept['identity'])
        differ = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if differ:
            said = dict(split='training split', settings='set-up of the model or its data set')
            names = [said.get(key, key) for key in differ]
            raise InputError(f'--resume: {self.folder} holds a fit with another '
                             f"{', '.join(names)}; use another --work-dir, or leave out --resume "
                             'to set it aside')
        self.learner.resume(kept['learner'])
        self.counts = kept['counts']

    def _set_aside(self) -> None:
        old = [name for name in WRITTEN if (self.folder / name).exists()]
        if old:
            previous = self.folder / 'previous' / f'{time.strftime("%Y%m%d_%H%M%S")}_{uuid.uuid4().hex[:4]}'
            previous.mkdir(parents=True)
            for name in old:
                (self.folder / name).rename(previous / name)

    def _learn(self) -> None:
        epochs, images = self.recipe.epochs, len(self.train.dataset)
        first, victim = self.learner.epoch, self.teacher.victim
        with screen.progress((epochs - first) * images, what='learn') as advance, \
                gradients(victim.model), victim.session():
            for epoch in range(first, epochs):
                self.learner.epoch = epoch
                self._epoch(epoch, advance)
                self.learner.epoch = epoch + 1
                self._save()

    def _epoch(self, epoch: int, advance) -> None:
        totals = dict(images=0, patches=0, left_alone=0, skipped=0)
        for number, objective in enumerate(self._objectives(epoch)):
            if number == 0 and self.threat.max_forwards is not None:  # too few to judge with, before anything is learned
                left_to_attack(objective, self.threat.max_forwards, self.threat.eight_bit, self.threat.rechecks)
            step = self.learner.step(objective, self.threat.eight_bit)
            totals['images'] += step.images
            totals['patches'] += step.patches
            totals['left_alone'] += step.left_alone
            totals['skipped'] += step.skipped
            if step.images:
                rate = {'fit/success': step.broken / step.right} if step.right else {}
                self.runner.visualizer.add_scalars(
                    {'fit/loss': step.loss, **rate}, step=epoch * len(self.train) + number)
            advance(len(objective.images))
        if not totals['images']:
            raise InputError(self._nothing(totals['left_alone']))
        if totals['skipped']:
            warn(f'{totals["skipped"]} iterations of epoch {epoch + 1} had a gradient that is not '
                 'finite, so nothing was learned from them')
        if epoch == 0:
            what = 'objects' if self.recipe.placement.at_objects else 'images'
            screen.say(f'learned on {totals["images"]} of {len(self.train.dataset)} images, '
                       f'{totals["patches"]} patches in each epoch; {totals["left_alone"]} {what} '
                       'are too small for one, or have no room, and are left alone')
        self.counts = totals

    def _objectives(self, epoch: int) -> Iterator[Objective]:
        """The batches of the training split, opened for the goal, in the order of an epoch.

        A small split is read and looked at once and stays in memory; its batches keep their images.
        Looks through a random defence have the draws of the epoch, so that one that is gone on with
        sees what it would have seen.
        """
        for task in self._tasks(epoch):
            if task.scene.shield is not None:
                task.scene.shield.begin(epoch)
            yield task.objective

    def _tasks(self, epoch: int) -> Iterator[Task]:
        """The same with what surrounds them."""
        if self.kept is None:
            self.train.sampler.set_epoch(0)
            opened = self._opened()
            first = next(opened, None)
            if first is None:
                return
            fits = first.objective.images[0].numel() * len(self.train.dataset) <= KEPT
            self.kept = [first, *opened] if fits else []
        if self.kept:
            order = torch.randperm(len(self.kept), generator=generator_of(self.threat.seed, 'order', epoch))
            yield from (self.kept[number] for number in order.tolist())
        else:
            self.train.sampler.set_epoch(epoch)
            yield from self._opened()

    def _opened(self) -> Iterator[Task]:
        for batch in self.train:
            batch.pop('unreadable', None)
            if len(batch['inputs']):
                yield self.teacher.open(batch)

    def _nothing(self, left_alone: int) -> str:
        classes = getattr(self.teacher.goal, 'classes', None) or self.recipe.placement.classes
        named = f' of class {", ".join(map(str, classes))}' if classes else ''
        if left_alone:
            return (f'the patch fits nowhere in the training split: all {left_alone} places are too '
                    'small for it; make it smaller (placement.size, placement.smallest)')
        return (f'none of the {len(self.train.dataset)} images of the training split has anything'
                f'{named} that the goal is about: take another split, or other classes')

    def _save(self) -> None:
        path = self.folder / CHECKPOINT
        part = path.with_suffix('.part')
        torch.save(dict(identity=json.dumps(self.identity, default=str), counts=self.counts,
                        learner=self.learner.state()), part)
        os.replace(part, path)

    def _page(self) -> dict[str, Any]:
        return dict(self.identity, images=len(self.train.dataset), counts=self.counts,
                    epochs=self.learner.epoch, **{name: value for name, value in self.story.items()
                                                  if name not in self.identity})

    def _judge(self, artefact: Artefact) -> dict[str, dict[str, Any]]:
        versions = self.judging.versions(artefact)
        scored = [name for name in versions if name.split()[0] not in CURVES]
        found = judge_versions(self, self.evaluator_config, self.attacker, versions, scored,
                               self.folder / 'pictures')
        (self.folder / 'judging.json').write_text(json.dumps(found, indent=2) + '\n')
        head, rows = _table(found)
        (self.folder / 'judging.md').write_text(markdown_table(head, rows))
        table = Table(*head)
        for row in rows:
            screen.add_row(table, *row)
        screen.show(table, width=100)
        if self.judging.curves:
            draw_judged(self.folder / 'curves.png', found, self.judging.curves)
        screen.show(f'results in {os.path.relpath(self.folder)}')
        return found


def _table(found: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """A row for each number, a column for each version that is no point of a curve."""
    versions = [name for name in found if name.split()[0] not in CURVES]
    native = list(takewhile(lambda name: name != 'changed', found['clean']))  # come before ours
    names = [*native, *(key for key in SHOWN if any(key in found[one] for one in versions))]
    rows = [[name, *(_show(found[one].get(name)) for one in versions)] for name in names]
    return ['', *versions], rows


def _show(value) -> str:
    return '' if value is None else f'{value:.4g}'
