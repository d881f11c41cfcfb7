"""What finished attacks say: success against the budget, how the changed pixels lie, transfer."""
from .controls import CONTROLS, control, donor_of
from .curves import (
    accuracy_at,
    draw_curves,
    draw_validations,
    local_optimality,
    metric_at,
    success_at,
    success_band,
    worst_case,
)
from .data_set_metrics import average_precision, mean_iou
from .detections import Answer, Objects, answer
from .interpretability import (
    Roles,
    adversarial_saliency,
    cam_overlap,
    grad_cam,
    interpretability_score,
    necessary,
    pruned,
    roles,
)
from .limits import patch_score
from .markdown import markdown_table
from .measures import measure_intervals, pooled
from .objects import SIZES, detected, hallucinated, of_classes, size_of
from .sparsity import clusters, pixels, preference, windows
from .statistics import Interval, bootstrap, difference_interval, mean_interval
from .transfer import Found, change, excess, relative_drop

__all__ = ['CONTROLS', 'SIZES', 'Answer', 'Found', 'Interval', 'Objects', 'Roles', 'accuracy_at',
           'adversarial_saliency', 'answer', 'average_precision', 'bootstrap', 'cam_overlap',
           'change', 'clusters', 'control', 'detected', 'difference_interval', 'donor_of',
           'draw_curves', 'draw_validations', 'excess', 'grad_cam', 'hallucinated',
           'interpretability_score', 'local_optimality', 'markdown_table', 'mean_interval',
           'mean_iou', 'metric_at', 'measure_intervals', 'necessary', 'of_classes', 'patch_score',
           'pixels', 'pooled', 'preference', 'pruned', 'relative_drop', 'roles', 'size_of',
           'success_at', 'success_band', 'windows', 'worst_case']
