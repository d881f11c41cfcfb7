"""Attacks image files so that one model breaks, or several at once that share but the file."""
import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from .. import screen
from ..errors import InputError
from ..objectives import Ensemble
from ..results import Record, ResultStore
from ..types import AttackResult
from ..victims.base import sample_key
from ..victims.context import gradients
from .attacker import DISAGREES, Attacker, Task
from .data import unreadable
from .loops import grid_of_file, summarize
from .pictures import to_picture

__all__ = ['LibraryMember', 'Member', 'attack_together', 'library_member', 'shared_files']

Judged = tuple[AttackResult, Sequence[Tensor]]


class Member(Protocol):
    """One of the models, ready to be attacked, and which images it has.

    Attributes:
        name: of the model.
        attacker: with the same attack and threat model as those of the others.
        keys: of each image by the resolved path of its file.
        batch_size: images that it is shown together.
    """
    @property
    def name(self) -> str: ...

    @property
    def attacker(self) -> Attacker: ...

    @property
    def keys(self) -> Mapping[str, str]: ...

    @property
    def batch_size(self) -> int: ...

    def open(self, paths: Sequence[str]) -> tuple[Any, Task]:
        """Image files of one size as a batch, and what is to be attacked about them."""
        ...

    def judged(self, batch: Any, task: Task, result: AttackResult) -> Judged:
        """The result as the model sees what a PNG keeps, and the pictures (3, h, w) uint8 BGR."""
        ...


@dataclass(frozen=True)
class LibraryMember:
    """A model of a library behind the stock pipeline of its data set; see :class:`Member`.

    Attributes:
        loader: of its test set.
        places: by the resolved path of the image file its place in the test set.
    """
    name: str
    attacker: Attacker
    keys: Mapping[str, str]
    loader: Any
    places: Mapping[str, int]

    @property
    def batch_size(self) -> int:
        return self.loader.batch_size or 1

    def open(self, paths: Sequence[str]) -> tuple[Any, Task]:
        items = [self.loader.dataset[self.places[path]] for path in paths]
        batch = self.loader.collate_fn(items)
        for _, reason in batch.pop('unreadable', ()):
            raise InputError(f'{self.name} cannot read {reason}')
        return batch, self.attacker.open(batch)

    def judged(self, batch: Any, task: Task, result: AttackResult) -> Judged:
        assert task.opened is not None
        found = self.attacker.judged(batch, task, task.opened, result)
        return found.result, found.pictures


def library_member(name: str, runner: Any) -> LibraryMember:
    """The model of a runner with an AttackLoop, its weights loaded."""
    loop = runner.test_loop
    runner.call_hook('before_run')
    runner.load_or_resume()
    runner.model.eval()
    dataset = loop.dataloader.dataset
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    paths = [str(Path(info['img_path']).resolve()) for info in infos]
    keys = {path: sample_key(info) for path, info in zip(paths, infos, strict=True)}
    places = {path: index for index, path in enumerate(paths)}
    return LibraryMember(name, loop.attacker, keys, loop.dataloader, places)


def shared_files(members: Sequence[Member]) -> dict[str, str]:
    """The files that all members have, by the key that the first gives them.

    Raises:
        InputError: there is none.
    """
    first = members[0]
    common = [path for path in first.keys if all(path in one.keys for one in members)]
    if not common:
        held = '; '.join(f'{one.name}: {min(one.keys)}, ...' for one in members)
        raise InputError(f'the members of an ensemble have no image file in common: {held}')
    return {first.keys[path]: path for path in common}


def attack_together(members: Sequence[Member], files: Mapping[str, str], work_dir: str | Path,
                    run_info: dict, resume: bool = False, combine: str | None = 'mean',
                    weights: Sequence[float] | None = None) -> None:
    """Attack images so that all members are broken, and store them as any run does.

    Of each image every member decides, on the stored pixels and through its stock pipeline if it
    has one, whether it is broken; the image counts as broken if all are. Which are, and whose truth
    is its own prediction, is in ``Record.measures``.

    Args:
        members: at least one.
        files: resolved path of each image by its key.
        work_dir, run_info, resume: as for :class:`~sparse_dense_attacks.results.ResultStore`.
        combine, weights: as for :class:`~sparse_dense_attacks.objectives.Ensemble`; None for a
            single member whose own objective is attacked.
    """
    store = ResultStore(work_dir)
    with contextlib.closing(store), contextlib.ExitStack() as stack:
        store.start(run_info, resume)
        for note in screen.first(store.notes):
            screen.say(note)
        for member in members:
            stack.enter_context(gradients(member.attacker.victim.model))
            stack.enter_context(member.attacker.victim.session())
        most = min(member.batch_size for member in members)
        with screen.progress(len(files)) as advance:
            for keys in _batches(files, store, most):
                # a batch that was cut short is attacked as a whole, as in any run
                if not all(key in store.records for key in keys):
                    found = _attacked(members, [files[key] for key in keys], combine, weights)
                    for key, (record, picture) in zip(keys, found, strict=True):
                        store.add(replace(record, key=key), to_picture(picture, 'bgr'),
                                  grid_of_file(picture))
                advance(len(keys))
        done = [record for record in store.reload() if record.key in files]
        # JSON knows no NaN: a median over no image is null
        store.write_json('metrics.json', {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in summarize(done).items()})


def _batches(files: Mapping[str, str], store: ResultStore, most: int) -> Iterator[list[str]]:
    """Keys of images of one size, up to so many; those that cannot be read are recorded as such."""
    groups: dict[tuple, list[str]] = {}
    for key, path in files.items():
        reason = unreadable(path)
        if reason is None:
            groups.setdefault(_size(path), []).append(key)
        elif not store.add(Record(key, note=reason)).skipped:
            raise InputError(f"image '{key}' could be read when the run began but cannot be now: "
                             f'{reason}')
    for keys in groups.values():
        for start in range(0, len(keys), most):
            yield keys[start:start + most]


def _size(path: str) -> tuple:
    """What decides how large a file is when it is loaded: width, height and whether it is turned."""
    try:
        with Image.open(path) as image:
            return *image.size, image.getexif().get(ExifTags.Base.Orientation, 1)
    except UnidentifiedImageError:  # a format that Pillow does not know
        return (path,)


def _attacked(members: Sequence[Member], paths: Sequence[str], combine: str | None,
              weights: Sequence[float] | None) -> list[tuple[Record, Tensor]]:
    """Of each image its record and its adversarial pixels (3, h, w) uint8."""
    opened = [member.open(paths) for member in members]
    tasks = [task for _, task in opened]
    _look_beyond(tasks)
    ensemble = None if combine is None else Ensemble([task.objective for task in tasks], combine,
                                                     weights)
    objective = tasks[0].objective if ensemble is None else ensemble
    attacker = members[0].attacker
    result = attacker.run(objective)
    judged = [member.judged(batch, task, result)
              for member, (batch, task) in zip(members, opened, strict=True)]
    said = judged[0][0] if ensemble is None else _together(
        ensemble, tasks, result, [one for one, _ in judged])
    found = []
    for row, key in enumerate(objective.keys):
        measures = _measures(members, ensemble, [one for one, _ in judged], row)
        if ensemble is not None:
            measures[DISAGREES] = bool(said.success[row] != result.success[row])
        measures |= attacker.credits(result)[row]
        record = Record.of(str(key), said, row, measures)
        if not attacker.attack.structured:
            record = replace(record, groups=None)
        found.append((record, judged[0][1][row]))
    if len(paths) > 1:  # what failed in company is attacked once more alone
        for row in result.failed.nonzero()[:, 0].tolist():
            [found[row]] = _attacked(members, [paths[row]], combine, weights)
    return found


def _measures(members: Sequence[Member], ensemble: Ensemble | None,
              judged: Sequence[AttackResult], row: int) -> dict[str, Any]:
    """Of an image, which members are broken, and for whom the truth is their own prediction."""
    found: dict[str, Any] = {}
    for number, (member, one) in enumerate(zip(members, judged, strict=True)):
        suffix = '' if ensemble is None else f'_{member.name}'
        if ensemble is not None and ensemble.counted[number, row]:
            found[f'success{suffix}'] = bool(one.success[row])
        if member.attacker.victim.reference == 'prediction':
            found[f'reference{suffix}'] = 'prediction'
    return found


def _look_beyond(tasks: Sequence[Task]) -> None:
    """Let pixels change that one member crops away, as long as another sees them."""
    windows = [torch.ones_like(task.objective.region) if task.opened is None
               else task.opened.scene.region for task in tasks]
    seen = torch.stack([window.cpu() for window in windows]).any(0)
    for task, window in zip(tasks, windows, strict=True):
        objective = task.objective
        some = objective.region.flatten(1).any(1)[:, None, None, None]
        objective.region = objective.region | (seen.to(window.device) & ~window & some)


def _together(ensemble: Ensemble, tasks: Sequence[Task], result: AttackResult,
              judged: Sequence[AttackResult]) -> AttackResult:
    """A result whose success and share are those of all members on the stored pixels."""
    success = torch.stack([one.success.cpu() for one in judged])
    broken = (success | ~ensemble.counted.cpu()).all(0) & ensemble.defined.cpu()
    shares = [(one.share.double().cpu(), task.inner.parts.double().cpu())
              for one, task in zip(judged, tasks, strict=True) if task.inner.parts is not None]
    queries = torch.stack([one.queries for one in judged]).amax(0)  # members look side by side
    if not shares:
        return replace(result, success=broken, queries=queries)
    share, parts = (torch.stack(one) for one in zip(*shares, strict=True))
    pooled = torch.where(parts > 0, share, 0).mul(parts).sum(0) / parts.sum(0)
    return replace(result, success=broken, share=pooled, queries=queries)
