"""mmengine's side: the loop, the hooks, the store and the launcher. Importing it registers hooks, loops and models."""
from mmengine.registry import MODELS

from ..models import PreActResNet
from .attacker import Attacker, Perturbed
from .hooks import AttackHook
from .loops import AttackLoop, AttackValLoop
from .photos import PhotoFolder
from .store import Record, ResultStore
from .training import AdversarialTrainingHook
from .visualization import AttackVisualizationHook, ValidationCurveHook
from .where import Where

__all__ = ['AdversarialTrainingHook', 'AttackHook', 'AttackLoop', 'AttackValLoop', 'AttackVisualizationHook', 'Attacker',
           'Perturbed', 'PhotoFolder', 'Record', 'ResultStore', 'ValidationCurveHook', 'Where']

MODELS.register_module(module=PreActResNet)
