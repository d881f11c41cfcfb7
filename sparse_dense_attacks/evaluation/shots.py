"""The gallery of a report: what it shows of every image of a run, and where the pixels went."""
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from ..errors import InputError
from ..results import Manifest, Record, Run
from ..results.views import Views
from .places import Places
from .thumbnails import (
    COLOURS,
    Allowance,
    base_uri,
    classes_in,
    label_uri,
    overlay_uri,
    shrunk_labels,
)

__all__ = ['STATUSES', 'Gallery', 'link_to', 'status_of']

STATUSES = ('broken', 'not broken', 'clean wrong', 'not defined', 'failed', 'skipped')
LABEL_SIDES = (256, 128, 64)


def status_of(record: Record) -> str:
    """What became of an image, in a word of STATUSES."""
    if record.skipped:
        return 'skipped'
    if record.failed:
        return 'failed'
    if record.success is None:
        return 'not defined'
    if not record.clean_correct:
        return 'clean wrong'
    return 'broken' if record.success else 'not broken'


def link_to(path: Path, page: Path) -> str:
    """A relative address of a file, for a page in a folder; works with any name."""
    name = os.path.relpath(path, page).replace(os.sep, '/')
    return quote(name, errors='surrogateescape')


@dataclass
class Gallery:
    """Collects the images of runs.

    Attributes:
        page: folder of the page.
        allowance: characters that pictures may have.
        printable: makes text of any name.
        runs: what the page knows of each run.
        images: what the page knows of each image.
    """
    page: Path
    allowance: Allowance
    printable: Callable[[object], str]
    runs: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, run: Run, advance: Callable[[int], None]) -> tuple[Places, str]:
        """Add the images of a run.

        Args:
            advance: is told of every image that is done.

        Returns:
            Where the changed pixels of its images lie, and what has to be said of the images that
            do not count there.
        """
        places, sources = Places(), _Sources(run)
        self.runs.append(dict(name=name, colours=COLOURS, classes=sources.classes))
        without = 0
        for record in run.records:
            shown = self._image(record, sources)
            self.images.append(shown.entry)
            self.allowance.spend(shown.characters)
            if shown.changed is not None:
                places.add(shown.changed, shown.boxes, shown.content)
            without += shown.changed is None and not record.skipped
            advance(1)
        note = f'{without} images count nowhere here: no clean image to compare with' * (without > 0)
        return places, note

    def _image(self, record: Record, sources: '_Sources') -> '_Shown':
        text = self.printable
        entry: dict[str, Any] = dict(
            key=text(record.key), run=len(self.runs) - 1, status=status_of(record),
            pixels=record.l0_pixels, elements=record.l0_elements, groups=record.groups,
            seconds=record.seconds, w=4, h=3, base='', over='', clean=False, labels=['', ''],
            boxes=[None, None], said='', classes=[], notes=[], link='', why='',
            facts=[*_facts(record)])
        if record.note:
            entry['notes'].append(text(record.note))
        if record.skipped:
            entry['why'] = text(record.note) or 'could not be read'
            return _Shown(entry)
        path = sources.run.work_dir / record.file
        try:
            adversarial, content = _open(path)
        except OSError:
            entry['why'] = f'{text(record.file)} is gone'
            return _Shown(entry)
        entry.update(link=link_to(path, self.page), h=adversarial.shape[0], w=adversarial.shape[1])
        shown = _Shown(entry, content=content)
        clean, shown.changed = sources.clean(record, adversarial)
        self._pictures(shown, adversarial, clean)
        self._answers(shown, record, sources)
        return shown

    def _pictures(self, shown: '_Shown', adversarial: np.ndarray,
                  clean: np.ndarray | None) -> None:
        entry, share = shown.entry, self.allowance.share()
        changed = shown.changed
        if clean is None or changed is None:
            entry['base'], side = base_uri(adversarial, share)
            entry['notes'].append('the clean image is missing, so only the adversarial is shown')
            shown.characters += len(entry['base'])
            return
        over = np.zeros((*changed.shape, 4), np.uint8)
        over[changed, :3], over[changed, 3] = adversarial[changed], 255
        entry['over'], over_side = overlay_uri(over, share * 6 // 10)
        entry['base'], side = base_uri(clean, share - len(entry['over']) - share // 10)
        if not entry['base'] or (changed.any() and not entry['over']):
            entry.update(base='', over='')
        else:
            longer = max(changed.shape)
            entry['clean'] = True
            entry['notes'] += [f'{what} reduced to {size} pixels a side' for what, size in
                               (('background', side), ('changed pixels', over_side))
                               if size < longer]
        shown.characters += len(entry['over']) + len(entry['base'])

    def _answers(self, shown: '_Shown', record: Record, sources: '_Sources') -> None:
        entry, answer = shown.entry, sources.answers.get(record.key, {})
        before, after = answer.get('clean') or {}, answer.get('adversarial') or {}
        if 'boxes' in before:
            entry['boxes'] = [_boxes(before), _boxes(after)]
            entry['said'] = f'{len(before["boxes"])} → {len(after["boxes"])} objects'
            shown.boxes = before['boxes']
        elif 'label' in before:
            names = [sources.name(one.get('label')) for one in (before, after)]
            entry['said'] = self.printable(f'{names[0]} → {names[1]}')
        maps = sources.views.labels(record.key)
        if maps is not None:
            entry['said'] = f'{np.mean(maps[0] != maps[1]):.0%} of the labels changed'
            most = max(self.allowance.share() // 3, 1500)
            for side in LABEL_SIDES:
                small = [shrunk_labels(one, side) for one in maps]
                uris = [label_uri(one) for one in small]
                if sum(map(len, uris)) <= most:
                    entry.update(labels=uris, classes=classes_in(small))
                    shown.characters += sum(map(len, uris))
                    break


@dataclass
class _Shown:
    """An image in the gallery, and what is counted of it."""
    entry: dict[str, Any]
    characters: int = 0
    changed: np.ndarray | None = None
    boxes: list = field(default_factory=list)
    content: tuple[int, int] | None = None


class _Sources:
    """Where the clean images and the predictions of a run are."""

    def __init__(self, run: Run):
        self.run, self.views = run, Views(run.work_dir)
        self.answers, self.classes = self.views.answers(), self.views.classes()
        self.files: dict[str, Path] = {}
        try:
            manifest = Manifest.load(run.work_dir / 'dataset')
        except InputError:  # none, or one that sda verify would complain of
            return
        root = Path(manifest.clean_root)
        self.files = {one.key: root / one.clean for one in manifest.images}

    def clean(self, record: Record,
              adversarial: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The clean image and where it was changed, (H, W) bool.

        None and None where it is missing or is not the one that was attacked.
        """
        for found in self._candidates(record, adversarial):
            if found.shape == adversarial.shape:
                changed = (found != adversarial).any(2)
                if int(changed.sum()) == record.l0_pixels:
                    return found, changed
        return None, None

    def _candidates(self, record: Record, adversarial: np.ndarray) -> Iterator[np.ndarray]:
        undo = self.views.undo(record.key)
        if undo is not None and undo.shape[:2] == adversarial.shape[:2]:
            changed, clean = undo[..., 3] > 0, adversarial.copy()
            clean[changed] = undo[changed, :3]
            yield clean
        path = self.files.get(record.key)
        if path is not None:
            try:
                yield _open(path)[0]
            except OSError:  # moved, or no image any more
                return

    def name(self, label: int | None) -> str:
        known = label is not None and label < len(self.classes)
        return self.classes[label] if known else f'class {label}'  # type: ignore[index]


def _open(path: Path) -> tuple[np.ndarray, tuple[int, int] | None]:
    """An image file as (H, W, 3) uint8 RGB, and the size of what is no padding if it says so."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert('RGB'))
        grid = image.info.get('grid')
    try:
        height, width = json.loads(grid)['content'] if grid else pixels.shape[:2]
    except (ValueError, KeyError, TypeError):
        return pixels, None
    return pixels, (int(height), int(width))


def _boxes(answer: dict) -> list[list]:
    return [[*box, label, score] for box, label, score in
            zip(answer['boxes'], answer['labels'], answer['scores'], strict=True)]


def _facts(record: Record) -> Iterator[tuple[str, Any]]:
    yield 'pixels', record.l0_pixels
    yield 'channel values', record.l0_elements
    if record.groups is not None:
        yield 'groups', record.groups
    yield 'largest change', f'{record.linf:.3f}'
    if record.share is not None:
        yield 'share as the goal wants', f'{record.share:.1%} of {record.parts}'
    yield 'forwards, backwards', f'{record.forwards}, {record.backwards}'
    yield 'seconds', f'{record.seconds:.2f}'
    for name, value in record.measures.items():
        yield name, f'{value:.4g}' if isinstance(value, float) else '-' if value is None else value
