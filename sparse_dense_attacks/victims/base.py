"""What victims share; imports no model library."""
from pathlib import PurePath

import torch
from torch import Tensor

from ..errors import InputError
from ..registry import nearest

__all__ = ['by_size', 'check_pixels', 'check_reference', 'content_size', 'sample_key', 'stack_inputs']


def sample_key(sample) -> str:
    """A stable id for a data sample or a data set's info about one: the image id, else folder and name of its file, else index.

    Only the last two parts of a path, so that neither draws nor records depend on where the data lie.
    """
    info = getattr(sample, 'metainfo', sample)
    if info.get('img_id') is not None:
        return str(info['img_id'])
    if info.get('img_path') is not None:
        return '/'.join(PurePath(info['img_path']).parts[-2:])
    if info.get('sample_idx') is not None:
        return str(info['sample_idx'])
    raise InputError("a data sample has none of the meta keys 'img_id', 'img_path', 'sample_idx': add one to the meta_keys of "
                     'the packing transform')


def check_reference(victim) -> None:
    """Refuse a victim whose ``reference`` is neither 'truth' nor 'prediction'."""
    valid = ('truth', 'prediction')
    if victim.reference not in valid:
        raise InputError(f'{type(victim).__name__}: reference = {victim.reference!r}; {nearest(victim.reference, valid)}')


def check_pixels(image: Tensor, sample) -> None:
    """Refuse an input that is no raw image."""
    low, high = float(image.min()), float(image.max())
    scaled = image.is_floating_point() and high <= 1 and not torch.equal(image, image.round())
    if low < 0 or high > 255 or scaled:
        raise InputError(f"input of sample '{sample_key(sample)}' reaches from {low:.3g} to {high:.3g}, expected raw pixels in "
                         "[0, 255]: normalisation belongs to the model's data_preprocessor, not to the test pipeline")


def content_size(sample, image: Tensor) -> tuple[int, int]:
    """Height and width of the resized image inside the letterbox.

    mmcv's Pad overwrites ``img_shape`` with the padded size, so it is computed from the original one.
    """
    h, w = image.shape[-2:]
    if 'ori_shape' not in sample.metainfo or 'scale_factor' not in sample.metainfo:
        return h, w
    scale_w, scale_h = sample.scale_factor[:2]
    return min(h, round(sample.ori_shape[0] * scale_h)), min(w, round(sample.ori_shape[1] * scale_w))


def stack_inputs(inputs: list, samples: list, device) -> tuple[Tensor, Tensor, list]:
    """Raw images (C, h, w) in [0, 255] as a batch.

    Returns:
        Images (B, C, H, W) float in [0, 1], padded right and bottom; the region (B, 1, H, W) bool, False at padding and
        letterbox; and each image's own (height, width).

    Raises:
        InputError: an input is no raw image.
    """
    sizes = [tuple(image.shape[-2:]) for image in inputs]
    h, w = (max(side) for side in zip(*sizes, strict=True))
    images = torch.zeros(len(inputs), inputs[0].shape[0], h, w)
    region = torch.zeros(len(inputs), 1, h, w, dtype=torch.bool)
    for b, (image, sample) in enumerate(zip(inputs, samples, strict=True)):
        check_pixels(image, sample)
        valid_h, valid_w = content_size(sample, image)
        images[b, :, :image.shape[-2], :image.shape[-1]] = image
        region[b, :, :valid_h, :valid_w] = True
    return images.div_(255).to(device), region.to(device), sizes


def by_size(sizes: list, rows: Tensor) -> list:
    """(size, positions in ``rows``) for every input size among ``rows``."""
    groups: dict = {}
    for position, row in enumerate(rows.tolist()):
        groups.setdefault(sizes[row], []).append(position)
    return [(size, torch.tensor(positions)) for size, positions in groups.items()]
