"""Transforms in front of a victim: what somebody may do to images before a model sees them."""
from .base import Defence, Shield, defend_batch
from .bit_depth import BitDepth
from .custom import Custom
from .jpeg import JPEG
from .median import Median
from .random_resize_pad import RandomResizePad
from .total_variation import TotalVariation

__all__ = ['JPEG', 'BitDepth', 'Custom', 'Defence', 'Median', 'RandomResizePad', 'Shield',
           'TotalVariation', 'defend_batch']
