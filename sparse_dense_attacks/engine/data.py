"""Around the victim's own data pipeline: unreadable images, order of transforms, sample ids."""
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from mmengine.registry import DATASETS, FUNCTIONS
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from ..victims.base import sample_key

__all__ = ['SkipUnreadable', 'check_keys', 'digest_of', 'first_readable', 'irregular', 'leaves',
           'loads_annotations_first', 'members', 'tolerant', 'unreadable', 'victim_options']

_IRREGULAR = ((stat.S_ISFIFO, 'a named pipe'), (stat.S_ISSOCK, 'a socket'),
              (stat.S_ISCHR, 'a device'), (stat.S_ISBLK, 'a device'))


class SkipUnreadable(torch.utils.data.Dataset):
    """A data set that hands out (key, reason) where an image cannot be read.

    Args:
        dataset: an mmengine data set.

    Raises:
        InputError: no images; or two images of one key, so that one would go without a record.
    """

    def __init__(self, dataset):
        self.dataset = dataset
        self.metainfo = dataset.metainfo
        if not len(dataset):
            raise InputError(f'the test data set ({type(dataset).__name__}) has no images')
        seen: dict = {}
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            twin = seen.setdefault(sample_key(info), index)
            if twin != index:
                first, second = dataset.get_data_info(twin).get('img_path'), info.get('img_path')
                raise InputError(f"two images of the data set have the key '{sample_key(info)}' "
                                 f'({first}, {second}): rename one, or attack them in separate '
                                 'runs')

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name):
        if name == 'dataset':  # not there yet while unpickling in a worker
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: int):
        info = self.dataset.get_data_info(index)
        try:
            _decode(info.get('img_path'))
            return self.dataset[index]
        except Exception as error:  # whatever a transform raises on a bad file, for the record
            reason = f"{info.get('img_path')}: {type(error).__name__}: {error}"
            return sample_key(info), reason.splitlines()[0]


class Collate:
    """Collates the readable samples of a batch; the others are listed under ``'unreadable'``."""

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, items: list) -> dict:
        good = [item for item in items if not isinstance(item, tuple)]
        batch = self.collate(good) if good else dict(inputs=[], data_samples=[])
        return dict(batch, unreadable=[item for item in items if isinstance(item, tuple)])


def tolerant(dataloader: dict) -> dict:
    """A dataloader config whose data set and collate function put up with unreadable images."""
    dataset = dataloader['dataset']
    if isinstance(dataset, dict):
        dataset = _built(dataset)
    collate = dataloader.get('collate_fn', dict(type='pseudo_collate'))
    if isinstance(collate, dict):
        kind = collate['type']
        options = {name: value for name, value in collate.items() if name != 'type'}
        collate = partial(FUNCTIONS.get(kind) if isinstance(kind, str) else kind, **options)
    return dict(dataloader, dataset=SkipUnreadable(dataset), collate_fn=Collate(collate))


def _built(cfg: dict):
    """A data set from its config.

    Raises:
        InputError: the libraries' terse answers to a data set without images or annotations.
    """
    try:
        dataset = DATASETS.build(cfg)
        dataset.full_init()
    except (AssertionError, ValueError, FileNotFoundError) as error:
        if isinstance(error, InputError):
            raise
        empty = 'need at least one array to concatenate' in str(error)
        reason = 'it has no images' if empty else f'{type(error).__name__}: {error}'.strip(': ')
        given = ', '.join(f'{name}={cfg[name]!r}' for name in ('data_root', 'ann_file')
                          if name in cfg)
        raise InputError(f"the test data set {cfg.get('type')}({given}) cannot be used: {reason}; "
                         'look at ann_file, data_root and data_prefix') from error
    return dataset


def _decode(path: str | None) -> None:
    """Raise OSError for a truncated file, which OpenCV decodes silently, with grey for the rest."""
    if path is None or '://' in path:
        return
    if kind := irregular(path):
        raise OSError(f'{kind}, no image file')
    try:
        with Image.open(path) as image:
            image.load()
    except UnidentifiedImageError:
        return  # a format Pillow does not know: whether it can be read is for the pipeline to say


def unreadable(path: str) -> str | None:
    """Why an image file cannot be read; None if it can."""
    try:
        _decode(path)
    except Exception as error:  # whatever an image library raises on a bad file
        return f'{path}: {type(error).__name__}: {error}'.splitlines()[0]
    return None


def irregular(path) -> str | None:
    """What a path is that cannot be read to an end, such as 'a named pipe'; None for others."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return next((name for is_one, name in _IRREGULAR if is_one(mode)), None)


def members(dataset) -> list:
    """The data sets within mmengine's wrappers (ConcatDataset and the like), in their order."""
    inner = getattr(dataset, 'datasets', None)
    if inner is not None:
        return [member for one in inner for member in members(one)]
    return [dataset] if hasattr(dataset, 'pipeline') else members(dataset.dataset)


def leaves(cfg: Any) -> Iterator[Any]:
    """The configs of the data sets within mmengine's wrappers."""
    if 'datasets' in cfg:
        for one in cfg['datasets']:
            yield from leaves(one)
    elif 'pipeline' not in cfg and isinstance(cfg.get('dataset'), Mapping):
        yield from leaves(cfg['dataset'])
    else:
        yield cfg


def first_readable(dataset: SkipUnreadable) -> Iterator[dict]:
    """The first readable sample of each data set within."""
    start = 0
    for member in members(dataset):
        items = (dataset[index] for index in range(start, min(start + len(member), len(dataset))))
        sample = next((item for item in items if not isinstance(item, tuple)), None)
        if sample is not None:
            yield sample
        start += len(member)


def check_keys(dataset: SkipUnreadable) -> None:
    """Refuse a pipeline whose samples have other ids than the data set says.

    Raises:
        InputError: they differ, so that records would not be found among the data set's images.
    """
    known = keys_of(dataset)
    for item in first_readable(dataset):
        key = sample_key(item['data_samples'])
        if key not in known:
            raise InputError(f"samples of the test pipeline have ids such as '{key}', the data set "
                             f"such as '{min(known)}': add 'img_id' and 'img_path' to the "
                             'meta_keys of the packing transform')


def keys_of(dataset) -> dict[str, int]:
    """The ids of all images of a data set, and their places in it."""
    return {sample_key(dataset.get_data_info(index)): index for index in range(len(dataset))}


def digest_of(dataset) -> str:
    """Of the ids and files of all images of a data set, in their order."""
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        path = info.get('img_path')
        size = os.path.getsize(path) if path is not None and os.path.isfile(path) else None
        digest.update(f'{sample_key(info)} {size}\n'.encode(errors='surrogateescape'))
    return digest.hexdigest()


def loads_annotations_first(dataset) -> bool:
    """Whether the pipeline of a data set, or of the first one within a wrapper, loads annotations
    before it resizes, so that ground truth is resized along."""
    transforms = members(dataset)[0].pipeline.transforms
    names = [type(transform).__name__ for transform in transforms]
    resizes = [i for i, name in enumerate(names) if 'Resize' in name]
    annotations = [i for i, name in enumerate(names)
                   if name.startswith('Load') and 'Annotations' in name]
    return bool(resizes and annotations) and annotations[0] < resizes[0]


class SayResized:
    """The last step of a pipeline: says of each sample whether its ground truth was resized along.

    Args:
        resized: the answer, the same for all samples of a data set.
    """

    def __init__(self, resized: bool):
        self.resized = resized

    def __call__(self, item: dict) -> dict:
        item['data_samples'].set_metainfo(dict(boxes_follow_resize=self.resized))
        return item


def victim_options(dataset) -> dict:
    """What the victim has to know about the data set.

    Where data sets within a wrapper load annotations before and after they resize, their pipelines
    are made to say so of each sample.
    """
    answers = {id(member): loads_annotations_first(member) for member in members(dataset)}
    if len({*answers.values()}) > 1:
        for member in members(dataset):
            if not isinstance(member.pipeline.transforms[-1], SayResized):
                member.pipeline.transforms.append(SayResized(answers[id(member)]))
    return dict(boxes_follow_resize=loads_annotations_first(dataset),
                classes=dataset.metainfo.get('classes'))
