"""Sparse adversarial attacks on classifiers, mmdet detectors and mmseg segmenters.

Importing the package needs torch only. If mmengine is installed, our hooks and loops are registered in its root registries, and
an mmcv without compiled operators gets those of ``compat``.
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
    ForeignAttack,
    RandomPixels,
    SigmaZero,
    SparseAutoAttack,
    SparsePGD,
    SparseRS,
    StructuredSparsePGD,
    SwapPGD,
)
from .errors import InputError
from .objectives import DetectorLoss, Fabricate, Mislabel, Targeted, TargetedPixels, Untargeted, UntargetedPixels, Vanish
from .registry import ATTACKS, GOALS, KERNELS, VICTIMS
from .threat_model import ThreatModel
from .types import AttackResult, Boxes, Verdict

if importlib.util.find_spec('mmengine'):
    from . import compat, engine  # noqa: F401  engine registers hooks and loops
    compat.install()  # before anybody imports mmcv.ops: a user's `import mmdet.models` may be next

__version__ = '0.1.0'

__all__ = ['ASLO', 'ATTACKS', 'GOALS', 'GSE', 'KERNELS', 'PGD0', 'VICTIMS', 'WIFGSM', 'ASLOAddOn', 'Attack', 'AttackResult',
           'Boxes', 'BudgetSearch', 'DetectorLoss', 'Fabricate', 'ForeignAttack', 'InputError', 'Mislabel', 'RandomPixels',
           'SigmaZero', 'SparseAutoAttack', 'SparsePGD', 'SparseRS', 'StructuredSparsePGD', 'SwapPGD', 'Targeted',
           'TargetedPixels', 'ThreatModel', 'Untargeted', 'UntargetedPixels', 'Vanish', 'Verdict', 'attack']
