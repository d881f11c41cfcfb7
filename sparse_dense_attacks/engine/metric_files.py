"""The files that a run's metrics read, in a data set that was written anew."""
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .annotations import TRUTH, Part, coco_subset
from .truth import coco_content

__all__ = ['Here', 'MetricFiles']

_INPUT = re.compile('file|path|prefix|root|dir')  # in names of what metrics read
_OUTPUTS = ('outfile_prefix', 'out_file_path', 'output_dir')  # and write


class Here(str):
    """A path within the data set, which its config writes relative to its own folder."""

    def __repr__(self) -> str:
        return f'root + {str(self)!r}'


class MetricFiles:
    """Finds in a data set what metrics read, or copies it there.

    Args:
        folder: of the data set.
        parts: what was written.
        datasets: their configs, as far as they are relative to ``folder``.

    Attributes:
        outside: folders that metrics read and that are no part of the data set.
    """

    def __init__(self, folder: Path, parts: Sequence[Part], datasets: Sequence[Mapping]):
        self.folder = folder
        self.names = {info.get('img_id'): name for part in parts
                      for info, name in zip(part.infos, part.names, strict=True)}
        self.outside: list[str] = []
        self.places: dict[Path, str] = {}
        for part, cfg in zip(parts, datasets, strict=True):
            file, prefix = getattr(part.source, 'ann_file', None), cfg['data_prefix']
            if file and part.content is not None and not cfg['type'].endswith('.BaseDetDataset'):
                self.places[Path(file).resolve()] = cfg['data_root'] + cfg['ann_file']
            maps = getattr(part.source, 'data_prefix', {}).get('seg')
            if maps and 'seg' in prefix:
                self.places[Path(maps).resolve()] = cfg['data_root'] + prefix['seg']

    def moved(self, value: Any, key: str = '') -> Any:
        """The config of an evaluator that finds its files here.

        Args:
            value: the config, or a value within.
            key: what it is called.
        """
        if isinstance(value, Mapping):
            return {name: self.moved(one, name) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.moved(one, key) for one in value]
        if not isinstance(value, str) or not value or not _INPUT.search(key) or key in _OUTPUTS:
            return value
        path = Path(value).resolve()
        if path.is_file() and path not in self.places:
            self.places[path] = self._copied(path)
        if path in self.places:
            return Here(self.places[path])
        if path.is_dir():
            self.outside.append(str(path))
            return str(path)
        return value

    def _copied(self, path: Path) -> str:
        """A file, cut down to the images of the data set where it lists images."""
        name = f'{TRUTH}/metric_{len(self.places)}/{path.name}'
        goal, content = self.folder / name, coco_content(str(path))
        goal.parent.mkdir(parents=True)
        if content is None:
            shutil.copyfile(path, goal)
        else:
            goal.write_text(json.dumps(coco_subset(content, self.names)))
        return name
