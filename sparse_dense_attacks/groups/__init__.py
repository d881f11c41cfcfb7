"""What a budget counts: pixels, rows, columns, patches, shapes, letters, or the pattern in a PNG."""
from .base import Kernel, Pixel
from .lines import Column, Row
from .pattern import Patch, Pattern
from .picture import Picture
from .shape import Shape

__all__ = ['Column', 'Kernel', 'Patch', 'Pattern', 'Picture', 'Pixel', 'Row', 'Shape']
