"""Attack cores: one file per method; they import torch only and know no task."""
from .active import Active
from .aslo import ASLO, ASLOAddOn
from .base import Attack, BudgetAttack, MinimumAttack, cascade, judge
from .budget_search import BudgetSearch
from .descent import Descent
from .foreign_attack import ForeignAttack
from .gse import GSE
from .pgd0 import PGD0
from .random_pixels import RandomPixels
from .relay import Relay
from .rng import ImageRNG
from .screened_corners import ScreenedCorners
from .sigma_zero import SigmaZero
from .sparse_auto_attack import SparseAutoAttack
from .sparse_pgd import SparsePGD
from .sparse_rs import SparseRS
from .structured_sparse_pgd import StructuredSparsePGD
from .swap_pgd import SwapPGD
from .universal_patch import UniversalPatch
from .wi_fgsm import WIFGSM

__all__ = [
    'ASLO', 'GSE', 'PGD0', 'WIFGSM', 'ASLOAddOn', 'Active', 'Attack', 'BudgetAttack',
    'BudgetSearch', 'Descent', 'ForeignAttack', 'ImageRNG', 'MinimumAttack', 'RandomPixels', 'Relay',
    'ScreenedCorners', 'SigmaZero', 'SparseAutoAttack',
    'SparsePGD', 'SparseRS', 'StructuredSparsePGD', 'SwapPGD', 'UniversalPatch', 'cascade', 'judge',
]
