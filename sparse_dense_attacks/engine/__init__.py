"""mmengine's side: the loop, the hooks, the store and the launcher. Importing it registers hooks, loops and models."""
from mmengine.registry import MODELS

from ..models import PreActResNet
from ..results import Record, ResultStore
from ..victims.where import Where
from .attacker import Attacker, Perturbed
from .hooks import AdversarialTrainingHook, AttackHook, AttackVisualizationHook, ValidationCurveHook
from .loops import AttackLoop, AttackValLoop
from .photos import PhotoFolder

__all__ = ['AdversarialTrainingHook', 'AttackHook', 'AttackLoop', 'AttackValLoop', 'AttackVisualizationHook', 'Attacker',
           'Perturbed', 'PhotoFolder', 'Record', 'ResultStore', 'ValidationCurveHook', 'Where']

MODELS.register_module(module=PreActResNet)
