"""mmengine's side: the loop, the hooks, the store and the launcher. Importing it registers hooks and loops."""
from .attacker import Attacker, Perturbed
from .hooks import AttackHook
from .loops import AttackLoop
from .photos import PhotoFolder
from .store import Record, ResultStore
from .training import AdversarialTrainingHook
from .visualization import AttackVisualizationHook
from .where import Where

__all__ = ['AdversarialTrainingHook', 'AttackHook', 'AttackLoop', 'AttackVisualizationHook', 'Attacker', 'Perturbed',
           'PhotoFolder', 'Record', 'ResultStore', 'Where']
