"""What is kept about one image."""
import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..types import AttackResult

__all__ = ['RECORDS', 'Record', 'file_name', 'files_of_records', 'read_records']

RECORDS = 'records.jsonl'  # of the only process, or of the first of several
FAILED = 'non-finite loss or gradient'
SHORT = 'too small for the budget'

Measures = dict[str, float | int | str | None]


@dataclass(frozen=True)
class Record:
    """One line of records.jsonl.

    Attributes:
        key: sample id.
        success, success_float: broken, judged on the 8-bit and on the float image; None where
            success has no meaning (an image without objects, an image that could not be read).
        clean_correct: the victim was right about the clean image.
        l0_pixels, l0_elements, linf: size of the perturbation; linf in [0, 1].
        groups: of the attack's structure; None for attacks without.
        forwards, backwards, seconds: cost of the attack.
        queries: all forwards of the image, those that judged the result included.
        share: share of the image's objects or pixels that are as the goal wants them; None for
            goals without such parts.
        parts: how many of them count.
        file: the PNG, relative to the work_dir; empty if there is none.
        digest: first 16 hex digits of the SHA-256 of that file.
        note: why an image failed or was skipped; normally empty.
        measures: further numbers about the image by name, or words, such as which member of a cascade
            broke it; None where one has no meaning.
    """
    key: str
    success: bool | None = None
    success_float: bool | None = None
    clean_correct: bool = False
    l0_pixels: int = 0
    l0_elements: int = 0
    groups: int | None = None
    linf: float = 0.0
    forwards: int = 0
    backwards: int = 0
    queries: int = 0
    seconds: float = 0.0
    share: float | None = None
    parts: int = 0
    file: str = ''
    digest: str = ''
    note: str = ''
    measures: Measures = field(default_factory=dict)

    @classmethod
    def of(cls, key: str, result: AttackResult, row: int,
           measures: dict[str, Any] | None = None) -> 'Record':
        """The record of one image of a batch; fields of one name are one thing."""
        names = ({one.name for one in dataclasses.fields(cls)}
                 & {one.name for one in dataclasses.fields(result)})
        values = {name: getattr(result, name)[row].item() for name in names}
        if not result.defined[row]:
            values |= dict(success=None, success_float=None)
        if math.isnan(values['share']):
            values['share'] = None
        notes = [FAILED] * bool(result.failed[row]) + [SHORT] * bool(result.short[row])
        return cls(key, **values, note='; '.join(notes), measures=dict(measures or {}))

    @property
    def failed(self) -> bool:
        """The attack failed on the image."""
        return FAILED in self.note

    @property
    def too_small(self) -> bool:
        """Fewer pixels (or groups) of the image may change than the budget asks for."""
        return SHORT in self.note

    @classmethod
    def parse(cls, line: bytes) -> 'Record':
        """The record of a line.

        Raises:
            ValueError: the line is none; the message says why.
        """
        values = json.loads(line)  # its errors, also of bytes that are no text, are ValueErrors
        if not isinstance(values, dict):
            raise ValueError(f'a {type(values).__name__}, expected an object')
        kinds = {one.name: one.type for one in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - kinds.keys()):
            raise ValueError(f'unknown field {unknown[0]}')
        if missing := sorted(kinds.keys() - values.keys()):
            raise ValueError(f'no field {missing[0]}')
        for name, value in values.items():
            if not _fits(value, kinds[name]):
                raise ValueError(f'{name} = {value!r}')
        record = cls(**values)
        if record.file not in ('', f'images/{file_name(record.key)}.png'):
            raise ValueError(f'file = {record.file!r} is not that of the image')
        return record

    @property
    def skipped(self) -> bool:
        """The image could not be read."""
        return not self.file


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value from JSON is of a field's type; a bool is no number there."""
    if kind is float or kind == float | None:
        kind = kind | int
    if isinstance(value, bool):
        return kind in (bool, bool | None)
    return isinstance(value, dict if kind == Measures else kind)


def file_name(key: str) -> str:
    """A key as a path that every file system takes; keys that differ give paths that differ.

    Example:
        >>> file_name('photos/000000000139.jpg')
        'photos/000000000139.jpg'
        >>> file_name('../a b')
        '%2E%2E/a%20b'
    """
    *folders, name = map(_part, key.split('/'))
    # No folder is called as the PNG of another key is.
    return '/'.join([*(folder.replace('.', '%2E') if folder.endswith('.png') else folder
                       for folder in folders), name])


def _part(text: str) -> str:
    """One part of a path: never empty, '.' or '..', and not too long."""
    if text in ('', '.', '..'):
        return text.replace('.', '%2E') or '%'
    name = quote(text, safe='', errors='surrogateescape')
    if len(name) <= 200:
        return name
    return f'{name[:180]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}'


def files_of_records(work_dir: Path) -> list[Path]:
    """The files of records in a work dir, of which later ones count more.

    One for each process that has worked there at the same time as others, ``records.<rank>.jsonl``,
    and the one that all are merged into at last.
    """
    others = [path for path in work_dir.glob('records.*.jsonl')
              if path.name.split('.')[1].isdecimal()]
    return [*sorted(others, key=lambda path: int(path.name.split('.')[1])), work_dir / RECORDS]


def read_records(work_dir: Path) -> tuple[list[Record], list[tuple[bytes, str]]]:
    """The records of a work dir, and the lines that are none, each with the reason.

    A last line without its end, as a killed run leaves it, is passed over: nothing was promised
    about that image.
    """
    found: list[Record] = []
    bad: list[tuple[bytes, str]] = []
    for path in files_of_records(work_dir):
        for number, line in enumerate(_lines(path), start=1):
            try:
                found.append(Record.parse(line))
            except (ValueError, RecursionError) as error:
                name = '' if path.name == RECORDS else f'{path.name}, '
                bad.append((line, f'{name}line {number}: {error}'))
    return found, bad


def _lines(path: Path) -> list[bytes]:
    """The lines of a file that have an end; none where it is not there."""
    if not path.is_file():
        return []
    with path.open('rb') as file:
        return [line for line in file if line.endswith(b'\n')]
