"""Small victims and data with known answers, so that a test of an extension is ten lines.

Example:
    >>> import torch
    >>> from sparse_dense_attacks import SparsePGD
    >>> from sparse_dense_attacks.testing import Net, objective, pictures
    >>> result = SparsePGD(k=2, steps=10)(objective(Net(), pictures(3, 3, 8, 8)))
    >>> result.l0_pixels.max() <= 2, result.forwards.max() <= 12
    (tensor(True), tensor(True))
"""
from .data import corner_images, pad_boxes, pictures
from .models import Answers, Linear, Net
from .scenes import Detections, objective

__all__ = ['Answers', 'Detections', 'Linear', 'Net', 'corner_images', 'objective', 'pad_boxes', 'pictures']
