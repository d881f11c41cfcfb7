"""Stored images have the colours of the photo and say on which grid they lie; a picture that fails ends nothing."""
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmdet', reason='the demo models are those of the libraries', exc_type=ImportError)

from mmcv.transforms import BaseTransform  # noqa: E402
from mmengine.registry import TRANSFORMS, VISBACKENDS  # noqa: E402
from mmengine.visualization import BaseVisBackend  # noqa: E402

from sparse_dense_attacks.cli.attack import attack_from_command_line  # noqa: E402
from sparse_dense_attacks.cli.common import main  # noqa: E402
from sparse_dense_attacks.engine.hooks import AttackVisualizationHook  # noqa: E402
from sparse_dense_attacks.engine.pictures import channel_order, from_picture, to_picture  # noqa: E402
from sparse_dense_attacks.errors import InputError  # noqa: E402
from tests import forks  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
SCENES = ROOT / 'data/demo_scenes'


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@TRANSFORMS.register_module()
class Reversed(BaseTransform):
    """Reverses channels, as users do who trained with Pillow."""

    def transform(self, results):
        results['img'] = np.ascontiguousarray(results['img'][..., ::-1])
        return results


@TRANSFORMS.register_module()
class Grey(BaseTransform):
    def transform(self, results):
        results['img'] = results['img'].mean(2, keepdims=True).repeat(3, 2).astype(np.uint8)
        return results


def config(tmp_path, base: str, *lines) -> str:
    path = tmp_path / 'config.py'
    path.write_text('\n'.join([f"_base_ = ['{ROOT}/configs/{base}.py']", 'attack = dict(steps=1)',
                               'test_dataloader = dict(num_workers=0)', *lines]))
    return str(path)


def run(path, work_dir, *options) -> dict:
    return attack_from_command_line([path, '--work-dir', str(work_dir), '--limit', '2', '--device', 'cpu',
                                     *(['--cfg-options', *options] if options else [])])


def lines(work_dir) -> list[dict]:
    return [json.loads(line) for line in (Path(work_dir) / 'records.jsonl').read_text().splitlines()]


def with_step(kind: str, base: str) -> str:
    pack = dict(spgd_faster_rcnn="dict(type='Resize', scale=(160, 128), keep_ratio=True), "
                "dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')",
                spgd_semantic_fpn="dict(type='LoadAnnotations'), dict(type='PackSegInputs')",
                spgd_resnet18="dict(type='PackInputs')")[base]
    return ("test_dataloader = dict(num_workers=0, dataset=dict(pipeline=["
            f"dict(type='LoadImageFromFile'), dict(type='{kind}'), {pack}]))")


NO_CONVERSION = dict(
    spgd_faster_rcnn='model = dict(data_preprocessor=dict(bgr_to_rgb=False))',
    spgd_semantic_fpn='model = dict(data_preprocessor=dict(bgr_to_rgb=False))',
    spgd_resnet18='data_preprocessor = dict(to_rgb=False)')


def photo(base: str, key: str) -> Path:
    if base == 'spgd_faster_rcnn':
        content = json.loads((SCENES / 'annotations/instances_val.json').read_text())
        return SCENES / 'val' / next(i['file_name'] for i in content['images'] if str(i['id']) == key)
    return SCENES / 'crops' / key if base == 'spgd_resnet18' else SCENES / key


@pytest.mark.parametrize('base', list(NO_CONVERSION))
def test_stored_images_have_the_colours_of_the_photo(tmp_path, base):
    """A transform reverses the channels, and the model's preprocessing is told not to."""
    result = run(config(tmp_path, base, with_step('Reversed', base), NO_CONVERSION[base]), tmp_path / 'run')
    assert result['attack/images'] == 2
    for record in lines(tmp_path / 'run'):
        with Image.open(tmp_path / 'run' / record['file']) as stored, Image.open(photo(base, record['key'])) as clean:
            changed = (np.array(stored) != np.array(clean.convert('RGB'))).any(2).sum()
        assert changed == record['l0_pixels'] > 0


def test_a_resumed_run_reads_its_images_in_the_same_order(tmp_path):
    path = config(tmp_path, 'spgd_resnet18', with_step('Reversed', 'spgd_resnet18'), NO_CONVERSION['spgd_resnet18'])
    first = run(path, tmp_path / 'run')
    again = attack_from_command_line([path, '--work-dir', str(tmp_path / 'run'), '--limit', '2', '--device', 'cpu', '--resume'])
    assert again['adv/accuracy/top1'] == first['adv/accuracy/top1'] and again['attack/seconds'] == first['attack/seconds']


def test_channels_whose_order_cannot_be_known_are_refused(tmp_path, capfd):
    path = config(tmp_path, 'spgd_resnet18', with_step('Grey', 'spgd_resnet18'))
    assert main(attack_from_command_line, [path, '--work-dir', str(tmp_path / 'run'), '--limit', '2', '--device', 'cpu']) == 2
    assert 'whether the inputs that the test pipeline yields are RGB or BGR cannot be known' in capfd.readouterr().err
    run(path, tmp_path / 'told', 'test_dataloader.dataset.metainfo.channel_order=rgb', 'pictures=0')


def in_memory(kind='BaseDataset', **metainfo):
    cls = type(kind, (), dict(pipeline=(), metainfo=metainfo, get_data_info=lambda self, i: dict(img=np.zeros((4, 4, 3)))))
    return cls()


@pytest.mark.parametrize(('dataset', 'preprocessor', 'order'), [
    (in_memory('CIFAR10'), dict(to_rgb=False), 'rgb'), (in_memory(), dict(bgr_to_rgb=True), 'bgr'),
    (in_memory(), dict(rgb_to_bgr=True), 'rgb'), (in_memory(), dict(to_rgb=True), 'bgr'),
    (in_memory(channel_order='rgb'), dict(to_rgb=True), 'rgb')])
def test_images_in_memory_follow_the_preprocessing(dataset, preprocessor, order):
    assert channel_order(dataset, preprocessor) == order


@pytest.mark.parametrize(('dataset', 'message'), [
    (in_memory(), 'cannot be known'), (in_memory(channel_order='gbr'), "channel_order = 'gbr', expected one of bgr, rgb"),
    (SimpleNamespace(datasets=[in_memory('CIFAR10'), in_memory(channel_order='bgr')]), 'different orders')])
def test_an_unknown_order_is_one_line(dataset, message):
    with pytest.raises(InputError, match=message):
        channel_order(dataset, {})


def test_red_stays_red_in_either_order():
    image = torch.tensor([9, 5, 1], dtype=torch.uint8)[:, None, None]
    assert to_picture(image, 'rgb').tolist() == [[[9, 5, 1]]] and to_picture(image, 'bgr').tolist() == [[[1, 5, 9]]]
    for order in ('bgr', 'rgb'):
        assert torch.equal(from_picture(to_picture(image, order), order), image)


# The grid

def test_stored_images_say_on_which_grid_they_lie(tmp_path):
    step = ("test_dataloader = dict(num_workers=0, dataset=dict(pipeline=[dict(type='LoadImageFromFile'), "
            "dict(type='Resize', scale=(80, 64), keep_ratio=True), dict(type='Pad', size_divisor=32), "
            "dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]))")
    run(config(tmp_path, 'spgd_faster_rcnn', step), tmp_path / 'run')
    with Image.open(tmp_path / 'run' / lines(tmp_path / 'run')[0]['file']) as image:
        grid = json.loads(image.text['grid'])
        assert image.size == (96, 64)
    assert grid == dict(original=[128, 160], content=[64, 80], input=[64, 96], resized=True)
    assert 'Annotations of the\noriginal files do not fit them' in (tmp_path / 'run/images/README.txt').read_text()


# Pictures of predictions

def test_pictures_reach_other_backends_and_are_stored_once(tmp_path):
    sent = []

    @VISBACKENDS.register_module(force=True)
    class Sent(BaseVisBackend):
        experiment = None

        def _init_env(self):
            pass

        def add_image(self, name, image, step=0, **kwargs):
            sent.append(name)

    backends = "visualizer = dict(name='twice', vis_backends=[dict(type='LocalVisBackend'), dict(type='Sent')])"
    run(config(tmp_path, 'spgd_resnet18', backends), tmp_path / 'run')
    assert len(sent) == 2 and all(name.startswith('attack_') for name in sent)
    assert len(list((tmp_path / 'run').rglob('*attack_*.png'))) == 0
    assert len(list((tmp_path / 'run/pictures').rglob('*.png'))) == 2


def test_a_picture_that_fails_is_a_warning(tmp_path, capfd, monkeypatch):
    def broken(*args):
        raise AssertionError('masks and image differ in size')

    monkeypatch.setattr(AttackVisualizationHook, '_predictions', broken)
    result = run(config(tmp_path, 'spgd_resnet18'), tmp_path / 'run')
    assert result['attack/images'] == 2
    said = capfd.readouterr().err
    assert said.count('no picture of image') == 1 and 'masks and image differ in size' in said


def test_a_visualizer_that_cannot_be_built_is_a_warning(tmp_path, capfd):
    hook = AttackVisualizationHook()
    runner = SimpleNamespace(cfg=dict(visualizer=dict(type='Nowhere')), test_loop=SimpleNamespace(
        clean_images=[torch.zeros(3, 4, 4)], attacked_images=[torch.zeros(3, 4, 4)], clean_outputs=[dict(img_id=1)]))
    hook.before_test(runner)
    hook.after_test_iter(runner, 0, dict(inputs=[torch.zeros(3, 4, 4)]), [dict(img_id=1)])
    assert "no picture of image '1'" in capfd.readouterr().err


MASKS = '''
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from types import SimpleNamespace
import numpy as np
from sparse_dense_attacks.engine.hooks.attack_visualization_hook import AttackVisualizationHook, _painter

hook = AttackVisualizationHook(width=240)
runner = SimpleNamespace(cfg=dict(default_scope='mmdet'), test_loop=SimpleNamespace(dataloader=SimpleNamespace(
    dataset=SimpleNamespace(metainfo=dict(classes=('a', 'b'), palette=[(255, 0, 0), (0, 255, 0)])))))
hook.painter = _painter(runner)
masks = torch.zeros(1, 40, 60, dtype=torch.bool)
masks[0, :20, :30] = True  # the upper left quarter of the original image
found = InstanceData(bboxes=torch.tensor([[0., 0., 30., 20.]]), scores=torch.tensor([.9]), labels=torch.tensor([1]), masks=masks)
sample = DetDataSample(metainfo=dict(ori_shape=(40, 60), img_shape=(80, 120), scale_factor=(2.0, 2.0), img_id=1),
                       pred_instances=found)
image = np.zeros((96, 128, 3), np.uint8)  # content 80 x 120, padded
shown = hook._predictions(image, torch.zeros(3, 96, 128), sample)
assert shown.shape == (192, 256, 3), shown.shape  # enlarged by two
coloured = shown.any(2)
assert coloured[50:70, 60:100].mean() > .9 and not coloured[90:].any() and not coloured[:, 130:].any()
assert sample.pred_instances.masks.shape == (1, 40, 60)

found.scores[:] = .1  # nothing is left to draw
assert not hook._predictions(image, torch.zeros(3, 96, 128), sample).any()
print('drawn')
'''


def test_masks_are_drawn_on_the_network_input(tmp_path):
    """In a process of its own: mmengine keeps visualizers by name."""
    assert 'drawn' in forks.run(['-c', MASKS], tmp_path / 'printed.txt')


@pytest.mark.slow
@pytest.mark.parametrize('base', ['spgd_faster_rcnn', 'spgd_semantic_fpn', 'spgd_resnet18'])
def test_a_fresh_process_needs_no_visualizer(tmp_path, base):
    path = config(tmp_path, base)
    printed = forks.run(['-m', 'sparse_dense_attacks.cli', 'attack', path, '--work-dir', tmp_path / 'run', '--limit', '1',
                         '--device', 'cpu', '--cfg-options', 'visualizer=None'], tmp_path / 'printed.txt')
    assert 'no picture' not in printed
    assert len(list((tmp_path / 'run/pictures').rglob('*.png'))) == 1


def test_a_visualizer_inherited_from_another_library_draws(tmp_path):
    inherited = "visualizer = dict(type='DetLocalVisualizer', _scope_='mmdet', name='visualizer')"
    run(config(tmp_path, 'spgd_yolox', inherited), tmp_path / 'run')
    assert len(list((tmp_path / 'run/pictures').rglob('*.png'))) == 2
