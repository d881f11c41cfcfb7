"""The public names, once; the package imports this module when the first of them is asked for.

If mmengine is installed, our hooks and loops are then registered in its root registries.
"""
import importlib.util

from .api import attack
from .attacks import (
    ASLO,
    GSE,
    PGD0,
    WIFGSM,
    ASLOAddOn,
    Attack,
    BudgetSearch,
    Descent,
    ForeignAttack,
    RandomPixels,
    Relay,
    ScreenedCorners,
    SigmaZero,
    SparseAutoAttack,
    SparsePGD,
    SparseRS,
    StructuredSparsePGD,
    SwapPGD,
    UniversalPatch,
)
from .errors import InputError
from .objectives import (
    DetectorLoss,
    Fabricate,
    FeatureDispersion,
    FeatureDistance,
    Mislabel,
    Targeted,
    TargetedPixels,
    Untargeted,
    UntargetedPixels,
    Vanish,
)
from .patches import Artefact
from .registry import ATTACKS, DEFENCES, GOALS, KERNELS, PLACEMENTS, VICTIMS
from .threat_model import ThreatModel
from .types import AttackResult, Boxes, Verdict

if importlib.util.find_spec('mmengine'):
    from . import engine  # noqa: F401  registers hooks and loops

__all__ = ['ASLO', 'ATTACKS', 'DEFENCES', 'GOALS', 'GSE', 'KERNELS', 'PGD0', 'PLACEMENTS', 'VICTIMS', 'WIFGSM',
           'ASLOAddOn', 'Artefact', 'Attack', 'AttackResult', 'Boxes', 'BudgetSearch', 'Descent', 'DetectorLoss', 'Fabricate',
           'FeatureDispersion', 'FeatureDistance', 'ForeignAttack', 'InputError', 'Mislabel',
           'RandomPixels', 'Relay', 'ScreenedCorners', 'SigmaZero', 'SparseAutoAttack', 'SparsePGD',
           'SparseRS', 'StructuredSparsePGD', 'SwapPGD', 'Targeted', 'TargetedPixels',
           'ThreatModel', 'UniversalPatch', 'Untargeted', 'UntargetedPixels', 'Vanish', 'Verdict', 'attack']
