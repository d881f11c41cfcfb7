"""A work dir as whoever reads it sees it: report, transfer, scoring again."""
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from .record import Record, read_records

__all__ = ['FORMAT', 'Run', 'is_finished', 'is_same', 'read_info', 'read_json']

FORMAT = 3  # of run.json and records.jsonl; 2 added the digests of the images, 3 the queries
_ANEW = 'start the run anew, without --resume'


@dataclass(frozen=True)
class Run:
    """A finished or half-finished run.

    Attributes:
        work_dir: its folder.
        info: what run.json says.
        records: one per image, in the order of their first lines.
        metrics: what metrics.json says; empty while the run is not finished.
        bad: what is wrong with lines of records.jsonl that could not be read.
    """
    work_dir: Path
    info: dict[str, Any]
    records: tuple[Record, ...]
    metrics: dict[str, Any]
    bad: tuple[str, ...] = ()

    @classmethod
    def load(cls, work_dir: str | Path) -> 'Run':
        """Read a work dir; nothing in it is changed.

        Raises:
            InputError: there is no run in it, or one of another version.
        """
        work_dir = Path(work_dir)
        if not (work_dir / 'run.json').is_file():
            raise InputError(f'{work_dir} holds no run (no run.json); expected the work_dir of '
                             'sda attack')
        info = read_info(work_dir)
        found, bad = read_records(work_dir)
        records = tuple({record.key: record for record in found}.values())
        path = work_dir / 'metrics.json'
        metrics = read_json(path) if path.is_file() else {}
        return cls(work_dir, info, records, metrics, tuple(reason for _, reason in bad))

    @property
    def identity(self) -> dict[str, Any]:
        """What a resumed run has to agree on: attack, goal, model, data set, weights, threat."""
        return self.info['identity']

    def image(self, record: Record) -> np.ndarray:
        """The stored adversarial image, (H, W, 3) uint8 RGB."""
        with Image.open(self.work_dir / record.file) as image:
            return np.array(image)


def read_info(work_dir: Path) -> dict[str, Any]:
    """What run.json says.

    Raises:
        InputError: it is broken, or of a version that writes other files.
    """
    path = work_dir / 'run.json'
    info = read_json(path)
    if not isinstance(info.get('identity'), dict):
        raise InputError(f"{path} is broken (no 'identity'): {_ANEW}")
    found = info.get('format', 1)
    if found != FORMAT:
        raise InputError(f'{path} is of format {found}, this version reads {FORMAT}: use the '
                         f'version that wrote it, or {_ANEW}')
    return info


def read_json(path: Path) -> dict[str, Any]:
    """A file's object.

    Raises:
        InputError: it holds none.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path} is broken ({error}): {_ANEW}') from error
    if not isinstance(content, dict):
        found = type(content).__name__
        raise InputError(f'{path} is broken (a {found}, expected an object): {_ANEW}')
    return content


def is_same(work_dir: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a folder holds a run of this identity, finished or not."""
    if not (work_dir / 'run.json').is_file():
        return False
    return json.loads(json.dumps(identity, default=str)) == read_info(work_dir)['identity']


def is_finished(work_dir: Path, identity: Mapping[str, Any], keys: Iterable[str]) -> bool:
    """Whether a folder holds a finished run of this identity that has attacked all images, and whose
    metrics are those of so many."""
    if not (work_dir / 'metrics.json').is_file() or not is_same(work_dir, identity):
        return False
    run, keys = Run.load(work_dir), set(keys)
    scored = run.metrics.get('attack/images', 0) + len(run.metrics.get('attack/images_skipped', ()))
    return scored == len(keys) and keys <= {one.key for one in run.records}
