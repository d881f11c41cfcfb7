"""A class number means the same to the weights, the data set and its annotation file, or nothing runs."""
import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet', reason='the demo models are those of the libraries', exc_type=ImportError)

from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from sparse_dense_attacks.cli.attack import attack_from_command_line  # noqa: E402
from sparse_dense_attacks.cli.common import main  # noqa: E402
from sparse_dense_attacks.engine.class_names import check_class_names, names_in_checkpoint  # noqa: E402
from sparse_dense_attacks.errors import InputError  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
NAMES = ['ball', 'cube', 'cone', 'ring', 'star', 'heart']
ALPHABETICAL = sorted(NAMES)
WEIGHTS = ROOT / 'sparse_dense_attacks/demo/weights'


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def dataset(*names):
    return type('DataSet', (), dict(metainfo=dict(classes=names)))


def checkpoint(*names):
    return dict(meta=dict(dataset_meta=dict(classes=names)), state_dict={})


@pytest.fixture(scope='module')
def crops(tmp_path_factory):
    """Pictures of objects in folders named after their classes, as CustomDataset takes them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        from sparse_dense_attacks.demo.classification import write_crops
        root = tmp_path_factory.mktemp('crops')
        items = json.loads(write_crops(root, 'val', 4, 1).read_text())['data_list']
        for item in items:
            folder = root / 'folders' / NAMES[item['gt_label']]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / 'crops/val' / item['img_path'], folder)
        for name in NAMES:
            (root / 'folders' / name).mkdir(exist_ok=True)
        return root


def classifier(crops, tmp_path, *metainfo) -> Path:
    config = tmp_path / 'config.py'
    classes = f'metainfo=dict(classes={metainfo}), ' if metainfo else ''
    config.write_text(f"_base_ = ['{ROOT}/configs/spgd_resnet18.py']\n"
                      'pictures = 0\n'
                      "test_dataloader = dict(num_workers=0, dataset=dict(_delete_=True, type='CustomDataset', "
                      f"data_root='{crops}', data_prefix='folders', {classes}pipeline=[\n"
                      "    dict(type='LoadImageFromFile'), dict(type='PackInputs')]))\n")
    return config


def attacked(config, work_dir, *extra, options=()) -> int:
    return main(attack_from_command_line, [str(config), '--work-dir', str(work_dir), '--limit', '2', '--device', 'cpu', *extra,
                                           '--cfg-options', 'attack.steps=1', 'test_dataloader.num_workers=0', *options])


def test_folders_in_another_order_than_the_weights_classes_are_refused(crops, tmp_path, capfd):
    """CustomDataset numbers folders by the alphabet."""
    assert attacked(classifier(crops, tmp_path), tmp_path / 'run') == 2
    error = capfd.readouterr().err
    assert 'in another order' in error and 'weights: ball, cube, cone' in error and 'data set: ball, cone, cube' in error
    assert not (tmp_path / 'run/records.jsonl').exists()


def test_the_hook_refuses_them_too(crops, tmp_path):
    cfg = Config.fromfile(classifier(crops, tmp_path))
    hook = dict(type='AttackHook', attack=cfg.pop('attack').to_dict(), goal=cfg.pop('goal').to_dict())
    cfg.merge_from_dict(dict(test_cfg=dict(type='TestLoop'), work_dir=str(tmp_path / 'hook'), custom_hooks=[hook]))
    with pytest.raises(InputError, match='in another order'):
        Runner.from_cfg(cfg).test()


@pytest.mark.parametrize('config', ['spgd_semantic_fpn', 'spgd_faster_rcnn'])
def test_other_libraries_names_are_compared_too(tmp_path, capfd, config):
    path = WEIGHTS / ('semantic_fpn.pth' if 'fpn' in config else 'faster_rcnn.pth')
    weights = torch.load(path, weights_only=True)
    names = list(weights['meta']['dataset_meta']['classes'])
    weights['meta']['dataset_meta']['classes'] = [*names[:-1], 'hart']
    torch.save(weights, tmp_path / 'weights.pth')
    assert attacked(f'configs/{config}.py', tmp_path / 'run', '--checkpoint', str(tmp_path / 'weights.pth')) == 2
    error = capfd.readouterr().err
    assert 'other ones than those of the weights' in error and f'number {len(names) - 1}' in error and 'hart' in error


def test_weights_that_name_no_classes_are_a_warning(capfd):
    check_class_names(names_in_checkpoint(dict(state_dict={}, meta={})), dataset(*NAMES))
    assert 'the weights name no classes' in capfd.readouterr().err


@pytest.mark.parametrize('names', [NAMES, ['Ball', 'CUBE', 'cone', 'ring', 'star', 'heart']])
def test_names_that_agree_say_nothing(names, capfd):
    check_class_names(names_in_checkpoint(checkpoint(*names)), dataset(*NAMES))
    assert not capfd.readouterr().err


def test_the_names_of_older_weights_are_found():
    assert names_in_checkpoint(dict(meta=dict(CLASSES=('a', 'b')))) == ['a', 'b']
    assert names_in_checkpoint(dict(a=1)) is None


def test_a_subset_in_place_of_all_classes_is_refused():
    with pytest.raises(InputError, match='weights: ball, cube, cone, ring, star, heart; data set: ball, cube, cone, ring, star'):
        check_class_names(NAMES, dataset(*NAMES[:-1]))


@pytest.mark.parametrize(('classes', 'message'), [
    (NAMES[::-1], 'another order than the categories'),
    (['ball', 'cubes', *NAMES[2:]], 'metainfo.classes names cubes, but the categories'),
    ([*NAMES[:5], 'Heart'], 'metainfo.classes names Heart'),
])
def test_classes_and_categories_of_the_annotation_file_agree(tmp_path, capfd, classes, message):
    """mmdet numbers labels by the file, whatever the order of metainfo.classes, and lets missing ones slip."""
    options = [f'test_dataloader.dataset.metainfo.classes={",".join(classes)}']
    weights = torch.load(WEIGHTS / 'faster_rcnn.pth', weights_only=True)
    weights['meta'] = {}
    torch.save(weights, tmp_path / 'weights.pth')
    assert attacked('configs/spgd_faster_rcnn.py', tmp_path / 'run', '--checkpoint', str(tmp_path / 'weights.pth'),
                    options=options) == 2
    assert message in capfd.readouterr().err and not (tmp_path / 'run/records.jsonl').exists()
