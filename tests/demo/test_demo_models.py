"""The demo beside its first detector: label maps, crops, and every small model that is trained on the scenes."""
import copy
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

for library in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(f'{library}.models', reason='the demo models are of all three libraries', exc_type=ImportError)

from mmengine.config import Config  # noqa: E402
from mmengine.dataset import pseudo_collate  # noqa: E402
from mmengine.registry import DATASETS, MODELS, DefaultScope  # noqa: E402
from mmengine.runner import load_state_dict  # noqa: E402
from PIL import Image  # noqa: E402

from sparse_dense_attacks.cli.attack import attack_from_command_line  # noqa: E402
from sparse_dense_attacks.demo import classification, scenes  # noqa: E402
from sparse_dense_attacks.demo.classification import SIDE, DemoCrops, DemoLargest, window, write_crops  # noqa: E402
from sparse_dense_attacks.demo.scenes import CLASSES, SIZE, make_scene, write_coco  # noqa: E402
from sparse_dense_attacks.demo.segmentation import DemoLabelMaps  # noqa: E402
from sparse_dense_attacks.victims import wrap  # noqa: E402
from sparse_dense_attacks.victims.base import sample_key  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / 'sparse_dense_attacks/demo/weights'
NAMES = ('faster_rcnn', 'yolox', 'semantic_fpn', 'resnet18')
SETS = ('DemoScenes', 'DemoLabelMaps', 'DemoCrops')


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


def picture(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# Data sets

@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize('name', SETS)
def test_data_sets_are_found_from_every_scope(name, scope, tmp_path):
    import sparse_dense_attacks.demo.dataset  # noqa: F401
    with DefaultScope.overwrite_default_scope(scope):
        dataset = DATASETS.build(dict(type=name, split='val', count=1, seed=0, data_root=str(tmp_path)))
    assert len(dataset) == {'DemoCrops': len(make_scene(0, 0).labels)}.get(name, 1)


def test_label_maps_are_the_masks_of_the_scenes(tmp_path):
    with DefaultScope.overwrite_default_scope('mmseg'):
        pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
        dataset = DemoLabelMaps(split='val', count=3, seed=7, data_root=str(tmp_path), pipeline=pipeline)
    assert dataset.metainfo['classes'] == ('background', *CLASSES) and len(dataset.metainfo['palette']) == 7
    for index in range(3):
        item, scene = dataset[index], make_scene(7, index)
        assert np.array_equal(item['inputs'].numpy(), scene.image[..., ::-1].transpose(2, 0, 1))  # mmcv loads BGR
        assert np.array_equal(item['data_samples'].gt_sem_seg.data[0].numpy(), scene.mask)


@pytest.mark.parametrize('kind', [DemoLabelMaps, DemoCrops])
def test_a_smaller_set_shows_nothing_of_a_larger_one(kind, tmp_path):
    larger, smaller, alone = (kind(split='val', count=count, seed=0, data_root=str(tmp_path / root))
                              for count, root in ((3, 'a'), (2, 'a'), (2, 'b')))
    keys = [[sample_key(dataset.get_data_info(i)) for i in range(len(dataset))] for dataset in (larger, smaller, alone)]
    assert keys[1] == keys[2] == keys[0][:len(keys[1])] and len(keys[1]) < len(keys[0]) == len(set(keys[0]))


def test_a_crop_holds_its_whole_object(tmp_path):
    """Each scene is replaced by a white box where its first object is: the crop shows all of it, and about nothing else white."""
    document = json.loads(write_coco(tmp_path, 'val', 12, seed=3).read_text())
    first = {}
    for annotation in document['annotations']:
        first.setdefault(annotation['image_id'], annotation)
    for image, annotation in first.items():
        x, y, w, h = map(int, annotation['bbox'])
        canvas = np.zeros((*SIZE, 3), np.uint8)
        canvas[y:y + h, x:x + w] = 255
        Image.fromarray(canvas).save(tmp_path / f'val/{image:06d}.png')
    write_crops(tmp_path, 'val', 12, seed=3)
    for image, annotation in first.items():
        _, _, w, h = annotation['bbox']
        white = picture(tmp_path / f'crops/val/{image:06d}_{annotation["id"]}.png')[..., 0] / 255
        assert white.shape == (SIDE, SIDE)
        assert white.sum() == pytest.approx(w * h * (SIDE / (1.25 * max(w, h))) ** 2, rel=0.05)


def test_a_window_is_a_square_around_the_box_inside_the_picture():
    for x, y, w, h in ([50, 40, 20, 10], [0, 0, 30, 40], [150, 120, 10, 8], [10, 64, 64, 64]):
        x1, y1, x2, y2 = window([x, y, w, h], SIZE[::-1])
        assert x2 - x1 == y2 - y1 == 1.25 * max(w, h)
        assert 0 <= x1 <= x and 0 <= y1 <= y and x + w <= x2 <= SIZE[1] and y + h <= y2 <= SIZE[0]
    assert window([50, 40, 20, 10], SIZE[::-1]) == (47.5, 32.5, 72.5, 57.5)


def test_crops_carry_the_class_of_their_object_and_a_key_of_their_own(tmp_path):
    dataset = DemoCrops(split='val', count=4, seed=5, data_root=str(tmp_path))
    assert dataset.metainfo['classes'] == CLASSES
    found = [(sample_key(info), info['gt_label']) for info in (dataset.get_data_info(i) for i in range(len(dataset)))]
    objects = [(index, label) for index in range(4) for label in make_scene(5, index).labels.tolist()]
    assert [(int(key[4:10]), label) for key, label in found] == objects
    assert len(dict(found)) == len(found) == len(list((tmp_path / 'crops/val').iterdir()))


def test_a_complete_set_is_not_drawn_again(tmp_path, monkeypatch):
    DemoCrops(split='val', count=2, seed=0, data_root=str(tmp_path))
    before = files(tmp_path)
    monkeypatch.setattr(scenes, 'make_scene', lambda *_: pytest.fail('a scene was drawn again'))
    monkeypatch.setattr(classification, 'write_whole', lambda *_, **__: pytest.fail('a crop was cut again'))
    assert len(DemoLabelMaps(split='val', count=2, seed=0, data_root=str(tmp_path))) == 2
    assert len(DemoCrops(split='val', count=2, seed=0, data_root=str(tmp_path))) == len(before) - 6
    assert files(tmp_path) == before


def test_an_interrupted_set_is_completed_and_another_one_replaced(tmp_path, monkeypatch):
    write_crops(tmp_path / 'whole', 'val', 2, seed=0)
    write_crops(tmp_path / 'cut', 'val', 2, seed=1)

    def killed_at_the_third(path, *args, **options):
        if len(list(path.parent.iterdir())) > 2:
            raise KeyboardInterrupt
        scenes.write_whole(path, *args, **options)

    monkeypatch.setattr(classification, 'write_whole', killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_crops(tmp_path / 'cut', 'val', 2, seed=0)
    assert not (tmp_path / 'cut/annotations/crops_val.json').exists()
    monkeypatch.undo()
    write_crops(tmp_path / 'cut', 'val', 2, seed=0)
    whole = files(tmp_path / 'whole')
    assert {name: content for name, content in files(tmp_path / 'cut').items() if name in whole} == whole
    lost = next(name for name in whole if name.startswith('crops'))
    (tmp_path / 'cut' / lost).unlink()
    write_crops(tmp_path / 'cut', 'val', 2, seed=0)
    assert (tmp_path / 'cut' / lost).read_bytes() == whole[lost]


def test_processes_may_write_the_same_crops_at_once(tmp_path):
    write_crops(tmp_path / 'alone', 'val', 4, seed=0)
    with ProcessPoolExecutor(2, mp_context=get_context('fork')) as pool:
        for job in [pool.submit(write_crops, tmp_path / 'shared', 'val', 4, seed=0) for _ in range(2)]:
            job.result()
    assert files(tmp_path / 'shared') == files(tmp_path / 'alone')


# Models

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """An empty folder to start from, in which the first test that needs them draws the scenes."""
    return tmp_path_factory.mktemp('demo')


@pytest.fixture
def _in_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def demo(name):
    """A demo model with its weights, and the data set of its test config."""
    cfg = Config.fromfile(ROOT / f'configs/training/{name}_demo.py')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model, dataset = MODELS.build(cfg.model).eval(), DATASETS.build(cfg.test_dataloader.dataset)
    load_state_dict(model, torch.load(WEIGHTS / f'{name}.pth', weights_only=True)['state_dict'], strict=True)
    return model, dataset


def test_every_weights_file_has_a_training_config():
    assert {path.stem for path in WEIGHTS.glob('*.pth')} == set(NAMES)
    assert {path.stem for path in (ROOT / 'configs/training').glob('*_demo.py')} == {f'{name}_demo' for name in NAMES}


@pytest.mark.parametrize('name', NAMES)
def test_weights_are_small_and_know_their_classes(name):
    path = WEIGHTS / f'{name}.pth'
    checkpoint = torch.load(path, weights_only=True)
    assert path.stat().st_size <= 4_000_000 and all(value.isfinite().all() for value in checkpoint['state_dict'].values())
    classes = ('background', *CLASSES) if name == 'semantic_fpn' else CLASSES
    assert tuple(checkpoint['meta']['dataset_meta']['classes']) == classes


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.usefixtures('_in_the_folder')
def test_victims_see_what_the_library_predicts(name):
    """Bit for bit: logits, scores, or every box that is left after suppression."""
    model, dataset = demo(name)
    batch, rows = pseudo_collate([dataset[i] for i in range(3)]), torch.arange(3)
    victim = wrap(model, boxes_follow_resize=True)
    with victim.session(), torch.no_grad():
        expected = model.test_step(copy.deepcopy(batch))
        scene = victim.open(batch)
        if victim.task == 'segmentation':
            assert torch.equal(scene.logits(scene.images, rows), torch.stack([sample.seg_logits.data for sample in expected]))
        elif victim.task == 'classification':
            assert torch.equal(scene.logits(scene.images, rows).softmax(1), torch.stack([s.pred_score for s in expected]))
        else:
            candidates = scene.candidates(scene.images, rows)
            for b, found in enumerate(sample.pred_instances for sample in expected):
                same = ((candidates.boxes[b] == found.bboxes[:, None]).all(2) & (candidates.scores[b] == found.scores[:, None])
                        & (candidates.labels[b] == found.labels[:, None]))
                assert len(found) >= 2 and same.any(1).all()


# Metric of the victim's own evaluator, at least that much on the clean images, images, batch size
RUNS = {
    'faster_rcnn': ('coco/bbox_mAP_50', 0.9, 3),
    'yolox': ('coco/bbox_mAP_50', 0.9, 3),
    'semantic_fpn': ('mIoU', 70, 3),
    'resnet18': ('accuracy/top1', 88, 64),
}


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.usefixtures('_in_the_folder')
def test_the_attack_of_each_model_runs_from_an_empty_folder(name):
    metric, least, images = RUNS[name]
    result = attack_from_command_line([
        str(ROOT / f'configs/spgd_{name}.py'), '--device', 'cpu', '--limit', str(images), '--cfg-options', 'attack.steps=4',
        'test_dataloader.num_workers=0', 'pictures=1'])
    assert result[f'clean/{metric}'] >= least
    assert result[f'adv/{metric}'] < result[f'clean/{metric}'] - 0.05 * least
    assert result['attack/images'] == images and not result['attack/images_failed'] and not result['attack/images_skipped']
    assert 0 < result['attack/forwards'] <= 6
    assert os.listdir(f'work_dirs/spgd_{name}/pictures')


def test_the_largest_object_of_each_scene_is_cut_out_of_the_scenes_own_file(tmp_path):
    dataset = DemoLargest(split='val', count=4, seed=5, data_root=str(tmp_path), pipeline=[dict(type='CropObject')])
    for index in range(4):
        scene, info = make_scene(5, index), dataset.get_data_info(index)
        largest = scene.areas.argmax()
        assert info['gt_label'] == scene.labels[largest]
        assert info['img_path'] == str(tmp_path / f'val/{index:06d}.png')
        item = dataset.pipeline(dict(info, img=scene.image))
        left, top, right, bottom = info['crop']
        assert (item['img'] == scene.image[top:bottom, left:right]).all()
        x1, y1, x2, y2 = scene.boxes[largest]
        assert left <= x1 and top <= y1 and right >= x2 and bottom >= y2
