"""sda attack: which config, attack, goal and weights are meant, and what is said of those that cannot be."""
import errno
import json
import os
import tempfile
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet', reason='configs of the zoos are read', exc_type=ImportError)

from mmengine.config import Config, ConfigDict
from PIL import Image

from sparse_dense_attacks import InputError
from sparse_dense_attacks.cli import main
from sparse_dense_attacks.cli.attack import _attack_and_goal, _cut, arguments, prepare
from sparse_dense_attacks.cli.common import check_writable
from sparse_dense_attacks.cli.configs import find_config, read_config
from sparse_dense_attacks.cli.weights import weights_of_config
from sparse_dense_attacks.engine import configs_folder

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
YOLOX = 'yolox/yolox_tiny_8xb8-300e_coco.py'
PSPNET = 'pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py'


def need(package: str) -> None:
    pytest.importorskip(package, exc_type=ImportError)


def refused(capfd, *argv) -> str:
    """The one line that is said of bad input."""
    assert main(['attack', *map(str, argv)]) == 2
    error, = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]
    return error


# Names of configs

@pytest.mark.parametrize('name', [YOLOX, YOLOX.removesuffix('.py'), 'yolox_tiny_8xb8-300e_coco', 'yolox_tiny_8xb8-300e_coco.py'])
def test_a_config_of_a_zoo_may_lack_its_folder_and_its_ending(name):
    assert find_config(f'mmdet::{name}') == configs_folder('mmdet') / YOLOX


def test_parts_of_configs_have_to_be_named_in_full():
    assert find_config('mmdet::_base_/models/retinanet_r50_fpn').is_file()
    with pytest.raises(InputError, match='mmdet has no config retinanet_r50_fpn; did you mean mmdet::retinanet/'):
        find_config('mmdet::retinanet_r50_fpn')


@pytest.mark.parametrize(('name', 'message'), [
    ('mmdet::yolox/yolox_tinny_8xb8-300e_coco.py',
     f'mmdet has no config yolox/yolox_tinny_8xb8-300e_coco.py; did you mean mmdet::{YOLOX}?'),
    ('mmdet::yolox/nope.py', 'did you mean mmdet::yolox/'),
    ('mmdet::faster_rcnn_r50_fpn_1x_coco', 'did you mean mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py?'),
    ('sparse_dense_attacks::spgd_rcnn', 'did you mean sparse_dense_attacks::spgd_faster_rcnn.py?'),
    ('mmdett::a.py', 'mmdett is not installed with its configs; known are sparse_dense_attacks, mmdet'),
    ('::a.py', ' is not installed with its configs'),
    ('torch::a.py', 'torch is not installed with its configs'),
    ('yolox_tiny_8xb8-300e_coco.py', f'no config file yolox_tiny_8xb8-300e_coco.py; did you mean mmdet::{YOLOX}?'),
    ('nowhere.py', 'no config file nowhere.py; ours are sparse_dense_attacks::sigma_zero_faster_rcnn.py, '),
])
def test_a_config_that_is_not_there(name, message, capfd):
    assert message in refused(capfd, name)


def test_a_name_that_several_configs_have(tmp_path, monkeypatch, capfd):
    for folder in 'ab':
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'toy.py').write_text('')
    monkeypatch.setattr('sparse_dense_attacks.cli.configs.configs_folder', lambda package: tmp_path)
    assert 'mmdet has 2 configs of the name toy: a/toy.py, b/toy.py' in refused(capfd, 'mmdet::toy')


def test_configs_name_those_of_any_package_as_bases(tmp_path, monkeypatch):
    """Also of the onedl-* libraries, also within the named ones, and without taking ours for a library of models."""
    need('mmseg')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'inner.py').write_text(f"_base_ = 'mmseg::{PSPNET}'\n")
    (tmp_path / 'outer.py').write_text("_base_ = ['inner.py', 'sparse_dense_attacks::_base_/attacks/spgd.py',\n"
                                       "          'sparse_dense_attacks::_base_/goals/untargeted_pixels.py']\n")
    cfg = read_config('outer.py')
    assert cfg.attack == dict(type='SparsePGD', k=0.01, steps=100, early_stop=False) and cfg.goal.type == 'UntargetedPixels'
    assert cfg.model._scope_ == 'mmseg' and cfg.model.decode_head.type == 'PSPHead'


def test_our_whole_configs_serve_as_bases(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'sparse_dense_attacks::spgd_faster_rcnn.py'\nattack = dict(k=7)\n")
    (tmp_path / 'nowhere.py').write_text("_base_ = 'sparse_dense_attacks::nowhere.py'\n")
    cfg = read_config(str(tmp_path / 'mine.py'))
    assert cfg.attack.k == 7 and '_scope_' not in cfg.model and Path(cfg.load_from).is_file()
    with pytest.raises(InputError, match='config .*nowhere.py: '):
        read_config(str(tmp_path / 'nowhere.py'))


def test_every_config_of_ours_can_be_read_by_its_name():
    folder = configs_folder('sparse_dense_attacks')
    assert {path.relative_to(folder) for path in folder.glob('**/*.py')} == \
        {path.relative_to(ROOT / 'configs') for path in (ROOT / 'configs').glob('**/*.py')}
    for path in (ROOT / 'configs').glob('*.py'):
        assert Config.fromfile(find_config(f'sparse_dense_attacks::{path.name}')).model


# The attack and the goal

def chosen(*argv):
    args = arguments(list(argv))
    cfg = read_config(args.config)
    return _attack_and_goal(cfg, args)


@pytest.mark.parametrize(('name', 'expected'), [
    (f'mmdet::{YOLOX}', ('SparsePGD', 0.01, False, 'Vanish')),
    (f'mmseg::{PSPNET}', ('SparsePGD', 0.01, False, 'UntargetedPixels')),
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py', ('SparsePGD', 0.01, True, 'Untargeted'))])
def test_every_task_has_its_defaults(name, expected):
    need(name.partition('::')[0])
    attack, goal = chosen(name)
    assert (type(attack).__name__, attack.k, attack.early_stop, type(goal).__name__) == expected


def test_options_reach_the_defaults_and_what_is_named():
    options = ['--cfg-options', 'attack.k=300', 'goal.score_thr=0.5']
    attack, goal = chosen(f'mmdet::{YOLOX}', *options)
    assert (attack.k, goal.score_thr) == (300, 0.5)
    attack, goal = chosen(f'mmdet::{YOLOX}', '--attack', 'pgd0', '--goal', 'Mislabel', *options)
    assert (type(attack).__name__, attack.k, type(goal).__name__, goal.score_thr) == ('PGD0', 300, 'Mislabel', 0.5)


def test_arguments_replace_what_the_config_has_unless_it_is_the_same():
    ours = 'sparse_dense_attacks::spgd_faster_rcnn.py'
    attack, goal = chosen(ours, '--attack', 'sparse_pgd', '--goal', 'fabricate')
    assert (attack.k, attack.early_stop, type(goal).__name__) == (0.01, False, 'Fabricate')
    attack, goal = chosen(ours, '--attack', 'sigma_zero')
    assert type(attack).__name__ == 'SigmaZero' and attack.unit == 'element' and type(goal).__name__ == 'Vanish'


def test_options_reach_an_attack_that_the_config_only_names(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'sparse_dense_attacks::spgd_faster_rcnn.py'\ngoal = 'vanish'\n")
    assert chosen(str(tmp_path / 'mine.py'), '--cfg-options', 'goal.score_thr=0.4')[1].score_thr == 0.4


@pytest.mark.parametrize(('argv', 'message'), [
    (['--goal', 'UntargetedPixels'],
     'UntargetedPixels is a goal of segmentation, but the model does detection: set goal to one of Vanish, Mislabel, Fabricate, '
     'DetectorLoss, FeatureDispersion, FeatureDistance'),
    (['--goal', 'Vannish'], "unknown goal 'Vannish': did you mean 'Vanish'?"),
    (['--attack', 'SparsPGD'], "unknown attack 'SparsPGD': did you mean 'SparsePGD'?"),
    (['--attack', 'pgd0', '--cfg-options', 'attack.gradient=projected'], "PGD0 has no argument 'gradient'"),
    (['--cfg-options', 'test_dataloader=None'], f"mmdet::{YOLOX} has no 'test_dataloader': take it from the model's own test"),
    (['--images', 'no_such_folder', '--checkpoint', 'none'], 'no folder no_such_folder'),
])
def test_what_does_not_fit_a_detector(argv, message, capfd, tmp_path):
    assert message in refused(capfd, f'mmdet::{YOLOX}', '--work-dir', tmp_path, *argv)


def test_a_config_of_an_unknown_library_needs_both(tmp_path, capfd):
    (tmp_path / 'mine.py').write_text("default_scope = 'mmyolo'\nmodel = dict(type='A')\n")
    assert "no top-level 'attack'" in refused(capfd, tmp_path / 'mine.py')
    assert "no top-level 'goal'" in refused(capfd, tmp_path / 'mine.py', '--attack', 'pgd0')
    assert "no 'test_dataloader'" in refused(capfd, tmp_path / 'mine.py', '--attack', 'pgd0', '--goal', 'vanish')


# Weights

@pytest.mark.parametrize(('name', 'file'), [
    (f'mmdet::{YOLOX}', 'yolox_tiny_8x8_300e_coco_20211124_171234-b4047906.pth'),
    (f'mmseg::{PSPNET}', 'pspnet_r50-d8_512x1024_40k_cityscapes_20200605_003338-2966598c.pth'),
    ('mmpretrain::resnet50_8xb32_in1k', 'resnet50_8xb32_in1k_20210831-ea4938fc.pth')])
def test_weights_are_those_the_zoo_trained_with_the_config(name, file):
    need(name.partition('::')[0])
    assert weights_of_config(name).endswith(f'/{file}')


def test_configs_without_weights_of_a_zoo(monkeypatch):
    assert weights_of_config('sparse_dense_attacks::spgd_faster_rcnn.py') is None
    assert weights_of_config(str(ROOT / 'configs/spgd_faster_rcnn.py')) is None
    monkeypatch.setattr('sparse_dense_attacks.cli.weights._models', lambda package, config: [dict(Name='other', Config='a.py')])
    with pytest.raises(InputError, match=f'no weights: mmdet has none for {YOLOX}; give --checkpoint FILE'):
        weights_of_config('mmdet::yolox_tiny_8xb8-300e_coco')


def test_given_weights_win(tmp_path, capfd):
    gone = tmp_path / 'gone.pth'
    for argv in (['--checkpoint', gone], ['--cfg-options', f'load_from={gone}']):
        assert f'no checkpoint file {gone}' in refused(capfd, f'mmdet::{YOLOX}', *argv)


# Where results go

def test_a_work_dir_that_cannot_be_written(tmp_path, capfd, monkeypatch):
    (tmp_path / 'file').write_text('')
    ours = 'sparse_dense_attacks::spgd_faster_rcnn.py'
    error = refused(capfd, ours, '--work-dir', tmp_path / 'file/run')
    assert f'cannot write results to {tmp_path}/file/run (Not a directory): name a folder with --work-dir' in error

    def forbidden(*args, dir, **options):
        raise PermissionError(errno.EACCES, 'Permission denied', dir)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, 'TemporaryFile', forbidden)  # root may write everywhere
    assert f'cannot write results to {tmp_path}/work_dirs/spgd_faster_rcnn (Permission denied)' in refused(capfd, ours)


def test_data_that_cannot_be_drawn(tmp_path, capfd, monkeypatch):
    def forbidden(*args, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), 'data')

    monkeypatch.setattr('sparse_dense_attacks.demo.dataset.write_coco', forbidden)
    error = refused(capfd, 'sparse_dense_attacks::spgd_faster_rcnn.py', '--work-dir', tmp_path)
    assert "PermissionError: [Errno 13] Permission denied: 'data'; run sda in a folder you may write to" in error


def test_a_folder_that_can_be_written_stays_empty(tmp_path):
    check_writable(tmp_path / 'a/b')
    assert not list((tmp_path / 'a/b').iterdir())


# All of it

@pytest.mark.slow
def test_a_config_of_the_zoo_on_photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('photos').mkdir()
    Image.effect_noise((64, 48), 80).convert('RGB').save('photos/a.png')
    options = ['attack.k=9', 'attack.steps=1', 'test_dataloader.num_workers=0',
               'test_dataloader.persistent_workers=False']
    assert main(['attack', f'mmdet::{YOLOX}', '--checkpoint', 'none', '--images', 'photos', '--attack', 'random_pixels',
                 '--cfg-options', *options]) == 0
    record = json.loads(Path('work_dirs/yolox_tiny_8xb8-300e_coco/records.jsonl').read_text())
    assert record['key'] == 'photos/a.png' and record['l0_pixels'] <= 9


# Runs of one process

def test_runs_that_start_in_the_same_second_share_nothing(tmp_path, monkeypatch, capfd):
    """mmengine names scopes, message hubs and visualizers by the second of the start."""
    need('mmpretrain')
    monkeypatch.setattr('time.localtime', lambda *_: time.gmtime(0))
    tasks = dict(spgd_faster_rcnn='mmdet', spgd_resnet18='mmpretrain')
    for model in tasks:
        config = tmp_path / model / 'config.py'
        config.parent.mkdir()
        config.write_text(f"_base_ = 'sparse_dense_attacks::{model}.py'")
    runners = [prepare([f'{tmp_path}/{model}/config.py', '--work-dir', f'{tmp_path}/{model}'])
               for model in tasks]
    assert runners[0].message_hub is not runners[1].message_hub
    assert [runner.default_scope.scope_name for runner in runners] == list(tasks.values())


def test_numbers_that_slow_processors_down_are_taken_for_zero(tmp_path):
    """CGNet's weights hold denormal ones: a pass takes 9.9 s with them and 0.5 s without."""
    config = tmp_path / 'config.py'
    config.write_text("_base_ = 'sparse_dense_attacks::spgd_faster_rcnn.py'")
    small = torch.full((3,), 1e-40)
    assert (small * 1).all()
    prepare([str(config), '--work-dir', str(tmp_path / 'run'), '--limit', '1'])
    assert not (small * 1).any()


def test_channels_come_last_in_the_weights_that_are_loaded(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("_base_ = 'sparse_dense_attacks::spgd_faster_rcnn.py'")
    runner = prepare([str(config), '--work-dir', str(tmp_path / 'run'), '--limit', '1', '--channels-last'])
    runner.load_or_resume()
    weights = [module.weight for module in runner.model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert weights and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert not all(weight.is_contiguous() for weight in weights)


@pytest.mark.parametrize('indices, kept', [
    (None, 3), (2, 2), (5, 3), (-2, -2), ([4, 5, 6, 7], [4, 5, 6]), ([9], [9])])
def test_limit_counts_the_images_that_a_config_chooses(indices, kept):
    """A config that is judged on held-out images must not fall back on the first ones."""
    dataset = ConfigDict(type='CocoDataset', indices=indices)
    _cut(dataset, 3)
    assert dataset.indices == kept
    with pytest.raises(InputError, match='the config takes the last 4 images'):
        _cut(ConfigDict(type='CocoDataset', indices=-4), 3)
