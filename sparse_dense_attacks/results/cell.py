"""One cell of a transfer table: what a source's images do to a victim."""
import dataclasses
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from .run import read_json

__all__ = ['Cell']


@dataclass(frozen=True)
class Cell:
    """What is kept of one source and one victim, in ``cells/<source>__<victim>.json``.

    Attributes:
        source, victim: their names.
        identity: what the numbers depend on; a cell of another identity is computed again.
        changes: by image and kind ('attack' or a control's name) the label-free changes, one for
            each seed.
        pixels: by image, how many of its pixels differ.
        native: by the victim's own measure 'clean', 'attack', the controls and 'excess', each an
            object: 'value', and of all but 'clean' the relative 'drop' with 'low' and 'high'.
        failed: images on which the victim failed, and why; they count in no number.
        refused: why there are no numbers; normally empty.
    """
    source: str
    victim: str
    identity: Mapping[str, Any]
    changes: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
    pixels: Mapping[str, int] = field(default_factory=dict)
    native: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    refused: str = ''

    @staticmethod
    def path(folder: Path, source: str, victim: str) -> Path:
        """Where the cell of a source and a victim is."""
        return folder / 'cells' / f'{source}__{victim}.json'

    @classmethod
    def load(cls, folder: Path, source: str, victim: str) -> 'Cell | None':
        """The cell if it is there.

        Raises:
            InputError: it is broken.
        """
        path = cls.path(folder, source, victim)
        if not path.is_file():
            return None
        content = read_json(path)
        try:
            return cls(**content)
        except TypeError as error:
            raise InputError(f'{path} is of another version ({error}): remove it') from error

    def write(self, folder: Path) -> None:
        """Completely or not at all."""
        path = self.path(folder, self.source, self.victim)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f'.{uuid.uuid4().hex}.part')
        part.write_text(json.dumps(dataclasses.asdict(self), indent=1))
        os.replace(part, path)

    def fits(self, identity: Mapping[str, Any]) -> bool:
        """Whether its numbers are those of this identity."""
        return json.loads(json.dumps(identity, default=str)) == self.identity and not self.refused
