"""Objectives: what a goal means for a batch of images, as loss, margin and success per image."""
from .base import EightBit, MeteredObjective, Objective, Restricted
from .classification import Targeted, Untargeted
from .detection import DetectorLoss, Fabricate, Mislabel, Vanish
from .ensemble import Ensemble
from .features import FeatureDispersion, FeatureDistance
from .segmentation import TargetedPixels, UntargetedPixels

__all__ = ['DetectorLoss', 'EightBit', 'Ensemble', 'Fabricate', 'FeatureDispersion',
           'FeatureDistance', 'MeteredObjective', 'Mislabel', 'Objective', 'Restricted', 'Targeted',
           'TargetedPixels', 'Untargeted', 'UntargetedPixels', 'Vanish']
