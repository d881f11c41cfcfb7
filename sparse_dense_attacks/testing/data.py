"""Images and boxes for tests."""
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..types import Boxes

__all__ = ['corner_images', 'pad_boxes', 'pictures']


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """Random images on the 8-bit grid.

    Args:
        shape: (B, C, H, W).
        seed: decides the pixels.

    Returns:
        Float in [0, 1], multiples of 1/255.
    """
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)) / 255


def corner_images(image: Tensor, k: int) -> Tensor:
    """Every image that differs in k pixels, each at a corner of the colour cube.

    Brute force for tiny images.

    Args:
        image: (C, H, W) float in [0, 1].
        k: pixels.

    Returns:
        (N, C, H, W), where N is the number of sets of k pixels times 2 ** (C * k).

    Example:
        >>> corner_images(torch.full((1, 1, 2), 0.5), 1)[:, 0, 0].tolist()
        [[0.0, 0.5], [1.0, 0.5], [0.5, 0.0], [0.5, 1.0]]
    """
    c, h, w = image.shape
    colours = list(itertools.product((0., 1.), repeat=c))
    found = []
    for pixels in itertools.combinations(range(h * w), k):
        for chosen in itertools.product(colours, repeat=k):
            x = image.flatten(1).clone()
            for pixel, colour in zip(pixels, chosen, strict=True):
                x[:, pixel] = torch.tensor(colour)
            found.append(x.view(c, h, w))
    return torch.stack(found)


def pad_boxes(per_image: Sequence[Sequence[tuple]]) -> Boxes:
    """Hand-made boxes of a batch.

    Args:
        per_image: for every image its ``(box, label, score)``; a box is ``(x1, y1, x2, y2)`` in
            pixels.

    Example:
        >>> pad_boxes([[((0, 0, 4, 4), 2, 0.9)], []]).labels
        tensor([[ 2],
                [-1]])
    """
    longest = max(map(len, per_image), default=0)
    boxes = torch.zeros(len(per_image), longest, 4)
    labels = torch.full((len(per_image), longest), -1)
    scores = torch.zeros(len(per_image), longest)
    for b, row in enumerate(per_image):
        for n, (box, label, score) in enumerate(row):
            boxes[b, n] = torch.tensor(box, dtype=torch.float)
            labels[b, n] = label
            scores[b, n] = score
    return Boxes(boxes, labels, scores)
