"""Where pixels may change, and photos without labels: masks with known answers, runs on the embedded demo."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmdet', reason='the runs attack an mmdet detector', exc_type=ImportError)

from mmdet.structures import DetDataSample

from sparse_dense_attacks import InputError
from sparse_dense_attacks.cli.attack import attack_from_command_line, prepare
from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.cli.configs import load_config
from sparse_dense_attacks.engine import Where
from sparse_dense_attacks.engine.photos import use_photos
from sparse_dense_attacks.victims.base import Scene
from sparse_dense_attacks.victims.geometry import geometry_of

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / 'configs/spgd_faster_rcnn.py')


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def sample(name='street.jpg', original=(4, 6), size=(8, 12), scale=2.0):
    meta = dict(img_path=f'somewhere/{name}', ori_shape=original, img_shape=size, scale_factor=(scale, scale))
    return DetDataSample(metainfo=meta)


class Photo(Scene):
    """One image at the upper left of a padded canvas."""

    def __init__(self, one, content, canvas):
        self.region = torch.zeros(1, 1, *canvas, dtype=torch.bool)
        self.region[..., :content[0], :content[1]] = True
        self.geometry = (geometry_of(one, torch.zeros(3, *content)),)


def scene(one=None, content=(8, 12), canvas=(10, 16)):
    return Photo(one or sample(), content, canvas)


def write_mask(folder, mask, name='street.png', mode='L'):
    Image.fromarray(np.asarray(mask, np.uint8) * 255).convert(mode).save(folder / name)


# Masks

def test_anywhere_restricts_nothing():
    assert Where.build('anywhere')(scene()) is None


@pytest.mark.parametrize('mode', ['L', '1', 'RGB', 'P', 'RGBA'])
def test_a_mask_follows_the_resize(tmp_path, mode):
    mask = np.zeros((4, 6), bool)
    mask[1, 2:4] = True
    write_mask(tmp_path, mask, mode=mode)
    expected = torch.zeros(1, 1, 10, 16, dtype=torch.bool)
    expected[..., 2:4, 4:8] = True
    assert torch.equal(Where(str(tmp_path))(scene()), expected)


def test_a_mask_may_have_the_size_of_the_network_input(tmp_path):
    mask = np.eye(8, 12) > 0
    write_mask(tmp_path, mask)
    found = Where(str(tmp_path))(scene())
    assert torch.equal(found[0, 0, :8, :12], torch.from_numpy(mask)) and found.sum() == 8


def test_a_mask_of_a_cropped_image_has_to_have_the_size_of_the_crop(tmp_path):
    write_mask(tmp_path, np.ones((4, 6)))
    cropped = sample(original=(4, 6), size=(5, 5), scale=2.0)
    with pytest.raises(InputError, match=r"street.png' is \(4, 6\), expected \(5, 5\) as the network's input"):
        Where(str(tmp_path))(scene(cropped, content=(5, 5)))
    write_mask(tmp_path, np.ones((5, 5)))
    assert Where(str(tmp_path))(scene(cropped, content=(5, 5))).sum() == 25


@pytest.mark.parametrize(('option', 'message'), [
    ('insied', "where = 'insied': no such folder of masks, and none of anywhere, inside, outside"),
    (dict(place='anywhere', classes=['car']), "place has to be 'inside' or 'outside'"),
    (dict(place='inside', classes='car'), r"expected a list such as \['car'\]"),
    (dict(plaice='inside'), "unexpected keyword argument 'plaice'")])
def test_bad_options(option, message):
    with pytest.raises(InputError, match=message):
        Where.build(option)


def test_bad_masks(tmp_path):
    where = Where(str(tmp_path))
    with pytest.raises(InputError, match="no mask '.*street.png'"):
        where(scene())
    (tmp_path / 'street.png').write_text('no picture')
    with pytest.raises(InputError, match="no mask '.*street.png', or no readable PNG"):
        where(scene())
    write_mask(tmp_path, np.ones((3, 3)))
    with pytest.raises(InputError, match=r"is \(3, 3\), expected \(4, 6\) as the image, or \(8, 12\) as the network's input"):
        where(scene())


def test_classified_images_have_no_objects():
    with pytest.raises(InputError, match='give a folder of masks'):
        Where('inside')(scene())


def test_classes_are_found_by_name_or_index():
    asked = []
    fake = scene()
    fake.classes, fake.num_classes = ('cat', 'dog'), 2
    fake.objects = lambda classes: asked.append(classes) or torch.ones(1, 1, 10, 16, dtype=torch.bool)
    assert not Where('outside', classes=['dog', 0])(fake).any()
    Where('inside')(fake)
    assert asked == [[1, 0], None]
    for name, message in (('dgo', "did you mean 'dog'"), (2, 'where: classes = 2, but the classes are 0 to 1')):
        with pytest.raises(InputError, match=message):
            Where('inside', classes=[name])(fake)


# Runs

def run(work_dir, *options, extra=()):
    attack_from_command_line([CONFIG, '--work-dir', str(work_dir), '--limit', '3', '--device', 'cpu', *extra, '--cfg-options',
                              'attack.steps=3', 'pictures=0', 'test_dataloader.num_workers=0', *options])
    return [json.loads(line) for line in (work_dir / 'records.jsonl').read_text().splitlines()]


def changed(work_dir, record) -> np.ndarray:
    """(H, W) bool, pixels of the stored image that differ from the scene."""
    annotations = json.loads((ROOT / 'data/demo_scenes/annotations/instances_val.json').read_text())
    name = next(image['file_name'] for image in annotations['images'] if str(image['id']) == record['key'])
    with Image.open(ROOT / 'data/demo_scenes/val' / name) as clean, Image.open(work_dir / record['file']) as adversarial:
        return (np.array(clean.convert('RGB')) != np.array(adversarial)).any(2)


def boxes(key) -> list:
    annotations = json.loads((ROOT / 'data/demo_scenes/annotations/instances_val.json').read_text())
    return [a['bbox'] for a in annotations['annotations'] if str(a['image_id']) == key]


@pytest.mark.parametrize('place', ['inside', 'outside'])
def test_pixels_change_inside_or_outside_objects_only(tmp_path, place):
    """The demo scenes are attacked as they are stored, without a resize."""
    for record in run(tmp_path, f'where={place}'):
        inside = np.zeros((128, 160), bool)
        for x, y, w, h in boxes(record['key']):
            inside[round(y):round(y + h), round(x):round(x + w)] = True
        allowed = inside if place == 'inside' else ~inside
        found = changed(tmp_path, record)
        assert 0 < found.sum() == record['l0_pixels'] and not (found & ~allowed).any()
    assert json.loads((tmp_path / 'run.json').read_text())['identity']['threat']['where']['place'] == place


def test_a_mask_smaller_than_the_budget_is_all_there_is(tmp_path):
    """One scene may change in 5 pixels, one nowhere, one everywhere."""
    annotations = json.loads((ROOT / 'data/demo_scenes/annotations/instances_val.json').read_text())
    mask = np.zeros((3, 128, 160), bool)
    mask[0, 60, 60:65], mask[2] = True, True
    for image, one in zip(annotations['images'][:3], mask, strict=True):
        write_mask(tmp_path, one, f"{Path(image['file_name']).stem}.png")
    with pytest.warns(RuntimeWarning, match='fewer pixels may change'):
        found = run(tmp_path / 'run', f'where={tmp_path}', 'attack.k=200')
    assert found[0]['l0_pixels'] <= 5 and found[1]['l0_pixels'] == 0 and found[2]['l0_pixels'] > 100
    assert not found[1]['success'] and found[1]['clean_correct']


def test_photos_without_labels(tmp_path):
    folder = tmp_path / 'photos'
    (folder / 'more').mkdir(parents=True)
    scenes = sorted((ROOT / 'data/demo_scenes/val').glob('*.png'))[:3]
    for source, name in zip(scenes, ('b.png', 'a.png', 'more/c.png'), strict=True):
        (folder / name).write_bytes(source.read_bytes())
    (folder / 'notes.txt').write_text('no image')
    (folder / 'cut.jpg').write_bytes(scenes[0].read_bytes()[:2000])
    found = sorted(run(tmp_path / 'run', extra=('--images', str(folder), '--limit', '9')), key=lambda record: record['key'])
    assert [r['key'] for r in found] == ['more/c.png', 'photos/a.png', 'photos/b.png', 'photos/cut.jpg']
    assert ['truncated' in r['note'] for r in found] == [False, False, False, True]
    assert all(r['clean_correct'] and r['l0_pixels'] > 0 for r in found if not r['note'])
    metrics = json.loads((tmp_path / 'run/metrics.json').read_text())
    assert metrics['attack/images'] == 3 and not any(name.startswith(('clean/', 'adv/')) for name in metrics)
    assert len(metrics['attack/images_skipped']) == 1


@pytest.mark.parametrize(('content', 'message'), [(None, 'no folder'), ('text', 'no image in')])
def test_folders_without_photos(tmp_path, capfd, content, message):
    folder = tmp_path / 'photos'
    if content:
        folder.mkdir()
        (folder / 'notes.txt').write_text(content)
    arguments = [CONFIG, '--work-dir', str(tmp_path / 'run'), '--images', str(folder)]
    assert main(attack_from_command_line, arguments) == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize('wrapped', [False, True])
def test_photos_take_pipeline_and_classes_of_the_test_set(wrapped):
    cfg = load_config(CONFIG)
    if wrapped:
        cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.test_dataloader.dataset])
    use_photos(cfg, 'photos')
    dataset = cfg.test_dataloader.dataset
    assert dataset.metainfo['classes'][0] == 'ball' and cfg.victim == dict(reference='prediction')
    assert [step.type for step in dataset.pipeline][0] == 'LoadImageFromFile'
    assert not any('Annotations' in step.type for step in dataset.pipeline)


def test_the_photo_option_is_parsed_before_anything_is_built(tmp_path):
    with pytest.raises(InputError, match='no folder'):
        prepare([CONFIG, '--work-dir', str(tmp_path), '--images', str(tmp_path / 'none')])
