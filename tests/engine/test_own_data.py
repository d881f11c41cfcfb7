"""What users' own configs, photos and folders bring along, end to end on the demo models."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmdet', reason='the demo models are those of the OpenMMLab libraries', exc_type=ImportError)

from sparse_dense_attacks.cli.attack import attack_from_command_line  # noqa: E402
from sparse_dense_attacks.cli.common import main  # noqa: E402
from sparse_dense_attacks.engine.pictures import to_picture  # noqa: E402
from sparse_dense_attacks.results import Record, ResultStore, file_name  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def arguments(config: str, work_dir, *extra, limit=2, options=()):
    path = config if '/' in config else f'configs/{config}.py'
    return [path, '--work-dir', str(work_dir), '--limit', str(limit), '--device', 'cpu', *extra, '--cfg-options',
            'attack.steps=1', 'test_dataloader.num_workers=0', *options]


def run(config, work_dir, *extra, **options) -> dict:
    return attack_from_command_line(arguments(config, work_dir, *extra, **options))


def lines(work_dir) -> list[dict]:
    return [json.loads(line) for line in (Path(work_dir) / 'records.jsonl').read_text().splitlines()]


def photos(folder: Path, names, sizes=None) -> Path:
    folder.mkdir()
    scenes = sorted((ROOT / 'data/demo_scenes/val').glob('*.png'))
    for name, source, size in zip(names, scenes, sizes or [(160, 128)] * len(names), strict=False):
        with Image.open(source) as image:
            image.resize(size).save(folder / name)
    return folder


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        work_dir = tmp_path_factory.mktemp('run')
        return work_dir, run('spgd_resnet18', work_dir, limit=4)


# Results

def test_metrics_are_those_of_the_images_of_this_run(finished, tmp_path):
    """A work_dir that holds more images than a resumed run asks for."""
    shutil.copytree(finished[0], tmp_path / 'copy')
    resumed = run('spgd_resnet18', tmp_path / 'copy', '--resume')
    fresh = run('spgd_resnet18', tmp_path / 'fresh')
    assert resumed['attack/images'] == 2 and len(lines(tmp_path / 'copy')) == 4
    assert {name: value for name, value in resumed.items() if 'seconds' not in name} == \
        {name: value for name, value in fresh.items() if 'seconds' not in name}


def test_an_image_whose_png_is_gone_is_attacked_again(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / 'copy')
    lost = tmp_path / 'copy' / lines(finished[0])[1]['file']
    before = lost.read_bytes()
    lost.unlink()
    again = run('spgd_resnet18', tmp_path / 'copy', '--resume', limit=4)
    assert lost.read_bytes() == before and again['attack/images'] == 4
    assert again['attack/success_rate'] == finished[1]['attack/success_rate']


def test_an_image_that_can_no_longer_be_read_ends_a_resumed_run(tmp_path, capfd):
    folder = photos(tmp_path / 'photos', ['a.png', 'b.png'])
    extra = ('--images', str(folder))
    run('spgd_faster_rcnn', tmp_path / 'run', *extra)
    (folder / 'b.png').write_bytes((folder / 'b.png').read_bytes()[:500])
    assert main(attack_from_command_line, arguments('spgd_faster_rcnn', tmp_path / 'run', *extra, '--resume')) == 2
    assert "image 'photos/b.png' could be read when the run began but cannot be now" in capfd.readouterr().err


def test_metrics_that_are_tables_are_stored_and_not_printed(tmp_path, capfd):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = ['{ROOT}/configs/spgd_resnet18.py']\n"
                      "test_evaluator = [dict(type='Accuracy', topk=(1,)), dict(type='ConfusionMatrix')]\n")
    assert main(attack_from_command_line, arguments(str(config), tmp_path / 'run')) == 0
    stored = json.loads((tmp_path / 'run/metrics.json').read_text())
    assert np.array(stored['adv/confusion_matrix/result']).sum() == 2
    assert 'confusion_matrix' not in capfd.readouterr().out


def test_clean_and_adversarial_predictions_are_dumped_side_by_side(tmp_path):
    run('spgd_faster_rcnn', tmp_path / 'run', options=[f'test_evaluator.outfile_prefix={tmp_path}/dumped'])
    clean, adversarial = ((tmp_path / name).read_text() for name in ('clean_dumped.bbox.json', 'dumped.bbox.json'))
    assert json.loads(clean) != json.loads(adversarial)


@pytest.mark.parametrize(('one', 'other'), [
    ('a/b', 'a%2Fb'), ('a', 'a.png/b'), ('../x', '%2E%2E/x'), ('/x', 'x'), ('x//y', 'x/y'),
    ('IMG–1', 'IMG 131'), ('图' * 100, '图' * 99 + '片'), ('x' * 300, 'x' * 301)])
def test_keys_of_all_kinds_become_file_names(tmp_path, one, other):
    store = ResultStore(tmp_path)
    store.start({'identity': {}})
    for value, key in enumerate([one, other]):
        assert len(file_name(key)) < 240 and file_name(key).isascii()
        store.add(Record(key), np.full((2, 2, 3), value, np.uint8))
    assert [int(store.image(key).max()) for key in (one, other)] == [0, 1]
    images = (tmp_path / 'images').resolve()
    assert len(list(images.rglob('*.png'))) == 2  # none is out of doors


# Images

def test_a_batch_of_images_of_several_sizes_is_refused_before_it_is_attacked(tmp_path, capfd):
    folder = photos(tmp_path / 'photos', ['a.png', 'b.png'], [(160, 128), (128, 160)])
    extra = ('--images', str(folder))
    two = arguments('spgd_semantic_fpn', tmp_path / 'two', *extra, options=['test_dataloader.batch_size=2'])
    assert main(attack_from_command_line, two) == 2
    assert 'set test_dataloader.batch_size=1' in capfd.readouterr().err
    assert not (tmp_path / 'two/records.jsonl').exists()
    run('spgd_semantic_fpn', tmp_path / 'one', *extra, options=['test_dataloader.batch_size=1'])
    assert len(lines(tmp_path / 'one')) == 2


def test_float_images_are_drawn_as_they_are_stored():
    clean, attacked = torch.full((3, 2, 2), 99.6), torch.tensor([99.99999, 255.3, -0.2]).view(3, 1, 1).expand(3, 2, 2)
    assert (to_picture(clean) == 100).all() and to_picture(attacked)[0, 0].tolist() == [0, 255, 100]


# Pictures

def test_photos_are_drawn_when_the_data_set_names_no_colours(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = ['{ROOT}/configs/spgd_semantic_fpn.py']\n"
                      "names = ('background', 'ball', 'cube', 'cone', 'ring', 'star', 'heart')\n"
                      'test_dataloader = dict(dataset=dict(metainfo=dict(_delete_=True, classes=names)))\n')
    folder = photos(tmp_path / 'photos', ['a.png', 'b.png'])
    run(str(config), tmp_path / 'run', '--images', str(folder))
    assert len(list((tmp_path / 'run/pictures').rglob('*.png'))) == 2


def test_a_collate_function_keeps_its_options(tmp_path):
    with pytest.raises(TypeError, match='unheard_of'):
        run('spgd_resnet18', tmp_path, options=['test_dataloader.collate_fn.type=default_collate',
                                                'test_dataloader.collate_fn.unheard_of=1'])
