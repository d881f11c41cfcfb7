"""Runs on the grid of the files leave data sets that the libraries' own test scripts score, and that sda verify checks."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmdet', reason='the demo models are those of the libraries', exc_type=ImportError)

from sparse_dense_attacks import cli  # noqa: E402
from sparse_dense_attacks.engine import export  # noqa: E402
from sparse_dense_attacks.engine.loops import AttackLoop  # noqa: E402
from sparse_dense_attacks.results import file_digest  # noqa: E402
from tests.helpers import stock_test  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / 'sparse_dense_attacks/demo/weights'


def arguments(config: str, work_dir, *extra, options=()) -> list[str]:
    path = f'{config}.py' if '/' in config else f'configs/{config}.py'
    return ['attack', path, '--work-dir', str(work_dir), '--device', 'cpu', *extra, '--cfg-options', 'threat.grid=original',
            'attack.steps=2', 'test_dataloader.num_workers=0', 'pictures=0', *options]


def attacked(config: str, work_dir, *extra, **options) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return cli.main(arguments(config, work_dir, *extra, **options))


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> Path:
    """A finished run of the demo classifier on four images."""
    work_dir = tmp_path_factory.mktemp('run')
    assert attacked('spgd_resnet18', work_dir, '--limit', '4', options=['attack.k=5', 'attack.early_stop=False']) == 0
    return work_dir


@pytest.fixture
def dataset(run, tmp_path) -> Path:
    """Its data set, moved to a folder whose name needs care."""
    return Path(shutil.copytree(run / 'dataset', tmp_path / "it's a réal one/data set"))


def content(dataset) -> dict:
    return json.loads((dataset / 'manifest.json').read_text())


def rewrite(dataset, change) -> None:
    """Change the manifest as someone would who wants to mislead."""
    found = content(dataset)
    change(found)
    (dataset / 'manifest.json').write_text(json.dumps(found))


def first(dataset) -> Path:
    return dataset / content(dataset)['images'][0]['file']


def dot(path: Path, pixels=1) -> None:
    """Change the first pixels of a PNG."""
    with Image.open(path) as image:
        array = np.array(image)
    array[0, :pixels] ^= 64
    Image.fromarray(array).save(path)


def refused(capsys, dataset, *extra) -> str:
    assert cli.main(['verify', str(dataset), *extra]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1
    return error


def adversarial(work_dir: Path) -> dict:
    metrics = json.loads((work_dir / 'metrics.json').read_text())
    return {name.removeprefix('adv/'): value for name, value in metrics.items() if name.startswith('adv/')}


# What is written

def test_mmpretrains_own_script_scores_it_without_this_package(run, dataset, tmp_path):
    printed = stock_test('mmpretrain', dataset, WEIGHTS / 'resnet18.pth', tmp_path)
    assert f"accuracy/top1: {adversarial(run)['accuracy/top1']:.4f} " in printed


@pytest.mark.slow
@pytest.mark.parametrize(('library', 'config', 'weights', 'metric'), [
    ('mmdet', 'spgd_yolox', 'yolox', 'coco/bbox_mAP'), ('mmseg', 'spgd_semantic_fpn', 'semantic_fpn', 'mIoU')])
def test_the_others_own_scripts_score_it(tmp_path, library, config, weights, metric):
    assert attacked(config, tmp_path / 'run', '--limit', '3') == 0
    moved = (tmp_path / 'run/dataset').rename(tmp_path / 'moved')
    printed = stock_test(library, moved, WEIGHTS / f'{weights}.pth', tmp_path, ours=library == 'mmdet')
    assert f'{metric}: {adversarial(tmp_path / "run")[metric]:.4f} ' in printed


def test_it_says_what_it_is(run):
    dataset = run / 'dataset'
    found, text = content(dataset), (dataset / 'README.md').read_text()
    assert len(found['images']) == 4 and all(len(one['digest']) == 16 for one in found['images'])
    assert found['weights'] == file_digest(str(WEIGHTS / 'resnet18.pth')) and found['weights'] in text
    for expected in ('SparsePGD(k=5', "grid='original'", '`resnet18.pth`', 'licence of the original images', 'sda verify'):
        assert expected in text
    config = (dataset / 'config.py').read_text()
    assert 'sparse_dense_attacks' not in config and str(ROOT) not in config and str(run) not in config


def test_the_same_run_writes_the_same_bytes_also_when_it_is_resumed(run, tmp_path):
    again = tmp_path / 'again'
    options = dict(options=['attack.k=5', 'attack.early_stop=False'])
    assert attacked('spgd_resnet18', again, '--limit', '4', **options) == 0
    names = sorted(path.relative_to(again) for path in (again / 'dataset').rglob('*') if path.is_file())
    first_time = {name: (again / name).read_bytes() for name in names}
    assert first_time == {name: (run / name).read_bytes() for name in names}

    shutil.rmtree(again / 'dataset')  # as if killed before it
    (again / '.abc.part').mkdir()  # or while it was written
    assert attacked('spgd_resnet18', again, '--limit', '4', '--resume', **options) == 0
    assert first_time == {name: (again / name).read_bytes() for name in names}
    assert not [*again.glob('.*.part')]

    with (again / 'dataset' / 'README.md').open('a') as file:
        file.write('x')
    assert attacked('spgd_resnet18', again, '--limit', '2', '--resume', **options) == 0
    assert len(content(again / 'dataset')['images']) == 2, 'the images that were scored, and no others'
    assert len([*(again / 'dataset/images').iterdir()]) == 2

    assert attacked('spgd_resnet18', again, '--limit', '2', **options) == 0
    assert [*again.glob('previous/*/dataset/manifest.json')], 'a run that is set aside takes its data set along'


def test_a_full_disk_costs_the_data_set_only(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, 'No space left on device', str(tmp_path))

    monkeypatch.setattr(export, 'readme', full)
    assert attacked('spgd_resnet18', tmp_path, '--limit', '1') == 2
    assert 'error: disk full (' in capsys.readouterr().err
    assert (tmp_path / 'metrics.json').exists() and not (tmp_path / 'dataset').exists()
    assert not [*tmp_path.glob('.*.part')]


def test_what_cannot_be_written_is_said_and_the_run_is_finished(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, '_KEPT', (*export._KEPT, 'odd'))
    prepare = AttackLoop._export

    def with_an_object(loop, metrics):
        loop.runner.cfg.odd = [object()]
        prepare(loop, metrics)

    monkeypatch.setattr(AttackLoop, '_export', with_an_object)
    assert attacked('spgd_resnet18', tmp_path, '--limit', '1') == 0
    assert 'warning: no data set was written: the config holds a object' in capsys.readouterr().err


def test_images_that_cannot_be_read_are_left_out(tmp_path):
    folder = tmp_path / 'photos'
    for name in ('a/x y.png', 'b/x y.png', 'b/é.png'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    (folder / 'b/broken.png').write_bytes((folder / 'b/é.png').read_bytes()[:200])
    assert attacked('spgd_resnet18', tmp_path / 'run', '--images', str(folder), options=['attack.k=5']) == 0
    dataset = tmp_path / 'run/dataset'
    assert [one['file'] for one in content(dataset)['images']] == ['images/a/x y.png', 'images/b/x y.png', 'images/b/é.png']
    assert content(dataset)['truth'] == 'predictions' and 'accuracy/top1' in content(dataset)['metrics']
    assert cli.main(['verify', str(dataset)]) == 0


def test_several_data_sets_in_one(tmp_path):
    (tmp_path / 'config.py').write_text(f'''
_base_ = ['{ROOT}/configs/spgd_resnet18.py']
crops = [dict(type='DemoCrops', split=name, count=1, seed=seed, data_root='{tmp_path}', test_mode=True,
              pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]) for name, seed in (('a', 3), ('b', 4))]
test_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=crops))
''')
    assert attacked(str(tmp_path / 'config'), tmp_path / 'run', options=['attack.k=5']) == 0
    dataset = tmp_path / 'run/dataset'
    assert {one['file'].rpartition('/')[0] for one in content(dataset)['images']} == {'0/images', '1/images'}
    assert len(content(dataset)['images']) == len([*tmp_path.glob('crops/*/*.png')])
    assert cli.main(['verify', str(dataset)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize('config', ['spgd_yolox', 'spgd_semantic_fpn'])
def test_photos_have_the_predictions_as_annotations(tmp_path, config):
    """Untouched photos, as an attack without a step leaves them, score as well as the model agrees with itself."""
    from sparse_dense_attacks.demo.scenes import write_coco
    write_coco(tmp_path, 'val', 2, 5)
    options = ['attack._delete_=True', 'attack.type=RandomPixels', 'attack.k=1', 'attack.steps=1']
    assert attacked(config, tmp_path / 'run', '--images', str(tmp_path / 'val'), options=options) == 0
    metrics = content(tmp_path / 'run/dataset')['metrics']
    assert metrics['coco/bbox_mAP_50'] > 0.9 if config == 'spgd_yolox' else metrics['mIoU'] > 90
    assert cli.main(['verify', str(tmp_path / 'run/dataset')]) == 0


# What is verified

def test_a_data_set_that_is_as_it_was_written(dataset, monkeypatch, capsys):
    monkeypatch.chdir(dataset.parent)
    assert cli.main(['verify', dataset.name]) == 0
    printed = capsys.readouterr().out
    assert '4 images and 3 other files are as they were written' in printed
    assert 'changed pixels are as recorded: 5 to 5' in printed
    assert 'accuracy/top1' in printed and printed.endswith('metrics are as recorded\n')


def test_altered_missing_and_extra_files_are_named(dataset, capsys):
    name = first(dataset).relative_to(dataset).as_posix()
    dot(first(dataset))
    assert f'{name} was altered' in refused(capsys, dataset)
    first(dataset).unlink()
    assert f'{name} is missing' in refused(capsys, dataset)
    shutil.copy(dataset / content(dataset)['images'][1]['file'], dataset / 'images/more.png')
    (dataset / 'annotations/labels.txt').write_text('x 0\n')
    error = refused(capsys, dataset, '--no-score')
    assert f'{name} is missing; annotations/labels.txt was altered; images/more.png is extra\n' in error


def test_changes_are_counted_anew(dataset, capsys):
    """Another pixel, and a manifest that knows the digest of the altered file, but not of the pixel."""
    dot(first(dataset))
    rewrite(dataset, lambda found: found['images'][0].update(digest=file_digest(str(first(dataset)))))
    error = refused(capsys, dataset, '--no-score')
    assert first(dataset).name in error and 'changed pixels, recorded are 5' in error


def test_the_budget_is_that_of_the_threat_model(dataset, capsys):
    """A manifest that even admits the pixels: then they are beyond the budget."""
    dot(first(dataset), 40)
    digest = file_digest(str(first(dataset)))
    rewrite(dataset, lambda found: found['images'][0].update(digest=digest, l0_pixels=45, l0_elements=135))
    error = refused(capsys, dataset, '--no-score')
    assert 'the budget is 5' in error


def test_original_images_are_looked_for_and_compared(dataset, tmp_path, capsys):
    source = Path(content(dataset)['clean_root'])
    originals = tmp_path / 'originals'
    shutil.copytree(source, originals)
    rewrite(dataset, lambda found: found.update(clean_root=str(tmp_path / 'gone')))
    assert 'gone: give their folder, --clean FOLDER' in refused(capsys, dataset, '--no-score')
    assert cli.main(['verify', str(dataset), '--no-score', '--clean', str(originals)]) == 0
    name = content(dataset)['images'][0]['clean']
    dot(originals / name)
    assert f'{name} is another image than the one that' in refused(capsys, dataset, '--no-score', '--clean', str(originals))
    (originals / name).unlink()
    assert 'there is no original image' in refused(capsys, dataset, '--no-score', '--clean', str(originals))


def test_metrics_that_are_not_reached_are_named(dataset, capsys):
    rewrite(dataset, lambda found: found['metrics'].update({'accuracy/top1': 1.5, 'accuracy/top5': 3}))
    error = refused(capsys, dataset)
    assert 'accuracy/top1 is ' in error and 'recorded is 1.5' in error and 'accuracy/top5 is None, recorded is 3' in error


def test_weights_are_those_that_were_attacked(dataset, tmp_path, capsys):
    assert 'are not the weights that were attacked' in refused(capsys, dataset, '--checkpoint', str(WEIGHTS / 'yolox.pth'))
    moved = shutil.copy(WEIGHTS / 'resnet18.pth', tmp_path / 'weights.pth')
    rewrite(dataset, lambda found: found.update(checkpoint='/gone/resnet18.pth'))
    assert 'no checkpoint file /gone/resnet18.pth; give --checkpoint FILE' in refused(capsys, dataset)
    assert cli.main(['verify', str(dataset), '--checkpoint', str(moved)]) == 0
    rewrite(dataset, lambda found: found.update(checkpoint=None))
    assert 'the weights were random' in refused(capsys, dataset)


def test_without_scores_no_code_of_the_folder_runs(dataset, capsys):
    (dataset / 'config.py').write_text('raise SystemExit("run")')
    rewrite(dataset, lambda found: found['files'].update({'config.py': file_digest(str(dataset / 'config.py'))}))
    assert cli.main(['verify', str(dataset), '--no-score']) == 0
    rewrite(dataset, lambda found: found['loaders'][0].update(type='mmpretrain.SomethingElse'))
    assert 'only LoadImageFromFile can be asked again' in refused(capsys, dataset, '--no-score')


@pytest.mark.parametrize(('text', 'line'), [
    (None, 'is no adversarial data set (no manifest.json)'), ('{', 'is broken'), ('[]', 'is broken'),
    ('{"format": 1}', 'is broken'), ('{"format": 99}', 'is of format 99, this version reads 1')])
def test_a_manifest_that_is_none(tmp_path, capsys, text, line):
    if text is not None:
        (tmp_path / 'manifest.json').write_text(text)
    assert line in refused(capsys, tmp_path)
