"""Clean images beside adversarial ones: of our own runs, or of anybody's two folders."""
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .provenance import file_digest
from .run import Run

__all__ = ['Pair', 'PairSet', 'pairs_of_folders', 'pairs_of_run']

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


@dataclass(frozen=True)
class Pair:
    """An image file and what an attack made of it.

    Attributes:
        clean, adversarial: the files.
        digest: first 16 hex digits of the SHA-256 that the adversarial one should have.
        pixels: how many pixels should differ; None if nobody has said so.
    """
    clean: Path
    adversarial: Path
    digest: str
    pixels: int | None = None

    def check(self) -> None:
        """Refuse a file that is gone or was altered.

        Raises:
            InputError: with the name of the file.
        """
        if not self.adversarial.is_file():
            raise InputError(f'{self.adversarial} is gone')
        if file_digest(str(self.adversarial)) != self.digest:
            raise InputError(f'{self.adversarial} was altered since it was stored')


@dataclass(frozen=True)
class PairSet:
    """All that one source has made.

    Attributes:
        name: what the source is called.
        pairs: by the resolved path of the clean file.
        facts: what is known of how they were made: attack, goal, budget and the like.
    """
    name: str
    pairs: Mapping[str, Pair]
    facts: Mapping[str, Any]


def pairs_of_run(name: str, run: Run, files: Mapping[str, str]) -> PairSet:
    """The images of a finished run on the grid of the files.

    Args:
        name: what to call it.
        run: the run.
        files: of each key the path of the clean image.

    Raises:
        InputError: a run on another grid, or one with no image.
    """
    threat = run.identity.get('threat') or {}
    if threat.get('grid') != 'original':
        raise InputError(f'{run.work_dir} was attacked on the grid {threat.get("grid")!r}, whose '
                         "pictures fit one model only: set threat = dict(grid='original')")
    records, pairs = {record.key: record for record in run.records}, {}
    for key, file in files.items():  # an image that was attacked again has its line elsewhere
        record = records.get(key)
        if record is not None and not record.skipped:
            clean = Path(file).resolve()
            pairs[str(clean)] = Pair(clean, run.work_dir / record.file, record.digest,
                                     record.l0_pixels)
    if not pairs:
        raise InputError(f'{run.work_dir} has attacked no image of its data set')
    return PairSet(name, pairs, _facts(run))


def pairs_of_folders(name: str, clean: Path, adversarial: Path) -> PairSet:
    """The images of two folders that have the same names, whoever made them.

    A name is the path below the folder without its ending; where there is none such, the name of
    the file alone decides if only one has it.

    Raises:
        InputError: no such folder, no pair, or an adversarial image that fits two clean ones.
    """
    for folder in (clean, adversarial):
        if not folder.is_dir():
            raise InputError(f'source {name}: no folder {folder}')
    whole: dict[str, Path] = {}
    short: dict[str, list[Path]] = {}
    for path in _images(clean):
        whole[str(path.relative_to(clean).with_suffix(''))] = path
        for stem in (path.stem, path.name):  # images/ of a run holds photo.jpg.png
            short.setdefault(stem, []).append(path)
    pairs = {}
    for path in _images(adversarial):
        beside = short.get(path.stem, [])
        found = whole.get(str(path.relative_to(adversarial).with_suffix('')))
        if found is None and len(beside) > 1:
            raise InputError(f'source {name}: {path} fits {beside[0]} and {beside[1]}: give it the '
                             'same path below its folder')
        found = found or next(iter(beside), None)
        if found is not None:
            pairs[str(found.resolve())] = Pair(found, path, file_digest(str(path)))
    if not pairs:
        raise InputError(f'source {name}: no image of {adversarial} has a name in {clean}')
    return PairSet(name, pairs, dict(attack='unknown', model='unknown'))


def _images(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob('*'))
            if path.suffix.lower() in SUFFIXES and path.is_file())


def _facts(run: Run) -> dict[str, Any]:
    identity, records = run.identity, [one for one in run.records if not one.skipped]
    attack = identity.get('attack') or {}
    kernel = attack.get('kernel') or {}
    return dict(attack=attack.get('type'), goal=(identity.get('goal') or {}).get('type'),
                budget=attack.get('k', attack.get('budget')),
                groups=None if kernel.get('type') in (None, 'Pixel') else kernel, steps=attack.get('steps'),
                early_stop=attack.get('early_stop'),
                # a search for the fewest changes ends at the first success within its budget
                until_broken=True if attack.get('budget') is not None else None,
                seed=identity['threat'].get('seed'),
                forwards=sum(one.forwards for one in records) / max(len(records), 1),
                pixels=sum(one.l0_pixels for one in records) / max(len(records), 1))
