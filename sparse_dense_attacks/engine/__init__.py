"""mmengine's side: the loop, the hooks, the store and the launcher.

Importing it registers hooks, loops and models, and lets ``_base_`` name configs of any package.
"""
from mmengine.registry import MODELS

from ..models import PreActResNet
from ..results import Record, ResultStore
from ..victims.where import Where
from .attacker import Attacker, Perturbed
from .defend import DefenceHook, Defend
from .fit import FitLoop
from .hooks import AdversarialTrainingHook, AttackHook, AttackVisualizationHook, ValidationCurveHook
from .loops import AttackLoop, AttackValLoop
from .outcomes import AttackMeasures, DetectionOutcomes
from .packaged_configs import configs_folder
from .photos import PhotoFolder
from .transfer import TransferLoop

__all__ = ['AdversarialTrainingHook', 'AttackHook', 'AttackLoop', 'AttackMeasures', 'AttackValLoop',
           'AttackVisualizationHook', 'Attacker', 'DefenceHook', 'Defend', 'DetectionOutcomes', 'FitLoop', 'Perturbed',
           'PhotoFolder', 'Record', 'ResultStore', 'TransferLoop', 'ValidationCurveHook', 'Where', 'configs_folder']

MODELS.register_module(module=PreActResNet)
