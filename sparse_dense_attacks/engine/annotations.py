"""Data sets of the model libraries written anew around other images.

Each form is one that a stock class of the library reads. What was written is read back, and taken
only if it says of every image what the original said.
"""
import inspect
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import numpy as np
from mmengine.registry import DATASETS
from PIL import Image

from ..errors import InputError

__all__ = ['IMAGES', 'TRUTH', 'Part', 'coco_subset', 'names_for', 'plain']

IMAGES, TRUTH = 'images', 'annotations'  # folders of a part
_PATHS = ('img_path', 'seg_map_path', 'xml_path')
_OWN = {*_PATHS, 'sample_idx', 'label_map', 'reduce_zero_label'}  # of one place and form only
# Of a data set's config, what another place or form of its files makes void.
_VOID = ('type', 'ann_file', 'data_root', 'data_prefix', 'indices', 'img_suffix', 'seg_map_suffix',
         'metainfo', 'backend_args', 'file_client_args', 'lazy_init')


@dataclass(frozen=True)
class Part:
    """One data set of a run, and the images of it that were scored.

    Attributes:
        source: the data set as the run built it.
        cfg: its config.
        library: the model's.
        infos: what it says of these images, in its order.
        names: of their PNGs, relative to :data:`IMAGES`.
        folder: where it is written; its own, with the images in it.
        content: annotations in COCO's format, where there are such.
    """
    source: Any
    cfg: Mapping
    library: str
    infos: Sequence[dict]
    names: Sequence[str]
    folder: Path
    content: dict | None = None

    def write(self) -> dict:
        """Write the annotations.

        Returns:
            The config of the data set in the folder.

        Raises:
            InputError: no form holds what the data set says of its images.
        """
        reasons = []
        for form in self._forms():
            cfg = form(self) | dict(data_root=f'{self.folder}/')
            reason = self._differs(cfg)
            if reason is None:
                return cfg
            reasons.append(f"as {cfg['type']} {reason}")
            shutil.rmtree(self.folder / TRUTH, ignore_errors=True)
        name = type(self.source).__name__
        raise InputError(f'a {name} cannot be written as a data set of {self.library}: '
                         f"{'; '.join(reasons) or 'it has no annotations known here'}")

    @property
    def sources(self) -> list[str]:
        """The original image files."""
        return [info['img_path'] for info in self.infos]

    def _forms(self) -> Iterator[Callable[['Part'], dict]]:
        if self.content is not None:
            yield _coco
        for key, form in (('instances', _listed), ('seg_map_path', _label_maps),
                          ('gt_label', _labels)):
            if self.infos[0].get(key) is not None:
                yield form

    def _differs(self, cfg: dict) -> str | None:
        """What of the data set that was written is not as in the original, None if all is."""
        try:
            found = DATASETS.build(cfg)
            found.full_init()
        except Exception as error:  # the libraries' classes are told what they may not expect
            return f'it cannot be read ({type(error).__name__}: {error})'
        if len(found) != len(self.infos):
            return f'it has {len(found)} images of {len(self.infos)}'
        if plain(found.metainfo.get('classes')) != plain(self.source.metainfo.get('classes')):
            return 'its classes differ'
        for index, (info, name) in enumerate(zip(self.infos, self.names, strict=True)):
            new = found.get_data_info(index)
            if Path(new['img_path']) != self.folder / IMAGES / name:
                return f"'{name}' is taken for {new['img_path']}"
            for key in info.keys() & new.keys() - _OWN:
                said, read = ((np.ravel(one[key]).tolist() if key == 'gt_label' else plain(one[key]))
                              for one in (info, new))
                if said != read:
                    return f"{key} of '{name}' differs"
            if missing := info.keys() & {'instances', 'gt_label', 'img_id'} - new.keys():
                return f"'{name}' lacks {', '.join(missing)}"
        return None

    def stock(self, plain_kind: str) -> type:
        """The class of the library that the data set is of, or else the one named."""
        kinds = type(self.source).__mro__
        own = (kind for kind in kinds if kind.__module__.partition('.')[0] == self.library)
        return next(own, None) or DATASETS.get(f'{self.library}.{plain_kind}')

    def kept(self, kind: type) -> dict:
        """What of the config stays for a data set of a class, beside where its files are."""
        known = {name for base in kind.__mro__ if '__init__' in vars(base)
                 for name in inspect.signature(base).parameters}
        own = {key: value for key, value in self.cfg.items()
               if key not in _VOID and (key in known or key == '_scope_')}
        own['type'] = f'{self.library}.{kind.__name__}'
        told = plain(self.source.metainfo)
        if kind is type(self.source) and 'metainfo' in self.cfg:
            own['metainfo'] = self.cfg['metainfo']
        elif kind is not type(self.source) or plain(
                kind.METAINFO.get('classes')) != told.get('classes'):
            own['metainfo'] = {key: value for key, value in told.items()
                               if key not in ('label_map', 'reduce_zero_label')}
            own.setdefault('test_mode', True)
        return own

    def kept_by(self, plain_kind: str) -> dict:
        return self.kept(DATASETS.get(f'{self.library}.{plain_kind}'))

    def truth(self, name: str) -> Path:
        """A file to write below :data:`TRUTH`."""
        path = self.folder / TRUTH / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def names_for(paths: Sequence[str], root: str | None) -> list[str]:
    """Names for the PNGs of image files, below ``root`` or else below their common folder.

    A name keeps its folders and all but its ending, unless two would be one then, also where
    capitals do not count. What no list in a text file could hold is written as in URLs.

    Example:
        >>> names_for(['/d/a/1.jpg', '/d/b/1.jpg', '/d/b/1.bmp'], '/d')
        ['a/1.png', 'b/1.jpg.png', 'b/1.bmp.png']
    """
    whole = [os.path.abspath(path) for path in paths]
    within = root and all(PurePath(path).is_relative_to(os.path.abspath(root)) for path in whole)
    base = os.path.abspath(root) if root and within else os.path.commonpath(
        [os.path.dirname(path) for path in whole])
    inner = [PurePath(path).relative_to(base) for path in whole]
    short = [_writable(path.with_suffix('').as_posix()) for path in inner]
    counts = Counter(name.casefold() for name in short)
    return [f'{name if counts[name.casefold()] == 1 else _writable(path.as_posix())}.png'
            for name, path in zip(short, inner, strict=True)]


def _writable(name: str) -> str:
    odd = r'^\s|\s$|[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]'
    return re.sub(odd, lambda found: quote(found[0], safe='', errors='surrogateescape'), name)


def plain(value: Any) -> Any:
    """A value as JSON would give it back."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value.decode() if isinstance(value, bytes) else value


def coco_subset(content: dict, names: Mapping[Any, str]) -> dict:
    """Annotations in COCO's format of some images, whose files are called otherwise.

    Args:
        names: of the image files, by the images' ids.
    """
    images = []
    for image in content['images']:
        if image['id'] in names:
            # LVIS v1 has no file_name and takes what follows the host in this one
            key = 'coco_url' if 'file_name' not in image and 'coco_url' in image else 'file_name'
            images.append(image | {key: names[image['id']]})
    annotations = [one for one in content['annotations'] if one.get('image_id') in names]
    return content | dict(images=images, annotations=annotations)


def _coco(part: Part) -> dict:
    """An annotation file in COCO's format, of the same class of data set."""
    kind, source = part.stock('CocoDataset'), part.source
    ids = [info.get('img_id') for info in part.infos]
    content = coco_subset(part.content or {}, dict(zip(ids, part.names, strict=True)))
    file = PurePath(getattr(source, 'ann_file', None) or 'instances.json').name
    part.truth(file).write_text(json.dumps(content))
    prefix = dict(img=IMAGES)
    if part.infos[0].get('seg_map_path'):
        prefix['seg'] = _copied_maps(part)
    return part.kept(kind) | dict(ann_file=f'{TRUTH}/{file}', data_prefix=prefix)


def _listed(part: Part) -> dict:
    """What a detection data set says of each image, in OpenMMLab's own format."""
    prefix, infos = dict(img_path=IMAGES), []
    if part.infos[0].get('seg_map_path'):
        prefix['seg_map_path'] = _copied_maps(part)
    for info, name in zip(part.infos, part.names, strict=True):
        one = {key: plain(value) for key, value in info.items()
               if key not in (*_PATHS, 'sample_idx')}
        infos.append(one | dict.fromkeys(prefix, name))
    metainfo = dict(classes=plain(part.source.metainfo.get('classes')))
    content = dict(metainfo=metainfo, data_list=infos)
    part.truth('annotations.json').write_text(json.dumps(content))
    return part.kept_by('BaseDetDataset') | dict(ann_file=f'{TRUTH}/annotations.json', data_prefix=prefix)


def _copied_maps(part: Part) -> str:
    for info, name in zip(part.infos, part.names, strict=True):
        shutil.copyfile(info['seg_map_path'], part.truth(f'maps/{name}'))
    return f'{TRUTH}/maps'


def _label_maps(part: Part) -> dict:
    """A folder of label maps beside that of the images, and a list of what they have in common."""
    names, maps = part.names, [info['seg_map_path'] for info in part.infos]
    ending = re.sub(r'\.\w*$', '.png', getattr(part.source, 'img_suffix', '.png'))
    suffix = getattr(part.source, 'seg_map_suffix', '.png')
    if not all(name.endswith(ending) for name in names):
        ending = '.png'
    bases = [name.removesuffix(ending) for name in names]
    if not all(path.endswith(suffix) for path in maps):
        suffix = '.png'
    mapped = [info for info in part.infos if info.get('label_map') is not None]
    copied = not mapped and all(path.endswith(suffix) for path in maps)
    for info, base in zip(part.infos, bases, strict=True):
        goal = part.truth(f'maps/{base}{suffix}')
        if copied:
            shutil.copyfile(info['seg_map_path'], goal)
        else:
            Image.fromarray(_as_loaded(part.source, info)).save(goal, format='PNG')
    part.truth('images.txt').write_text(''.join(f'{base}\n' for base in bases), encoding='utf-8')
    zero = bool(copied and part.infos[0].get('reduce_zero_label'))
    cfg = part.kept_by('BaseSegDataset') | dict(
        ann_file=f'{TRUTH}/images.txt', img_suffix=ending, seg_map_suffix=suffix,
        reduce_zero_label=zero, data_prefix=dict(img_path=IMAGES, seg_map_path=f'{TRUTH}/maps'))
    steps = [dict(step) for step in cfg['pipeline']]
    if not copied:  # they are renumbered already
        for step in steps:
            step.pop('reduce_zero_label', None)
    if not any('Annotation' in str(step['type']) for step in steps):  # photos
        steps.insert(-1, dict(type='LoadAnnotations'))
    return cfg | dict(pipeline=steps)


def _as_loaded(source, info: dict) -> np.ndarray:
    """The classes of an image's pixels, (H, W) uint8, renumbered as the data set's pipeline does."""
    load = next((step for step in source.pipeline.transforms
                 if type(step).__name__.startswith('Load') and 'Annotation' in type(step).__name__),
                None)
    if load is None:
        raise InputError('the pipeline of the data set does not load the label maps')
    return load(dict(info, seg_fields=[]))['gt_seg_map'].astype(np.uint8)


def _labels(part: Part) -> dict:
    """A list of image files and their classes."""
    labels = [int(np.asarray(info['gt_label']).item()) for info in part.infos]
    lines = [f'{name} {label}\n' for name, label in zip(part.names, labels, strict=True)]
    part.truth('labels.txt').write_text(''.join(lines), encoding='utf-8')
    return part.kept_by('CustomDataset') | dict(
        ann_file=f'{TRUTH}/labels.txt', data_prefix=IMAGES, with_label=True)
