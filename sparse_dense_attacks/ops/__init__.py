"""Pure functions shared by the attacks; they import torch only."""
from .counts import changed_pixels, count_elements, count_pixels, linf_distance
from .generators import generator_of
from .gradient import gradient
from .projection import box_bounds, largest, pixel_budget, top_k
from .quantize import to_8bit

__all__ = ['box_bounds', 'changed_pixels', 'count_elements', 'count_pixels', 'generator_of',
           'gradient', 'largest', 'linf_distance', 'pixel_budget', 'to_8bit', 'top_k']
