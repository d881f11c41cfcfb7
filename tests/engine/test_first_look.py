"""A model that finds nothing of the truth is said to, and sda attack --check shows what it finds."""
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet', reason='the demo models are those of the libraries', exc_type=ImportError)

from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from sparse_dense_attacks.cli.attack import attack_from_command_line, prepare  # noqa: E402
from sparse_dense_attacks.cli.common import main  # noqa: E402
from sparse_dense_attacks.engine.data import SayResized, victim_options  # noqa: E402
from sparse_dense_attacks.engine.first_look import Look, complaint, look  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
PACK = ("dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', "
        "'scale_factor'))")
LOAD = "dict(type='LoadImageFromFile')"
BOXES = "dict(type='LoadAnnotations', with_bbox=True)"


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def argv(tmp_path, base, *lines, limit=4):
    path = tmp_path / 'config.py'
    path.write_text('\n'.join([f"_base_ = ['{ROOT}/configs/{base}.py']", 'pictures = 0', 'attack = dict(steps=1)',
                               'test_dataloader = dict(num_workers=0)', *lines]))
    return [str(path), '--work-dir', str(tmp_path / 'run'), '--limit', str(limit), '--device', 'cpu']


def pipeline(*steps) -> str:
    return f"test_dataloader = dict(num_workers=0, dataset=dict(pipeline=[{', '.join(steps)}]))"


def resize(w, h):
    return f"dict(type='Resize', scale=({w}, {h}), keep_ratio=True)"


def test_ground_truth_on_another_grid_is_said(tmp_path, capfd):
    """Of two Resize steps mmdet keeps the scale of the last: predictions and annotations never meet."""
    two = pipeline(LOAD, resize(480, 384), resize(160, 128), BOXES, PACK)
    found = attack_from_command_line(argv(tmp_path, 'spgd_faster_rcnn', two))
    assert found['clean/coco/bbox_mAP'] < 0.05
    said = ' '.join(capfd.readouterr().err.split())
    assert 'the model finds none of the' in said and 'that the ground truth fits the images' in said


@pytest.mark.parametrize('base', ['spgd_faster_rcnn', 'spgd_semantic_fpn', 'spgd_resnet18'])
def test_sound_models_are_not_complained_about(tmp_path, capfd, base):
    attack_from_command_line(argv(tmp_path, base))
    assert 'check that the weights' not in ' '.join(capfd.readouterr().err.split())


@pytest.mark.parametrize('base', ['spgd_faster_rcnn', 'spgd_semantic_fpn'])
def test_random_weights_are_said_to_find_nothing(tmp_path, capfd, base):
    torch.manual_seed(0)
    attack_from_command_line([*argv(tmp_path, base), '--checkpoint', 'none'])
    said = ' '.join(capfd.readouterr().err.split())
    assert 'check that the weights' in said


def test_a_run_with_nothing_right_says_so_in_the_end(tmp_path, capfd):
    """Fewer images than the first look wants."""
    attack_from_command_line([*argv(tmp_path, 'spgd_faster_rcnn', limit=2), '--checkpoint', 'none'])
    assert 'had none of the 2 clean images right' in ' '.join(capfd.readouterr().err.split())


def test_the_hook_says_so_too(tmp_path, capfd):
    argv(tmp_path, 'spgd_faster_rcnn')
    cfg = Config.fromfile(tmp_path / 'config.py')
    cfg.test_dataloader.dataset.indices = 2
    hook = dict(type='AttackHook', attack=cfg.pop('attack').to_dict(), goal=cfg.pop('goal').to_dict())
    cfg.merge_from_dict(dict(test_cfg=dict(type='TestLoop'), work_dir=str(tmp_path / 'hook'), custom_hooks=[hook],
                             load_from=None))
    Runner.from_cfg(cfg).test()
    assert 'had none of the 2 clean images right' in ' '.join(capfd.readouterr().err.split())


@pytest.mark.parametrize(('base', 'expected'), [
    ('spgd_faster_rcnn', ['truth: ', 'found: ', ' 1.00', 'clean/coco/bbox_mAP_50', '(3 images)']),
    ('spgd_semantic_fpn', ['truth: background', '%', 'clean/mIoU']),
    ('spgd_resnet18', ['truth: ', 'found: ', 'clean/accuracy/top1 100'])])
def test_check_lists_what_is_found_and_attacks_nothing(tmp_path, capfd, base, expected):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/records.jsonl').write_text('those of an earlier run')
    assert main(attack_from_command_line, [*argv(tmp_path, base, limit=3), '--check']) == 0
    said = capfd.readouterr().out
    assert all(text in said for text in expected), said
    assert sum('truth: ' in line for line in said.splitlines()) == 3
    assert (tmp_path / 'run/records.jsonl').read_text() == 'those of an earlier run'
    assert not (tmp_path / 'run/metrics.json').exists()


# What is found, in numbers

def detection(boxes, labels, scores, truth, truth_labels, **meta):
    gt = InstanceData(bboxes=torch.tensor(truth).float().view(-1, 4), labels=torch.tensor(truth_labels))
    found = InstanceData(bboxes=torch.tensor(boxes).float().view(-1, 4), labels=torch.tensor(labels), scores=torch.tensor(scores))
    sample = DetDataSample(metainfo=dict(img_id=7, scale_factor=(2.0, 2.0), **meta), gt_instances=gt)
    return sample, DetDataSample(metainfo=sample.metainfo, pred_instances=found)


def test_places_and_classes_are_counted_apart():
    pair = detection([[0, 0, 9, 9], [20, 20, 30, 30]], [1, 0], [.9, .2], [[0, 0, 10, 10], [20, 20, 30, 30]], [0, 0])
    found = look(*pair, ['a', 'b'], False)
    assert (found.parts, found.placed, found.right) == (2, 1, 0)
    assert found.truth == '2 a' and found.found == 'b 0.90'
    assert 'though it finds the places of 4' in complaint([found] * 4)


@pytest.mark.parametrize(('meta', 'follow'), [(dict(), True), (dict(boxes_follow_resize=True), False)])
def test_truth_in_coordinates_of_the_input_is_brought_back(meta, follow):
    pair = detection([[0, 0, 5, 5]], [0], [.9], [[0, 0, 10, 10]], [0], **meta)
    assert look(*pair, None, follow).right == 1


@pytest.mark.parametrize(('right', 'parts', 'chance', 'said'), [
    (0, 3, 0, 'finds none of the 12 objects'), (1, 3, 0, None), (0, 0, 0, None),
    (0, 1, .1, 'no better than chance'), (1, 10, .1, 'no better than chance'), (2, 10, .1, None)])
def test_complaints(right, parts, chance, said):
    found = complaint([Look('k', '', '', parts, 0, right, chance)] * 4)
    assert (found is None) if said is None else said in found
    assert complaint([Look('k', '', '', parts, 0, right, chance)] * 3) is None


# Data sets side by side

def test_each_sample_follows_its_own_data_set_s_pipeline(tmp_path):
    """One member loads annotations before Resize, the other after it: both have the same boxes."""
    base = Config.fromfile(ROOT / 'configs/spgd_faster_rcnn.py').test_dataloader.dataset.to_dict()
    base.pop('pipeline')
    one = ', '.join(f'{name}={value!r}' for name, value in base.items())
    first = f'dict({one}, indices=[0], pipeline=[{LOAD}, {BOXES}, {resize(320, 256)}, {PACK}])'
    second = f'dict({one}, indices=[1], pipeline=[{LOAD}, {resize(320, 256)}, {BOXES}, {PACK}])'
    lines = (f"test_dataloader = dict(num_workers=0, batch_size=2, dataset=dict(_delete_=True, type='ConcatDataset', "
             f'datasets=[{first}, {second}]))')
    arguments = argv(tmp_path, 'spgd_faster_rcnn', lines)
    arguments.remove('--limit')
    arguments.remove('4')
    runner = prepare(arguments)
    loop = runner.test_loop
    batch = next(iter(loop.dataloader))
    with loop.attacker.victim.session():
        scene = loop.attacker.victim.open(batch)
    content = json.loads((ROOT / 'data/demo_scenes/annotations/instances_val.json').read_text())
    for row in (0, 1):
        x, y, w, h = next(a['bbox'] for a in content['annotations'] if a['image_id'] == row)
        expected = torch.tensor([2 * x, 2 * y, 2 * (x + w), 2 * (y + h)])
        assert torch.allclose(scene.truth.boxes[row, 0], expected, atol=1e-3)


def test_pipelines_are_marked_once():
    def member(*names):
        steps = [type(name, (), {})() for name in names]
        return type('Set', (), dict(pipeline=type('Compose', (), dict(transforms=steps))))

    before, after = member('LoadAnnotations', 'Resize'), member('Resize', 'LoadAnnotations')
    both = type('Concat', (), dict(datasets=[before, after], metainfo={}))
    for _ in range(2):
        victim_options(both)
    said = [[step.resized for step in one.pipeline.transforms if isinstance(step, SayResized)] for one in (before, after)]
    assert said == [[True], [False]]
    victim_options(type('Concat', (), dict(datasets=[member('Resize')], metainfo={})))
