"""Objectives: what a goal means for a batch of images, as loss, margin and success per image."""
from .base import EightBit, MeteredObjective, Objective, Restricted
from .classification import Untargeted
from .detection import DetectorLoss, Vanish

__all__ = ['DetectorLoss', 'EightBit', 'MeteredObjective', 'Objective', 'Restricted', 'Untargeted', 'Vanish']
