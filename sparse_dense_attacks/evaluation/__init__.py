"""What finished attacks say: success against the budget, how the changed pixels lie, transfer."""
from .controls import CONTROLS, control, donor_of
from .curves import draw_curves, draw_validations, success_at
from .data_set_metrics import average_precision, mean_iou
from .markdown import markdown_table
from .objects import SIZES, detected, hallucinated, of_classes, size_of
from .sparsity import clusters
from .statistics import Interval, bootstrap, difference_interval, mean_interval
from .transfer import Found, change, excess, relative_drop

__all__ = ['CONTROLS', 'SIZES', 'Found', 'Interval', 'average_precision', 'bootstrap', 'change', 'clusters',
           'control', 'detected', 'difference_interval', 'donor_of', 'draw_curves', 'draw_validations', 'excess',
           'hallucinated', 'markdown_table', 'mean_interval', 'mean_iou', 'of_classes', 'relative_drop',
           'size_of', 'success_at']
