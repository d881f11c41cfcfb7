"""Weights are read as data: code in them is not run, by whatever road, unless the user trusts it."""
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain', reason='the commands attack its classifier', exc_type=ImportError)

from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint

from sparse_dense_attacks import InputError
from sparse_dense_attacks.cli import main
from sparse_dense_attacks.cli.checkpoints import SWITCH, guard_loading, read_checkpoint
from sparse_dense_attacks.cli.configs import read_config, unset_variables
from sparse_dense_attacks.cli.weights import check_weights, find_weights

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]


class Evil:
    """Creates a folder when it is unpickled."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


class Exec:
    """The same by a builtin."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return exec, (f'open({str(self.place)!r}, "w").close()',)


@pytest.fixture(autouse=True)
def _guarded(monkeypatch):
    monkeypatch.setenv(SWITCH, '0')  # so that it is taken back afterwards
    guard_loading()


@pytest.fixture
def ran(tmp_path):
    return tmp_path / 'the code ran'


def zipped(path, content):
    torch.save(content, path)


def raw(path, content):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain(path, content):
    path.write_bytes(pickle.dumps(content))


def newest(path, content):
    path.write_bytes(pickle.dumps(content, protocol=5))


@pytest.mark.parametrize('save', [zipped, raw, plain, newest])
@pytest.mark.parametrize('kind', [Evil, Exec])
def test_code_in_a_file_is_not_run(tmp_path, ran, save, kind):
    path = tmp_path / 'a.pth'
    save(path, dict(state_dict={}, meta=kind(ran)))
    with pytest.raises(InputError) as error:
        read_checkpoint(str(path))
    assert '\n' not in str(error.value) and not ran.exists()
    if save in (zipped, raw):  # torch gives up on others before it sees a class
        assert '--trust-weights' in str(error.value)
        assert ('posix.mkdir' if kind is Evil else 'exec') in str(error.value)


def test_trusted_code_is_run(tmp_path, ran):
    zipped(tmp_path / 'a.pth', dict(meta=Evil(ran)))
    guard_loading(trust=True)
    load_checkpoint(torch.nn.Linear(1, 1), str(tmp_path / 'a.pth'))
    assert ran.exists()


def by_loader(path):
    CheckpointLoader.load_checkpoint(str(path))


def by_init_cfg(path):
    class Net(BaseModule):
        pass
    Net(init_cfg=dict(type='Pretrained', checkpoint=str(path))).init_weights()


def by_torch(path):
    torch.load(path, weights_only=False)


def by_url(path):
    torch.hub.load_state_dict_from_url(path.as_uri(), model_dir=str(path.parent / 'cache'))


@pytest.mark.parametrize('save', [zipped, raw])
@pytest.mark.parametrize('road', [by_loader, by_init_cfg, by_torch, by_url])
def test_no_road_runs_code(tmp_path, ran, road, save):
    path = tmp_path / 'a.pth'
    save(path, dict(state_dict={}, meta=Evil(ran)))
    with pytest.raises((InputError, pickle.UnpicklingError)):
        road(path)
    assert not ran.exists()


def test_a_download_is_read_as_data(tmp_path, ran, monkeypatch):
    zipped(tmp_path / 'a.pth', dict(meta=Evil(ran)))
    monkeypatch.setattr('mmengine.runner.checkpoint.load_url',
                        lambda url, **options: torch.load(tmp_path / 'a.pth', weights_only=False))
    for url in ('https://example.org/a.pth', 'torchvision://resnet18', 'open-mmlab://resnet18_v1c'):
        with pytest.raises(InputError, match='posix.mkdir.*--trust-weights'):
            check_weights(torch.nn.Linear(1, 1), url)
    assert not ran.exists()


@pytest.mark.parametrize('command', ['attack', 'train'])
def test_the_commands_run_no_code(tmp_path, ran, capfd, monkeypatch, command):
    """Nor in a file that would be refused as not fitting."""
    monkeypatch.chdir(ROOT)
    raw(tmp_path / 'a.pth', dict(evil=Evil(ran)))
    config = 'spgd_resnet18.py' if command == 'attack' else 'training/resnet18_demo.py'
    assert main([command, f'configs/{config}', '--checkpoint', str(tmp_path / 'a.pth'), '--work-dir',
                 str(tmp_path / 'run'), '--device', 'cpu']) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith('error: weights ') and 'posix.mkdir' in error
    assert '--trust-weights' in error and not ran.exists()


@pytest.mark.skipif(torch.__version__ < '2.6', reason='that torch knows no list of harmless classes')
def test_what_mmengine_keeps_beside_weights_is_harmless(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    content = dict(state_dict={'a': torch.ones(2)}, optimizer={'state': {0: {'step': torch.ones(1)}}},
                   message_hub=dict(log_scalars={'train/loss': buffer}, runtime_info={'epoch': 3}),
                   meta=dict(dataset_meta=dict(classes=('a', 'b'), palette=np.zeros((2, 3), np.uint8)),
                             score=np.float64(0.5), count=np.int64(3), name=np.str_('x')))
    zipped(tmp_path / 'a.pth', content)
    found = read_checkpoint(str(tmp_path / 'a.pth'))
    assert found['message_hub']['log_scalars']['train/loss'].mean() == 1.5
    assert found['meta']['score'] == 0.5 and found['meta']['dataset_meta']['palette'].shape == (2, 3)


class Getattr:
    """What the allow-list lets a HistoryBuffer do, turned on something else."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def test_the_harmless_classes_open_no_door(tmp_path):
    zipped(tmp_path / 'a.pth', dict(meta=Getattr()))
    with pytest.raises(InputError, match='--trust-weights'):
        read_checkpoint(str(tmp_path / 'a.pth'))


# Weights that are not weights

@pytest.mark.parametrize(('content', 'message'), [
    (b'', 'this is an empty file, expected a file of torch.save'),
    (b'some text\n', 'this is a text file'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'this is a Git LFS pointer'),
    (b'<!DOCTYPE html><html>', 'this is a web page'),
    (b'\x89PNG\r\n\x1a\n', 'this is something else'),
    (b'PK\x03\x04 and no more', 'cannot read weights'),
    (b'\x80\x02 and no more', 'cannot read weights'),
])
def test_a_file_that_holds_no_weights_is_one_line(tmp_path, content, message):
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_checkpoint(str(tmp_path / 'a.pth'))
    assert '\n' not in str(error.value)


def spoilt(name: str, value: float):
    state = torch.nn.Linear(2, 2).state_dict()
    state[name].view(-1)[0] = value
    return state


@pytest.mark.parametrize(('state', 'message'), [
    ({name: value.numpy() for name, value in torch.nn.Linear(2, 2).state_dict().items()},
     'weight is a ndarray, expected a tensor|hold numpy.*--trust-weights'),  # by torch from 2.6 on, and before
    ({'weight': [[1.0, 2.0], [3.0, 4.0]], 'bias': torch.zeros(2)}, 'weight is a list, expected'),
    (spoilt('weight', float('nan')), '1 of 2 entries hold NaN, the first is weight'),
    (dict(state_dict=spoilt('bias', float('nan'))), 'the first is bias'),
    ([1, 2], 'hold a list, expected a dict of tensors'),
    (dict(state_dict=None), 'hold a NoneType, expected a dict of tensors'),
    (torch.zeros(3), 'hold a Tensor, expected a dict of tensors'),
    ({}, '2 of 2 entries are missing'),
])
def test_weights_that_are_none_are_refused(tmp_path, state, message):
    zipped(tmp_path / 'a.pth', state)
    with pytest.raises(InputError, match=message):
        check_weights(torch.nn.Linear(2, 2), str(tmp_path / 'a.pth'))


def test_infinite_entries_may_be_masks(tmp_path):
    zipped(tmp_path / 'a.pth', spoilt('bias', float('-inf')))
    check_weights(torch.nn.Linear(2, 2), str(tmp_path / 'a.pth'))


# Where they are

def test_weights_of_a_config_may_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub/w.pth').write_bytes(b'PK')
    assert find_weights('w.pth', 'sub/config.py') == 'sub/w.pth'
    (tmp_path / 'w.pth').write_bytes(b'PK')
    assert find_weights('w.pth', 'sub/config.py') == 'w.pth'
    with pytest.raises(InputError, match='no checkpoint file v.pth here or beside sub/config.py'):
        find_weights('v.pth', 'sub/config.py')


def test_an_unset_variable_is_named(tmp_path, monkeypatch):
    (tmp_path / 'a.py').write_text("load_from = '{{$NOWHERE_SET:data}}/w.pth'\n")
    (tmp_path / 'b.py').write_text("_base_ = 'a.py'\n")
    cfg = read_config(str(tmp_path / 'b.py'))
    with pytest.raises(InputError, match='no checkpoint file data/w.pth .* NOWHERE_SET, which is '):
        find_weights(cfg.load_from, cfg.filename, unset_variables(cfg))
    monkeypatch.setenv('NOWHERE_SET', 'x')
    assert unset_variables(cfg) == ''
