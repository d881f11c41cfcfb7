"""sda transfer: sources run, victims look, cells and tables are kept; on the embedded demo and on modules known by hand."""
import csv
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmdet', reason='the sources are runs on mmdet detectors', exc_type=ImportError)
pytest.importorskip('mmpretrain', reason='an ensemble across tasks', exc_type=ImportError)

from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from sparse_dense_attacks import InputError, StructuredSparsePGD, ThreatModel  # noqa: E402
from sparse_dense_attacks.cli import main  # noqa: E402
from sparse_dense_attacks.cli.transfer import _check_budgets, run  # noqa: E402
from sparse_dense_attacks.engine.transfer import Job, PlainViewer, score  # noqa: E402
from sparse_dense_attacks.evaluation.controls import CONTROLS  # noqa: E402
from sparse_dense_attacks.results import PairSet, Record, Run, describe, pairs_of_folders, pairs_of_run  # noqa: E402
from sparse_dense_attacks.results.cell import Cell  # noqa: E402
from tests.ranks import start  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
SCENES = ROOT / 'data/demo_scenes'
HERE = 'tests.cli.test_transfer'
MODELS = """
quick = {'test_dataloader.num_workers': 0, 'pictures': 0}
models = dict(
    yolox=dict(config='sparse_dense_attacks::spgd_yolox.py', options=quick),
    resnet18=dict(config='sparse_dense_attacks::spgd_resnet18_largest.py', options=quick),
    constant=dict(module='tests.cli.test_transfer:Constant'),
    remainder=dict(module='tests.cli.test_transfer:Remainder'))
attack = dict(type='SparsePGD', k=200, steps=2, early_stop=False)
limit = 2
seeds = 1
"""
COUNT = 2


class Constant(torch.nn.Module):
    """Says class 1 of everything."""

    def forward(self, x):
        return torch.tensor([[0., 1.]])


class Remainder(torch.nn.Module):
    """The sum of all grey levels, modulo 7."""

    def forward(self, x):
        return torch.nn.functional.one_hot((x * 255).round().long().sum() % 7, 7)[None].float()


class Warm(torch.nn.Module):
    """Says class 1 of images with 50 pixels that are red and not blue, which no scene has."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.body.weight.copy_(torch.tensor([10., 0., -10.])[None, :, None, None])
            self.body.bias.zero_()

    def forward(self, x):
        warmth = self.body(x).flatten(1).topk(50).values.mean(1)
        return torch.stack([torch.full_like(warmth, 9.5), warmth], 1)


class Red(torch.nn.Module):
    """A segmenter: class 1 is what is red."""

    def forward(self, x):
        return dict(out=torch.stack([torch.full_like(x[:, 0], 0.5), x[:, 0]], 1))


class Fails(torch.nn.Module):
    """On the second scene of the demo as it is on disk."""

    def forward(self, x):
        with Image.open(SCENES / 'val/000001.png') as image:
            if int((x * 255).round().sum()) == int(np.asarray(image, dtype=np.int64).sum()):
                raise ValueError('this one is too much for me')
        return torch.tensor([[0., 1.]])


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def config(folder, more):
    path = Path(folder) / 'table.py'
    path.write_text(MODELS + 'del quick\n' + more)
    return str(path)


def fill(path, work_dir, *options):
    cells = run([path, '--work-dir', str(work_dir), '--device', 'cpu', *options])
    return {(one.source, one.victim): one for one in cells}


def refused(capfd, path, *argv) -> str:
    """The one line that is said of bad input."""
    assert main(['transfer', path, *map(str, argv)]) == 2
    error, = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]
    return error


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    """A detector, and a detector with a classifier, shown to both and to two modules."""
    folder = tmp_path_factory.mktemp('transfer')
    path = config(folder, """
sources = dict(yolox=dict(model='yolox'),
               both=dict(members=['yolox', 'resnet18'], combine='worst'))
""")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return path, folder / 'table', fill(path, folder / 'table')


def test_processes_that_share_a_table_fill_it_as_one_does(table, tmp_path):
    path, alone, _ = table
    command = ['-m', 'sparse_dense_attacks.cli', 'transfer', path, '--work-dir', tmp_path / 'table', '--device', 'cpu']
    said = start([command] * 2, tmp_path)
    assert [status for status, _ in said] == [0, 0], said
    assert (tmp_path / 'table/transfer.csv').read_text() == (alone / 'transfer.csv').read_text()
    victims = [[name for name in ('yolox', 'resnet18', 'constant', 'remainder') if f'victim {name}' in printed]
               for _, printed in said]
    assert sorted(sum(victims, [])) == ['constant', 'remainder', 'resnet18', 'yolox'] and all(victims), 'each by one of them'


def pair(work_dir, source, number) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a scene and of what a source made of it."""
    name = f'{number:06d}.png'
    [stored] = [one for one in Run.load(work_dir / 'sources' / source).records
                if one.key in (str(number), f'val/{name}')]
    with Image.open(SCENES / 'val' / name) as clean, Image.open(
            work_dir / 'sources' / source / stored.file) as adversarial:
        return np.array(clean), np.array(adversarial)


def test_every_cell_has_all_controls_and_every_kind_a_line(table):
    _, work_dir, cells = table
    assert len(cells) == 2 * 4
    assert all(not one.failed and not one.refused and len(one.changes) == COUNT for one in cells.values())
    with (work_dir / 'transfer.csv').open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ['source', 'victim', 'kind', 'measure', 'clean', 'adversarial', 'value', 'low', 'high',
                              'images']
    kinds = {(one['source'], one['victim'], one['kind']) for one in lines if one['measure'] == 'change'}
    assert kinds == {(*cell, kind) for cell in cells for kind in ('attack', *CONTROLS)}
    assert {one['measure'] for one in lines if one['victim'] == 'yolox'} >= {'change', 'coco/bbox_mAP'}
    for one in lines:
        assert one['measure'] != 'change' or float(one['low']) <= float(one['value']) <= float(one['high'])
    page = (work_dir / 'transfer.md').read_text()
    assert page.count('(d)') > 3, 'both sources hold the detector'
    assert (work_dir / 'heat_change.png').is_file()


def test_a_constant_model_never_changes_its_answer(table):
    for source in ('yolox', 'both'):
        changes = table[2][source, 'constant'].changes.values()
        assert all(set(values) == {0.0} for one in changes for values in one.values())


def test_the_change_of_a_module_is_that_by_hand(table):
    _, work_dir, cells = table
    for source in ('yolox', 'both'):
        changes = cells[source, 'remainder'].changes
        for number in range(COUNT):
            clean, adversarial = (int(one.sum(dtype=np.int64)) % 7 for one in pair(work_dir, source, number))
            name = str((SCENES / 'val' / f'{number:06d}.png').resolve())
            assert changes[name]['attack'] == [float(clean != adversarial)]


def test_an_ensemble_is_stored_as_any_run_and_says_whom_it_broke(table):
    _, work_dir, cells = table
    run = Run.load(work_dir / 'sources/both')
    assert len(run.records) == COUNT
    assert run.identity['goal']['type'] == 'Ensemble' and run.identity['goal']['combine'] == 'worst'
    for number, one in enumerate(run.records):
        clean, adversarial = pair(work_dir, 'both', number)
        assert (clean != adversarial).any(2).sum() == one.l0_pixels <= 200
        broken = [one.measures[name] for name in ('success_yolox', 'success_resnet18')]
        assert one.success == all(broken)
        said = cells['both', 'resnet18'].changes[str((SCENES / 'val' / f'{number:06d}.png').resolve())]
        if one.clean_correct:
            assert said['attack'] == [float(one.measures['success_resnet18'])]


def test_an_ensemble_changes_pixels_that_a_member_crops_away(table):
    """The classifier sees the largest object only, the detector all."""
    _, work_dir, cells = table
    from sparse_dense_attacks.demo.classification import DemoLargest
    dataset = DemoLargest(split='val', count=64, seed=1, pipeline=[], test_mode=True)
    outside = 0
    for number in range(COUNT):
        left, top, right, bottom = dataset.get_data_info(number)['crop']
        clean, adversarial = pair(work_dir, 'both', number)
        changed = (clean != adversarial).any(2)
        outside += changed.sum() - changed[top:bottom, left:right].sum()
    assert outside > 0


def test_resume_repeats_nothing_and_a_lost_cell_is_equal(table):
    path, work_dir, _ = table
    kept = [*work_dir.glob('sources/*/records.jsonl'), *work_dir.glob('cells/*.json')]
    assert len(kept) == 2 + 8
    before = {one: (one.stat().st_mtime_ns, one.read_bytes()) for one in kept}
    lost = work_dir / 'cells/both__yolox.json'
    content, csv_text = lost.read_bytes(), (work_dir / 'transfer.csv').read_bytes()
    lost.unlink()
    fill(path, work_dir, '--resume')
    assert lost.read_bytes() == content
    assert (work_dir / 'transfer.csv').read_bytes() == csv_text
    for one in kept:
        if one != lost:
            assert (one.stat().st_mtime_ns, one.read_bytes()) == before[one], one


def _killed(path, work_dir):
    torch.set_num_threads(1)
    run([path, '--work-dir', str(work_dir), '--device', 'cpu'])


def test_a_killed_table_resumed_is_equal(table, tmp_path):
    """Killed within its second source; forked, because importing takes longer than all else."""
    path, work_dir, _ = table
    sign = 'sources/both/records.jsonl'
    child = multiprocessing.get_context('fork').Process(target=_killed, args=(path, tmp_path / 'run'))
    child.start()
    until = time.monotonic() + 300
    while not (tmp_path / 'run' / sign).exists() and child.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    assert child.is_alive(), 'it was to be killed half-way'
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not (tmp_path / 'run/transfer.csv').exists()
    fill(path, tmp_path / 'run', '--resume')
    assert (tmp_path / 'run/transfer.csv').read_bytes() == (work_dir / 'transfer.csv').read_bytes()


def test_the_native_metric_is_that_of_the_stock_test_on_the_images(table, tmp_path):
    """The victim's own test run, with the source's images in place of its own."""
    _, work_dir, cells = table
    truth = json.loads((SCENES / 'annotations/instances_val.json').read_text())
    truth['images'] = truth['images'][:COUNT]
    truth['annotations'] = [one for one in truth['annotations'] if one['image_id'] < COUNT]
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    for number in range(COUNT):
        Image.fromarray(pair(work_dir, 'yolox', number)[1]).save(tmp_path / f'{number:06d}.png')
    cfg = Config.fromfile(ROOT / 'configs/spgd_yolox.py')
    pipeline, classes = cfg.test_dataloader.dataset.pipeline, ('ball', 'cube', 'cone', 'ring', 'star', 'heart')
    cfg.test_dataloader.dataset = dict(
        type='CocoDataset', ann_file=str(tmp_path / 'truth.json'), data_prefix=dict(img=str(tmp_path)),
        metainfo=dict(classes=classes), test_mode=True, pipeline=pipeline)
    cfg.test_dataloader.num_workers = 0
    cfg.test_evaluator.ann_file = str(tmp_path / 'truth.json')
    cfg.merge_from_dict(dict(work_dir=str(tmp_path / 'stock'), test_cfg=dict(type='TestLoop'), launcher='none'))
    for key in ('attack', 'goal'):
        cfg.pop(key)
    stock = Runner.from_cfg(cfg).test()
    for name in ('coco/bbox_mAP', 'coco/bbox_mAP_50'):
        assert cells['yolox', 'yolox'].native[name]['attack']['value'] == pytest.approx(stock[name], abs=1e-9)


def folders(tmp_path, change) -> str:
    """A pair of folders of two scenes; ``change`` edits the second of each pair."""
    for name in ('clean', 'adversarial'):
        (tmp_path / name).mkdir()
    for number in range(2):
        name = f'{number:06d}.png'
        shutil.copy(SCENES / 'val' / name, tmp_path / 'clean' / name)
        with Image.open(SCENES / 'val' / name) as image:
            Image.fromarray(change(np.array(image))).save(tmp_path / 'adversarial' / name)
    return config(tmp_path, f"""
sources = dict(theirs=dict(clean={str(tmp_path / 'clean')!r}, adversarial={str(tmp_path / 'adversarial')!r}))
images = {str(tmp_path / 'clean')!r}
victims = ['yolox', 'remainder']
""")


def test_clean_images_change_nothing(tmp_path):
    """Self-transfer of images that nobody attacked, from the folders of other people."""
    cells = fill(folders(tmp_path, lambda image: image), tmp_path / 'table')
    assert {one.victim for one in cells.values()} == {'yolox', 'remainder'}
    for one in cells.values():
        assert set(one.pixels.values()) == {0}
        assert all(values == [0.0] * len(values) for kinds in one.changes.values() for values in kinds.values())


def test_images_of_other_people(tmp_path):
    def brighten(image):
        image[:2, :3] = 255 - image[:2, :3]
        return image

    cell = fill(folders(tmp_path, brighten), tmp_path / 'table')['theirs', 'remainder']
    assert set(cell.pixels.values()) == {6}


def test_a_victim_that_fails_on_one_image(tmp_path, capfd):
    path = folders(tmp_path, lambda image: 255 - image)
    (tmp_path / 'clean/000001.png').unlink()
    shutil.copy(SCENES / 'val/000001.png', tmp_path / 'clean/000001.png')
    text = Path(path).read_text().replace("['yolox', 'remainder']", "['fails']")
    Path(path).write_text(text + f"\nmodels['fails'] = dict(module='{HERE}:Fails')\n")
    cell = fill(path, tmp_path / 'table')['theirs', 'fails']
    name = str(tmp_path / 'clean/000001.png')
    assert cell.failed == {name: 'ValueError: this one is too much for me'}
    assert list(cell.changes) == [str(tmp_path / 'clean/000000.png')]
    assert f'fails fails on 1 images of theirs, which count nowhere: {name}' in (
        tmp_path / 'table/transfer.md').read_text()


@pytest.mark.parametrize(('spoil', 'message'), [
    (lambda path: path.unlink(), 'is gone'),
    (lambda path: Image.new('RGB', (160, 128)).save(path), 'was altered since it was stored')])
@pytest.mark.parametrize('victim', ['constant', 'yolox'])
def test_an_image_that_is_gone_or_altered_refuses_even_finished_cells_by_name(table, tmp_path, victim, spoil, message):
    path, work_dir, _ = table
    for folder in ('sources', 'cells'):
        shutil.copytree(work_dir / folder, tmp_path / 'run' / folder)
    finished = Cell.load(tmp_path / 'run', 'yolox', victim)
    assert finished.changes
    text = Path(path).read_text() + f"\nvictims = ['{victim}']\nsources.pop('both')\n"
    (tmp_path / 'one.py').write_text(text)
    spoilt = tmp_path / 'run/sources/yolox/images/1.png'
    kept = spoilt.read_bytes()
    spoil(spoilt)
    cells = fill(str(tmp_path / 'one.py'), tmp_path / 'run', '--resume')
    assert cells['yolox', victim].refused == f'{spoilt} {message}'
    assert f'{spoilt} {message}' in (tmp_path / 'run/transfer.md').read_text()
    assert Cell.load(tmp_path / 'run', 'yolox', victim).changes == {}
    if victim == 'constant':
        spoilt.write_bytes(kept)
        assert fill(str(tmp_path / 'one.py'), tmp_path / 'run', '--resume')['yolox', victim] == finished


PLAIN = f"""
models = dict(warm=dict(module='{HERE}:Warm'), red=dict(module='{HERE}:Red'))
attack = dict(type='SparsePGD', k=200, steps=20, early_stop=False)
sources = dict(warm=dict(model='warm'), red=dict(model='red'),
               flat=dict(model='warm', goal=dict(type='FeatureDispersion', layer='body')),
               both=dict(members=['warm', 'red'], combine='worst'))
images = '{SCENES / 'val'}'
limit = 3
seeds = 1
"""


@pytest.fixture(scope='module')
def plain_table(tmp_path_factory):
    """Plain modules as sources and victims, without any model of a library."""
    folder = tmp_path_factory.mktemp('plain')
    path = folder / 'table.py'
    path.write_text(PLAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return str(path), folder / 'table', fill(str(path), folder / 'table')


def seen_by(module, image):
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        said = module(x)
    return (said['out'] if isinstance(said, dict) else said).argmax(1)[0]


def test_a_plain_source_leaves_a_run_judged_by_itself_on_its_pngs(plain_table):
    _, work_dir, cells = plain_table
    run = Run.load(work_dir / 'sources/warm')
    assert [one.key for one in run.records] == [f'val/{number:06d}.png' for number in range(3)]
    assert run.identity['victim'] == dict(type='TorchClassifier', reference='prediction')
    assert run.metrics['attack/images'] == 3
    for number, one in enumerate(run.records):
        clean, adversarial = pair(work_dir, 'warm', number)
        assert (clean != adversarial).any(2).sum() == one.l0_pixels <= 200
        assert one.measures == dict(reference='prediction') and one.clean_correct
        assert int(seen_by(Warm(), clean)) == 0
        assert one.success == bool(seen_by(Warm(), adversarial)) and one.success
        name = str((SCENES / 'val' / f'{number:06d}.png').resolve())
        assert cells['warm', 'warm'].changes[name]['attack'] == [1.0]


def test_a_plain_segmenter_changes_as_many_pixels_as_by_hand(plain_table):
    _, work_dir, cells = plain_table
    for number, one in enumerate(Run.load(work_dir / 'sources/red').records):
        clean, adversarial = pair(work_dir, 'red', number)
        share = float((seen_by(Red(), clean) != seen_by(Red(), adversarial)).float().mean())
        name = str((SCENES / 'val' / f'{number:06d}.png').resolve())
        assert cells['red', 'red'].changes[name]['attack'] == [pytest.approx(share, abs=1e-7)]
        assert one.share == pytest.approx(share, abs=1e-7) and share > 0.005


def test_an_ensemble_of_plain_modules_and_its_truths(plain_table):
    _, work_dir, _ = plain_table
    run = Run.load(work_dir / 'sources/both')
    assert set(run.identity['members']) == {'warm', 'red'}
    for number, one in enumerate(run.records):
        _, adversarial = pair(work_dir, 'both', number)
        assert one.measures['success_warm'] == bool(seen_by(Warm(), adversarial))
        assert one.measures['reference_red'] == one.measures['reference_warm'] == 'prediction'
        assert one.success == (one.measures['success_warm'] and one.measures['success_red'])


def test_features_of_a_plain_module_get_flatter(plain_table):
    _, work_dir, _ = plain_table
    for number in range(3):
        clean, adversarial = (Warm().body(torch.from_numpy(one).permute(2, 0, 1)[None] / 255).std()
                              for one in pair(work_dir, 'flat', number))
        assert adversarial < clean


def test_a_plain_run_that_was_cut_short_goes_on_to_equal_tables(plain_table, tmp_path):
    path, work_dir, _ = plain_table
    shutil.copytree(work_dir / 'sources', tmp_path / 'run/sources')
    for name in ('warm', 'both'):
        cut = tmp_path / 'run/sources' / name
        (cut / 'metrics.json').unlink()
        lines = (cut / 'records.jsonl').read_text().splitlines(keepends=True)
        (cut / 'records.jsonl').write_text(lines[1] + lines[2][:40])
        (cut / 'images/val/000002.png.png').unlink()
    fill(path, tmp_path / 'run', '--resume')
    assert (tmp_path / 'run/transfer.csv').read_bytes() == (work_dir / 'transfer.csv').read_bytes()
    for name in ('warm', 'both'):
        digests = [{one.key: one.digest for one in Run.load(folder / 'sources' / name).records}
                   for folder in (work_dir, tmp_path / 'run')]
        assert digests[0] == digests[1] and len(digests[0]) == 3


@pytest.mark.parametrize(('more', 'message'), [
    ('images = None', "plain modules have no test set: name a folder of images = 'photos'"),
    (f"models['warm']['module'] = '{HERE}:Nothing'", 'models.warm: no module'),
    ("sources['flat']['goal']['layer'] = 'bodi'", "has no layer 'bodi': did you mean 'body'?"),
    ("sources['warm']['goal'] = dict(type='Vanish')", 'Vanish'),
    ("attack['type'] = 'SparsePDG'", "did you mean 'SparsePGD'?"),
])
def test_nonsense_about_plain_modules_is_one_line(more, message, tmp_path, capfd):
    (tmp_path / 'table.py').write_text(PLAIN + more)
    assert message in refused(capfd, str(tmp_path / 'table.py'), '--work-dir', tmp_path / 'table', '--device', 'cpu')


def test_a_plain_module_passes_over_an_image_that_cannot_be_read(tmp_path):
    (tmp_path / 'photos').mkdir()
    for number in range(2):
        shutil.copy(SCENES / 'val' / f'{number:06d}.png', tmp_path / 'photos')
    (tmp_path / 'photos/000002.png').write_bytes((SCENES / 'val/000002.png').read_bytes()[:900])
    (tmp_path / 'table.py').write_text(PLAIN + f"images = {str(tmp_path / 'photos')!r}\nsources = dict(warm=dict(model='warm'))")
    cells = fill(str(tmp_path / 'table.py'), tmp_path / 'table')
    assert len(cells['warm', 'red'].changes) == 2
    last = Run.load(tmp_path / 'table/sources/warm')
    assert [one.key for one in last.records if one.skipped] == ['photos/000002.png']


class Counting(torch.nn.Module):
    """Keeps what it was shown."""
    shown: ClassVar[list] = []

    def forward(self, x):
        self.shown.append(int((x * 255).round().sum()))
        return torch.tensor([[0., 1.]])


def test_a_victim_is_shown_clean_images_once_for_all_sources(plain_table):
    _, work_dir, _ = plain_table
    sources = [pairs_of_folders(name, SCENES / 'val', work_dir / 'sources' / name / 'images/val') for name in ('warm', 'red')]
    assert {len(one.pairs) for one in sources} == {3}
    job = Job(work_dir / 'counted', 'counting', sources, list(sources[0].pairs), {}, seeds=1)
    Counting.shown.clear()
    score(PlainViewer(Counting()), job)
    with Image.open(SCENES / 'val/000000.png') as image:
        assert Counting.shown.count(int(np.asarray(image, dtype=np.int64).sum())) == 1
    assert len(Counting.shown) == 3 * (1 + 2 * 5)


def test_no_common_image_names_both_sets(tmp_path, capfd):
    path = folders(tmp_path, lambda image: image)
    (tmp_path / 'others').mkdir()
    shutil.copy(SCENES / 'val/000005.png', tmp_path / 'others/000005.png')
    Path(path).write_text(Path(path).read_text() + f"\nimages = {str(tmp_path / 'others')!r}\n")
    error = refused(capfd, path, '--work-dir', tmp_path / 'table', '--device', 'cpu')
    assert 'sources and victims have no image in common' in error
    assert f'source theirs: 2 ({tmp_path}/clean/000000.png, ...)' in error
    assert f'victim yolox: 1 ({tmp_path}/others/000005.png, ...)' in error


def plan(**fields):
    return type('Plan', (), dict(allow_unequal=False) | fields)


def test_unequal_budgets_are_refused_unless_allowed():
    sources = [PairSet(name, {}, dict(budget=k)) for name, k in (('a', 20), ('b', 30))]
    with pytest.raises(InputError, match=r'sources of different budgets cannot be compared \(a 20, b 30\)'):
        _check_budgets(plan(), sources)
    assert _check_budgets(plan(allow_unequal=True), sources) == ['**Budgets are not equal**: a 20, b 30.']
    assert _check_budgets(plan(), sources[:1]) == []


def test_as_many_groups_are_another_budget_than_pixels(tmp_path):
    def source(kernel):
        attack = StructuredSparsePGD(k=20, kernel=kernel, early_stop=False)
        info = dict(identity=dict(attack=describe(attack), threat=describe(ThreatModel(grid='original'))))
        run = Run(tmp_path, info, (Record('a', file='images/a.png'),), {})
        return pairs_of_run(type(attack.kernel).__name__, run, dict(a='a.jpg'))
    assert _check_budgets(plan(), [source('Pixel'), source('Pixel')]) == []
    assert _check_budgets(plan(), [source('Row'), source('Row')]) == []
    with pytest.raises(InputError, match='sources of different budgets cannot be compared .Pixel 20, Row 20 x .*Row'):
        _check_budgets(plan(), [source('Pixel'), source('Row')])


def test_early_stop_is_warned_of(capfd):
    [note] = _check_budgets(plan(), [PairSet('a', {}, dict(budget=20, early_stop=True))])
    assert 'ource a stops at its first success (early_stop), which makes fragile examples' in note
    assert 'warning: source a stops at its first success' in capfd.readouterr().err


@pytest.mark.parametrize(('more', 'message'), [
    ("sources = dict(a=dict(model='yolocks'))", "sources.a: no model 'yolocks': did you mean 'yolox'?"),
    ("sources = dict(a=dict(members=[]))", 'sources.a: members = [], expected a list such as'),
    ("sources = dict(a=dict(members=['yolox', 'yolox']))", "the model 'yolox' is a member twice"),
    ("sources = dict(a=dict(members=[dict(model='yolox', goul=1)]))", "nothing reads 'goul' of a member"),
    ("sources = dict(a=dict(model='yolox', attak=1))", "sources.a: nothing reads 'attak': did you mean 'attack'?"),
    ("sources = dict(a__b=dict(model='yolox'))", "the name 'a__b' holds '__' or '/'"),
    ("sources = dict(a=dict(adversarial='x'))", "'adversarial' needs the folder of its 'clean' images"),
    ("sources = {}", 'sources = {}, expected a dict from name to entry'),
    ("sources = dict(a=dict(model='yolox'))\nvictims = 'yolox'", "victims = 'yolox', expected a list"),
    ("sources = dict(a=dict(model='yolox'))\nseeds = 0", 'seeds = 0, expected an int >= 1'),
    ("sources = dict(a=dict(model='yolox'))\nmodel = 1", "nothing reads 'model': did you mean 'models'?"),
    ("sources = dict(a=dict(model='yolox', combine='worst'))", "sources.a: nothing reads 'combine' beside 'model'"),
    ("sources = dict(a=dict(members=['yolox'], goal='Vanish'))", "sources.a: nothing reads 'goal' beside 'members'"),
    ("sources = dict(a=dict(model='yolox'))\nmodels['constant']['checkpoint'] = 'a.pth'",
     "models.constant: nothing reads 'checkpoint' beside 'module'"),
    ("sources = dict(a=dict(model='yolox'))\nthreat = 'inside'", "threat = 'inside', expected a dict"),
    ("sources = dict(a=dict(model='yolox', goals='Vanish'))", "sources.a: goals = 'Vanish', expected a dict"),
    ("sources = dict(a=dict(model='yolox'))\nimages = 3", 'images = 3, expected a text'),
    ("sources = dict(a=dict(model='yolox'))\nthreat = dict(grid='input')", "threat.grid = 'input', expected 'original'"),
    ("sources = dict(a=dict(model='yolox', threat=dict(grid='input')))", "threat.grid = 'input', expected 'original'"),
    ("sources = dict(a=dict(clean=3, adversarial='x'))", 'sources.a: clean = 3, expected a text'),
])
def test_nonsense_is_one_line(more, message, tmp_path, capfd):
    assert message in refused(capfd, config(tmp_path, more), '--work-dir', tmp_path / 'table')
    assert not (tmp_path / 'table').exists(), 'refused before any work'
