"""Projections onto sparsity budgets and the image box."""
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ['box_bounds', 'largest', 'pixel_budget', 'top_k']


def pixel_budget(k: int | float | Mapping, region: Tensor, keys: Sequence | None = None,
                 unit: str = 'pixels') -> Tensor:
    """The number of pixels each image may change.

    Args:
        k: a count when int, a share of the region when a float in (0, 1), or a dict from key to count.
        region: (B, C, H, W) bool, what may change.
        keys: names of the images for the error; positions in the batch by default.
        unit: what ``region`` is a mask of, for the error.

    Returns:
        (B,) int64. An image of which fewer pixels may change than ``k`` gets all of these, with a
        warning that names it; a share is rounded down but is at least 1 pixel.

    Raises:
        InputError: ``k`` has no entry for an image.
    """
    room = region.flatten(1).sum(1)
    if isinstance(k, float):
        # 0.009 of 3000 is 27 pixels although 3000 * 0.009 falls short of 27
        share = (room.double() * k + 1e-6).long()
        return share.clamp(min=1).minimum(room)
    keys = list(range(len(region))) if keys is None else keys
    if isinstance(k, Mapping):
        missing = [key for key in keys if key not in k]
        if missing:
            raise InputError(f'k has no entry for image {missing[0]}; it names {len(k)} images')
        counts = torch.tensor([k[key] for key in keys], dtype=torch.int64, device=region.device)
    else:
        counts = torch.full_like(room, k)
    short = ((room > 0) & (room < counts)).nonzero()[:, 0].tolist()
    if short:
        names = ', '.join(f'{int(room[b])} of {keys[b]}' for b in short[:5])
        more = ', ...' if len(short) > 5 else ''
        warnings.warn(f'fewer {unit} may change than k allows, so all of them: {names}{more}',
                      RuntimeWarning, stacklevel=2)
    return counts.minimum(room)


def top_k(scores: Tensor, k: Tensor, k_max: int) -> tuple[Tensor, Tensor]:
    """Indices of the ``k[b]`` largest scores of each row.

    Args:
        scores: (B, N) float.
        k: (B,) int64.
        k_max: ``max(k)``, known to the caller so that no device synchronisation is needed.

    Returns:
        indices (B, k_max) int64 in descending order of score, and ``keep`` (B, k_max) bool, False beyond ``k[b]``.
    """
    if k_max == 1:  # takes a tenth of the time
        indices = scores.argmax(1, keepdim=True)
    else:
        indices = scores.topk(k_max, dim=1).indices
    return indices, torch.arange(k_max, device=k.device) < k[:, None]


def largest(scores: Tensor, k: Tensor, k_max: int) -> Tensor:
    """Where the ``k[b]`` largest scores of each image are.

    Args:
        scores: (B, 1, H, W) float.
        k, k_max: as in :func:`top_k`.

    Returns:
        (B, 1, H, W) bool.
    """
    index, keep = top_k(scores.flatten(1), k, k_max)
    mask = torch.zeros_like(scores, dtype=torch.bool).flatten(1)
    return mask.scatter_(1, index, keep).view_as(scores)


def box_bounds(x: Tensor, eps_inf: float) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of a perturbation that stays within ``eps_inf`` and within the image box [0, 1]."""
    return (-x).clamp_(min=-eps_inf), (1 - x).clamp_(max=eps_inf)
