"""Results on disk: append-only, safe against kill -9 and a full disk, resumable.

    run.json        what was run; a resumed run must agree with it
    records.jsonl   one line per image, appended only when its PNG is safely on disk
    images/*.png    8-bit adversarial images, lossless
    metrics.json    summary, rewritten at the end
"""
import contextlib
import hashlib
import json
import os
import time
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image, PngImagePlugin

from ..errors import InputError
from .record import Record, read_records

__all__ = ['ResultStore', 'file_name']


class ResultStore:
    """The result files of one run.

    Args:
        work_dir: folder of the run, created if need be.
    """

    def __init__(self, work_dir: str | Path):
        self.work_dir = Path(work_dir)
        self.records: dict[str, Record] = {}

    def start(self, run: dict, resume: bool = False) -> None:
        """Begin a run, or go on with the one in ``work_dir``.

        Without ``resume`` the results of an earlier run are moved to ``previous/<time>``; nothing is ever overwritten.

        Args:
            run: what goes into run.json; ``run['identity']`` is what a resumed run must agree on.

        Raises:
            InputError: ``resume``, but the folder holds another run.
        """
        (self.work_dir / 'images').mkdir(parents=True, exist_ok=True)
        if resume and (self.work_dir / 'run.json').exists():
            earlier = json.loads((self.work_dir / 'run.json').read_text())['identity']
            now = json.loads(json.dumps(run['identity']))
            differ = sorted(key for key in {*earlier, *now} if earlier.get(key) != now.get(key))
            if differ:
                raise InputError(f"--resume: {self.work_dir} holds a run with another {', '.join(differ)}; use another "
                                 '--work-dir, or leave out --resume to set it aside')
            self.records = self._resumed()
        elif any((self.work_dir / name).exists() for name in ('run.json', 'records.jsonl')):
            self._set_aside()
        self.write_json('run.json', run)

    def _set_aside(self) -> None:
        stamp = time.strftime('%Y%m%d_%H%M%S')
        earlier = len(list(self.work_dir.glob(f'previous/{stamp}*')))  # within the same second
        previous = self.work_dir / 'previous' / (f'{stamp}_{earlier}' if earlier else stamp)
        previous.mkdir(parents=True)
        for name in ('run.json', 'records.jsonl', 'metrics.json', 'images', 'pictures'):
            if (self.work_dir / name).exists():
                (self.work_dir / name).rename(previous / name)
        (self.work_dir / 'images').mkdir()

    def _resumed(self) -> dict[str, Record]:
        """Finished records; a last line torn by a killed run is cut off, one whose PNG is gone does not count."""
        path = self.work_dir / 'records.jsonl'
        if not path.exists():
            return {}
        found, whole = read_records(path)
        os.truncate(path, whole)
        return {record.key: record for record in found if record.skipped or (self.work_dir / record.file).is_file()}

    def add(self, record: Record, image: np.ndarray | None = None,
            text: dict[str, str] | None = None) -> Record:
        """Store one image and then its record; does nothing for a key that is already there.

        Args:
            image: (H, W, 3) uint8 RGB; None for images that could not be read.
            text: what the PNG says about itself, in its text fields.
        """
        if record.key in self.records:
            return self.records[record.key]
        if image is not None:
            record = replace(record, file=f'images/{file_name(record.key)}.png')
            fields = PngImagePlugin.PngInfo()
            for name, value in (text or {}).items():
                fields.add_text(name, value)
            with _replacing(self.work_dir / record.file) as file:
                Image.fromarray(image).save(file, format='PNG', pnginfo=fields)
        with (self.work_dir / 'records.jsonl').open('ab') as file:  # one write: lines of several processes do not mix
            file.write(json.dumps(asdict(record)).encode() + b'\n')
            file.flush()
            os.fsync(file.fileno())
        self.records[record.key] = record
        return record

    def image(self, key: str) -> np.ndarray:
        """The stored adversarial image, (H, W, 3) uint8 RGB."""
        with Image.open(self.work_dir / self.records[key].file) as image:
            return np.array(image)

    def reload(self) -> list[Record]:
        """All records on disk, those of other processes too, in the order of their first line."""
        path = self.work_dir / 'records.jsonl'
        found, _ = read_records(path) if path.exists() else ([], 0)
        self.records = {record.key: record for record in found if record.skipped or (self.work_dir / record.file).is_file()}
        return list(self.records.values())

    def write_json(self, name: str, content: dict | list) -> None:
        with _replacing(self.work_dir / name) as file:
            file.write(json.dumps(content, indent=2, default=str).encode() + b'\n')


def file_name(key: str) -> str:
    """A key as a file name that every file system takes; keys that differ give names that differ."""
    name = quote(key, safe='', errors='surrogateescape')
    return name if len(name) <= 200 else f'{name[:180]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}'


@contextlib.contextmanager
def _replacing(path: Path):
    """Write a file completely or not at all."""
    temporary = path.with_name(f'.{uuid.uuid4().hex}.part')  # not tempfile's, which only the owner may read
    try:
        with temporary.open('xb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
