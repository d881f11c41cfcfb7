"""Where pixels may change, and photos without labels: masks with known answers, runs on the embedded demo."""
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmdet', reason='the runs attack an mmdet detector', exc_type=ImportError)

from mmdet.structures import DetDataSample

from sparse_dense_attacks import InputError
from sparse_dense_attacks.checks import files_for
from sparse_dense_attacks.cli.attack import attack_from_command_line, prepare
from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.cli.configs import load_config
from sparse_dense_attacks.demo.dataset import DemoScenes
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


# Files that fit

@pytest.mark.parametrize('files, expected', [
    (['seq1/0001.png', 'seq2/0001.png'], ['seq1/0001.png', 'seq2/0001.png']),
    (['seq1/0001.png', '0001.png'], ['seq1/0001.png', '0001.png']),
    (['train/seq1/0001.png', 'seq2/0001.png'], ['train/seq1/0001.png', 'seq2/0001.png'])])
def test_masks_are_found_by_relative_path_first(tmp_path, files, expected):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_mask(tmp_path, np.ones((4, 6)), name)
    images = ['/data/train/seq1/0001.jpg', '/data/train/seq2/0001.jpg']
    assert files_for(tmp_path, images, 'where: mask') == [tmp_path / name for name in expected]


@pytest.mark.parametrize('images', [
    ['/data/seq1/0001.png', '/data/seq2/0001.png'], ['seq1/0001.jpg', 'seq1/0001.png'],
    ['0001.png', 'b/0001.png']])
def test_a_name_that_fits_two_images_is_refused(tmp_path, images):
    write_mask(tmp_path, np.ones((4, 6)), '0001.png')
    with pytest.raises(InputError, match=f"fits two images, '{images[0]}' and '{images[1]}'"):
        files_for(tmp_path, images, 'where: mask')


def test_one_batch_of_images_of_one_name_is_refused(tmp_path):
    write_mask(tmp_path, np.ones((4, 6)), '0001.png')
    pair = scene()
    pair.region = pair.region.repeat(2, 1, 1, 1)
    pair.geometry = tuple(scene(sample(f'{folder}/0001.png')).geometry[0] for folder in 'ab')
    with pytest.raises(InputError, match='fits two images'):
        Where(str(tmp_path))(pair)


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
def test_transparent_is_black(tmp_path, mode):
    """White everywhere, but opaque in a stroke only."""
    stroke = np.zeros((4, 6), np.uint8)
    stroke[1, 2:4] = 255
    if mode == 'P':
        image = Image.fromarray(np.uint8(stroke > 0), 'P')
        image.putpalette([255] * 768)
        image.save(tmp_path / 'street.png', transparency=0)
    else:
        white = Image.new(mode[:-1], (6, 4), 'white')
        white.putalpha(Image.fromarray(stroke))
        white.save(tmp_path / 'street.png')
    found = Where(str(tmp_path))(scene())
    assert found.sum() == 8 and found[0, 0, 2:4, 4:8].all()


def test_deep_masks_are_read(tmp_path):
    mask = np.zeros((4, 6), np.uint16)
    mask[0, 0], mask[3, 5] = 1, 65535
    Image.fromarray(mask).save(tmp_path / 'street.png')
    assert Where(str(tmp_path))(scene()).sum() == 8


@pytest.mark.parametrize('place', ['inside', 'outside'])
def test_ignored_regions_are_neither_inside_nor_outside(place):
    fake = scene()
    thing, crowd = (torch.zeros(1, 1, 10, 16, dtype=torch.bool) for _ in range(2))
    thing[..., :4, :4], crowd[..., 2:6, :] = True, True
    fake.objects, fake.ignored = lambda classes: thing, lambda: crowd
    expected = {'inside': thing & ~crowd, 'outside': ~thing & ~crowd}[place]
    assert torch.equal(Where(place)(fake), expected)


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
def test_photos_take_pipeline_and_classes_of_the_test_set(wrapped, tmp_path):
    (tmp_path / 'a.png').touch()
    cfg = load_config(CONFIG)
    if wrapped:
        cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.test_dataloader.dataset])
    use_photos(cfg, str(tmp_path))
    dataset = cfg.test_dataloader.dataset
    assert dataset.metainfo['classes'][0] == 'ball' and cfg.victim == dict(reference='prediction')
    assert [step.type for step in dataset.pipeline][0] == 'LoadImageFromFile'
    assert not any('Annotations' in step.type for step in dataset.pipeline)


def test_the_photo_option_is_parsed_before_anything_is_built(tmp_path):
    with pytest.raises(InputError, match='no folder'):
        prepare([CONFIG, '--work-dir', str(tmp_path), '--images', str(tmp_path / 'none')])


def scenes_with(tmp_path, key, count=3):
    """The demo's annotations, of each scene one object marked."""
    annotations = json.loads((ROOT / 'data/demo_scenes/annotations/instances_val.json').read_text())
    kept = annotations['images'][:count]
    marked = {}
    for entry in annotations['annotations']:
        if marked.setdefault(entry['image_id'], entry['id']) == entry['id']:
            entry[key] = 1
    path = tmp_path / 'marked.json'
    path.write_text(json.dumps(annotations))
    crowds = {str(entry['image_id']): entry['bbox'] for entry in annotations['annotations']
              if entry.get(key)}
    return path, {str(image['id']): crowds[str(image['id'])] for image in kept}


@pytest.mark.parametrize('place', ['inside', 'outside'])
def test_no_pixel_of_a_crowd_changes(tmp_path, monkeypatch, place):
    path, crowds = scenes_with(tmp_path, 'iscrowd')
    config = tmp_path / 'crowds.py'
    config.write_text(f"""
_base_ = {CONFIG!r}
test_dataloader = dict(dataset=dict(
    _delete_=True, type='CocoDataset', ann_file={str(path)!r}, test_mode=True,
    metainfo=dict(classes={DemoScenes.METAINFO['classes']!r}),
    data_prefix=dict(img={str(ROOT / 'data/demo_scenes/val')!r}),
    pipeline={{{{_base_.test_dataloader.dataset.pipeline}}}}))
test_evaluator = dict(_delete_=True, type='CocoMetric', ann_file={str(path)!r}, metric='bbox')
""")
    monkeypatch.setattr(sys.modules[__name__], 'CONFIG', str(config))
    for record in run(tmp_path / 'run', f'threat.where={place}', 'attack.early_stop=False'):
        x, y, w, h = crowds[record['key']]
        found = changed(tmp_path / 'run', record)
        assert found.any() and not found[round(y):round(y + h), round(x):round(x + w)].any()


def test_masks_that_fit_two_images_end_the_run_before_its_first_image(tmp_path):
    for folder in ('seq1', 'seq2'):
        (tmp_path / 'photos' / folder).mkdir(parents=True)
        source = sorted((ROOT / 'data/demo_scenes/val').glob('*.png'))[0]
        (tmp_path / 'photos' / folder / '0001.png').write_bytes(source.read_bytes())
    (tmp_path / 'masks').mkdir()
    write_mask(tmp_path / 'masks', np.ones((128, 160)), '0001.png')
    with pytest.raises(InputError, match='fits two images'):
        run(tmp_path / 'run', f"threat.where={tmp_path / 'masks'}",
            extra=('--images', str(tmp_path / 'photos')))
    assert not (tmp_path / 'run/records.jsonl').exists()
