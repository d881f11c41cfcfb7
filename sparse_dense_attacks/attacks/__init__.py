"""Attack cores: one file per method; they import torch only and know no task."""
from .base import Attack, BudgetAttack, cascade
from .pgd0 import PGD0
from .random_pixels import RandomPixels
from .rng import ImageRNG
from .spgd import SparsePGD

__all__ = ['PGD0', 'Attack', 'BudgetAttack', 'ImageRNG', 'RandomPixels', 'SparsePGD', 'cascade']
