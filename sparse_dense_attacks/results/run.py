"""A work dir as whoever reads it sees it: report, transfer, scoring again."""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from .record import Record, read_records

__all__ = ['Run']


@dataclass(frozen=True)
class Run:
    """A finished or half-finished run.

    Attributes:
        work_dir: its folder.
        info: what run.json says.
        records: one per image, in the order of their first lines.
        metrics: what metrics.json says; empty while the run is not finished.
    """
    work_dir: Path
    info: dict[str, Any]
    records: tuple[Record, ...]
    metrics: dict[str, Any]

    @classmethod
    def load(cls, work_dir: str | Path) -> 'Run':
        """Read a work dir; nothing in it is changed.

        Raises:
            InputError: there is no run in it.
        """
        work_dir = Path(work_dir)
        if not (work_dir / 'run.json').is_file():
            raise InputError(f'{work_dir} holds no run (no run.json); expected the work_dir of sda attack')
        info = json.loads((work_dir / 'run.json').read_text())
        path = work_dir / 'records.jsonl'
        found = read_records(path)[0] if path.is_file() else []
        records = tuple({record.key: record for record in found}.values())
        path = work_dir / 'metrics.json'
        return cls(work_dir, info, records, json.loads(path.read_text()) if path.is_file() else {})

    @property
    def identity(self) -> dict[str, Any]:
        """What a resumed run has to agree on: attack, goal, model, data set, weights, threat model."""
        return self.info.get('identity', {})

    def image(self, record: Record) -> np.ndarray:
        """The stored adversarial image, (H, W, 3) uint8 RGB."""
        with Image.open(self.work_dir / record.file) as image:
            return np.array(image)
