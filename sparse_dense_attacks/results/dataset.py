"""An adversarial data set on disk: what is in it, where that came from, and whether it is still so."""
import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .provenance import file_digest

__all__ = ['Entry', 'Manifest', 'replacing_folder']

FORMAT = 1
NAME = 'manifest.json'


@dataclass(frozen=True)
class Entry:
    """One image of an adversarial data set.

    Attributes:
        key: sample id in the run.
        file: the PNG, relative to the data set's folder.
        digest: first 16 hex digits of the SHA-256 of that file.
        clean: the original image file, relative to :attr:`Manifest.clean_root`.
        clean_digest: as ``digest``, of that file.
        l0_pixels, l0_elements, linf: how the two differ, as in :class:`~.record.Record`.
        part: index into :attr:`Manifest.loaders`.
    """
    key: str
    file: str
    digest: str
    clean: str
    clean_digest: str
    l0_pixels: int
    l0_elements: int
    linf: float
    part: int = 0


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` of an adversarial data set says.

    Attributes:
        version: of this package when it was written.
        threat, attack, goal: what was done, as in ``run.json``.
        library: the model's.
        model: its class.
        checkpoint: where its weights were, None for random ones.
        weights: digest of that file.
        truth: what the annotations are, 'annotations' of the original data set or 'predictions' of
            the model on the clean images.
        clean_root: folder of the original images when it was written.
        loaders: configs of the pipelines' steps that read an image file, one for each part.
        images: the adversarial images, in the order of the data set.
        files: digests of all other files, but for this one, by their names.
        metrics: what the library's evaluator says of the adversarial images.
    """
    version: str
    threat: dict[str, Any]
    attack: Any
    goal: Any
    library: str
    model: str
    checkpoint: str | None
    weights: str
    truth: str
    clean_root: str
    loaders: tuple[dict, ...]
    images: tuple[Entry, ...]
    files: dict[str, str]
    metrics: dict[str, Any]

    def write(self, folder: Path) -> None:
        text = json.dumps(dict(format=FORMAT, **asdict(self)), indent=1, default=str)
        (folder / NAME).write_text(text + '\n')

    @classmethod
    def load(cls, folder: Path) -> 'Manifest':
        """That of a data set's folder.

        Raises:
            InputError: there is none, it is broken, or of another version.
        """
        path = folder / NAME
        if not path.is_file():
            raise InputError(f'{folder} is no adversarial data set (no {NAME}); expected the '
                             'folder dataset of a run on grid="original"')
        try:
            content = json.loads(path.read_bytes())
            found = content.pop('format', None)
            if found != FORMAT:
                raise InputError(f'{path} is of format {found}, this version reads {FORMAT}: use '
                                 'the version that wrote it')
            content['images'] = tuple(Entry(**one) for one in content['images'])
            content['loaders'] = tuple(content['loaders'])
            return cls(**content)
        except InputError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(f'{path} is broken ({error}); the data set has to be written anew: '
                             'sda attack ... --resume') from error

    def flaws(self, folder: Path) -> list[str]:
        """What in the folder is not as it was written, a line for each file: missing, altered, extra."""
        listed = {entry.file: entry.digest for entry in self.images} | self.files
        found = []
        for name, digest in listed.items():
            path = folder / name
            if not path.is_file():
                found.append(f'{name} is missing')
            elif file_digest(str(path)) != digest:
                found.append(f'{name} was altered')
        rooms = sorted({name.partition('/')[0] for name in listed if '/' in name})
        there = (path for room in rooms for path in sorted((folder / room).rglob('*')))
        names = [path.relative_to(folder).as_posix() for path in there if path.is_file()]
        return found + [f'{name} is extra' for name in names if name not in listed]


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of ``target`` when all is written."""
    temporary, earlier = (target.with_name(f'.{uuid.uuid4().hex}.part') for _ in range(2))
    try:
        temporary.mkdir()
        yield temporary
        if target.exists():
            target.rename(earlier)
        temporary.rename(target)
    finally:
        for left in (temporary, earlier):
            shutil.rmtree(left, ignore_errors=True)
