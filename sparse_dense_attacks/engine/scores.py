"""The victim's own metrics, before and after; none takes the run down."""
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.evaluator import Evaluator

__all__ = ['Scores', 'apart', 'spared']

Failures = dict[str, str]


def apart(evaluator: Evaluator | dict | list, name: str) -> Evaluator | dict | list:
    """A second evaluator like the first, whose metrics dump what they dump into other files."""
    evaluator = copy.deepcopy(evaluator)
    for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
        known = set(metric if isinstance(metric, dict) else ())
        for option in {'outfile_prefix', 'out_file_path', 'output_dir'} & known:
            if metric[option]:
                path = Path(metric[option])
                metric[option] = str(path.with_name(f'{name}_{path.name}'))
    return evaluator


def spared(evaluator: Evaluator) -> Failures:
    """Let a metric that fails cost that metric only.

    Returns:
        What failed and why, by the metric's name; filled as the evaluation goes on.
    """
    failures: Failures = {}
    for number, metric in enumerate(evaluator.metrics):
        name = type(metric).__name__
        if sum(type(other) is type(metric) for other in evaluator.metrics) > 1:
            name = f'{name} {number}'
        # Attributes of the object stand before the methods of its class.
        metric.process = _guarded(name, metric.process, failures)
        metric.compute_metrics = _guarded(name, metric.compute_metrics, failures)
        if get_world_size() == 1:  # with several, the others would wait for what it sends
            metric.evaluate = _guarded(name, metric.evaluate, failures)
    return failures


def _guarded(name: str, method, failures: Failures):
    def call(*args: Any, **kwargs: Any) -> Any:
        if name in failures:
            return {}
        try:
            return method(*args, **kwargs)
        except Exception as error:  # a metric is other people's code
            text = str(error).strip().splitlines()
            failures[name] = ': '.join([type(error).__name__, *text[:1]])
            return {}

    return call


class Scores:
    """A pair of evaluators, of the clean and of the attacked images.

    Args:
        clean, attacked: the evaluators, of which ``attacked`` is the one that hooks know.
        others: of other versions of the images, by name.
    """

    def __init__(self, clean: Evaluator, attacked: Evaluator, **others: Evaluator):
        self.sides = dict(clean=clean, adv=attacked, **others)
        self.failures = {prefix: spared(evaluator) for prefix, evaluator in self.sides.items()}

    def evaluate(self, dataset, keys: set[str]) -> tuple[dict, Failures]:
        """Metrics of all evaluators over the images with these keys, and which failed."""
        metrics: dict[str, Any] = {}
        for prefix, evaluator in self.sides.items():
            failures = self.failures[prefix]
            for others in all_gather_object(dict(failures)):  # failed anywhere, failed everywhere
                failures.update(others)
            _restrict(evaluator, dataset, keys)
            scores = evaluator.evaluate(len(dataset)) or {}
            metrics |= {f'{prefix}/{name}': _number(value) for name, value in scores.items()}
        failed = {f'{prefix}/{name}': reason for prefix, failures in self.failures.items()
                  for name, reason in failures.items()}
        return metrics, failed


def _number(value):
    """A metric as JSON can hold it: of mmseg's float32 the shortest decimal is meant."""
    if isinstance(value, np.floating):
        return float(str(value))
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value


def _restrict(evaluator: Evaluator, dataset, keys: set[str]) -> None:
    """Score a subset of COCO or LVIS as that subset.

    Otherwise their metrics count every image of the annotation file as missed. Others look at what
    they were shown only.
    """
    for metric in evaluator.metrics:
        if any(getattr(metric, api, None) is not None for api in ('_coco_api', '_lvis_api')):
            ids = (dataset.get_data_info(i)['img_id'] for i in range(len(dataset)))
            metric.img_ids = [i for i in ids if str(i) in keys]
