"""Around the victim's own data pipeline: unreadable images, order of transforms, pictures."""
from functools import partial

import numpy as np
import torch
from mmengine.registry import DATASETS, FUNCTIONS
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import InputError
from ..victims.base import sample_key

__all__ = ['SkipUnreadable', 'from_picture', 'loads_annotations_first', 'to_picture', 'tolerant', 'victim_options']


class SkipUnreadable(torch.utils.data.Dataset):
    """A data set that hands out (key, reason) where an image cannot be read, instead of ending the run.

    Args:
        dataset: an mmengine data set.

    Raises:
        InputError: two images have the same key, so that one of them would go without a record.
    """

    def __init__(self, dataset):
        self.dataset = dataset
        self.metainfo = dataset.metainfo
        seen: dict = {}
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            twin = seen.setdefault(sample_key(info), index)
            if twin != index:
                paths = dataset.get_data_info(twin).get('img_path'), info.get('img_path')
                raise InputError(f"two images of the data set have the key '{sample_key(info)}' ({paths[0]}, {paths[1]}): rename "
                                 'one, or attack them in separate runs')

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
        except Exception as error:  # whatever a transform raises on a bad file; the reason is recorded and reported
            return sample_key(info), f"{info.get('img_path')}: {type(error).__name__}: {error}".splitlines()[0]


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
        dataset = DATASETS.build(dataset)
        dataset.full_init()
    collate = dataloader.get('collate_fn', dict(type='pseudo_collate'))
    if isinstance(collate, dict):
        kind, options = collate['type'], {name: value for name, value in collate.items() if name != 'type'}
        collate = partial(FUNCTIONS.get(kind) if isinstance(kind, str) else kind, **options)
    return dict(dataloader, dataset=SkipUnreadable(dataset), collate_fn=Collate(collate))


def _decode(path: str | None) -> None:
    """Raise OSError for a truncated file: OpenCV decodes it silently, with grey where data are missing."""
    if path is None or '://' in path:
        return
    try:
        with Image.open(path) as image:
            image.load()
    except UnidentifiedImageError:
        return  # a format Pillow does not know: whether it can be read is for the pipeline to say


def loads_annotations_first(dataset) -> bool:
    """Whether the pipeline loads annotations before it resizes, so that ground truth is resized along.

    Of mmengine's wrappers (ConcatDataset and the like) the first data set within is asked.
    """
    while not hasattr(dataset, 'pipeline'):
        dataset = dataset.dataset if hasattr(dataset, 'dataset') else dataset.datasets[0]
    names = [type(transform).__name__ for transform in dataset.pipeline.transforms]
    resizes = [i for i, name in enumerate(names) if 'Resize' in name]
    annotations = [i for i, name in enumerate(names) if name.startswith('Load') and 'Annotations' in name]
    return bool(resizes and annotations) and annotations[0] < resizes[0]


def victim_options(dataset) -> dict:
    """What the victim has to know about the data set."""
    return dict(boxes_follow_resize=loads_annotations_first(dataset), classes=dataset.metainfo.get('classes'))


def to_picture(image: Tensor) -> np.ndarray:
    """A loader's (3, H, W) image in [0, 255] as (H, W, 3) uint8 RGB; mmcv's loaders give BGR."""
    if len(image) != 3:
        raise InputError(f'images with {len(image)} channels cannot be stored as PNG; 3 are expected')
    return image.flip(0).permute(1, 2, 0).round().clamp(0, 255).cpu().numpy().astype(np.uint8)


def from_picture(picture: np.ndarray) -> Tensor:
    """The inverse of :func:`to_picture`."""
    return torch.from_numpy(picture).permute(2, 0, 1).flip(0).contiguous()
