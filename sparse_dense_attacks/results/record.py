"""What is kept about one image."""
import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..types import AttackResult

__all__ = ['Record', 'read_records']

FAILED = 'non-finite loss or gradient'
SHORT = 'too small for the budget'


@dataclass(frozen=True)
class Record:
    """One line of records.jsonl.

    Attributes:
        key: sample id.
        success, success_float: broken, judged on the 8-bit and on the float image; None where success has no meaning (an image
            without objects, an image that could not be read).
        clean_correct: the victim was right about the clean image.
        l0_pixels, l0_elements, groups, linf: size of the perturbation; linf in [0, 1].
        forwards, backwards, seconds: cost.
        share: share of the image's objects or pixels that are as the goal wants them; None for goals without such parts.
        parts: how many of them count.
        file: the PNG, relative to the work_dir; empty if there is none.
        note: why an image failed or was skipped; normally empty.
        measures: further numbers about the image by name.
    """
    key: str
    success: bool | None = None
    success_float: bool | None = None
    clean_correct: bool = False
    l0_pixels: int = 0
    l0_elements: int = 0
    groups: int = 0
    linf: float = 0.0
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    share: float | None = None
    parts: int = 0
    file: str = ''
    note: str = ''
    measures: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, key: str, result: AttackResult, row: int) -> 'Record':
        """The record of one image of a batch; fields of one name are one thing."""
        names = {one.name for one in dataclasses.fields(cls)} & {one.name for one in dataclasses.fields(result)}
        values = {name: getattr(result, name)[row].item() for name in names}
        if not result.defined[row]:
            values |= dict(success=None, success_float=None)
        if math.isnan(values['share']):
            values['share'] = None
        notes = [FAILED] * bool(result.failed[row]) + [SHORT] * bool(result.short[row])
        return cls(key, **values, note='; '.join(notes))

    @property
    def failed(self) -> bool:
        """The attack failed on the image."""
        return FAILED in self.note

    @property
    def too_small(self) -> bool:
        """Fewer pixels (or groups) of the image may change than the budget asks for."""
        return SHORT in self.note

    @property
    def skipped(self) -> bool:
        """The image could not be read."""
        return not self.file


def read_records(path: Path) -> tuple[list[Record], int]:
    """The records of a file, and the length in bytes of its whole lines: a killed run may leave a torn one at the end."""
    found, whole = [], 0
    with path.open('rb') as file:
        for line in file:
            if not line.endswith(b'\n'):
                break
            whole += len(line)
            found.append(Record(**json.loads(line)))
    return found, whole
