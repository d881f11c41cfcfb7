"""What is wrong with annotations is said before the first image is attacked."""
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmdet', reason='the demo models are those of the libraries', exc_type=ImportError)

from sparse_dense_attacks.cli.attack import attack_from_command_line  # noqa: E402
from sparse_dense_attacks.cli.common import main  # noqa: E402
from sparse_dense_attacks.engine.data import SkipUnreadable  # noqa: E402
from sparse_dense_attacks.engine.truth import _flaw, check_files, check_truth  # noqa: E402
from sparse_dense_attacks.errors import InputError  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def scenes(tmp_path):
    """A copy of four demo scenes whose annotation file a test may spoil, as an ordinary CocoDataset."""
    from sparse_dense_attacks.demo.scenes import write_coco
    write_coco(tmp_path, 'val', 4, 1)
    return tmp_path


def annotations(scenes) -> Path:
    return scenes / 'annotations/instances_val.json'


def spoil(scenes, change) -> None:
    content = json.loads(annotations(scenes).read_text())
    change(content)
    annotations(scenes).write_text(json.dumps(content))


def config(scenes, *extra) -> str:
    path = scenes / 'config.py'
    path.write_text('\n'.join([
        f"_base_ = ['{ROOT}/configs/spgd_faster_rcnn.py']", 'pictures = 0', 'attack = dict(steps=1)',
        f"test_dataloader = dict(num_workers=0, dataset=dict(type='CocoDataset', data_root='{scenes}', "
        "_delete_=True, ann_file='annotations/instances_val.json', data_prefix=dict(img='val/'), test_mode=True, "
        "metainfo=dict(classes=('ball', 'cube', 'cone', 'ring', 'star', 'heart')), pipeline=[\n"
        "    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(160, 128), keep_ratio=True), "
        "dict(type='LoadAnnotations', with_bbox=True), "
        "dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))",
        f"test_evaluator = dict(type='CocoMetric', ann_file='{annotations(scenes)}', metric='bbox')", *extra]))
    return str(path)


def attacked(config, scenes) -> int:
    return main(attack_from_command_line, [config, '--work-dir', str(scenes / 'run'), '--device', 'cpu'])


def twice(part):
    def change(content):
        content[part][1]['id'] = content[part][0]['id']
    return change


@pytest.mark.parametrize(('change', 'message'), [
    (twice('images'), 'image id 0 is there 2 times'),
    (twice('annotations'), 'are not unique'),
    (lambda content: content.update(images=[], annotations=[]), 'it has no images'),
])
def test_an_annotation_file_that_loses_images_is_refused(scenes, capfd, change, message):
    spoil(scenes, change)
    assert attacked(config(scenes), scenes) == 2
    error, = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]
    assert message in error and not (scenes / 'run/records.jsonl').exists()


def test_no_annotation_file_is_one_line(scenes, capfd):
    path = Path(config(scenes))
    path.write_text(path.read_text().replace("ann_file='annotations/instances_val.json'", "ann_file=''"))
    assert attacked(str(path), scenes) == 2
    error, = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]
    assert "CocoDataset(data_root=" in error and "ann_file=''" in error


@pytest.mark.parametrize('whose', ['data set', 'evaluator'])
def test_a_named_pipe_is_no_annotation_file(scenes, capfd, whose):
    os.mkfifo(scenes / 'pipe')
    path = Path(config(scenes))
    before = "ann_file='annotations/instances_val.json'" if whose == 'data set' else f"ann_file='{annotations(scenes)}'"
    path.write_text(path.read_text().replace(before, f"ann_file='{scenes}/pipe'"))
    assert attacked(str(path), scenes) == 2
    assert 'pipe is a named pipe, expected an ordinary file' in capfd.readouterr().err


def test_devices_within_wrapped_data_sets_are_found():
    inner = dict(type='CocoDataset', data_root='/dev', ann_file='zero')
    with pytest.raises(InputError, match='/dev/zero is a device'):
        check_files(dict(dataset=dict(type='ConcatDataset', datasets=[dict(type='A'), inner])))
    check_files(dict(dataset=dict(ann_file='', data_root=None)), [dict(type='CocoMetric', ann_file=None)])


def test_an_image_that_is_a_named_pipe_is_skipped(tmp_path):
    os.mkfifo(tmp_path / 'a.png')

    class One:
        metainfo: dict = {}

        def __len__(self):
            return 1

        def get_data_info(self, index):
            return dict(img_path=str(tmp_path / 'a.png'))

    key, reason = SkipUnreadable(One())[0]
    assert key.endswith('a.png') and 'a named pipe' in reason


def test_boxes_without_sense_are_counted(scenes, capfd):
    def change(content):
        for one, box in zip(content['annotations'], ([float('nan'), 1, 5, 5], [9, 9, -3, 5], [9, 9, 0, 5], [500, 9, 5, 5]),
                            strict=False):
            one['bbox'] = box

    spoil(scenes, change)
    assert attacked(config(scenes), scenes) == 0
    said = ' '.join(capfd.readouterr().err.split())
    assert '1 with NaN or infinity, 1 of negative width or height, 1 of no area, 1 outside of the image' in said
    assert 'the first is annotation' in said


def test_sound_boxes_say_nothing(scenes, capfd):
    check_truth(type('Set', (), dict(ann_file=str(annotations(scenes)), metainfo={}, pipeline=None)))
    assert not capfd.readouterr().err


@pytest.mark.parametrize(('box', 'flaw'), [
    ((0, 0, 10, 10), None), ((-5, -5, 3, 3), None), ((0, 0, float('inf'), 3), 'with NaN or infinity'),
    ((-9, 0, -1, 3), 'outside of the image'), ((0, 20, 5, 30), 'outside of the image'), ((3, 3, 3, 9), 'of no area'),
    ((5, 5, 3, 9), 'of negative width or height')])
def test_flaws_of_boxes(box, flaw):
    assert _flaw(box, 20, 20) == flaw
    assert _flaw((0, 20, 5, 30), None, None) is None


# Label maps

@pytest.fixture
def maps(tmp_path):
    """Two demo scenes with label maps, as an ordinary BaseSegDataset."""
    from sparse_dense_attacks.demo.scenes import write_coco
    write_coco(tmp_path, 'val', 2, 1)
    return tmp_path


def segmenter(root) -> str:
    path = root / 'config.py'
    path.write_text(f"_base_ = ['{ROOT}/configs/spgd_semantic_fpn.py']\npictures = 0\nattack = dict(steps=1)\n"
                    f"test_dataloader = dict(num_workers=0, dataset=dict(data_root='{root}', count=2))\n")
    return str(path)


def coloured(mode):
    def save(path):
        with Image.open(path) as image:
            labels = np.array(image)
        colours = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)[labels]
        Image.fromarray(colours).convert(mode).save(path)
    return save


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'LA'])
def test_label_maps_with_colours_are_refused(maps, capfd, mode):
    path = sorted((maps / 'masks/val').glob('*.png'))[1]
    coloured(mode)(path)
    assert attacked(segmenter(maps), maps) == 2
    error = capfd.readouterr().err
    assert f'label map {path} has colours (mode {mode})' in error and 'class indices (0 to 6)' in error
    assert not (maps / 'run/records.jsonl').exists()


def test_indices_with_a_palette_are_label_maps(maps):
    for path in (maps / 'masks/val').glob('*.png'):
        with Image.open(path) as image:
            labels = Image.fromarray(np.array(image), 'P')
        labels.putpalette(list(range(256)) * 3)
        labels.save(path)
    assert attacked(segmenter(maps), maps) == 0


# Ids

def test_samples_and_data_set_have_the_same_ids(scenes, capfd):
    path = Path(config(scenes))
    whole = "('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')"
    path.write_text(path.read_text().replace(whole, whole.replace("'img_id', ", '')))
    assert attacked(str(path), scenes) == 2
    assert "add 'img_id' and 'img_path' to the meta_keys" in capfd.readouterr().err
    assert not (scenes / 'run/records.jsonl').exists()


def test_classifiers_ids_are_compared_too(tmp_path, capfd):
    path = tmp_path / 'config.py'
    path.write_text(f"_base_ = ['{ROOT}/configs/spgd_resnet18.py']\npictures = 0\n"
                    "test_dataloader = dict(num_workers=0, dataset=dict(pipeline=[dict(type='LoadImageFromFile'), "
                    "dict(type='PackInputs', meta_keys=('sample_idx', 'img_shape'))]))\n")
    argv = [str(path), '--work-dir', str(tmp_path / 'run'), '--limit', '2', '--device', 'cpu']
    assert main(attack_from_command_line, argv) == 2
    assert "samples of the test pipeline have ids such as '0'" in capfd.readouterr().err


def test_the_scenes_themselves_are_sound(scenes):
    assert attacked(config(scenes), scenes) == 0
    records = (scenes / 'run/records.jsonl').read_text().splitlines()
    assert len(records) == 4
