"""What finished attacks say: success against the budget, and how the changed pixels lie."""
from .curves import draw_curves, draw_validations, success_at
from .sparsity import clusters

__all__ = ['clusters', 'draw_curves', 'draw_validations', 'success_at']
