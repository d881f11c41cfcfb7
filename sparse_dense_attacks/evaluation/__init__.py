"""What finished attacks say: success against the budget, how the changed pixels lie, transfer."""
from .controls import CONTROLS, control, donor_of
from .curves import draw_curves, draw_validations, success_at
from .data_set_metrics import average_precision, mean_iou
from .limits import patch_score
from .markdown import markdown_table
from .sparsity import clusters
from .statistics import Interval, bootstrap, difference_interval, mean_interval
from .transfer import Found, change, excess, relative_drop

__all__ = ['CONTROLS', 'Found', 'Interval', 'average_precision', 'bootstrap', 'change', 'clusters',
           'control', 'difference_interval', 'donor_of', 'draw_curves', 'draw_validations', 'excess',
           'markdown_table', 'mean_interval', 'mean_iou', 'patch_score', 'relative_drop', 'success_at']
