"""What may happen to a patch between printer and camera, each with its own switch and its own draws."""
from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_int, check_number, check_range
from ..errors import InputError
from ..ops import generator_of

__all__ = ['Looks', 'Transforms', 'median_pool']


@dataclass(frozen=True)
class Looks:
    """How each of the P patches of B images looks; all of them on the device of the images.

    Attributes:
        angle: (B, P), counter-clockwise, in radians.
        zoom: (B, P), factor of height and width.
        tilt: (B, P, 2), by how much the far edge is shorter, down and across; below 1 together.
        contrast, brightness: (B, P), ``colour * contrast + brightness``.
        noise: (B, P, C, h, w), added to the pattern's pixels; None for none.
    """
    angle: Tensor
    zoom: Tensor
    tilt: Tensor
    contrast: Tensor
    brightness: Tensor
    noise: Tensor | None = None

    @classmethod
    def plain(cls, count: int, patches: int, device: torch.device, rotation: float = 0.0,
              brightness: float = 0.0) -> 'Looks':
        """All alike: as they are, or turned by so many degrees and so much brighter."""
        zero = torch.zeros(count, patches, device=device)
        return cls(zero + rotation * pi / 180, zero + 1, zero[..., None].expand(-1, -1, 2),
                   zero + 1, zero + brightness)


@dataclass(frozen=True)
class Transforms:
    """Expectation over transformations: draws for every patch, seeded by (seed, image, step, transformation).

    Every one is off by default, and switching one on or off moves no draw of another. All are
    differentiable with respect to the pattern.

    Args:
        rotation: largest angle in degrees, 20 in the literature.
        scale: range of the factor of height and width, such as (0.8, 1.2).
        perspective: largest tilt, as a share by which the far edge gets shorter.
        brightness: largest change of a colour in [0, 1].
        contrast: range of the factor of colours, such as (0.8, 1.2).
        noise: largest change of each channel value, uniform.
        median: side of the window of a median filter over the pattern (odd, 7 in the literature);
            1 for none.

    Reference: arXiv 1904.08653, arXiv 2211.09773.
    """
    rotation: float = 0.0
    scale: Sequence[float] = (1.0, 1.0)
    perspective: float = 0.0
    brightness: float = 0.0
    contrast: Sequence[float] = (1.0, 1.0)
    noise: float = 0.0
    median: int = 1

    def __post_init__(self):
        check_number(self, 'rotation', 0, 180, low_ok=True, high_ok=True)
        check_range(self, 'scale')
        check_number(self, 'perspective', 0, 0.5, low_ok=True)
        check_number(self, 'brightness', 0, 1, low_ok=True)
        check_range(self, 'contrast')
        check_number(self, 'noise', 0, 1, low_ok=True)
        check_int(self, 'median')
        if self.median % 2 == 0:
            raise InputError(f'Transforms: median = {self.median}, expected an odd number')

    def draw(self, seed: int, keys: Sequence, step: int, patches: int, pattern: Tensor) -> Looks:
        """The looks of the patches of the images ``keys`` at a step.

        Args:
            patches: P, of the image that has most; draws do not depend on it.
            pattern: (C, h, w), for noise and the device.
        """
        def numbers(name: str, width: int = 1) -> Tensor:
            """(B, P, width) uniform in [-1, 1), patch by patch."""
            found = torch.stack([torch.rand(patches, width, generator=generator_of(seed, key, step, name))
                                 for key in keys]) if patches else torch.zeros(len(keys), 0, width)
            return (2 * found - 1).to(pattern.device)

        def between(ends: Sequence[float], name: str) -> Tensor:
            low, high = ends
            if low == high:
                return torch.full((len(keys), patches), float(low), device=pattern.device)
            return (low + high) / 2 + (high - low) / 2 * numbers(name)[..., 0]

        def upto(most: float, name: str, width: int = 1) -> Tensor:
            if not most:
                return torch.zeros(len(keys), patches, width, device=pattern.device)
            return most * numbers(name, width)

        noise = None
        if self.noise:
            noise = upto(self.noise, 'noise', pattern.numel()).unflatten(2, pattern.shape)
        return Looks(
            angle=upto(self.rotation * pi / 180, 'rotation')[..., 0],
            zoom=between(self.scale, 'scale'),
            tilt=upto(self.perspective, 'perspective', 2),
            contrast=between(self.contrast, 'contrast'),
            brightness=upto(self.brightness, 'brightness')[..., 0],
            noise=noise)


def median_pool(pattern: Tensor, side: int) -> Tensor:
    """The median of each window of ``side`` x ``side`` pixels around a pixel, (C, h, w); edges are mirrored.

    Windows are no larger than the pattern allows.

    Example:
        >>> median_pool(torch.tensor([[[0., 9., 1.], [2., 3., 4.], [5., 6., 7.]]]), 3)[0, 1, 1]
        tensor(4.)
    """
    reach = min(side // 2, min(pattern.shape[1:]) - 1)
    if reach <= 0:
        return pattern
    wide = F.pad(pattern[None], (reach,) * 4, mode='reflect')
    windows = F.unfold(wide.transpose(0, 1), 2 * reach + 1)  # (C, windows, h w)
    return windows.median(1).values.view_as(pattern)
