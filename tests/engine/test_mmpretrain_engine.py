"""mmpretrain classifiers under the runner: one pass with the library's own data sets and metrics, records, resuming, configs."""
import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain', reason='classifiers under the runner are tested on mmpretrain', exc_type=ImportError)

from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402

from sparse_dense_attacks import InputError  # noqa: E402
from sparse_dense_attacks.cli.attack import attack_from_command_line, prepare  # noqa: E402
from sparse_dense_attacks.engine.attacker import Attacker
from sparse_dense_attacks.engine.data import SkipUnreadable  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
BASES = [f'{ROOT}/configs/_base_/{name}.py' for name in ('attacks/spgd', 'goals/untargeted', 'runtime')]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Ten pictures in two folders that share file names, a small ResNet, and its predictions as labels, two of them spoilt."""
    root = tmp_path_factory.mktemp('classification')
    rng = np.random.default_rng(0)
    names = [f'{"ab"[i % 2]}/{i // 2}.png' for i in range(10)]
    for name in names:
        (root / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(root / 'images' / name)
    (root / 'config.py').write_text(f"""
_base_ = {BASES}
default_scope = 'mmpretrain'
load_from = '{root}/weights.pth'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8, num_stages=4, out_indices=(3, )),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=64, topk=(1, )))
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
test_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='{root}', data_prefix='images', ann_file='labels.txt',
                 metainfo=dict(classes=tuple('vwxyz')), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=36), dict(type='CenterCrop', crop_size=32),
        dict(type='PackInputs')]))
test_evaluator = dict(type='Accuracy', topk=(1, 2))
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
attack = dict(k=12, steps=6, early_stop=True)
""")
    (root / 'labels.txt').write_text('\n'.join(f'{name} 0' for name in names))
    cfg = Config.fromfile(root / 'config.py')
    cfg.update(work_dir=str(root / 'first'), test_cfg=dict(), load_from=None)
    torch.manual_seed(0)
    runner = Runner.from_cfg(cfg)
    for norm in [m for m in runner.model.modules() if isinstance(m, nn.BatchNorm2d)]:
        norm.train().momentum = 1.0  # takes the statistics of the batch
    data = list(runner.test_dataloader)
    runner.model.test_step(copy.deepcopy(data[0]))
    runner.model.eval()
    torch.save(dict(state_dict=runner.model.state_dict()), root / 'weights.pth')
    said = torch.cat([sample.pred_label for batch in data for sample in runner.model.test_step(copy.deepcopy(batch))])
    said[2:4] = (said[2:4] + 1) % 5
    (root / 'labels.txt').write_text('\n'.join(f'{name} {label}' for name, label in zip(names, said.tolist(), strict=True)))
    (root / 'unlabelled.txt').write_text('\n'.join(names))
    return root


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def arguments(folder, work_dir, *extra, options=('pictures=0',)):
    return [str(folder / 'config.py'), '--work-dir', str(work_dir), '--device', 'cpu', *extra, '--cfg-options', *options]


def records(work_dir):
    lines = [json.loads(line) for line in (Path(work_dir) / 'records.jsonl').read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != 'seconds'} for line in lines]


@pytest.fixture(scope='module')
def finished(folder):
    previous = os.getcwd()
    os.chdir(ROOT)
    try:
        return folder / 'run', attack_from_command_line(arguments(folder, folder / 'run', options=['pictures=3']))
    finally:
        os.chdir(previous)


def test_a_run_evaluates_before_and_after(finished, folder):
    work_dir, result = finished
    assert result['clean/accuracy/top1'] == 80 and result['attack/images_right'] == 8
    broken = sum(record['success'] and record['clean_correct'] for record in records(work_dir))
    assert broken > 0 and result['adv/accuracy/top1'] == pytest.approx(80 - 10 * broken)
    assert [record['key'] for record in records(work_dir)][:3] == ['a/0.png', 'b/0.png', 'a/1.png']
    for record in records(work_dir):
        with Image.open(work_dir / record['file']) as stored, Image.open(folder / 'images' / record['key']) as clean:
            assert stored.size == (32, 32)
            # ResizeEdge keeps the 36 pixels of the short side, CenterCrop takes 32 x 32 out of 36 x 40
            changed = (np.array(stored) != np.array(clean)[4:36, 2:34]).any(2).sum()
        assert changed == record['l0_pixels'] <= 12
    assert len(list((work_dir / 'pictures').rglob('*.png'))) == 3


def test_resume_attacks_nothing_and_gives_the_same_metrics(finished, folder, tmp_path, monkeypatch):
    shutil.copytree(finished[0], tmp_path / 'copy')
    runner = prepare(arguments(folder, tmp_path / 'copy', '--resume'))
    assert runner.test_loop.attacker  # built before its class is spoilt
    monkeypatch.setattr(Attacker, 'perturb', lambda self, batch: pytest.fail('attacked again'))
    again = runner.test()
    assert again == finished[1]


def test_collate_function_and_batch_size_change_no_record(finished, folder, tmp_path):
    for name, option in (('stacked', 'collate_fn.type=default_collate'), ('single', 'batch_size=1')):
        attack_from_command_line(arguments(folder, tmp_path / name, options=['pictures=0', f'test_dataloader.{option}']))
        for record, expected in zip(records(tmp_path / name), records(finished[0]), strict=True):
            assert record['key'] == expected['key'] and record['success'] == expected['success']
            assert abs(record['l0_pixels'] - expected['l0_pixels']) <= 1


def test_hook_under_the_stock_test_loop_agrees_with_the_loop(finished, folder, tmp_path):
    cfg = Config.fromfile(folder / 'config.py')
    attack, goal = cfg.pop('attack').to_dict(), cfg.pop('goal').to_dict()
    cfg.update(work_dir=str(tmp_path), test_cfg=dict(), custom_hooks=[dict(type='AttackHook', attack=attack, goal=goal)])
    for options in ({}, dict(collate_fn=dict(type='default_collate'))):
        cfg.test_dataloader.update(options)
        assert Runner.from_cfg(cfg).test()['accuracy/top1'] == finished[1]['adv/accuracy/top1']


def test_targets_from_the_command_line(folder, tmp_path):
    targets = tmp_path / 'targets.csv'
    lines = (folder / 'labels.txt').read_text().splitlines()
    targets.write_text('ImageId,TargetClass\n' + '\n'.join(f'{name},{(int(label) + 1) % 5 + 1}' for name, label in
                                                           (line.rsplit(' ', 1) for line in lines)))
    options = ['goal.type=Targeted', f'goal.target={targets}', 'goal.offset=1', 'attack.k=0.5', 'attack.steps=30', 'pictures=0']
    result = attack_from_command_line(arguments(folder, tmp_path / 'run', options=options))
    assert result['attack/images'] == 10 and result['attack/images_undefined'] == 0 and result['attack/success_rate'] > 0


def test_a_folder_without_labels_is_attacked(folder, tmp_path):
    options = ['test_dataloader.dataset.with_label=False', 'test_dataloader.dataset.ann_file=unlabelled.txt', 'test_evaluator=[]',
               'pictures=0', 'victim.reference=prediction']
    result = attack_from_command_line(arguments(folder, tmp_path / 'run', options=options))
    assert result['attack/images_right'] == 10
    assert json.loads((tmp_path / 'run/run.json').read_text())['identity']['victim'] == {'reference': 'prediction'}


class Paths:
    """A data set of nothing but paths."""
    metainfo: dict = {}

    def __init__(self, *paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return dict(img_path=self.paths[index], sample_idx=index)


def test_two_images_with_one_key_are_refused():
    with pytest.raises(InputError, match=r"two images of the data set have the key 'x/1.png' \(a/x/1.png, b/x/1.png\)"):
        SkipUnreadable(Paths('a/x/1.png', 'a/y/1.png', 'b/x/1.png'))


def test_unreadable_images_are_named_by_their_key():
    key, reason = SkipUnreadable(Paths('nowhere/b/none.png'))[0]
    assert key == 'b/none.png' and 'No such file' in reason


@pytest.mark.slow
@pytest.mark.parametrize('config', sorted((ROOT / 'configs/imagenet').glob('*.py')), ids=lambda path: path.stem)
def test_the_zoo_configs_attack_random_weights(config, tmp_path):
    """Each as it is, on one small image and without its weights."""
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'val').mkdir()
    (tmp_path / 'meta/val.txt').write_text('one.png 3')
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(tmp_path / 'val/one.png')
    size = [] if 'resnet' in config.stem else ['model.backbone.img_size=64']
    size += ['model.backbone.pad_small_map=True'] if 'swin' in config.stem else []
    steps = ['attack.iters=2', 'attack.search_steps=1'] if config.stem.startswith('gse') else ['attack.steps=2']
    result = attack_from_command_line([
        str(config), '--checkpoint', 'none', '--work-dir', str(tmp_path / 'run'), '--limit', '1', '--device', 'cpu',
        '--cfg-options', *steps, 'victim.reference=prediction', 'pictures=0', *size,
        f'test_dataloader.dataset.data_root={tmp_path}', 'test_dataloader.num_workers=0',
        'test_dataloader.dataset.pipeline.1.scale=64', 'test_dataloader.dataset.pipeline.2.crop_size=64'])
    record, = records(tmp_path / 'run')
    assert record['key'] == 'val/one.png' and not record['note'] and record['backwards'] > 0
    assert {'clean/accuracy/top1', 'adv/accuracy/top5'} <= result.keys()
