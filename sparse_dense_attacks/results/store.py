"""Results on disk: append-only, safe against kill -9 and a full disk, resumable.

    run.json          what was run; a resumed run must agree with it
    records.jsonl     one line per image, appended only when its PNG is safely on disk; a later line
                      of the same image has further measures
    records.1.jsonl   the same of the second process where several share a run, and so on; merged
                      into records.jsonl, in the order of the data set, when all are done
    images/**.png     8-bit adversarial images, lossless
    metrics.json      summary, rewritten at the end
    views/            what a report shows beside them, see :mod:`.views`
    dataset/          on the grid of the image files, all that stock tools need to score the images
    set_aside.jsonl   lines of records.jsonl that a resumed run could not use
"""
import contextlib
import hashlib
import io
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from ..errors import InputError
from .lock import Lock
from .provenance import file_digest
from .record import RECORDS, Record, file_name, files_of_records, read_records
from .run import FORMAT, read_info

__all__ = ['ResultStore']


class ResultStore:
    """The result files of one run.

    Args:
        work_dir: folder of the run, created if need be.
        rank: of this process among those that share the run; the first one starts and merges it.

    Attributes:
        records: the images that are done.
        notes: what :meth:`start` found wrong with the results of an interrupted run; the images
            concerned are not among the records, so that they are attacked again.
    """

    def __init__(self, work_dir: str | Path, rank: int = 0):
        self.work_dir = Path(work_dir)
        self._own = self.work_dir / (f'records.{rank}.jsonl' if rank else RECORDS)
        self.records: dict[str, Record] = {}
        self.notes: list[str] = []
        self._lock: Lock | None = None

    def start(self, run: dict, resume: bool = False) -> None:
        """Begin a run, or go on with the one in ``work_dir``; no other process may until close().

        Without ``resume`` the results of an earlier run are moved to ``previous/<time>``; nothing
        is ever overwritten.

        Args:
            run: what goes into run.json; ``run['identity']`` is what a resumed run must agree on.

        Raises:
            InputError: another process is at work in the folder; ``resume``, but the folder holds
                another run, or a broken one.
        """
        self._make_folder()
        self._lock = self._lock or Lock(self.work_dir)
        for part in (*self.work_dir.glob('.*.part'), *self.work_dir.glob('images/**/.*.part')):
            shutil.rmtree(part) if part.is_dir() else part.unlink()  # of a killed run
        if resume and (self.work_dir / 'run.json').exists():
            earlier = read_info(self.work_dir)
            now = json.loads(json.dumps(run['identity'], default=str))
            identity = earlier['identity']
            differ = sorted(key for key in {*identity, *now} if identity.get(key) != now.get(key))
            if differ:
                raise InputError(f'--resume: {self.work_dir} holds a run with another '
                                 f"{', '.join(differ)}; use another --work-dir, or leave out "
                                 '--resume to set it aside')
            self._note_versions(earlier.get('versions'), run.get('versions'))
            self._go_on()
        elif any(path.exists() for path in (self.work_dir / 'run.json',
                                            *files_of_records(self.work_dir))):
            self._set_aside()
        self.write_json('run.json', dict(run, format=FORMAT))

    def close(self) -> None:
        """Let other processes work in the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _make_folder(self) -> None:
        images = self.work_dir / 'images'
        try:
            images.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            place = images if self.work_dir.is_dir() else self.work_dir
            raise InputError(f'cannot write results to {place}: expected a folder, found a '
                             'file; move it, or name another folder with --work-dir') from error

    def _note_versions(self, before: dict | None, now: dict | None) -> None:
        if not isinstance(before, dict) or not now:
            return
        for name in sorted(before.keys() & now.keys()):
            if before[name] != now[name]:
                self.notes.append(f'the run began with {name} {before[name]} and goes on with '
                                  f'{now[name]}')

    def _set_aside(self) -> None:
        stamp = time.strftime('%Y%m%d_%H%M%S')
        earlier = len(list(self.work_dir.glob(f'previous/{stamp}*')))  # within the same second
        previous = self.work_dir / 'previous' / (f'{stamp}_{earlier}' if earlier else stamp)
        previous.mkdir(parents=True)
        records = [path.name for path in files_of_records(self.work_dir)]
        for name in (*records, 'run.json', 'set_aside.jsonl', 'metrics.json', 'images', 'pictures',
                     'views', 'dataset'):
            if (self.work_dir / name).exists():
                (self.work_dir / name).rename(previous / name)
        (self.work_dir / 'images').mkdir()

    def _go_on(self) -> None:
        """Take over the finished images; what is wrong with the others is noted and set aside."""
        found, bad = read_records(self.work_dir)
        good: dict[str, Record] = {}
        for record in found:
            if reason := self._spoilt(record):
                bad.append((_line(record), reason))
            else:
                good[record.key] = record
        self.records = good
        if bad:
            with (self.work_dir / 'set_aside.jsonl').open('ab') as file:
                file.writelines(line for line, _ in bad)
            self.notes += [f'set aside and attacked again: {reason}' for _, reason in bad]
        self._write_all()  # also without a torn last line

    def _write_all(self) -> None:
        """All records into one file, and no other any more."""
        *others, whole = files_of_records(self.work_dir)
        with self._replacing(whole.name) as file:
            file.writelines(_line(record) for record in self.records.values())
        for path in others:
            path.unlink()

    def merge(self, order: Mapping[str, int]) -> None:
        """Put the records of processes that shared the run into one file, when all are done.

        Args:
            order: the place of each image in the data set.
        """
        known = sorted(self.records.values(), key=lambda one: order.get(one.key, len(order)))
        self.records = {record.key: record for record in known}
        self._write_all()

    def _spoilt(self, record: Record) -> str | None:
        """Why the image of a record cannot be used."""
        path = self.work_dir / record.file
        if record.skipped:
            return None
        if not path.is_file():
            return f'{record.file} is gone'
        return None if file_digest(str(path)) == record.digest else f'{record.file} was altered'

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
            fields = PngImagePlugin.PngInfo()
            for name, value in (text or {}).items():
                fields.add_text(name, value)
            png = io.BytesIO()
            Image.fromarray(image).save(png, format='PNG', pnginfo=fields)
            digest = hashlib.sha256(png.getvalue()).hexdigest()[:16]
            record = replace(record, file=f'images/{file_name(record.key)}.png', digest=digest)
            with self._replacing(record.file) as file:
                file.write(png.getvalue())
        with self._own.open('ab') as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())
        self.records[record.key] = record
        return record

    def measure(self, key: str, measures: Mapping[str, float | int | None]) -> Record:
        """Add numbers to what is known of a stored image; of the two lines the later one counts."""
        record = self.records[key]
        record = replace(record, measures={**record.measures, **measures})
        with self._own.open('ab') as file:
            file.write(_line(record))
            file.flush()
        self.records[key] = record
        return record

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Change the records of a run that is there; no other process may meanwhile.

        Raises:
            InputError: another process is at work in the folder.
        """
        self._lock = self._lock or Lock(self.work_dir)
        try:
            self.reload()
            yield
        finally:
            self.close()

    def image(self, key: str) -> np.ndarray:
        """The stored adversarial image, (H, W, 3) uint8 RGB."""
        with Image.open(self.work_dir / self.records[key].file) as image:
            return np.array(image)

    def reload(self) -> list[Record]:
        """All records on disk, those of other processes too, in the order of their first line."""
        found, _ = read_records(self.work_dir)
        self.records = {record.key: record for record in found
                        if record.skipped or (self.work_dir / record.file).is_file()}
        return list(self.records.values())

    def write_json(self, name: str, content: dict | list) -> None:
        with self._replacing(name) as file:
            file.write(json.dumps(content, indent=2, default=str).encode() + b'\n')

    @contextlib.contextmanager
    def _replacing(self, name: str):
        """Write a file completely or not at all."""
        path = self.work_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # not tempfile's, which only the owner may read
        temporary = path.with_name(f'.{uuid.uuid4().hex}.part')
        try:
            with temporary.open('xb') as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _line(record: Record) -> bytes:
    return json.dumps(asdict(record)).encode() + b'\n'
