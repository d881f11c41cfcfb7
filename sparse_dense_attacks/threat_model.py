"""What an attacker may do, and on what it is judged."""
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .checks import check_choice, check_flag, check_int, check_number, from_fields, shown
from .errors import InputError
from .ops import changed_pixels
from .registry import Config, nearest
from .victims.where import Where

__all__ = ['Extent', 'ThreatModel']

EIGHT = np.ones((3, 3))  # whom a pixel touches


class Extent(NamedTuple):
    """Where changes lie: ``components`` (B,) int64, ``area`` (B,) float64, ``allowed`` (B,) bool."""
    components: Tensor
    area: Tensor
    allowed: Tensor


@dataclass(frozen=True)
class ThreatModel:
    """One object that every run, hook, loop and :func:`~sparse_dense_attacks.attack` takes, stores and prints.

    Args:
        grid: whose pixels change: ``'input'``, those of the network input after the test pipeline,
            or ``'original'``, those of the image file, through the test pipeline.
        where: which of them: ``'anywhere'``, ``'inside'`` or ``'outside'`` the objects, a folder of masks, or a dict, see
            :class:`~sparse_dense_attacks.victims.where.Where`.
        eight_bit: the attack sees what an 8-bit file can hold (default); False: float images, as published codes do.
        max_forwards: hard budget of forward passes per image, None for none: all of them, those too that judge the result, as
            somebody counts who watches the model. Whether the model is random is not tried then.
        rechecks: how often a finished image is shown to the victim; it is broken where more than
            half of the answers say so. 1 is right for models that answer the same each time.
        max_components: into how many connected pieces (eight neighbours) changed pixels may fall,
            None for any number.
        max_area: how large a share of the image may change, None for all. An image beyond either
            limit is not broken, whatever the victim says of it; attacks do not know of them, so
            their budget has to keep within.
        seed: with an image's key it decides every random draw for the image.

    Raises:
        InputError: a value that makes no sense.

    Example:
        >>> ThreatModel(max_forwards=100).max_forwards
        100
    """
    grid: str = 'input'
    where: Where | Config = 'anywhere'
    eight_bit: bool = True
    max_forwards: int | None = None
    seed: int = 0
    rechecks: int = 1
    max_components: int | None = None
    max_area: float | None = None

    def __post_init__(self):
        check_choice(self, 'grid', ('input', 'original'))
        check_flag(self, 'eight_bit')
        if self.grid == 'original' and not self.eight_bit:
            raise InputError("ThreatModel: eight_bit = False beside grid = 'original', but image "
                             "files hold 8 bits: leave it out, or set grid='input'")
        check_int(self, 'seed', low=None)
        check_int(self, 'rechecks')
        if self.max_forwards is not None:
            check_int(self, 'max_forwards')
        if self.max_components is not None:
            check_int(self, 'max_components')
        if self.max_area is not None:
            check_number(self, 'max_area', 0, 1, high_ok=True)
        object.__setattr__(self, 'where', Where.build(self.where))

    @property
    def limited(self) -> bool:
        """Whether there is a limit of pieces or area."""
        return self.max_components is not None or self.max_area is not None

    def extent(self, before: Tensor, after: Tensor, sizes: Sequence[tuple[int, int]]) -> Extent:
        """How images (B, C, H, W) on the 8-bit grid have been changed, and whether that is allowed.

        Args:
            before, after: padded right and bottom.
            sizes: height and width of each without padding.
        """
        changed = changed_pixels(after, before)
        pieces = torch.tensor([ndimage.label(image, EIGHT)[1] for image in changed.cpu().numpy()],
                              dtype=torch.int64, device=changed.device)
        whole = torch.tensor([h * w for h, w in sizes], dtype=torch.float64, device=changed.device)
        area = changed.flatten(1).sum(1) / whole
        allowed = torch.ones_like(pieces, dtype=torch.bool)
        if self.max_components is not None:
            allowed &= pieces <= self.max_components
        if self.max_area is not None:
            allowed &= area <= self.max_area
        return Extent(pieces, area, allowed)

    @classmethod
    def build(cls, cfg: 'ThreatModel | Mapping | None' = None,
              older: Mapping[str, Any] | None = None, who: str = 'threat') -> 'ThreatModel':
        """From a config's ``threat``, and from single fields as configs gave them before there was one.

        Args:
            cfg: a dict of fields, a finished object, or None.
            older: fields that were given one by one.
            who: what they are arguments of, for errors.

        Raises:
            InputError: unknown fields, or one given in both ways with different values.

        Example:
            >>> ThreatModel.build(dict(seed=1), dict(eight_bit=False)).seed
            1
        """
        if isinstance(cfg, cls):
            cfg = {field.name: getattr(cfg, field.name) for field in dataclasses.fields(cls)}
        if not isinstance(cfg, Mapping | None):
            raise InputError(f'threat = {shown(cfg)}, expected a dict such as '
                             'dict(seed=1, where="inside")')
        cfg, older = dict(cfg or {}), dict(older or {})
        valid = [field.name for field in dataclasses.fields(cls)]
        for name, value in older.items():
            if name not in valid:
                raise InputError(f"{who} has no argument '{name}': {nearest(name, valid)}")
            if name in cfg and cfg[name] != value:
                raise InputError(f'{name} = {value!r} beside threat.{name} = {cfg[name]!r}: they '
                                 'disagree, so leave one out')
        return from_fields(cls, cfg | older, 'threat')
