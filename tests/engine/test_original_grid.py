"""Attacks on the pixels of the image files, end to end on the embedded demo; the stock pipeline has the last word."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmdet', reason='the runs attack an mmdet detector', exc_type=ImportError)

from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from sparse_dense_attacks import InputError, attack  # noqa: E402
from sparse_dense_attacks.cli.attack import attack_from_command_line, prepare  # noqa: E402
from sparse_dense_attacks.engine.files import FileGrid  # noqa: E402
from sparse_dense_attacks.testing import Net, pictures  # noqa: E402
from sparse_dense_attacks.threat_model import ThreatModel  # noqa: E402
from sparse_dense_attacks.victims.pipeline import FileGeometry  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
SCENES = ROOT / 'data/demo_scenes'
LETTERBOX = """
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(112, 112), keep_ratio=True),
    dict(type='Pad', pad_to_square=True, pad_val=dict(img=(114.0, 114.0, 114.0))),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))"""


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def config(folder, steps=LETTERBOX, base='spgd_yolox', more=''):
    """A config like that of the demo with another test pipeline, which attacks files."""
    path = folder / 'config.py'
    path.write_text(f"""
_base_ = {str(ROOT / 'configs' / f'{base}.py')!r}
test_dataloader = dict(num_workers=0, batch_size=2, dataset=dict(_delete_=False, pipeline=[{steps}]))
threat = dict(grid='original')
attack = dict(steps=3)
pictures = 0
{more}
""")
    return path


def run(path, work_dir, *options, limit=3, extra=()):
    limited = ['--limit', str(limit)] if limit else []
    options = ['--cfg-options', *options] if options else []
    return attack_from_command_line([str(path), '--work-dir', str(work_dir), '--device', 'cpu', *limited,
                                     *options, *extra])


def records(work_dir) -> list[dict]:
    lines = [json.loads(line) for line in (Path(work_dir) / 'records.jsonl').read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != 'seconds'} for line in lines]


def changed(work_dir, record, original) -> np.ndarray:
    """(h, w) bool, pixels of the stored image that are other than those of the file."""
    with Image.open(Path(work_dir) / record['file']) as after, Image.open(original) as before:
        assert after.size == before.size and after.mode == 'RGB'
        return (np.asarray(after) != np.asarray(before.convert('RGB'))).any(2)


def scene_file(record) -> Path:
    return SCENES / 'val' / f'{int(record["key"]):06d}.png'


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A finished run on letterboxed scenes, its config and its metrics."""
    folder = tmp_path_factory.mktemp('original')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        path = config(folder)
        return path, folder / 'run', run(path, folder / 'run')


def test_stored_images_lie_on_the_grid_of_the_files(finished):
    _, work_dir, metrics = finished
    found = records(work_dir)
    assert [one['key'] for one in found] == ['0', '1', '2']
    for one in found:
        assert changed(work_dir, one, scene_file(one)).sum() == one['l0_pixels'] == 204, '1 % of 128 x 160'
    with Image.open(work_dir / found[0]['file']) as image:
        grid = json.loads(image.text['grid'])
    assert grid == dict(original=[128, 160], content=[128, 160], input=[128, 160], resized=True)
    assert 'annotations of\nthe original files fit them' in (work_dir / 'images/README.txt').read_text()
    assert metrics['attack/geometry_disagreements'] == 0
    assert metrics['adv/coco/bbox_mAP'] < metrics['clean/coco/bbox_mAP']


def test_stock_metrics_on_the_stored_images_are_those_of_the_run(finished, tmp_path):
    """The images take the place of the data set's own; the clean metrics of that are the adversarial ones."""
    path, work_dir, metrics = finished
    shutil.copytree(SCENES, tmp_path / 'scenes')
    for one in records(work_dir):
        shutil.copy(work_dir / one['file'], tmp_path / 'scenes/val' / scene_file(one).name)
    swapped = run(path, tmp_path / 'run', f'test_dataloader.dataset.data_root={tmp_path}/scenes/',
                  extra=('--check',))
    assert swapped == {name.replace('adv/', 'clean/'): value for name, value in metrics.items()
                       if name.startswith('adv/')}


def test_without_a_resize_both_grids_are_one(tmp_path):
    for grid in ('input', 'original'):
        run(ROOT / 'configs/spgd_yolox.py', tmp_path / grid, f'threat.grid={grid}', 'attack.steps=2',
            'test_dataloader.num_workers=0', 'pictures=0', limit=2)
    plain, files = records(tmp_path / 'input'), records(tmp_path / 'original')
    assert [one.pop('measures') for one in files] == [dict(geometry_disagrees=False)] * 2
    asked = [one.pop('queries') + 2 for one in plain]  # files once more by the pipeline itself: success and share
    assert [one.pop('queries') for one in files] == asked
    assert files == [{name: value for name, value in one.items() if name != 'measures'} for one in plain]


def test_a_resumed_run_ends_like_one_that_was_not_killed(finished, tmp_path):
    path, work_dir, metrics = finished
    shutil.copytree(work_dir, tmp_path / 'run')
    lines = (tmp_path / 'run/records.jsonl').read_text().splitlines(keepends=True)
    (tmp_path / 'run/records.jsonl').write_text(''.join(lines[:2]))
    again = run(path, tmp_path / 'run', extra=('--resume',))
    for name in metrics:
        if name != 'attack/seconds':
            assert again[name] == pytest.approx(metrics[name], nan_ok=True), name
    assert records(tmp_path / 'run') == records(work_dir)


def test_photos_of_several_sizes_are_attacked_as_if_each_were_alone(tmp_path):
    folder = tmp_path / 'photos'
    (folder / 'a').mkdir(parents=True)
    with Image.open(SCENES / 'val/000000.png') as scene:
        scene.save(folder / 'one.png')
        scene.resize((100, 140)).convert('L').save(folder / 'grey.png')
        scene.crop((0, 0, 90, 120)).save(folder / 'a/one.png')  # of the same name
    path = config(tmp_path)
    for size in (1, 3):
        run(path, tmp_path / str(size), f'test_dataloader.batch_size={size}', limit=None,
            extra=('--images', str(folder)))
    alone, together = records(tmp_path / '1'), records(tmp_path / '3')
    for one, other in zip(alone, together, strict=True):
        assert one['key'] == other['key'] and one['success'] == other['success']
        assert abs(one['l0_pixels'] - other['l0_pixels']) <= 2
        original = folder / Path(one['key']).relative_to('photos') if one['key'].startswith('photos') else None
        size = changed(tmp_path / '3', other, original or folder / one['key']).size
        assert one['l0_pixels'] in (0, size // 100)
    assert {one['key'] for one in alone} == {'photos/one.png', 'photos/grey.png', 'a/one.png'}


def test_inside_means_inside_the_annotated_boxes(tmp_path):
    """Every pixel whose centre lies in a box, and no other, though the network sees boxes on another grid."""
    path = config(tmp_path)
    run(path, tmp_path / 'run', 'attack.k=20480', 'threat.where=inside', limit=2)
    truth = json.loads((SCENES / 'annotations/instances_val.json').read_text())
    for one in records(tmp_path / 'run'):
        inside = np.zeros((128, 160), bool)
        for box in (a['bbox'] for a in truth['annotations'] if a['image_id'] == int(one['key'])):
            x, y, w, h = box
            rows, columns = np.arange(128) + 0.5, np.arange(160) + 0.5
            inside |= ((y <= rows) & (rows < y + h))[:, None] & ((x <= columns) & (columns < x + w))
        found = changed(tmp_path / 'run', one, scene_file(one))
        assert not found[~inside].any() and found[inside].mean() > 0.98


def test_masks_in_a_folder_are_those_of_the_files(tmp_path):
    folder = tmp_path / 'masks'
    folder.mkdir()
    mask = np.random.default_rng(0).random((128, 160)) < 0.3
    for index in range(2):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f'{index:06d}.png')
    run(config(tmp_path), tmp_path / 'run', 'attack.k=20480', f'threat.where={folder}', limit=2)
    for one in records(tmp_path / 'run'):
        found = changed(tmp_path / 'run', one, scene_file(one))
        assert not found[~mask].any() and found[mask].mean() > 0.98


@pytest.mark.parametrize('flip', [0.0, 1.0])
def test_a_classifier_is_attacked_in_what_its_crop_leaves(tmp_path, flip):
    steps = ("dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=72, backend='pillow', "
             f"interpolation='bicubic'), dict(type='RandomFlip', prob={flip}), "
             "dict(type='CenterCrop', crop_size=48), dict(type='PackInputs')")
    path = config(tmp_path, steps, 'spgd_resnet18')
    metrics = run(path, tmp_path / 'run', 'attack.k=0.1', 'attack.early_stop=False', limit=4)
    assert metrics['attack/geometry_disagreements'] == 0
    for one in records(tmp_path / 'run'):
        found = changed(tmp_path / 'run', one, SCENES / 'crops' / one['key'])
        rows, columns = found.nonzero()
        # 12 of 72 pixels go on each side, 10.7 of 64, and the filter reaches two pixels beyond
        assert min(rows.min(), columns.min()) >= 8 and max(rows.max(), columns.max()) <= 55
        assert one['l0_pixels'] in (int(0.1 * side ** 2) for side in range(43, 49))


def test_a_segmenter_is_attacked_within_its_classes(tmp_path):
    pytest.importorskip('mmseg', reason='attacks an mmseg segmenter', exc_type=ImportError)
    steps = ("dict(type='LoadImageFromFile'), dict(type='Resize', scale=(240, 96), keep_ratio=True), "
             "dict(type='LoadAnnotations'), dict(type='PackSegInputs')")
    path = config(tmp_path, steps, 'spgd_semantic_fpn')
    metrics = run(path, tmp_path / 'run', 'attack.k=20480', 'threat.where=inside', 'test_dataloader.batch_size=1', limit=2)
    assert metrics['adv/mIoU'] < metrics['clean/mIoU']
    for one in records(tmp_path / 'run'):
        name = Path(one['key']).name
        label = np.asarray(Image.open(SCENES / 'masks/val' / name))
        found = changed(tmp_path / 'run', one, SCENES / 'val' / name)
        assert not found[label == 0].any() and found[label > 0].mean() > 0.95


def attacked_batch(path, work_dir):
    """The runner of a run and its first batch."""
    runner = prepare([str(path), '--work-dir', str(work_dir), '--device', 'cpu', '--limit', '2'])
    runner.call_hook('before_run')
    runner.load_or_resume()
    return runner, next(iter(runner.test_loop.dataloader))


def test_one_call_on_a_batch_agrees_with_the_run(finished, tmp_path):
    path, work_dir, _ = finished
    runner, batch = attacked_batch(path, tmp_path / 'run')
    runner.model.eval()
    options = dict(goal='Vanish', threat=dict(grid='original'), k=0.01, steps=3, early_stop=False)
    with pytest.raises(InputError, match='the model keeps no config with a test pipeline'):
        attack(runner.model, batch, attack='SparsePGD', **options)
    runner.model.cfg = runner.cfg
    result = attack(runner.model, batch, attack='SparsePGD', **options)
    assert result.images.shape == (2, 3, 128, 160)
    expected = records(work_dir)[:2]
    assert result.l0_pixels.tolist() == [one['l0_pixels'] for one in expected]
    assert result.share.tolist() == [one['share'] for one in expected]
    region = torch.zeros(2, 1, 128, 160, dtype=torch.bool)
    region[..., :64, :] = True
    half = attack(runner.model, batch, attack='SparsePGD', region=region, **options)
    assert half.l0_pixels.tolist() == [102, 102], 'a share of the region'


def test_hook_under_the_stock_test_loop_agrees_with_the_loop(finished):
    path, work_dir, metrics = finished
    cfg = Config.fromfile(path)
    hook = dict(type='AttackHook', attack=cfg.pop('attack').to_dict(), goal=cfg.pop('goal').to_dict(),
                threat=cfg.pop('threat').to_dict())
    cfg.test_dataloader.dataset.indices = 3
    cfg.merge_from_dict(dict(test_cfg=dict(type='TestLoop'), work_dir=str(work_dir / 'hook'), custom_hooks=[hook]))
    runner = Runner.from_cfg(cfg)
    runner.test_loop.evaluator.metrics[0].img_ids = [0, 1, 2]
    assert runner.test()['coco/bbox_mAP'] == metrics['adv/coco/bbox_mAP']


def test_the_stock_pipeline_has_the_last_word(tmp_path, monkeypatch):
    """Where it shows the network something else than the copy did, that is judged, scored and counted."""
    def unimpressed(self, samples, images):
        return [self.stored(sample, sample.img_path) for sample in samples]

    monkeypatch.setattr(FileGrid, 'shown', unimpressed)
    metrics = run(config(tmp_path), tmp_path / 'run', 'attack.k=4000', 'attack.steps=20', limit=2)
    assert metrics['attack/geometry_disagreements'] == 2, 'the attack broke the copy'
    assert metrics['attack/success_rate'] == 0 and metrics['attack/share'] == 0
    assert metrics['adv/coco/bbox_mAP'] == metrics['clean/coco/bbox_mAP']


def test_a_copy_that_is_off_is_refused(tmp_path, monkeypatch):
    forward = FileGeometry.forward
    monkeypatch.setattr(FileGeometry, 'forward', lambda self, x: forward(self, x) + 3 / 255)
    with pytest.raises(InputError, match=r'off by 3 grey levels for .*000000.png, expected at most 1'):
        run(config(tmp_path), tmp_path / 'run', limit=1)


def test_pictures_show_the_files(tmp_path):
    run(config(tmp_path, more="custom_hooks = [dict(type='AttackVisualizationHook', images=1, width=160)]"),
        tmp_path / 'run', limit=1)
    with Image.open(tmp_path / 'run/pictures/0.png') as sheet:
        assert sheet.size == (3 * 160 + 2 * 8, 128 + 26), 'panels in the size of the file'


# What is refused

def test_a_pipeline_that_draws_is_refused_before_the_first_image(tmp_path):
    path = config(tmp_path, LETTERBOX.replace('dict(type=\'Pad\'', "dict(type='RandomFlip', prob=0.5), dict(type='Pad'"))
    with pytest.raises(InputError, match='draws at random; set prob to 0 or 1') as caught:
        run(path, tmp_path / 'run')
    assert "grid='input'" in str(caught.value) and not (tmp_path / 'run/records.jsonl').exists()


def test_a_flip_before_the_annotations_is_refused(tmp_path):
    """The boxes would be those of the file on a network input that is turned around."""
    path = config(tmp_path, LETTERBOX.replace('dict(type=\'Pad\'', "dict(type='RandomFlip', prob=1.0), dict(type='Pad'"))
    with pytest.raises(InputError, match="sample '0': the test pipeline flips or crops the image before it loads"):
        run(path, tmp_path / 'run', limit=1)


def test_images_from_memory_are_refused():
    model, images = Net(), pictures(2, 3, 8, 8)
    with pytest.raises(InputError, match='images of TorchClassifier come from memory'):
        attack(model, images, model(images).argmax(1), 'SparsePGD', k=1, threat=dict(grid='original'))
    with pytest.raises(InputError, match="eight_bit = False beside grid = 'original'"):
        ThreatModel(grid='original', eight_bit=False)


def test_a_data_set_in_memory_is_refused():
    class Memory:
        pipeline = None

        def __len__(self):
            return 1

        def get_data_info(self, index):
            return dict(img=np.zeros((4, 4, 3), np.uint8), sample_idx=index)

    with pytest.raises(InputError, match='Memory holds its images in memory, expected image files'):
        FileGrid.of_dataset(Memory())
