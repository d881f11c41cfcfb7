"""Hooks for mmengine's root registry, one class a file."""
from .adversarial_training_hook import AdversarialTrainingHook
from .attack_hook import AttackHook
from .attack_visualization_hook import AttackVisualizationHook
from .validation_curve_hook import ValidationCurveHook

__all__ = ['AdversarialTrainingHook', 'AttackHook', 'AttackVisualizationHook',
           'ValidationCurveHook']
