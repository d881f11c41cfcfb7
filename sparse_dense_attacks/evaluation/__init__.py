"""What finished attacks say: success against the budget, and how the changed pixels lie."""
from .curves import draw_curves, draw_validations, success_at
from .markdown import markdown_table
from .sparsity import clusters

__all__ = ['clusters', 'draw_curves', 'draw_validations', 'markdown_table', 'success_at']
