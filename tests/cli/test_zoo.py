"""The zoo check: which config it takes, what it demands of a victim, and that no family can end the run."""
import importlib.util
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmengine', reason='the zoo check reads configs with mmengine: make setup')

from sparse_dense_attacks import InputError, Untargeted
from sparse_dense_attacks.victims import TorchClassifier
from tests import forks

pytestmark = pytest.mark.openmmlab
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def zoo_check():
    spec = importlib.util.spec_from_file_location('zoo_check', ROOT / 'sparse_dense_attacks/cli/zoo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def configs(tmp_path):
    """A config folder with a family of five, one with a classifier in benchmarks, one without configs, and the shared bases."""
    for name in ('_base_/models/a.py', 'toy/toy_r101_1x.py', 'toy/toy_r50_fpn_2x.py', 'toy/toy_r50_1x.py',
                 'toy/toy-tiny_long-name_1x.py', 'toy/toy_swin-l_1x.py', 'pretrained/tiny.py',
                 'pretrained/benchmarks/large_linear.py', 'papers/metafile.yml'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('optimizer = dict()  # and no model\n')
    return tmp_path


# The choice

def test_smallest_model_first_then_the_plainest_name(zoo_check, configs):
    found = zoo_check.families(configs)
    assert list(found) == ['pretrained', 'toy']
    assert [path.stem for path in found['toy']] == [
        'toy-tiny_long-name_1x', 'toy_r50_1x', 'toy_r50_fpn_2x', 'toy_r101_1x', 'toy_swin-l_1x']
    assert [path.stem for path in found['pretrained']] == ['large_linear', 'tiny']


def test_configs_are_made_small_without_pretrained_weights(zoo_check):
    bn, sync = dict(type='BN'), dict(type='SyncBN', requires_grad=True)
    cfg = dict(pretrained='a.pth', backbone=dict(norm_cfg=sync, init_cfg=dict(checkpoint='b.pth'), img_size=512), heads=[
        dict(num_classes=80, loss=dict(class_weight=[1.0] * 80 + [0.1]))], test_cfg=dict(score_thr=0.05, nms_pre=50))
    zoo_check.make_small(cfg, 'mmdet', (96, 128))
    assert cfg == dict(pretrained=None, backbone=dict(norm_cfg=dict(bn, requires_grad=True), init_cfg=None, img_size=512), heads=[
        dict(num_classes=4, loss=dict(class_weight=[1.0] * 4 + [0.1]))], test_cfg=dict(score_thr=0.0, nms_pre=50))
    cfg = dict(backbone=dict(img_size=512), decode_head=dict(num_classes=19))
    zoo_check.make_small(cfg, 'mmseg', (96, 128))
    assert cfg == dict(backbone=dict(img_size=(96, 128)), decode_head=dict(num_classes=19))


def test_unknown_names_are_refused(zoo_check, configs, monkeypatch):
    monkeypatch.setattr(zoo_check, 'folder', lambda library: configs)
    with pytest.raises(InputError, match="no family is called 'toys'; did you mean 'toy'?"):
        list(zoo_check.survey(['mmdet'], ['toys'], 10))
    monkeypatch.undo()
    with pytest.raises(InputError, match='no_such_library is not installed with its configs'):
        zoo_check.folder('no_such_library')


# What is demanded

@pytest.mark.parametrize(('weights', 'message'), [
    ([1.0, -1.0], None), ([0.0, 0.0], 'is zero'), ([torch.nan, 1.0], 'is not finite')])
def test_gradients_have_to_be_finite_and_not_zero(zoo_check, weights, message):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2, bias=False))
    with torch.no_grad():
        model[1].weight[:] = torch.tensor(weights)[:, None]
    scene = TorchClassifier(model).open(torch.rand(1, 3, 2, 2), torch.tensor([0]))
    if message is None:
        assert zoo_check.check_gradient(Untargeted(), scene) == 'Untargeted'
        return
    with pytest.raises(AssertionError, match=f'the gradient of Untargeted {message}'):
        zoo_check.check_gradient(Untargeted(), scene)


def test_predictions_have_to_agree_to_the_last_bit(zoo_check):
    one = torch.ones(3)
    zoo_check.agree(one, one.clone(), 'logits')
    for other in (torch.nextafter(one, 2 * one), one[:2]):
        with pytest.raises(AssertionError, match="logits differ from the library's own prediction"):
            zoo_check.agree(other, one, 'logits')


@pytest.mark.parametrize('change', [False, True])
def test_the_model_has_to_be_left_alone(zoo_check, configs, monkeypatch, change):
    monkeypatch.setattr(zoo_check, 'folder', lambda library: configs)
    monkeypatch.setattr(zoo_check, 'build', lambda *arguments: (torch.nn.BatchNorm1d(2), None))
    monkeypatch.setattr(zoo_check, 'settle', lambda *arguments: None)

    def check_victim(model, batch):
        model.running_mean += change
        return 'Goal'

    monkeypatch.setitem(zoo_check.TASKS, 'mmdet', (lambda *arguments: {}, check_victim))
    expected = (False, 'AssertionError: the state dict has changed') if change else (True, 'Goal')
    assert zoo_check.in_child(zoo_check.check, 'mmdet', configs / 'toy/toy_r50_1x.py', limit=60) == expected


# The run

def test_whatever_a_model_does_is_one_line(zoo_check):
    def fail():
        raise ValueError('first line\n  last line  \n')

    limit = 30
    assert zoo_check.in_child(lambda: 'good', limit=limit) == (True, 'good')
    assert zoo_check.in_child(fail, limit=limit) == (False, 'ValueError: last line')
    assert zoo_check.in_child(lambda: os.kill(os.getpid(), signal.SIGKILL), limit=limit) == (False, 'killed by signal 9')
    assert zoo_check.in_child(lambda: time.sleep(60), limit=0.2) == (False, 'not done within 0.2 s')
    assert 'MemoryError' in zoo_check.in_child(lambda: len(bytes(zoo_check.MEMORY)), limit=limit)[1]


def test_a_family_that_cannot_be_built_is_a_row(zoo_check, configs, monkeypatch):
    monkeypatch.setattr(zoo_check, 'folder', lambda library: configs)
    row = zoo_check.examine('mmdet', 'toy', zoo_check.families(configs)['toy'][:1], 60)
    assert row[:4] == ('mmdet', 'toy', 'failed', 'toy-tiny_long-name_1x.py') and "no attribute 'model'" in row.found


def test_reasons_count_against_coverage_but_other_tasks_do_not(zoo_check, monkeypatch):
    error = 'RuntimeError: carafe_forward_impl: implementation for device cpu not found.'
    monkeypatch.setattr(zoo_check, 'in_child', lambda *arguments, limit: (False, error))
    rows = [zoo_check.examine('mmdet', name, [Path('a.py')], 1) for name in ('carafe', 'fast_rcnn', 'sort')]
    assert [row.status for row in rows] == ['not covered', 'not covered', 'other task']
    assert 'CUDA only' in rows[0].found and rows[2].found == 'tracks objects in videos'
    monkeypatch.setattr(zoo_check, 'in_child', lambda *arguments, limit: (True, 'Vanish'))
    rows.append(zoo_check.examine('mmdet', 'atss', [Path('a.py')], 1))
    assert zoo_check.coverage(rows) == dict(mmdet=dict(covered=1, ours=3, all=4))


DOCTOR = ROOT / 'sparse_dense_attacks/cli/doctor.py'


def test_unknown_library(tmp_path):
    printed = forks.run([DOCTOR, 'zoo', 'mmtorch'], tmp_path / 'printed.txt', status=2)
    assert 'no zoo is known of mmtorch; expected mmdet, mmseg, mmpretrain' in printed


@pytest.mark.slow
def test_one_family_of_each_library(tmp_path, monkeypatch):
    for library in ('mmdet', 'mmseg', 'mmpretrain'):
        pytest.importorskip(library, exc_type=ImportError)
    monkeypatch.setenv('COLUMNS', '160')
    printed = forks.run([DOCTOR, 'zoo', '--only', 'yolox', 'fastscnn', 'shufflenet_v2', 'vpd', '--out', tmp_path / 'zoo.json'],
                        tmp_path / 'printed.txt')
    assert 'mmseg: 1 of 1 families whose task is ours are covered (100%); of all 2 families 50%' in printed
    assert 'fast_scnn_8xb4-160k_cityscapes-512x1024.py' in printed and 'estimates depth' in printed
    found = json.loads((tmp_path / 'zoo.json').read_text())
    assert found['coverage']['mmpretrain'] == dict(covered=1, ours=1, all=1)
    assert {row['family']: row['found'] for row in found['families']} == dict(
        yolox='Vanish', fastscnn='UntargetedPixels', vpd='estimates depth', shufflenet_v2='Untargeted')
