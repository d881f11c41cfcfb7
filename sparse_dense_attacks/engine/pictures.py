"""Inputs as pictures, and back; which channel is red is asked of the pipeline."""
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..results import model_of
from .data import members

__all__ = ['channel_order', 'from_picture', 'preprocessing', 'to_picture']

ORDERS = ('bgr', 'rgb')
_PROBE = (220, 120, 20)  # red, green, blue: whatever keeps their order is told apart
# Data sets that hold their images in memory, and in which order.
_IN_MEMORY = dict(CIFAR10='rgb', CIFAR100='rgb')
_DECLARE = "say which: test_dataloader.dataset.metainfo.channel_order='rgb' (or 'bgr')"


def preprocessing(cfg) -> dict:
    """The config of the model's data_preprocessor, wherever it is given."""
    return model_of(cfg).get('data_preprocessor') or {}


def channel_order(dataset, preprocessor: dict) -> str:
    """The order of the channels in the inputs that a data set's pipeline yields, 'bgr' or 'rgb'.

    ``metainfo.channel_order`` decides where it is given. Otherwise the pipeline is shown a picture
    of one colour in place of its first image, so loaders and transforms of any kind are followed.
    For images that come from no file, the conversion that the model's preprocessing makes tells.

    Args:
        dataset: a data set, or several within mmengine's wrappers.
        preprocessor: config of the model's data_preprocessor.

    Raises:
        InputError: it cannot be known, the data sets differ, or inputs have no three channels.
    """
    orders = {_order(member, preprocessor) for member in members(dataset)}
    if len(orders) > 1:
        raise InputError('the data sets of the test run yield channels in different orders (bgr '
                         'and rgb): attack them in separate runs')
    return orders.pop()


def _order(dataset, preprocessor: dict) -> str:
    declared = dataset.metainfo.get('channel_order')
    if declared is not None:
        if declared not in ORDERS:
            raise InputError(f'metainfo.channel_order = {declared!r}, expected one of '
                             f'{", ".join(ORDERS)}')
        return declared
    from_file = 'img_path' in dataset.get_data_info(0)
    found = _probed(dataset) if from_file else _in_memory(dataset, preprocessor)
    if found is None:
        raise InputError('images cannot be stored: whether the inputs that the test pipeline '
                         f'yields are RGB or BGR cannot be known; {_DECLARE}')
    return found


def _in_memory(dataset, preprocessor: dict) -> str | None:
    for kind in type(dataset).__mro__:
        if kind.__name__ in _IN_MEMORY:
            return _IN_MEMORY[kind.__name__]
    if preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb'):
        return 'bgr'
    return 'rgb' if preprocessor.get('rgb_to_bgr') else None


def _probed(dataset) -> str | None:
    """What becomes of a picture of one colour; None if nobody can tell."""
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        try:
            with Image.open(info['img_path']) as image:
                size = image.size
        except (OSError, ValueError):
            continue  # unreadable, or elsewhere than on disk: the next one serves as well
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'probe').with_suffix(Path(info['img_path']).suffix)
            try:
                Image.new('RGB', size, _PROBE).save(path)
                item = dataset.pipeline(dict(info, img_path=str(path)))
            except Exception:  # of a format or a transform that takes its own files only
                return None
        pixels = item['inputs'].flatten(1).float()
        if len(pixels) != 3:
            raise _no_picture(len(pixels))
        falling = int(((pixels[0] > pixels[1]) & (pixels[1] > pixels[2])).sum())
        rising = int(((pixels[0] < pixels[1]) & (pixels[1] < pixels[2])).sum())
        if falling == rising:
            return None
        return 'rgb' if falling > rising else 'bgr'
    return None


def to_picture(image: Tensor, order: str = 'bgr') -> np.ndarray:
    """An input (3, H, W) in [0, 255] as (H, W, 3) uint8 RGB.

    Args:
        order: of the input's channels; mmcv's loaders give 'bgr'.
    """
    if len(image) != 3:
        raise _no_picture(len(image))
    pixels = _turned(image, order).permute(1, 2, 0).round().clamp(0, 255)
    return pixels.cpu().numpy().astype(np.uint8)


def from_picture(picture: np.ndarray, order: str = 'bgr') -> Tensor:
    """The inverse of :func:`to_picture`."""
    return _turned(torch.from_numpy(picture).permute(2, 0, 1), order).contiguous()


def _turned(image: Tensor, order: str) -> Tensor:
    return image.flip(0) if order == 'bgr' else image


def _no_picture(channels: int) -> InputError:
    return InputError(f'images with {channels} channels cannot be stored as PNG; 3 are expected')
