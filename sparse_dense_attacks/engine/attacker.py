"""Perturbs one batch of a test dataloader; loops and hooks share it."""
import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import Attack
from ..attacks.base import judge, judging_cost, warn_if_random
from ..checks import (
    check_choice,
    check_config,
    check_int,
    check_task,
    check_value,
    files_for,
    shown,
)
from ..errors import InputError
from ..objectives import Objective, Targeted, TargetedPixels
from ..objectives.expected import expected
from ..objectives.on_files import OnFiles
from ..ops import gradient, to_8bit
from ..registry import ATTACKS, GOALS, Config
from ..threat_model import ThreatModel
from ..types import AttackResult
from ..victims import wrap
from ..victims.base import Scene, Victim, sample_key
from ..victims.context import gradients
from ..victims.geometry import trace_content
from ..victims.surroundings import surrounded
from .data import victim_options
from .files import FileGrid, Opened
from .measures import Measures
from .pictures import channel_order, preprocessing
from .truth import check_truth
from .warn import warn

__all__ = ['BROKEN_BY', 'DISAGREES', 'Attacker', 'Perturbed', 'Task', 'attacker_for', 'channels_of', 'with_inputs']

PRECISIONS = {'bf16': torch.bfloat16, 'fp16': torch.float16}
# Measure of an image: the pipeline and its differentiable copy differ on whether it is broken.
DISAGREES = 'geometry_disagrees'
# Measure of an image: the member of a cascade that was the first to break it.
BROKEN_BY = 'broken_by'


@dataclass(frozen=True)
class Perturbed:
    """An attacked batch.

    Attributes:
        batch: the data batch with adversarial inputs, ready for ``model.test_step``.
        keys: sample ids.
        result: what the attack reports, on padded images.
        clean, pictures: the images on the grid of the threat model before and after, (C, h, w) each.
        measures: further numbers about each image.
    """
    batch: dict
    keys: Sequence
    result: AttackResult
    clean: Sequence[Tensor]
    pictures: Sequence[Tensor]
    measures: Sequence[dict]


@dataclass(frozen=True)
class Task:
    """A batch opened for attack.

    Attributes:
        objective: what is attacked.
        inner: the objective on network inputs, whose word counts; the same on their own grid.
        opened: the files on the original grid, None on the grid of the network inputs.
        scene: the network inputs, as the victim opened them.
    """
    objective: Objective
    inner: Objective
    opened: Opened | None
    scene: Scene

    @property
    def places(self) -> Scene:
        """The scene on the grid that is attacked, of which anything may change."""
        return self.opened.scene if self.opened else self.scene

    def shown(self, x: Tensor, rows: Tensor) -> Tensor:
        """The network inputs of candidates ``x`` (b, C, H, W) of the images ``rows``."""
        return self.objective.shown(x, rows) if isinstance(self.objective, OnFiles) else x

    def onto_grid(self, values: Tensor, row: int) -> Tensor:
        """Values of the pixels of a network input (h, w) on the attacked grid; 0 beyond it."""
        h, w = self.scene.geometry[row].input
        values = values[:h, :w]
        if self.opened is None:
            return values
        maps = self.opened.maps[row]
        at = [torch.from_numpy(maps.onto_input(axis)) for axis in (0, 1)]
        inside = [(one >= 0) & (one < side) for one, side in zip(at, (h, w), strict=True)]
        rows, columns = (one.clamp(0, side - 1) for one, side in zip(at, (h, w), strict=True))
        found = values[rows.to(values.device)][:, columns.to(values.device)]
        return found * (inside[0][:, None] & inside[1]).to(values.device)


@dataclass(frozen=True)
class Attacker:
    """An attack with a goal on a victim under a threat model, for batch after batch.

    Args:
        victim: the model, made attackable.
        attack: an attack, its name or config.
        goal: a goal, its name or config.
        threat: what the attacker may do.
        files: the way from image files to network inputs, where those are attacked.
        measures: what to measure of every image, see :mod:`.measures`; also left in the samples'
            meta data, as ``attack_measures``.
        channels: the order of the channels of what is attacked, 'rgb' or 'bgr', for attacks that
            ask; None if unknown.
        amp: 'bf16' or 'fp16', what the model computes in while it is attacked; None for its own
            precision, in which results are judged, and images attacked for which 16 bits were too
            few.
        sync_every: see :class:`~sparse_dense_attacks.attacks.Attack`.

    Raises:
        InputError: the goal is one of another task; the original grid without ``files``.
    """
    victim: Victim
    attack: Attack | Config
    goal: Any
    threat: ThreatModel = ThreatModel()
    files: FileGrid | None = field(default=None, repr=False, compare=False)
    measures: Measures = field(default_factory=Measures, repr=False, compare=False)
    channels: str | None = None
    amp: str | None = None
    sync_every: int | None = None
    asked: list = field(default_factory=list, repr=False, compare=False)  # whether random, once

    def __post_init__(self):
        check_config(self, 'attack')
        check_config(self, 'goal')
        object.__setattr__(self, 'attack', ATTACKS.build(self.attack))
        object.__setattr__(self, 'goal', GOALS.build(self.goal))
        check_task(self.goal, self.victim.task)
        if self.amp is not None:
            check_choice(self, 'amp', tuple(PRECISIONS))
        if self.sync_every is not None:
            check_int(self, 'sync_every')
        if self.threat.grid == 'original' and self.files is None:
            raise InputError("threat.grid = 'original' needs the test pipeline between the files "
                             'and the network, which is not known here: attack a test or '
                             "validation run of a config, or set grid='input'")

    @classmethod
    def of_model(cls, model: nn.Module, attack: Attack | Config, goal,
                 threat: ThreatModel | dict | None = None, files: FileGrid | None = None,
                 measures: Sequence = (), channels: str | None = None, amp: str | None = None,
                 sync_every: int | None = None, **options) -> 'Attacker':
        """For a model of an OpenMMLab library (unwrapped from distributed training).

        Args:
            measures: names of measures.
            **options: arguments of the victim class.
        """
        return cls(wrap(model, **options), attack, goal, ThreatModel.build(threat), files,
                   Measures(measures), channels, amp, sync_every)

    def perturb(self, data_batch: dict, region: Tensor | None = None) -> Perturbed:
        """Attack a batch of raw images; neither the batch nor the model is changed.

        Files are attacked through a copy of the pipeline; then the pipeline itself is run on what
        an 8-bit PNG keeps of them, and that decides on success and share.

        Args:
            region: (B, 1, H, W) bool, pixels that may change beside what the threat model says, in
                the size of the largest image; all by default.

        The stock test loops run hooks under ``no_grad``, so gradients are switched on here.

        An image that failed in company is attacked once more alone: some heads let a non-finite
        image poison its neighbours (mmdet's RoI extractors add zero times the sum of unused
        levels), and results must not depend on the batch.
        """
        with gradients(self.victim.model), self.victim.session():
            task = self.open(data_batch, region)
            keys, result = task.objective.keys, self._first_try(task.objective)
            again = result.failed.nonzero()[:, 0].tolist() if len(keys) > 1 or self.amp else []
            if again and self.amp:
                warn(f'{len(again)} of {len(keys)} images are too much for {self.amp}, so they are '
                     f'attacked again in full precision ({keys[again[0]]}, ...)')
            for row in again:
                one = {name: [values[row]] for name, values in data_batch.items()}
                h, w = (task.opened.maps[row].source if task.opened
                        else data_batch['inputs'][row].shape[-2:])
                cut = None if region is None else region[row:row + 1, :, :h, :w]
                alone = self.run(self.open(one, cut).objective)
                result = result.with_row(row, alone)
            found = self._finished(data_batch, task, result)
            return self._with_measures(found, task) if self.measures.chosen else found

    def _first_try(self, objective: Objective) -> AttackResult:
        try:
            return self.run(objective, self.amp)
        except RuntimeError as error:
            text = str(error).splitlines()[0] if str(error) else ''
            if self.amp is None or not any(word in text for word in ('Half', 'BFloat16', 'dtype')):
                raise
            raise InputError(f'--amp {self.amp}: a part of this model cannot compute in it ({text}): '
                             'try the other one, or leave the option out') from error

    def images_that_fit(self, data_batch: dict) -> int:
        """Of the first images of a batch, halved until it fits, how many one step of an attack
        takes without more memory than the GPU has; 0 for none."""
        images = len(data_batch['inputs'])
        while images := images // 2:
            part = {name: values[:images] for name, values in data_batch.items()}
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            with contextlib.suppress(torch.cuda.OutOfMemoryError):
                self._try(part)
                break
        return images

    def _try(self, data_batch: dict) -> None:
        """One look and the way back, for the memory that it takes."""
        with gradients(self.victim.model), self.victim.session():
            objective = self.open(data_batch).objective
            x = objective.images.clone().requires_grad_()
            gradient(objective(x, torch.arange(len(x))).loss, x)

    def _with_measures(self, found: Perturbed, task: Task) -> Perturbed:
        """The same with measures, in the samples of its batch, too."""
        success = found.result.success & found.result.defined
        values = self.measures.of_batch(task, self.victim.task, found.pictures, success.tolist())
        for sample, one in zip(found.batch['data_samples'], values, strict=True):
            sample.set_metainfo(dict(attack_measures=one))
        both = [known | one for known, one in zip(found.measures, values, strict=True)]
        return replace(found, measures=both)

    def measured(self, data_batch: dict, pictures: Sequence[Tensor],
                 success: Sequence[bool]) -> list[dict]:
        """Measures of images that were attacked before.

        Args:
            data_batch: the clean batch.
            pictures: what is stored of each image, (C, h, w) in [0, 255], on the attacked grid.
            success: whether the attack on each has succeeded.

        Raises:
            InputError: a measure that the task, the goal or the model does not have.
        """
        with gradients(self.victim.model), self.victim.session():
            task = self.open(data_batch)
            return self.measures.of_batch(task, self.victim.task, pictures, success)

    def show(self, data_batch: dict, pictures: Sequence[Tensor]) -> Perturbed:
        """Judge images that were found elsewhere as if an attack had found them, at no cost.

        Args:
            data_batch: the clean images.
            pictures: in the size and order of channels of these, (C, h, w) in [0, 255]; on the
                original grid in those of the files as mmcv loads them.
        """
        with gradients(self.victim.model), self.victim.session():
            task = self.open(data_batch)
            objective = task.objective
            images = torch.zeros_like(objective.images)
            for image, picture in zip(images, pictures, strict=True):
                image[:, :picture.shape[1], :picture.shape[2]] = picture.to(image) / 255
            said = judge(objective, images, rechecks=self.threat.rechecks)
            none = torch.zeros(len(images), dtype=torch.int64)
            never = none.bool().to(images.device)
            result = AttackResult(
                **vars(said), images=images, clean_correct=objective.eligible,
                defined=objective.defined, groups=said.l0_pixels, forwards=none, backwards=none,
                seconds=none.float(), failed=never, short=never, stage=none - 1)
            return self._finished(data_batch, task, result)

    def _finished(self, data_batch: dict, task: Task, result: AttackResult) -> Perturbed:
        """A result with the batch that shows it."""
        if task.opened is not None:
            return self.judged(data_batch, task, task.opened, result)
        batch, keys = with_inputs(data_batch, result.images), task.objective.keys
        result, measures = self.limited(task, result, [image.shape[-2:] for image in batch['inputs']])
        return Perturbed(batch, keys, result, data_batch['inputs'], batch['inputs'], measures)

    def limited(self, task: Task, result: AttackResult,
                sizes: Sequence[tuple[int, int]]) -> tuple[AttackResult, list[dict]]:
        """The result with what is beyond the threat model's limits as failures, and measures.

        Args:
            sizes: of the images without padding.
        """
        measures = [known | credit for known, credit in
                    zip(self.attack.measures(task.objective), self.credits(result), strict=True)]
        if not self.threat.limited:
            return result, measures
        said = self.threat.extent(to_8bit(task.objective.images), to_8bit(result.images), sizes)
        extents = zip(*(one.tolist() for one in said), strict=True)
        measures = [dict(components=pieces, area=area, within_limits=allowed, **known)
                    for (pieces, area, allowed), known in zip(extents, measures, strict=True)]
        return replace(result, success=result.success & said.allowed,
                       success_float=result.success_float & said.allowed), measures

    def open(self, data_batch: dict, region: Tensor | None = None) -> Task:
        """What :meth:`perturb` attacks; call within the victim's session."""
        scene = self.victim.open(data_batch)
        if self.files is None or self.threat.grid == 'input':
            part = scene.restricted(self.threat.where(scene)).restricted(region)
            inner = expected(self.goal.objective(part), self.victim.draws)
            return Task(surrounded(inner, self.attack, part, self.channels), inner, None, scene)
        opened = self.files.open(scene, data_batch)
        places = opened.scene.restricted(self.threat.where(opened.scene)).restricted(region)
        inner = expected(self.goal.objective(scene), self.victim.draws)
        on_files = OnFiles(inner, opened.images, places.region, opened.maps, opened.shield)
        outer = expected(on_files, opened.draws)
        return Task(surrounded(outer, self.attack, places, 'bgr'), inner, opened, scene)

    def run(self, objective: Objective, amp: str | None = None) -> AttackResult:
        """The attack on an objective, under the threat model; ``amp`` as of the class."""
        threat = self.threat
        # that takes two forwards, which a budget of them does not allow
        unasked = not self.asked and not self.draws_at_random
        if threat.rechecks == 1 and threat.max_forwards is None and unasked:
            self.asked.append(True)
            warn_if_random(objective)
        most = threat.max_forwards
        if most is not None and threat.grid == 'original':
            most -= judging_cost(objective, rechecks=threat.rechecks)  # by the pipeline itself
        precision = None if amp is None else PRECISIONS[amp]
        return self.attack(objective, threat.seed, threat.eight_bit, most, threat.rechecks, precision,
                           self.sync_every)

    @property
    def draws_at_random(self) -> bool:
        """Whether a defence is known to draw, so that nobody has to be told that answers differ."""
        defences = [self.victim.defence, None if self.files is None else self.files.defence]
        return any(one is not None and one.random for one in defences)

    def judged(self, data_batch: dict, task: Task, opened: Opened,
               result: AttackResult) -> Perturbed:
        """What the stock pipeline, and the model behind it, say of attacked files."""
        assert self.files is not None
        pictures = [(image[:, :one.shape[1], :one.shape[2]] * 255).round().to('cpu', torch.uint8)
                    for image, one in zip(result.images, opened.pixels, strict=True)]
        inputs = self.files.shown(data_batch['data_samples'], pictures)
        shown = torch.zeros_like(task.inner.images)
        for image, one in zip(shown, inputs, strict=True):
            image[:, :one.shape[1], :one.shape[2]] = one.to(shown) / 255
        said = judge(task.inner, shown, rechecks=self.threat.rechecks)
        success = said.success & ~result.failed
        differ = (success != result.success).tolist()
        sizes = [(image.shape[-2], image.shape[-1]) for image in pictures]
        judged = replace(result, success=success, share=said.share,
                         queries=result.queries + said.queries)
        result, measures = self.limited(task, judged, sizes)
        if not self.draws_at_random:  # where answers differ anyway, that says nothing of the copy
            measures = [{DISAGREES: one, **more} for one, more in zip(differ, measures, strict=True)]
        return Perturbed(_with_inputs(data_batch, inputs), task.objective.keys, result,
                         opened.pixels, pictures, measures)

    def credits(self, result: AttackResult) -> list[dict]:
        """For each image a measure that names the member of a cascade which broke it; empty where none did."""
        names = self.attack.member_names
        return [{BROKEN_BY: names[stage]} if stage >= 0 else {} for stage in result.stage.tolist()]


def attacker_for(runner, dataset, victim: dict | None, attack, goal, threat: ThreatModel,
                 measures: Sequence = (), amp: str | None = None,
                 sync_every: int | None = None) -> Attacker:
    """The attacker of a runner's model on a data set of the same classes.

    Args:
        victim: arguments of the victim class beside those that the data set decides.
        measures: names of measures to take.
        amp, sync_every: see :class:`Attacker`.

    Raises:
        InputError: another number of classes, or annotations that :func:`check_truth` refuses.
    """
    if not isinstance(victim, dict | None):
        raise InputError(f'victim = {shown(victim)}, expected a dict of arguments of the victim')
    trace_content(dataset)
    options = victim_options(dataset) | (victim or {})
    if options.get('defence') is not None:
        options.setdefault('channel_order', channel_order(dataset, preprocessing(runner.cfg)))
    files = FileGrid.of_dataset(dataset) if threat.grid == 'original' else None
    check_value('attack', attack)
    attack = ATTACKS.build(attack)
    channels = None
    if attack.needs_surroundings:
        channels = channels_of(runner, dataset, files)
    attacker = Attacker.of_model(runner.model, attack, goal, threat, files, measures, channels, amp,
                                 sync_every, **options)
    known, classes = attacker.victim.num_classes, dataset.metainfo.get('classes')
    if known is not None and classes is not None and len(classes) != known:
        raise InputError(f'the model has {known} classes, the data set {len(classes)}: '
                         f'{", ".join(classes[:5])}, ...')
    _check_files(attacker, dataset)
    check_truth(dataset)
    return attacker


def channels_of(runner, dataset, files: FileGrid | None) -> str:
    """The order of the channels of what is attacked, 'rgb' or 'bgr'.

    Raises:
        InputError: as :func:`.pictures.channel_order`.
    """
    if files is not None:
        return 'bgr'  # mmcv loads files so, whatever comes after
    return channel_order(dataset, preprocessing(runner.cfg))


def _check_files(attacker: Attacker, dataset) -> None:
    """Refuse, before the first image, files of the user's that are missing or fit two images."""
    where, goal = attacker.threat.where, attacker.goal
    maps = goal if isinstance(goal, TargetedPixels) and goal.folder else None
    classes = goal if isinstance(goal, Targeted) and goal.entries is not None else None
    if where.folder is None and maps is None and classes is None:
        return
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    keys = [sample_key(info) for info in infos]
    files = [info.get('img_path') or key for info, key in zip(infos, keys, strict=True)]
    if where.folder is not None:
        files_for(where.folder, files, 'where: mask')
    if maps is not None:
        maps.files_for(files, keys)
    if classes is not None:
        classes.listed(keys)


def with_inputs(data_batch: dict, images: Tensor) -> dict:
    """A copy of a data batch that shows ``images`` (B, C, H, W) in [0, 1], cropped to each input's
    size, rounded to its type.

    ``inputs`` stays what the data set's collate function made of it, a list or one tensor.
    """
    inputs = []
    for original, image in zip(data_batch['inputs'], images, strict=True):
        h, w = original.shape[-2:]
        pixels = image[:, :h, :w] * 255
        if not original.is_floating_point():
            pixels = pixels.round()
        inputs.append(pixels.to(original))
    return _with_inputs(data_batch, inputs)


def _with_inputs(data_batch: dict, inputs: list[Tensor]) -> dict:
    """A copy of a data batch with other inputs of the same sizes."""
    batched = isinstance(data_batch['inputs'], Tensor)
    samples = copy.deepcopy(data_batch['data_samples'])
    return dict(data_batch, inputs=torch.stack(inputs) if batched else inputs, data_samples=samples)
