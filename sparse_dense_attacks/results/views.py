"""What a person wants to see of a run beside its images: what was there before, and what was said.

    views/changed/<key>.png   the clean colours of the changed pixels, all else transparent: laid
                              over the adversarial image, it is the clean one
    views/answers.jsonl       a line per image: what the model says of it before and after; one such
                              file for each process where several share a run
    views/labels/<key>.png    of segmenters: red the label before, green the label after
    views/classes.json        names of the model's classes
"""
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .record import file_name

__all__ = ['Views']


@dataclass(frozen=True)
class Views:
    """The views in a work dir; each is written once, and may be missing.

    Attributes:
        work_dir: of the run.
        rank: of this process among those that share the run.
    """
    work_dir: Path
    rank: int = 0

    @property
    def folder(self) -> Path:
        return self.work_dir / 'views'

    def _file(self, kind: str, key: str) -> Path:
        return self.folder / kind / f'{file_name(key)}.png'

    def add(self, key: str, clean: np.ndarray, adversarial: np.ndarray,
            answers: Sequence[Mapping[str, Any] | np.ndarray]) -> None:
        """Keep what there is to see of one image.

        Args:
            clean, adversarial: (H, W, 3) uint8 RGB.
            answers: before and after, on the grid of the images: a label map (H, W) uint8; an
                object with 'boxes' (a list of ``x1 y1 x2 y2``), 'labels' and 'scores'; or one with
                a classifier's 'label'.
        """
        changed = (clean != adversarial).any(2)
        undo = np.dstack([clean, np.full(changed.shape, 255, np.uint8)]) * changed[..., None]
        _save(undo, self._file('changed', key))
        line: dict[str, Any] = dict(key=key)
        before, after = answers
        if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
            _save(np.dstack([before, after, np.zeros_like(before)]), self._file('labels', key))
        else:
            line |= dict(clean=before, adversarial=after)
        name = f'answers.{self.rank}.jsonl' if self.rank else 'answers.jsonl'
        with (self.folder / name).open('ab') as file:
            file.write(json.dumps(line).encode() + b'\n')

    def name_classes(self, classes: Sequence[str] | None) -> None:
        """Keep what the model's classes are called."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / 'classes.json').write_text(json.dumps(list(classes or ())))

    def classes(self) -> list[str]:
        """Names of the classes; empty if unknown."""
        path = self.folder / 'classes.json'
        return json.loads(path.read_bytes()) if path.is_file() else []

    def answers(self) -> dict[str, dict[str, Any]]:
        """By key what was said of each image; a line that a killed run left torn is passed over."""
        found = {}
        for path in sorted(self.folder.glob('answers*.jsonl')):
            for line in path.read_bytes().splitlines():
                try:
                    one = json.loads(line)
                except ValueError:
                    continue
                found[one['key']] = one
        return found

    def undo(self, key: str) -> np.ndarray | None:
        """(H, W, 4) uint8: the clean colours of changed pixels, 255 in the last channel there."""
        path = self._file('changed', key)
        return _load(path) if path.is_file() else None

    def labels(self, key: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Label maps (H, W) uint8 before and after."""
        path = self._file('labels', key)
        if not path.is_file():
            return None
        maps = _load(path)
        return maps[..., 0], maps[..., 1]


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)
