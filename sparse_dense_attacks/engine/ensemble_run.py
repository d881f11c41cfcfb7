"""Attacks several models at once, on the one thing that they share: the image file."""
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import screen
from ..errors import InputError
from ..objectives import Ensemble
from ..results import Record, ResultStore
from ..types import AttackResult
from ..victims.base import sample_key
from ..victims.context import gradients
from .attacker import DISAGREES, Attacker, Perturbed, Task
from .loops import grid_of_file, summarize
from .pictures import to_picture

__all__ = ['Member', 'attack_together', 'members_of', 'shared_files']


@dataclass(frozen=True)
class Member:
    """One of the models, ready to be attacked, and where it finds each image.

    Attributes:
        name: of the model.
        attacker: with the same attack and threat model as those of the others.
        loader: of its test set.
        places: by the resolved path of the image file its place in the test set.
    """
    name: str
    attacker: Attacker
    loader: Any
    places: Mapping[str, int]

    def batch(self, path: str) -> dict:
        """The image as a batch of one.

        Raises:
            InputError: it cannot be read.
        """
        batch = self.loader.collate_fn([self.loader.dataset[self.places[path]]])
        for _, reason in batch.pop('unreadable', ()):
            raise InputError(f'{self.name} cannot read {reason}')
        return batch


def members_of(runners: Mapping[str, Any]) -> list[Member]:
    """The models of runners with an AttackLoop, their weights loaded."""
    found = []
    for name, runner in runners.items():
        loop = runner.test_loop
        runner.call_hook('before_run')
        runner.load_or_resume()
        runner.model.eval()
        dataset = loop.dataloader.dataset
        places = {str(Path(dataset.get_data_info(index)['img_path']).resolve()): index
                  for index in range(len(dataset))}
        found.append(Member(name, loop.attacker, loop.dataloader, places))
    return found


def shared_files(members: Sequence[Member]) -> dict[str, str]:
    """The files that all members have, by the key that the first gives them.

    Raises:
        InputError: there is none.
    """
    first = members[0]
    common = [path for path in first.places if all(path in one.places for one in members)]
    if not common:
        held = '; '.join(f'{one.name}: {min(one.places)}, ...' for one in members)
        raise InputError(f'the members of an ensemble have no image file in common: {held}')
    dataset = first.loader.dataset
    return {sample_key(dataset.get_data_info(first.places[path])): path for path in common}


def attack_together(members: Sequence[Member], files: Mapping[str, str], work_dir: str | Path,
                    run_info: dict, resume: bool = False, combine: str = 'mean',
                    weights: Sequence[float] | None = None) -> None:
    """Attack images so that all members are broken, and store them as any run does.

    Of each image the stock pipeline of each member decides, on the stored pixels, whether it is
    broken; the image counts as broken if all are. Which are is in ``Record.measures``.

    Args:
        members: at least one.
        files: resolved path of each image by its key.
        work_dir, run_info, resume: as for :class:`~sparse_dense_attacks.results.ResultStore`.
        combine, weights: as for :class:`~sparse_dense_attacks.objectives.Ensemble`.
    """
    store = ResultStore(work_dir)
    with contextlib.closing(store), contextlib.ExitStack() as stack:
        store.start(run_info, resume)
        for note in store.notes:
            screen.say(note)
        for member in members:
            stack.enter_context(gradients(member.attacker.victim.model))
            stack.enter_context(member.attacker.victim.session())
        with screen.progress(len(files)) as advance:
            for key, path in files.items():
                if key not in store.records:
                    record, picture = _attacked(members, path, combine, weights)
                    store.add(replace(record, key=key), to_picture(picture, 'bgr'),
                              grid_of_file(picture))
                advance(1)
        done = [record for record in store.reload() if record.key in files]
        store.write_json('metrics.json', summarize(done))


def _attacked(members: Sequence[Member], path: str, combine: str,
              weights: Sequence[float] | None) -> tuple[Record, Tensor]:
    """The record of an image and its adversarial pixels (3, h, w) uint8."""
    batches = [member.batch(path) for member in members]
    tasks = [member.attacker.open(batch) for member, batch in zip(members, batches, strict=True)]
    _look_beyond(tasks)
    ensemble = Ensemble([task.objective for task in tasks], combine, weights)
    attacker = members[0].attacker
    result = attacker.run(ensemble)
    perturbed = []
    for member, batch, task in zip(members, batches, tasks, strict=True):
        assert task.opened is not None
        perturbed.append(member.attacker.judged(batch, task, task.opened, result))
    said = _together(ensemble, tasks, result, perturbed)
    measures: dict[str, Any] = {
        f'success_{member.name}': bool(one.result.success[0])
        for member, one, counts in zip(members, perturbed, ensemble.counted[:, 0], strict=True)
        if counts}
    measures[DISAGREES] = bool(said.success[0] != result.success[0])
    record = Record.of(str(ensemble.keys[0]), said, 0, measures)
    if not attacker.attack.structured:
        record = replace(record, groups=None)
    return record, perturbed[0].pictures[0]


def _look_beyond(tasks: Sequence[Task]) -> None:
    """Let pixels change that one member crops away, as long as another sees them."""
    windows = [task.opened.scene.region for task in tasks if task.opened is not None]
    seen = torch.stack([window.cpu() for window in windows]).any(0)
    for task, window in zip(tasks, windows, strict=True):
        objective = task.objective
        if objective.region.any():
            objective.region = objective.region | (seen.to(window.device) & ~window)


def _together(ensemble: Ensemble, tasks: Sequence[Task], result: AttackResult,
              perturbed: Sequence[Perturbed]) -> AttackResult:
    """A result whose success and share are those of all members on the stored pixels."""
    success = torch.stack([one.result.success.cpu() for one in perturbed])
    broken = (success | ~ensemble.counted.cpu()).all(0) & ensemble.defined.cpu()
    shares = [(one.result.share.double().cpu(), task.inner.parts.double().cpu())
              for one, task in zip(perturbed, tasks, strict=True) if task.inner.parts is not None]
    if not shares:
        return replace(result, success=broken)
    share, parts = (torch.stack(one) for one in zip(*shares, strict=True))
    pooled = torch.where(parts > 0, share, 0).mul(parts).sum(0) / parts.sum(0)
    return replace(result, success=broken, share=pooled)
