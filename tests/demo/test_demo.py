"""The embedded demo: scenes are reproducible, their truth is right, files are complete, the weights fit the model."""

import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparse_dense_attacks.demo import scenes
from sparse_dense_attacks.demo.scenes import CLASSES, PALETTE, SIZE, make_scene, write_coco

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / 'sparse_dense_attacks' / 'demo' / 'weights' / 'faster_rcnn.pth'
SAMPLE = range(24)


def same(first, second) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in vars(first))


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


def test_a_scene_depends_on_seed_and_index_alone():
    first = make_scene(3, 5)
    np.random.seed(0)
    make_scene(3, 6)
    assert same(first, make_scene(3, 5))
    assert not same(first, make_scene(3, 6))
    assert not same(first, make_scene(4, 5))


def test_types_and_ranges():
    scene = make_scene(0, 0)
    assert scene.image.shape == (*SIZE, 3) and scene.image.dtype == np.uint8
    assert scene.mask.shape == SIZE and scene.mask.dtype == np.uint8
    assert scene.boxes.dtype == np.float32 and scene.boxes.shape == (len(scene.labels), 4)
    assert make_scene(0, 0, size=(96, 96)).image.shape == (96, 96, 3)


@pytest.mark.parametrize('index', SAMPLE)
def test_boxes_masks_and_areas_agree(index):
    scene = make_scene(1, index)
    assert 2 <= len(scene.labels) <= 6
    assert scene.areas.sum() == (scene.mask > 0).sum()
    for label in np.unique(scene.labels):
        visible = scene.mask == label + 1
        assert scene.areas[scene.labels == label].sum() == visible.sum()
        x1, y1 = scene.boxes[scene.labels == label, :2].min(0)
        x2, y2 = scene.boxes[scene.labels == label, 2:].max(0)
        rows, columns = np.nonzero(visible)
        assert (x1, y1, x2, y2) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert set(np.unique(scene.mask)) - {0} == set(scene.labels + 1)


@pytest.mark.parametrize('label', range(len(CLASSES)))
def test_a_lone_object_fills_its_patch_without_being_cut(label):
    _, alpha = scenes._draw(np.random.default_rng(0), label, radius=20.0)
    assert alpha.max() == 1
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    assert border.max() == 0
    x1, y1, x2, y2 = scenes._extent(alpha > 0.5)
    assert max(x2 - x1, y2 - y1) >= 0.75 * len(alpha)


def test_every_class_appears_about_equally_often():
    counts = Counter(int(label) for index in range(40) for label in make_scene(0, index).labels)
    assert set(counts) == set(range(len(CLASSES))) and len(CLASSES) == len(PALETTE) >= 4
    assert max(counts.values()) < 3 * min(counts.values())


def test_files_hold_the_scenes(tmp_path):
    annotation_file = write_coco(tmp_path, 'val', 3, seed=7)
    document = json.loads(annotation_file.read_text())
    for image in document['images']:
        scene = make_scene(7, image['id'])
        assert np.array_equal(np.asarray(Image.open(tmp_path / 'val' / image['file_name'])), scene.image)
        assert np.array_equal(np.asarray(Image.open(tmp_path / 'masks/val' / image['file_name'])), scene.mask)
        objects = [a for a in document['annotations'] if a['image_id'] == image['id']]
        assert [a['category_id'] - 1 for a in objects] == scene.labels.tolist()
        assert [a['area'] for a in objects] == scene.areas.tolist()
        corners = [[x, y, x + w, y + h] for x, y, w, h in (a['bbox'] for a in objects)]
        assert corners == scene.boxes.tolist()
    assert min(a['id'] for a in document['annotations']) == 1


def test_a_complete_set_is_left_alone_and_a_different_one_replaced(tmp_path):
    annotation_file = write_coco(tmp_path, 'val', 2, seed=0)
    image = tmp_path / 'val' / '000000.png'
    before = image.stat().st_mtime_ns, image.read_bytes()
    write_coco(tmp_path, 'val', 2, seed=0)
    assert (image.stat().st_mtime_ns, image.read_bytes()) == before
    write_coco(tmp_path, 'val', 2, seed=1)
    assert image.read_bytes() != before[1]
    assert json.loads(annotation_file.read_text())['info']['seed'] == 1


def test_an_interrupted_write_is_completed(tmp_path, monkeypatch):
    write_coco(tmp_path / 'whole', 'val', 3, seed=0)

    def killed_at_the_third(seed, index):
        if index == 2:
            raise KeyboardInterrupt
        return make_scene(seed, index)

    monkeypatch.setattr(scenes, 'make_scene', killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_coco(tmp_path / 'cut', 'val', 3, seed=0)
    assert not (tmp_path / 'cut/annotations/instances_val.json').exists()
    monkeypatch.undo()
    write_coco(tmp_path / 'cut', 'val', 3, seed=0)
    assert files(tmp_path / 'cut') == files(tmp_path / 'whole')


def test_processes_may_write_the_same_set_at_once(tmp_path):
    write_coco(tmp_path / 'alone', 'val', 4, seed=0)
    with ProcessPoolExecutor(2, mp_context=get_context('fork')) as pool:
        for job in [pool.submit(write_coco, tmp_path / 'shared', 'val', 4, seed=0) for _ in range(2)]:
            job.result()
    assert files(tmp_path / 'shared') == files(tmp_path / 'alone')


def test_a_lost_image_is_drawn_again(tmp_path):
    write_coco(tmp_path, 'val', 2, seed=0)
    before = files(tmp_path)
    (tmp_path / 'masks/val/000001.png').unlink()
    write_coco(tmp_path, 'val', 2, seed=0)
    assert files(tmp_path) == before


def test_pycocotools_reads_the_annotations(tmp_path):
    coco = pytest.importorskip('pycocotools.coco')
    loaded = coco.COCO(str(write_coco(tmp_path, 'val', 2, seed=0)))
    assert [c['name'] for c in loaded.loadCats(loaded.getCatIds())] == list(CLASSES)
    assert len(loaded.getAnnIds()) == sum(len(make_scene(0, index).labels) for index in range(2))


def test_weights_are_small_and_safe_to_load():
    assert WEIGHTS.stat().st_size <= 4_000_000
    checkpoint = torch.load(WEIGHTS, map_location='cpu', weights_only=True)
    assert set(checkpoint) == {'state_dict', 'meta'}
    assert tuple(checkpoint['meta']['dataset_meta']['classes']) == CLASSES
    assert all(value.isfinite().all() for value in checkpoint['state_dict'].values())


def demo_detector(tmp_path: Path, count: int):
    """The demo detector with its weights, and its test set cut to `count` scenes drawn below `tmp_path`."""
    pytest.importorskip('mmdet.models')
    from mmengine.config import Config
    from mmengine.registry import DATASETS, MODELS, init_default_scope
    from mmengine.runner import load_state_dict

    import sparse_dense_attacks.demo.dataset  # noqa: F401  (registers DemoScenes)

    cfg = Config.fromfile(ROOT / 'configs/training/faster_rcnn_demo.py')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).eval()
    state = torch.load(WEIGHTS, map_location='cpu', weights_only=True)['state_dict']
    load_state_dict(model, state, strict=True)
    dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'data_root': str(tmp_path), 'count': count})
    return model, dataset


@pytest.mark.openmmlab
def test_the_dataset_writes_itself_and_speaks_mmdet(tmp_path):
    _, dataset = demo_detector(tmp_path, count=2)
    assert len(dataset) == 2 and dataset.metainfo['classes'] == CLASSES
    item, scene = dataset[1], make_scene(1, 1)
    assert np.array_equal(item['inputs'].numpy(), scene.image[..., ::-1].transpose(2, 0, 1))  # mmcv loads BGR
    sample = item['data_samples']
    assert np.array_equal(sample.gt_instances.bboxes.tensor.numpy(), scene.boxes)
    assert np.array_equal(sample.gt_instances.labels.numpy(), scene.labels)
    assert {'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'} <= set(sample.metainfo)


@pytest.mark.openmmlab
def test_the_detector_finds_most_objects_and_invents_few(tmp_path):
    model, dataset = demo_detector(tmp_path, count=8)
    from mmdet.structures.bbox import bbox_overlaps
    from mmengine.dataset import pseudo_collate

    found = wanted = claimed = 0
    with torch.no_grad():
        samples = model.test_step(pseudo_collate([dataset[i] for i in range(len(dataset))]))
    for index, sample in enumerate(samples):
        scene, guess = make_scene(1, index), sample.pred_instances[sample.pred_instances.scores > 0.5]
        near = bbox_overlaps(torch.from_numpy(scene.boxes), guess.bboxes) >= 0.5
        right = near & (torch.from_numpy(scene.labels)[:, None] == guess.labels)
        found, wanted, claimed = found + int(right.any(1).sum()), wanted + len(scene.labels), claimed + len(guess)
    assert found >= 0.85 * wanted
    assert claimed <= 1.2 * wanted
