"""The loop, the hook, the store and the command line, end to end on the embedded demo."""
import json
import os
import shutil
import signal
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmdet', reason='the engine tests attack an mmdet detector', exc_type=ImportError)

from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from sparse_dense_attacks.cli import attack as cli_attack  # noqa: E402
from sparse_dense_attacks.cli.attack import attack_from_command_line, prepare  # noqa: E402
from sparse_dense_attacks.cli.common import main  # noqa: E402
from sparse_dense_attacks.cli.weights import find_weights  # noqa: E402
from sparse_dense_attacks.engine import Record, ResultStore, loops  # noqa: E402
from sparse_dense_attacks.engine.attacker import Attacker
from sparse_dense_attacks.engine.data import loads_annotations_first  # noqa: E402
from sparse_dense_attacks.engine.hooks.attack_visualization_hook import show_perturbation  # noqa: E402
from sparse_dense_attacks.engine.loops import summarize  # noqa: E402
from sparse_dense_attacks.engine.pictures import from_picture, to_picture  # noqa: E402
from sparse_dense_attacks.errors import InputError  # noqa: E402
from sparse_dense_attacks.results.views import Views  # noqa: E402
from tests import forks  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / 'configs/spgd_faster_rcnn.py')
QUICK = ['attack.steps=3', 'test_dataloader.num_workers=0']


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def arguments(work_dir, *extra, limit=3, options=()):
    return [CONFIG, '--work-dir', str(work_dir), '--limit', str(limit), '--device', 'cpu', *extra,
            '--cfg-options', *QUICK, *options]


def records(work_dir) -> list[dict]:
    """Lines of records.jsonl without the time, which is never the same twice."""
    lines = [json.loads(line) for line in (Path(work_dir) / 'records.jsonl').read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != 'seconds'} for line in lines]


def metrics(work_dir) -> dict:
    found = json.loads((Path(work_dir) / 'metrics.json').read_text())
    found.pop('attack/seconds')
    return found


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A finished run over three scenes."""
    work_dir = tmp_path_factory.mktemp('run')
    previous = os.getcwd()
    os.chdir(ROOT)
    try:
        result = attack_from_command_line(arguments(work_dir))
    finally:
        os.chdir(previous)
    return work_dir, result


# The loop

def test_a_run_writes_all_its_files(finished):
    work_dir, result = finished
    assert [r['key'] for r in records(work_dir)] == ['0', '1', '2']
    for record in records(work_dir):
        with Image.open(work_dir / record['file']) as image:
            assert image.size == (160, 128) and image.mode == 'RGB'
        assert record['l0_pixels'] <= 204  # 1 % of 128 x 160
    assert metrics(work_dir)['adv/coco/bbox_mAP'] == result['adv/coco/bbox_mAP']
    assert result['clean/coco/bbox_mAP_50'] > 0.8
    assert result['attack/forwards'] == 5 and result['attack/backwards'] == 3
    run = json.loads((work_dir / 'run.json').read_text())
    assert run['identity']['attack']['k'] == 0.01 and len(run['identity']['weights']) == 16 and run['versions']['torch']
    assert len(list((work_dir / 'pictures').rglob('*.png'))) == 3


def test_the_stored_png_is_what_was_judged(finished):
    """Counting the stored files against the clean images gives the recorded sparsity."""
    work_dir, _ = finished
    for record in records(work_dir):
        with Image.open(work_dir / record['file']) as adversarial:
            changed = (np.array(adversarial) != clean_scene(int(record['key']))).any(2).sum()
        assert changed == record['l0_pixels'] > 0


def clean_scene(index: int) -> np.ndarray:
    annotations = json.loads((ROOT / 'data/demo_scenes/annotations/instances_val.json').read_text())
    name = next(image['file_name'] for image in annotations['images'] if image['id'] == index)
    with Image.open(ROOT / 'data/demo_scenes/val' / name) as image:
        return np.array(image.convert('RGB'))


def test_a_run_keeps_its_clean_images_and_what_was_found(finished):
    work_dir, _ = finished
    views = Views(work_dir)
    assert set(views.answers()) == {'0', '1', '2'} and 'ball' in views.classes()
    for record in records(work_dir):
        undo = views.undo(record['key'])
        with Image.open(work_dir / record['file']) as image:
            adversarial = np.array(image)
        with Image.open(ROOT / f'data/demo_scenes/val/{int(record["key"]):06d}.png') as image:
            clean = np.array(image)
        assert (undo[..., 3] > 0).sum() == record['l0_pixels']
        assert np.array_equal(np.where(undo[..., 3:] > 0, undo[..., :3], adversarial), clean)
        said = views.answers()[record['key']]
        assert said['clean']['boxes'] and len(said['clean']['boxes']) == len(said['clean']['scores'])


def test_resume_of_a_finished_run_attacks_nothing_and_gives_the_same_metrics(finished, tmp_path, monkeypatch):
    work_dir = tmp_path / 'copy'
    shutil.copytree(finished[0], work_dir)
    runner = prepare(arguments(work_dir, '--resume'))
    assert runner.test_loop.attacker  # built before its class is spoilt
    monkeypatch.setattr(Attacker, 'perturb', lambda self, batch: pytest.fail('attacked again'))
    runner.test()
    assert records(work_dir) == records(finished[0]) and metrics(work_dir) == metrics(finished[0])


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_result(tmp_path):
    """kill -9 after the first images, then --resume: equal to an uninterrupted run."""
    options = ('test_dataloader.batch_size=2', 'attack.steps=6')
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    command, printed = ROOT / 'tools/attack.py', tmp_path / 'printed.txt'
    forks.run([command, *arguments(whole, limit=6, options=options)], printed)
    process = forks.start([command, *arguments(killed, limit=6, options=options)], printed)
    path = killed / 'records.jsonl'
    while process.is_alive() and (not path.exists() or path.read_bytes().count(b'\n') < 2):
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert 2 <= len(records(killed)) < 6, 'the run was not killed in its middle'
    forks.run([command, *arguments(killed, '--resume', limit=6, options=options)], printed)
    assert records(killed) == records(whole) and metrics(killed) == metrics(whole)


def test_resume_refuses_another_attack(finished, tmp_path, capfd):
    work_dir = tmp_path / 'copy'
    shutil.copytree(finished[0], work_dir)
    assert main(attack_from_command_line, arguments(work_dir, '--resume', options=['attack.k=7'])) == 2
    assert 'holds a run with another attack' in capfd.readouterr().err
    assert records(work_dir) == records(finished[0])


def test_a_new_run_sets_the_earlier_one_aside(finished, tmp_path):
    work_dir = tmp_path / 'copy'
    shutil.copytree(finished[0], work_dir)
    ResultStore(work_dir).start({'identity': {'attack': 'another'}})
    previous, = (work_dir / 'previous').iterdir()
    assert records(previous) == records(finished[0]) and (previous / 'images/0.png').exists()
    assert not (work_dir / 'records.jsonl').exists()


@pytest.mark.parametrize('batch_size', [1, 2])
def test_batch_size_does_not_change_a_result(finished, tmp_path, batch_size):
    attack_from_command_line(arguments(tmp_path, options=[f'test_dataloader.batch_size={batch_size}']))
    for record, expected in zip(records(tmp_path), records(finished[0]), strict=True):
        assert record['key'] == expected['key'] and record['success'] == expected['success']
        assert abs(record['l0_pixels'] - expected['l0_pixels']) <= 2


def test_unreadable_images_are_skipped_and_named(tmp_path, capfd):
    root = tmp_path / 'scenes'
    shutil.copytree(ROOT / 'data/demo_scenes', root)
    files = sorted((root / 'val').glob('*.png'))
    files[0].write_bytes(files[0].read_bytes()[:2000])  # truncated
    files[1].write_text('this is no picture')
    options = [f'test_dataloader.dataset.data_root={root}/', f'test_evaluator.ann_file={root}/annotations/instances_val.json']
    result = attack_from_command_line(arguments(tmp_path / 'run', options=options))
    assert sorted(result['attack/images_skipped']) == ['0', '1'] and result['attack/images'] == 1
    assert 'truncated' in result['attack/images_skipped']['0']
    assert 'skipped 0: ' in capfd.readouterr().out, 'the table does not name them'
    assert result['clean/coco/bbox_mAP_50'] > 0.8, 'the unreadable images were counted as missed'
    files[2].write_text('nor is this')
    assert main(attack_from_command_line, arguments(tmp_path / 'none', options=options)) == 2
    assert 'none of the 3 images could be read' in capfd.readouterr().err


def test_hook_under_the_stock_test_loop_agrees_with_the_loop(finished):
    cfg = Config.fromfile(CONFIG)
    attack, goal = cfg.pop('attack').to_dict(), cfg.pop('goal').to_dict()
    cfg.test_dataloader.update(num_workers=0)
    cfg.test_dataloader.dataset.indices = 3
    cfg.merge_from_dict(dict(test_cfg=dict(type='TestLoop'), work_dir=str(finished[0] / 'hook'),
                             custom_hooks=[dict(type='AttackHook', attack=dict(attack, steps=3), goal=goal)]))
    runner = Runner.from_cfg(cfg)
    runner.test_loop.evaluator.metrics[0].img_ids = [0, 1, 2]  # as AttackLoop does: score the subset as that subset
    found = runner.test()
    assert found['coco/bbox_mAP'] == finished[1]['adv/coco/bbox_mAP']


def test_hook_refuses_a_data_set_with_other_classes(finished):
    cfg = Config.fromfile(CONFIG)
    cfg.test_dataloader.update(num_workers=0)
    cfg.test_dataloader.dataset.metainfo = dict(classes=('one', 'two'))
    hook = dict(type='AttackHook', attack=cfg.pop('attack').to_dict(), goal=cfg.pop('goal').to_dict())
    cfg.merge_from_dict(dict(test_cfg=dict(type='TestLoop'), work_dir=str(finished[0] / 'hook'), custom_hooks=[hook]))
    with pytest.raises(InputError, match='the model has 6 classes, the data set 2'):
        Runner.from_cfg(cfg).test()


def test_a_failed_image_is_reported_and_the_run_goes_on(finished, tmp_path, monkeypatch):
    runner = prepare(arguments(tmp_path))
    scene_class = type(open_scene(runner))
    candidates = scene_class.candidates

    def broken(self, x, rows):
        boxes = candidates(self, x, rows)
        poison = torch.tensor([self.keys[r] == '1' for r in rows])[:, None] & torch.tensor(torch.is_grad_enabled())
        return type(boxes)(boxes.boxes, boxes.labels, boxes.scores + torch.where(poison, torch.nan, 0.0))

    monkeypatch.setattr(scene_class, 'candidates', broken)
    result = runner.test()
    assert result['attack/images_failed'] == ['1'] and result['attack/images'] == 3
    failed = records(tmp_path)[1]
    assert failed['success'] is False and failed['l0_pixels'] == 0 and 'non-finite' in failed['note']
    for neighbour in (0, 2):
        assert records(tmp_path)[neighbour]['l0_pixels'] == records(finished[0])[neighbour]['l0_pixels'] > 0


def open_scene(runner):
    attacker = runner.test_loop.attacker
    with attacker.victim.session():
        return attacker.victim.open(next(iter(runner.test_loop.dataloader)))


# The store

def test_a_torn_last_line_is_cut_off(tmp_path):
    store = ResultStore(tmp_path)
    store.start({'identity': {}})
    store.add(Record('a', True), np.zeros((4, 5, 3), np.uint8))
    with (tmp_path / 'records.jsonl').open('a') as file:
        file.write('{"key": "b", "succ')
    store.close()
    again = ResultStore(tmp_path)
    again.start({'identity': {}}, resume=True)
    assert list(again.records) == ['a']
    again.add(Record('c', False), np.ones((4, 5, 3), np.uint8))
    assert [r.key for r in again.reload()] == ['a', 'c']


def test_nothing_half_written_remains_when_the_disk_is_full(tmp_path, monkeypatch):
    store = ResultStore(tmp_path)
    store.start({'identity': {}})

    def full(descriptor):
        raise OSError(28, 'No space left on device', str(tmp_path))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError):
        store.add(Record('a', True), np.zeros((4, 5, 3), np.uint8))
    assert not list((tmp_path / 'images').iterdir()) and not (tmp_path / 'records.jsonl').exists()


def test_others_may_read_the_results_if_the_umask_lets_them(tmp_path):
    before = os.umask(0o022)
    try:
        store = ResultStore(tmp_path)
        store.start({'identity': {}})
        store.add(Record('a', True), np.zeros((4, 5, 3), np.uint8))
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob('*') if path.is_file()}
    assert modes == {0o644}


def test_success_rates_name_their_denominators():
    found = summarize([
        Record('right, broken', True, True, True, l0_pixels=4, file='x'), Record('right, held', False, True, True, file='x'),
        Record('wrong', True, True, False, file='x'), Record('no objects', None, None, False, file='x'),
        Record('unreadable', note='why')])
    assert found['attack/success_rate'] == 0.5 and found['attack/success_rate_float'] == 1
    assert found['attack/success_rate_all'] == pytest.approx(2 / 3)
    assert found['attack/l0_pixels_median'] == 4
    assert (found['attack/images'], found['attack/images_right'], found['attack/images_undefined']) == (4, 2, 1)
    assert found['attack/images_skipped'] == {'unreadable': 'why'}


def test_record_round_trips_through_json():
    record = Record('k', None, None, l0_pixels=3)
    assert Record(**json.loads(json.dumps(asdict(record)))) == record


# Bad input

@pytest.mark.parametrize(('change', 'message'), [
    (['attack.k=0'], 'k = 0'),
    (['attack.k=-3'], 'k = -3'),
    (['attack.type=SparsePDG'], "unknown attack 'SparsePDG': did you mean 'SparsePGD'?"),
    (['goal.type=Vanisch'], "did you mean 'Vanish'?"),
    (['attack.pacience=3'], "no argument 'pacience': did you mean 'patience'?"),
    (['goal.score_thr=1.5'], 'score_thr = 1.5'),
    (['model.roi_head.bbox_head.num_classes=4'], 'class count of weights and config differ?'),
    (['test_dataloader.dataset.metainfo.classes=one,two'], 'the model has 6 classes, the data set 2'),
    (['test_dataloader=None'], "has no 'test_dataloader'"),
    (['model.backbone.depth=34'], 'do not fit the config'),
    (['attack.k'], '--cfg-options attack.steps=3 test_dataloader.num_workers=0 attack.k: expected KEY=VALUE'),
    (['attack.k=[1,2'], 'expected KEY=VALUE, such as attack.k=500, and closed brackets'),
    (['wher=inside'], "--cfg-options wher: nothing reads a top-level 'wher'"),
    (['seeed=3'], "did you mean 'seed'?"),
    (['attack=5'], "has no top-level 'attack'"),
])
def test_bad_options_give_one_line_and_status_2(tmp_path, capfd, change, message):
    assert main(attack_from_command_line, arguments(tmp_path, options=change)) == 2
    error, = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]
    assert message in error


@pytest.mark.parametrize(('argv', 'message'), [
    (['nowhere.py'], 'no config file nowhere.py'),
    ([CONFIG, '--checkpoint', 'nowhere.pth'], 'no checkpoint file nowhere.pth'),
    ([CONFIG, '--checkpoint', __file__], 'this is a text file, expected a file of torch.save'),
    ([CONFIG, '--checkpoint', 'mmdet::no-such-model'], 'no weights of a model named no-such-model'),
    ([CONFIG, '--limit', '0'], '--limit 0'),
])
def test_bad_arguments_give_one_line_and_status_2(tmp_path, capfd, argv, message):
    assert main(attack_from_command_line, [*argv, '--work-dir', str(tmp_path)]) == 2
    error, = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]
    assert message in error


def test_a_goal_of_another_task_is_refused(tmp_path, capfd):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = ['{CONFIG}']\ngoal = dict(_delete_=True, type='Untargeted')\n")
    assert main(attack_from_command_line, [str(config), '--work-dir', str(tmp_path / 'run')]) == 2
    assert 'the model does detection: set goal to one of Vanish, ' in ' '.join(capfd.readouterr().err.split())


def test_a_pipeline_without_annotations_is_refused(tmp_path, capfd):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = ['{CONFIG}']\n"
                      "load = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]\n"
                      'test_dataloader = dict(dataset=dict(pipeline=load))\n')
    argv = [str(config), '--work-dir', str(tmp_path / 'run'), '--limit', '1']
    assert main(attack_from_command_line, argv) == 2
    assert 'add LoadAnnotations' in capfd.readouterr().err


def test_what_a_config_file_raises_is_one_line_that_names_the_file(tmp_path, capfd):
    config = tmp_path / 'config.py'
    config.write_text('model = undefined_thing\n')
    assert main(attack_from_command_line, [str(config)]) == 2
    assert f"error: config {config}: NameError: name 'undefined_thing' is not defined" in capfd.readouterr().err


def test_a_goal_by_name_in_the_config_of_a_resumed_training(tmp_path):
    """Training writes ``resume = True`` into the config it keeps; our weights hold no epoch to resume."""
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = ['{CONFIG}']\ngoal = 'vanish'\nresume = True\n")
    attack_from_command_line([str(config), *arguments(tmp_path / 'run', limit=1)[1:]])
    run_info = json.loads((tmp_path / 'run/run.json').read_text())
    assert run_info['identity']['goal']['type'] == 'Vanish'


@pytest.mark.parametrize(('dataset', 'option'), [
    ("dict(_delete_=True, type='ConcatDataset', datasets=[dict(type='A'), dict(type='B')])", 'datasets.0.indices=2'),
    ("dict(_delete_=True, type='RepeatDataset', times=2, dataset=dict(type='A'))", 'dataset.indices=2')])
def test_limit_names_the_way_to_cut_a_wrapped_data_set(tmp_path, capfd, dataset, option):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = ['{CONFIG}']\ntest_dataloader = dict(dataset={dataset})\n")
    assert main(attack_from_command_line, [str(config), '--limit', '2']) == 2
    assert f'--cfg-options test_dataloader.dataset.{option}\n' in capfd.readouterr().err


def test_photos_need_no_evaluator(finished, tmp_path):
    runner = prepare(arguments(tmp_path, '--images', str(finished[0] / 'images'), limit=1, options=['test_evaluator=None']))
    assert len(runner.test_loop.dataloader.dataset) == 1


def test_a_full_disk_names_the_work_dir(monkeypatch, capfd):
    class Full:
        work_dir = 'work_dirs/full'

        def test(self):
            raise OSError(28, 'No space left on device')  # as write() does, without a file name

    monkeypatch.setattr(cli_attack, 'prepare', lambda argv: Full())
    assert main(attack_from_command_line, []) == 2
    assert 'disk full (work_dirs/full); all finished images are safe' in capfd.readouterr().err


def test_zoo_names_resolve_to_urls():
    assert find_weights('mmdet::faster-rcnn_r50_fpn_1x_coco').endswith('.pth')
    with pytest.raises(InputError, match='no weights'):
        find_weights(None)


# Pictures and pipelines

def test_pictures_round_trip():
    image = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    assert torch.equal(from_picture(to_picture(image)), image)
    assert to_picture(torch.tensor([1., 2., 3.])[:, None, None]).tolist() == [[[3, 2, 1]]]  # BGR in, RGB out


def test_every_changed_pixel_is_visible():
    clean = np.full((6, 7, 3), 90, np.uint8)
    adversarial = clean.copy()
    adversarial[0, 0], adversarial[5, 6] = (255, 0, 0), (0, 0, 255)
    shown = show_perturbation(clean, adversarial)
    assert shown[0, 0].tolist() == shown[1, 1].tolist() == [255, 0, 0]
    assert shown[5, 6].tolist() == [0, 0, 255]
    assert shown[3, 3].min() > 200  # unchanged pixels stay faint


def test_order_of_annotations_and_resize_is_noticed():
    def dataset(*names):
        transforms = [type(name, (), {})() for name in names]
        return type('Dataset', (), {'pipeline': type('Compose', (), {'transforms': transforms})})

    assert loads_annotations_first(dataset('LoadImageFromFile', 'LoadAnnotations', 'Resize', 'PackDetInputs'))
    assert not loads_annotations_first(dataset('LoadImageFromFile', 'Resize', 'LoadAnnotations', 'PackDetInputs'))
    assert not loads_annotations_first(dataset('LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs'))
    wrapped = type('ConcatDataset', (), {'datasets': [dataset('LoadImageFromFile', 'LoadAnnotations', 'Resize')]})
    assert loads_annotations_first(wrapped)


def test_runs_set_aside_within_a_second_do_not_collide(tmp_path):
    for _ in range(4):
        ResultStore(tmp_path).start(dict(identity={}))
    assert len(list((tmp_path / 'previous').iterdir())) == 3


def test_the_summary_counts_what_each_member_of_a_cascade_broke():
    def record(key, success, right=True, **measures):
        return Record(key, success, success, right, file=f'images/{key}.png', queries=4, measures=measures)

    found = summarize([record('a', True, broken_by='SparseRS'), record('b', True, broken_by='SwapPGD'), record('c', False),
                       record('d', True, broken_by='SwapPGD'), record('e', True, False)])
    assert found['attack/broken_by'] == dict(SwapPGD=2, SparseRS=1) and found['attack/queries'] == 4
    assert 'attack/broken_by' not in summarize([record('c', False)])
    assert loops._show(found['attack/broken_by']) == 'SwapPGD 2, SparseRS 1'


def test_records_of_a_cascade_name_who_broke_the_image(tmp_path):
    options = ['attack.type=SparseAutoAttack', 'attack.queries=3', 'attack.steps=2', 'attack.k=0.2']
    result = attack_from_command_line(arguments(tmp_path / 'run', options=options))
    names = [record['measures'].get('broken_by') for record in records(tmp_path / 'run')]
    assert sum(result['attack/broken_by'].values()) == sum(name is not None for name in names) > 0
    assert set(result['attack/broken_by']) <= {'SparsePGD projected', 'SparsePGD unprojected', 'SparseRS'}
