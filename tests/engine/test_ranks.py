"""Processes that share the images of a run: what they find is what one process finds."""
import json
import os
import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet', reason='the processes attack an mmdet detector', exc_type=ImportError)

from mmengine.evaluator import BaseMetric, Evaluator  # noqa: E402

from sparse_dense_attacks.cli import attack as cli_attack  # noqa: E402
from sparse_dense_attacks.cli import launch  # noqa: E402
from sparse_dense_attacks.engine.ranks import ClaimedBatches, Ranks, shared_out  # noqa: E402
from sparse_dense_attacks.engine.scores import Scores  # noqa: E402
from sparse_dense_attacks.errors import InputError  # noqa: E402
from sparse_dense_attacks.results import Run  # noqa: E402
from tests.ranks import start  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
DONE = 'KILL_AFTER'  # environment variable: how many images a process stores before it is killed
IMAGES, BATCH = 5, 3  # two batches: the third process has nothing to do


def arguments(work_dir: Path, *extra, limit=IMAGES) -> list[str]:
    return [str(ROOT / 'configs/spgd_yolox.py'), '--work-dir', str(work_dir), '--limit', str(limit), '--device', 'cpu', *extra,
            '--cfg-options', 'attack.steps=6', 'attack.early_stop=True', f'test_dataloader.batch_size={BATCH}',
            'test_dataloader.num_workers=0', 'pictures=0']


def results(work_dir: Path):
    """All that is found: records without the time they took, in their order; metrics; and pictures."""
    assert not list(work_dir.glob('records.*.jsonl')), 'merged'
    lines = [json.loads(line) for line in (work_dir / 'records.jsonl').read_text().splitlines()]
    metrics = json.loads((work_dir / 'metrics.json').read_text())
    for one in (*lines, metrics):
        one.pop('seconds', one.pop('attack/seconds', None))
    pictures = {path.name: path.read_bytes() for path in (work_dir / 'images').glob('*.png')}
    return sorted(lines, key=lambda one: int(one['key'])), metrics, pictures


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('alone')
    assert cli_attack.main(arguments(work_dir)) == 0
    lines, metrics, pictures = results(work_dir)
    assert [one['key'] for one in lines] == [str(key) for key in range(IMAGES)] and len(pictures) == IMAGES
    assert 0 < metrics['attack/success_rate'] < 1 and len({one['forwards'] for one in lines}) > 1, 'some stop early'
    return sorted(lines, key=lambda one: int(one['key'])), metrics, pictures


def test_what_several_find_is_what_one_finds(alone, tmp_path):
    for status, printed in start([[__file__, *arguments(tmp_path / 'run')]] * 3, tmp_path):
        assert status == 0, printed
    assert results(tmp_path / 'run') == alone
    answers = [len(path.read_text().splitlines()) for path in (tmp_path / 'run/views').glob('answers*.jsonl')]
    assert len(answers) > 1 and sum(answers) == IMAGES, 'more than one process has attacked'


def test_one_that_is_killed_loses_nothing_and_the_other_ends(alone, tmp_path):
    run = tmp_path / 'run'
    first, second = start([[__file__, *arguments(run)]] * 2, tmp_path, rank1={DONE: '1'})
    assert second[0] == -signal.SIGKILL
    assert first[0] == 2 and 'error: another process of this run has ended before its time; ' in first[1]
    assert 'Traceback' not in first[1]
    left = Run.load(run)
    assert (run / 'records.1.jsonl').exists() and not left.metrics and not left.bad
    assert 2 <= len(left.records) - 1 < IMAGES - 1, 'one of the second, and all that the first has taken'
    stored = {one.file: (run / one.file).stat().st_mtime_ns for one in left.records}
    assert cli_attack.main(arguments(run, '--resume')) == 0, 'one goes on with what two began'
    assert results(run) == alone
    assert stored == {file: (run / file).stat().st_mtime_ns for file in stored}, 'nothing is made twice'


def test_what_the_first_process_refuses_all_refuse(monkeypatch):
    said: list = []

    def told(rank, value):
        said.append(value)
        return said[0]

    def refuses():
        raise InputError('in use')

    monkeypatch.setattr(Ranks, 'told', told)
    for rank in range(3):
        one = Ranks()
        one.count, one.rank = 3, rank
        with pytest.raises(InputError, match='in use'):
            one.first_does(refuses)
    assert said == ['in use', None, None]
    one = Ranks()
    with pytest.raises(InputError, match='in use'):
        one.first_does(refuses)
    one.first_does(lambda: said.append('alone'))
    assert said[3:] == ['alone']


def test_processes_that_see_different_images_say_so_once(tmp_path):
    said = start([[__file__, *arguments(tmp_path / 'run', limit=limit)] for limit in (2, 3)], tmp_path)
    assert [status for status, _ in said] == [2, 2]
    errors = [line for _, printed in said for line in printed.splitlines() if line.startswith('error')]
    assert len(errors) == 1 and 'see different images: those of rank 1 are not those of rank 0' in errors[0]
    assert not (tmp_path / 'run/run.json').exists()


# Pieces

class Keys(BaseMetric):
    """Keeps one thing of each image, or two of even ones."""

    def process(self, data_batch, data_samples):
        for key in data_batch:
            self.results += [key] * (2 - key % 2)

    def compute_metrics(self, results):
        return {'keys': list(results)}


class Fake:
    """A rank that has been given what the others have."""
    several = True

    def __init__(self, others=None):
        self.others, self.given = others, None

    def gathered(self, value):
        self.given = value
        if isinstance(value, dict):
            return [value, dict(clean={'Keys 1': 'it broke'}, adv={})]
        return [] if self.others is None else [value, *self.others]


def kept(batches, others=None):
    evaluators = [Evaluator([Keys(), Keys()]) for _ in range(2)]
    scores, rank = Scores(*evaluators), Fake(others)
    for batch in batches:
        for evaluator in evaluators:
            for metric in evaluator.metrics:
                metric.process(batch, batch)
        scores.mark(batch[0])
    scores._gather(rank)
    assert scores.failures == dict(clean={'Keys 1': 'it broke'}, adv={})
    return rank.given, [metric.results for evaluator in evaluators for metric in evaluator.metrics]


def test_what_metrics_keep_is_put_in_the_order_of_the_data_set():
    one, left = kept([[2, 3], [8]])
    assert left == [[]] * 4
    two, left = kept([])
    assert two == [] and left == [[]] * 4
    _, found = kept([[4, 5], [0, 1], [6, 7]], [one, two])
    assert found == [[0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8]] * 4


class Sampled:
    shuffle, dataset = False, range(5)


class DefaultSampler(Sampled):
    pass


class Shuffled(DefaultSampler):
    shuffle = True


def test_batches_are_those_of_one_process():
    assert ClaimedBatches(DefaultSampler(), 2).batches == [[0, 1], [2, 3], [4]]
    assert ClaimedBatches(DefaultSampler(), 2, drop_last=True).batches == [[0, 1], [2, 3]]
    for sampler in (Sampled(), Shuffled()):
        with pytest.raises(InputError, match='in the order of the data set'):
            ClaimedBatches(sampler, 2)
    given = dict(batch_size=2, num_workers=4, persistent_workers=True, prefetch_factor=3, drop_last=True)
    assert shared_out(given) == dict(batch_size=2, num_workers=0, persistent_workers=False,
                                     batch_sampler=dict(type='ClaimedBatches', drop_last=True))
    for wrong in (object(), dict(batch_sampler=dict(type='Other'))):
        with pytest.raises(InputError, match='without batch_sampler'):
            shared_out(wrong)


def test_a_launcher_that_has_not_launched(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith('SLURM_') or name in ('RANK', 'MASTER_ADDR'):
            monkeypatch.delenv(name)
    with pytest.raises(InputError, match='RANK is not set: start with torchrun'):
        launch.join('pytorch', 'cpu')
    with pytest.raises(InputError, match='SLURM_PROCID is not set: start with srun'):
        launch.join('slurm', 'cpu')
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames node[07-08]" ] && printf "node07\\nnode08\\n"')
    monkeypatch.setenv('PATH', str(tmp_path))
    for name, value in dict(PROCID='1', NTASKS='2', LOCALID='0', NODELIST='node[07-08]').items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_PORT', 'MASTER_ADDR'):
        monkeypatch.setenv(name, '')  # put back afterwards
        monkeypatch.delenv(name)
    with pytest.raises(InputError, match='scontrol show hostnames .* fails .*set MASTER_ADDR'):
        launch._from_slurm()
    scontrol.chmod(0o755)
    launch._from_slurm()
    assert {name: os.environ[name] for name in launch._SET_BY_TORCHRUN} == dict(
        RANK='1', WORLD_SIZE='2', LOCAL_RANK='0', MASTER_ADDR='node07', MASTER_PORT='29500')


def run(words: list[str]) -> int:
    """One of the processes; it ends itself where it is told to."""
    from sparse_dense_attacks.results import ResultStore
    add, most = ResultStore.add, int(os.environ.get(DONE, '0'))

    def counted(store, record, *rest):
        found = add(store, record, *rest)
        if most and len(store.records) == most:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    ResultStore.add = counted
    return cli_attack.main(words)


if __name__ == '__main__':
    sys.exit(run(sys.argv[1:]))
