"""A metric that fails costs that metric only: records, the attack's metrics, the others and a line that says so remain."""
import json
from pathlib import Path

import pytest

pytest.importorskip('mmpretrain', reason='the demo models are those of the libraries', exc_type=ImportError)

from mmengine.evaluator import BaseMetric, Evaluator  # noqa: E402
from mmengine.registry import METRICS  # noqa: E402

from sparse_dense_attacks.cli.attack import attack_from_command_line  # noqa: E402
from sparse_dense_attacks.engine.scores import Scores, spared  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]


@METRICS.register_module()
class Fragile(BaseMetric):
    """Fails where it is told to; as those of data sets that want every image of their annotation file."""

    def __init__(self, where='', **kwargs):
        super().__init__(**kwargs)
        self.where = where

    def _at(self, where):
        if self.where == where:
            raise AssertionError(f'6 images expected\nin {where}')

    def process(self, data_batch, data_samples):
        self._at('process')
        self.results.append(1)

    def compute_metrics(self, results):
        self._at('compute')
        return dict(fragile=len(results))

    def evaluate(self, size):
        self._at('evaluate')
        return super().evaluate(size)


def run(tmp_path, where, capfd) -> tuple[dict, str]:
    path = tmp_path / 'config.py'
    path.write_text(f"_base_ = ['{ROOT}/configs/spgd_resnet18.py']\npictures = 0\nattack = dict(steps=1)\n"
                    'test_dataloader = dict(num_workers=0)\n'
                    f"test_evaluator = [dict(type='Fragile', where='{where}'), dict(type='Accuracy', topk=(1,))]\n")
    found = attack_from_command_line([str(path), '--work-dir', str(tmp_path / 'run'), '--limit', '2', '--device', 'cpu'])
    return found, capfd.readouterr().err


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('where', ['process', 'compute', 'evaluate'])
def test_the_run_and_the_other_metrics_remain(tmp_path, capfd, where):
    found, said = run(tmp_path, where, capfd)
    stored = json.loads((tmp_path / 'run/metrics.json').read_text())
    assert {'clean/accuracy/top1', 'adv/accuracy/top1', 'attack/success_rate'} <= stored.keys()
    assert 'clean/fragile' not in found
    reason = 'AssertionError: 6 images expected'
    assert stored['attack/metrics_failed'] == {'clean/Fragile': reason, 'adv/Fragile': reason}
    assert said.count('metric clean/Fragile failed and is left out (AssertionError: 6 images expected)') == 1
    assert len((tmp_path / 'run/records.jsonl').read_text().splitlines()) == 2


def test_a_sound_metric_is_not_touched(tmp_path, capfd):
    found, said = run(tmp_path, '', capfd)
    assert found['clean/fragile'] == found['adv/fragile'] == 1 and 'attack/metrics_failed' not in found
    assert 'failed' not in said


def test_two_metrics_of_one_kind_fail_apart():
    evaluator = Evaluator([Fragile('process', prefix='a'), Fragile(prefix='b')])
    failures = spared(evaluator)
    evaluator.process([{}], {})
    assert list(failures) == ['Fragile 0'] and evaluator.evaluate(1) == {'b/fragile': 1}


def test_one_side_may_fail_alone():
    scores = Scores(Evaluator([Fragile()]), Evaluator([Fragile('compute')]))
    for evaluator in scores.sides.values():
        evaluator.process([{}], {})
    metrics, failed = scores.evaluate([0], {'0'})
    assert metrics == {'clean/fragile': 1} and list(failed) == ['adv/Fragile']
