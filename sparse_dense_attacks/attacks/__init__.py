"""Attack cores: one file per method; they import torch only and know no task."""
from .aslo import ASLO, ASLOAddOn
from .auto import SparseAutoAttack
from .base import Attack, BudgetAttack, cascade
from .gse import GSE
from .pgd0 import PGD0
from .random_pixels import RandomPixels
from .rng import ImageRNG
from .sigma_zero import SigmaZero
from .sparse_rs import SparseRS
from .spgd import SparsePGD
from .structured import StructuredSparsePGD
from .wi_fgsm import WIFGSM

__all__ = ['ASLO', 'GSE', 'PGD0', 'WIFGSM', 'ASLOAddOn', 'Attack', 'BudgetAttack', 'ImageRNG', 'RandomPixels', 'SigmaZero',
           'SparseAutoAttack', 'SparsePGD', 'SparseRS', 'StructuredSparsePGD', 'cascade']
