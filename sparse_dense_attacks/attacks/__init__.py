"""Attack cores: one file per method; they import torch only and know no task."""
from .aslo import ASLO, ASLOAddOn
from .auto import SparseAutoAttack
from .base import Attack, BudgetAttack, MinimumAttack, cascade
from .foreign import ForeignAttack
from .gse import GSE
from .pgd0 import PGD0
from .random_pixels import RandomPixels
from .rng import ImageRNG
from .search import BudgetSearch
from .sigma_zero import SigmaZero
from .sparse_rs import SparseRS
from .spgd import SparsePGD
from .structured import StructuredSparsePGD
from .swaps import SwapPGD
from .wi_fgsm import WIFGSM

__all__ = ['ASLO', 'GSE', 'PGD0', 'WIFGSM', 'ASLOAddOn', 'Attack', 'BudgetAttack', 'BudgetSearch', 'ForeignAttack', 'ImageRNG',
           'MinimumAttack', 'RandomPixels', 'SigmaZero', 'SparseAutoAttack', 'SparsePGD', 'SparseRS', 'StructuredSparsePGD',
           'SwapPGD', 'cascade']
