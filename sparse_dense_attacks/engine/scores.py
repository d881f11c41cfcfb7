"""The victim's own metrics, before and after; none takes the run down."""
import copy
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.structures import BaseDataElement

from .ranks import Ranks, alone

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
        metric.evaluate = _guarded(name, metric.evaluate, failures, alone=True)
    return failures


def _guarded(name: str, method, failures: Failures, alone: bool = False):
    """A method that fails quietly; with ``alone``, where no other process waits for what it sends."""
    def call(*args: Any, **kwargs: Any) -> Any:
        if alone and get_world_size() > 1:
            return method(*args, **kwargs)
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

    Processes that share a run have seen other batches each. What metrics kept of a batch is put in
    the order of the data set on rank 0 before they compute anything, as if one process had seen all
    of them.

    Args:
        clean, attacked: the evaluators, of which ``attacked`` is the one that hooks know.
        others: of other versions of the images, by name.
    """

    def __init__(self, clean: Evaluator, attacked: Evaluator, **others: Evaluator):
        self.sides = dict(clean=clean, adv=attacked, **others)
        self.failures = {prefix: spared(evaluator) for prefix, evaluator in self.sides.items()}
        self._ends: list[tuple[int, list[int]]] = []

    @property
    def _metrics(self) -> list[BaseMetric]:
        return [metric for evaluator in self.sides.values() for metric in evaluator.metrics]

    def mark(self, place: int) -> None:
        """All evaluators have processed a batch, whose first image has this place in the data set."""
        self._ends.append((place, [len(metric.results) for metric in self._metrics]))

    def evaluate_shared(self, ranks: Ranks, dataset, keys: Container[str]) -> tuple[dict, Failures]:
        """What :meth:`evaluate` says, where processes have seen some batches each.

        Rank 0 computes it as if it were alone: mmengine expects equal shares of a known order.
        """
        if not ranks.several:
            return self.evaluate(dataset, keys)
        self._gather(ranks)
        found: tuple[dict, Failures] = {}, {}
        if ranks.rank == 0:
            with alone():
                found = self.evaluate(dataset, keys)
        return ranks.told(found)

    def _gather(self, ranks: Ranks) -> None:
        """Let rank 0 have what the metrics of all processes kept, and the others nothing."""
        start, parts = [0] * len(self._metrics), []
        for place, ends in self._ends:
            kept = [metric.results[a:b]
                    for metric, a, b in zip(self._metrics, start, ends, strict=True)]
            parts.append((place, _on_cpu(kept)))
            start = ends
        for failures in ranks.gathered(self.failures):  # failed anywhere, failed everywhere
            for prefix, known in failures.items():
                self.failures[prefix].update(known)
        of_all = sorted((part for own in ranks.gathered(parts) for part in own),
                        key=lambda part: part[0])
        for number, metric in enumerate(self._metrics):
            metric.results[:] = [one for _, kept in of_all for one in kept[number]]
        self._ends.clear()

    def evaluate(self, dataset, keys: Container[str]) -> tuple[dict, Failures]:
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


def _on_cpu(value: Any) -> Any:
    """What a metric kept, without tensors on a device that others do not have."""
    if isinstance(value, torch.Tensor | BaseDataElement):
        return value.to('cpu')
    if isinstance(value, dict):
        return {key: _on_cpu(one) for key, one in value.items()}
    return type(value)(map(_on_cpu, value)) if type(value) in (list, tuple) else value


def _number(value):
    """A metric as JSON can hold it: of mmseg's float32 the shortest decimal is meant."""
    if isinstance(value, np.floating):
        return float(str(value))
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value


def _restrict(evaluator: Evaluator, dataset, keys: Container[str]) -> None:
    """Score a subset of COCO or LVIS as that subset.

    Otherwise their metrics count every image of the annotation file as missed. Others look at what
    they were shown only.
    """
    for metric in evaluator.metrics:
        if any(getattr(metric, api, None) is not None for api in ('_coco_api', '_lvis_api')):
            ids = (dataset.get_data_info(i)['img_id'] for i in range(len(dataset)))
            metric.img_ids = [i for i in ids if str(i) in keys]
