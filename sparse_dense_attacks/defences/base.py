"""The contract of defences, and what puts one in front of a batch."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ..checks import check_choice
from ..ops import generator_of, to_8bit

__all__ = ['Defence', 'Shield', 'defend_batch', 'straight']

JUDGED = 'judged'  # the draw with which a finished image is judged, in place of a number


@dataclass(frozen=True, kw_only=True)
class Defence:
    """A transform of images in front of a victim; fields are its settings.

    What it makes of an image is an 8-bit image of the same size again, so that the attack, which
    looks through it, and the stock model behind it see the same.

    Args:
        space: whose pixels it transforms: 'input', those of the network's input, after the test
            pipeline, or 'original', those of the image file, before it.

    Attributes:
        random: whether it draws.
        draws: over how many draws an attack takes the mean at each look.
        seed: of the draws.
    """
    space: str = 'input'
    random = False  # what draws has fields in place of these
    draws = 1
    seed = 0

    def __post_init__(self):
        check_choice(self, 'space', ('input', 'original'))

    def apply(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """What becomes of images, differentiably or straight through.

        Args:
            x: (b, C, h, w) RGB in [0, 1], of one size and without padding, on the 8-bit grid.
            generators: one for each image where the defence is random, none otherwise.
        """
        raise NotImplementedError

    @final
    def __call__(self, x: Tensor, keys: Sequence = (), numbers: Sequence[int | str] = ()) -> Tensor:
        """What the victim sees of images: 8-bit images again; rounding passes gradients through.

        Args:
            x: (b, C, h, w) RGB in [0, 1], of one size and without padding.
            keys: sample ids.
            numbers: of each image's draw. Another number is another draw.
        """
        generators = []
        if self.random:
            generators = [generator_of(self.seed, f'{key}\0defence\0{number}')
                          for key, number in zip(keys, numbers, strict=True)]
        return to_8bit(self.apply(to_8bit(x), generators).clamp(0, 1))


class Shield:
    """A defence in front of the images of a batch.

    Every look at an image has a draw of its own: the n-th since the batch was opened, whatever the
    other images are.

    Args:
        defence: what is done.
        keys: sample ids.
        order: of the channels, 'rgb' or 'bgr'.
    """

    def __init__(self, defence: Defence, keys: Sequence, order: str):
        self.defence, self.keys, self.order = defence, keys, order
        self.epoch: int | None = None
        self.looks = [0] * len(keys)

    def begin(self, epoch: int) -> None:
        """From here on the draws are those of an epoch, whatever was looked at before."""
        self.epoch, self.looks = epoch, [0] * len(self.keys)

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        """What the victim sees of candidates ``x`` (b, C, h, w) of the images ``rows``."""
        numbers, which = [], rows.tolist()
        for row in which:
            look = self.looks[row]
            numbers.append(look if self.epoch is None else f'{self.epoch}\0{look}')
            self.looks[row] += 1
        return _turned(self.defence(_turned(x, self.order), [self.keys[row] for row in which],
                                    numbers), self.order)


class _Straight(torch.autograd.Function):
    """One tensor's values with the gradient of another."""

    @staticmethod
    def forward(ctx, carrier, values):
        return values.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def straight(carrier: Tensor, values: Tensor) -> Tensor:
    """``values`` exactly, with a gradient as if they were ``carrier``."""
    return _Straight.apply(carrier, values)


def defend_batch(defence: Defence, batch: Mapping[str, Any], keys: Sequence, order: str) -> dict:
    """A copy of a batch of raw images whose inputs are what a defence makes of them.

    Args:
        batch: with ``inputs``, a list of (C, h, w) in [0, 255] or one tensor of them.
        keys: sample ids.
        order: of the channels, 'rgb' or 'bgr'.
    """
    inputs = []
    for image, key in zip(batch['inputs'], keys, strict=True):
        x = _turned(image[None].float() / 255, order)
        with torch.no_grad():
            seen = _turned(defence(x, [key], [JUDGED]), order)[0]
        inputs.append((seen * 255).round().to(image))
    batched = isinstance(batch['inputs'], Tensor)
    return dict(batch, inputs=torch.stack(inputs) if batched else inputs)


def _turned(x: Tensor, order: str) -> Tensor:
    return x.flip(1) if order == 'bgr' else x
