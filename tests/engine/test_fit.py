"""sda fit on the embedded demo: what it writes, resuming, what it refuses; its artefact through sda attack."""
import contextlib
import copy
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmdet', reason='the tests of fit attack an mmdet detector', exc_type=ImportError)

from mmdet.visualization import DetLocalVisualizer

from sparse_dense_attacks import Artefact, InputError
from sparse_dense_attacks.cli.attack import attack_from_command_line
from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.cli.fit import fit_from_command_line, prepare_fit
from sparse_dense_attacks.engine.fit import Judging
from sparse_dense_attacks.engine.judging import average_precisions
from sparse_dense_attacks.evaluation import Found, detected, hallucinated
from sparse_dense_attacks.patches import Fixed

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs/patches'
QUICK = ['fit_dataloader.num_workers=0', 'test_dataloader.num_workers=0', 'fit_dataloader.dataset.indices=[0,1,2,3]',
         'test_dataloader.dataset.indices=[4,5]', 'fit.epochs=2', 'fit_dataloader.batch_size=2']
CURVES = ['judge._delete_=True', 'judge.curves.scale=[1.0]', 'judge.curves.gap=[0.1]']


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def arguments(work_dir, *extra, config='demo_faster_rcnn', judge=CURVES, options=()):
    return [str(CONFIGS / f'{config}.py'), '--work-dir', str(work_dir), '--device', 'cpu', *extra,
            '--cfg-options', *QUICK, *judge, *options]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    work_dir, previous = tmp_path_factory.mktemp('fit'), os.getcwd()
    os.chdir(ROOT)
    DetLocalVisualizer.get_instance('visualizer')  # what an earlier run of this process has left
    try:
        return work_dir, fit_from_command_line(arguments(work_dir))
    finally:
        os.chdir(previous)


def test_a_fit_writes_all_its_files(finished):
    work_dir, found = finished
    page = json.loads((work_dir / 'patch.json').read_text())
    artefact = Artefact.load(work_dir / 'patch.json')
    assert page['placement']['type'] == 'OnObjects' and page['images'] == 4 and page['epochs'] == 2
    assert len(page['split']) == len(page['weights']) == 16 and page['goal']['type'] == 'Vanish'
    assert page['counts']['patches'] > 4 and artefact.pattern.shape == (3, 16, 16)
    assert len(artefact.pattern.unique()) > 50, 'something was learned'
    assert set(found) == {'clean', 'learned', 'grey', 'noise', 'scale 1.0 learned', 'scale 1.0 grey', 'gap 0.1 learned',
                          'gap 0.1 grey'}
    assert json.loads((work_dir / 'judging.json').read_text()) == found and len(list((work_dir / 'pictures').iterdir())) == 2
    assert 'coco/bbox_mAP_50' in (work_dir / 'judging.md').read_text() and (work_dir / 'curves.png').is_file()
    scalars = [json.loads(line) for line in next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    losses = [one['fit/loss'] for one in scalars if 'fit/loss' in one]
    assert len(losses) == 4 and all('fit/success' in one for one in scalars if 'fit/loss' in one)


def test_pictures_are_of_images_with_the_patch(tmp_path):
    fit_from_command_line(arguments(tmp_path, judge=['judge=None'], options=['fit.placement.classes=[cube]', 'fit.epochs=1']))
    names = [Path(path).stem for path in (tmp_path / 'pictures').iterdir()]
    assert names == ['5']  # there is no cube in scene 4


def test_what_is_judged_agrees(finished):
    _, found = finished
    clean = found['clean']
    assert clean['AP_50'] == pytest.approx(clean['coco/bbox_mAP_50'], abs=0.001)
    assert clean['AP_50_model'] == 1 and clean['hidden_all'] == 0 and clean['changed'] == 0
    for name in ('learned', 'grey'):
        assert found[name]['AP_50'] == found[f'scale 1.0 {name}']['AP_50']
        assert found[name]['patches'] + found[name]['left_alone'] > 2
        assert found[name]['objects_all'] == sum(found[name][f'objects_{size}'] for size in ('small', 'medium', 'large'))


def stopped(args):
    """A fit that ends after its first epoch."""
    runner = prepare_fit(args)
    saved = runner.test_loop._save

    def stop():
        saved()
        raise KeyboardInterrupt
    runner.test_loop._save = stop
    with pytest.raises(KeyboardInterrupt):
        runner.test()


def test_stopped_and_resumed_gives_an_equal_artefact(finished, tmp_path):
    """Stopped after the first epoch: its checkpoint is what the run had then."""
    stopped(arguments(tmp_path))
    assert not (tmp_path / 'patch.json').exists() and (tmp_path / 'fit.pth').exists()
    fit_from_command_line(arguments(tmp_path, '--resume'))
    first, second = (Artefact.load(folder / 'patch.json') for folder in (finished[0], tmp_path))
    assert torch.equal(first.pattern, second.pattern) and first.digest == second.digest
    assert json.loads((tmp_path / 'judging.json').read_text()) == finished[1]


def test_stopped_and_resumed_behind_a_random_defence_gives_an_equal_artefact(tmp_path):
    more = dict(judge=['judge=None'], options=['defence.type=RandomResizePad', 'defence.draws=1'])
    fit_from_command_line(arguments(tmp_path / 'whole', **more))
    stopped(arguments(tmp_path / 'part', **more))
    fit_from_command_line(arguments(tmp_path / 'part', '--resume', **more))
    first, second = (Artefact.load(tmp_path / name / 'patch.json').pattern for name in ('whole', 'part'))
    assert torch.equal(first, second)


def test_the_model_is_as_it_was_and_the_images_too(tmp_path):
    runner = prepare_fit(arguments(tmp_path, options=['fit.epochs=1']))
    runner.call_hook('before_run')
    runner.load_or_resume()
    before = copy.deepcopy(runner.model.state_dict())
    flags = [(one.requires_grad, one.grad) for one in runner.model.parameters()]
    runner.test_loop.run()
    after = runner.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert flags == [(one.requires_grad, one.grad) for one in runner.model.parameters()]


def attacked(artefact, work_dir, grid):
    """The metrics of an attack with an artefact, and its records."""
    metrics = attack_from_command_line([
        str(ROOT / 'configs/spgd_faster_rcnn.py'), '--work-dir', str(work_dir), '--device', 'cpu', '--cfg-options',
        'attack._delete_=True', 'attack.type=UniversalPatch', f'attack.artefact={artefact}', f'threat.grid={grid}',
        'test_dataloader.num_workers=0', 'test_dataloader.dataset.indices=[4,5]'])
    return metrics, [json.loads(line) for line in (work_dir / 'records.jsonl').read_text().splitlines()]


def test_the_artefact_goes_through_the_loop_of_every_attack(finished, tmp_path):
    work_dir, found = finished
    metrics, records = attacked(work_dir / 'patch.json', tmp_path, 'input')
    assert metrics['adv/coco/bbox_mAP_50'] == pytest.approx(found['learned']['coco/bbox_mAP_50'], abs=1e-6)
    assert metrics['attack/patches'] == found['learned']['patches']
    assert all(one['l0_pixels'] > 0 and one['forwards'] == 1 and one['measures']['patches'] for one in records)


def test_the_patch_in_the_files_has_its_own_colours(tmp_path, capfd):
    """Red is red though the loader gives BGR; the weights it was learned on are others, which is said."""
    pattern = torch.tensor([1., 0.5, 0.])[:, None, None].expand(3, 5, 7).mul(255).round() / 255
    patch = Artefact(pattern, torch.ones(5, 7) > 0, Fixed(position=(1, 0)), dict(weights='0123456789abcdef'))
    metrics, records = attacked(patch.write(tmp_path / 'patch'), tmp_path / 'run', 'original')
    for one in records:
        with Image.open(tmp_path / 'run' / one['file']) as image:
            corner = np.array(image)[-5:, :7]
        assert (corner == (255, 128, 0)).all() and one['measures'] == dict(
            patches=1, left_alone=0, geometry_disagrees=False)
    assert (tmp_path / 'run/dataset').is_dir() and metrics['attack/patches'] == 2
    assert 'learned on other weights (0123456789abcdef)' in capfd.readouterr().err


def test_on_the_files_the_same_is_learned_where_the_pipeline_moves_no_pixel(finished, tmp_path):
    fit_from_command_line(arguments(tmp_path, judge=['judge=None'], options=['threat.grid=original']))
    first, second = (Artefact.load(folder / 'patch.json') for folder in (finished[0], tmp_path))
    assert (first.pattern - second.pattern).abs().max() < 1.5 / 255


def refused(args, capfd):
    assert main(fit_from_command_line, args) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith('error: ')
    return line


def test_bad_input_is_one_line(finished, tmp_path, capfd):
    def said(*options, **more):
        return refused(arguments(tmp_path / 'bad', options=options, **more), capfd)
    assert 'in the training split and in the test set' in said('test_dataloader.dataset.indices=[3,5]')
    assert "no class 'dog'" in said('goal.classes=[dog]')
    assert 'fits nowhere' in said('fit.placement.smallest=500')
    assert "fit has no field 'epoch': did you mean 'epochs'" in said('fit.epoch=3')
    assert 'no curve' in said(judge=['judge.curves.sise=[1]'])
    assert 'content = ' in said('judge.foreign=[none.json]')
    assert 'max_forwards = 2: expected at least' in said('threat.max_forwards=2')
    assert not (tmp_path / 'bad/fit.pth').exists()  # nothing was learned before that
    assert 'nothing to resume' in refused(arguments(tmp_path / 'bad', '--resume'), capfd)


def test_a_fit_is_not_resumed_with_another_split(finished, tmp_path, capfd):
    shutil.copytree(finished[0], tmp_path / 'copy')
    other = 'fit_dataloader.dataset.indices=[0,1,2,6]'
    assert 'another training split' in refused(arguments(tmp_path / 'copy', '--resume', options=[other]), capfd)
    kept = (tmp_path / 'copy/patch.json').read_text()
    with contextlib.redirect_stderr(io.StringIO()):
        fit_from_command_line(arguments(tmp_path / 'copy', options=[other, 'fit.epochs=1']))
    [previous] = (tmp_path / 'copy/previous').iterdir()
    assert (previous / 'patch.json').read_text() == kept


@pytest.mark.parametrize('option', ['model.test_cfg.rcnn.score_thr=0.5', 'test_dataloader.dataset.pipeline.1.scale=(80,64)'])
def test_a_fit_is_not_resumed_with_another_model_or_pipeline(finished, tmp_path, capfd, option):
    shutil.copytree(finished[0], tmp_path / 'copy')
    said = refused(arguments(tmp_path / 'copy', '--resume', options=[option]), capfd)
    assert 'another set-up of the model or its data set' in said


def test_a_patch_is_learned_through_the_defence_of_its_config(finished, tmp_path, capfd):
    coarse = ['judge=None', 'fit.epochs=1', 'defence.type=JPEG', 'defence.quality=8']
    found = fit_from_command_line(arguments(tmp_path / 'a', judge=coarse))
    page = json.loads((tmp_path / 'a/patch.json').read_text())
    assert page['victim']['defence']['quality'] == 8
    assert found['clean'] != finished[1]['clean'], 'judged by the defended model'
    bare = fit_from_command_line(arguments(tmp_path / 'b', judge=coarse[:2]))
    assert bare['clean'] == finished[1]['clean']
    first, second = (Artefact.load(tmp_path / name / 'patch.json').pattern for name in 'ab')
    assert not torch.equal(first, second)
    assert main(fit_from_command_line, arguments(tmp_path / 'a', '--resume', judge=coarse[:2])) == 2
    assert 'holds a fit with another victim' in capfd.readouterr().err
    files = [*coarse, 'defence.space=original', 'threat.grid=original']
    assert main(fit_from_command_line, arguments(tmp_path / 'c', judge=files)) == 2
    assert "defences of the network's input" in capfd.readouterr().err


def test_a_split_without_the_class_is_refused(tmp_path, capfd):
    one = 'fit_dataloader.dataset.indices=[0]'
    dataset = prepare_fit(arguments(tmp_path, options=[one])).test_loop.train.dataset
    there = {item['bbox_label'] for item in dataset.get_data_info(0)['instances']}
    absent = next(name for number, name in enumerate(dataset.metainfo['classes']) if number not in there)
    line = refused(arguments(tmp_path / 'bad', options=[one, f'goal.classes=[{absent}]']), capfd)
    assert f'of class {absent}' in line


@pytest.mark.parametrize('config', ['demo_semantic_fpn_pixels', 'demo_resnet18_pixels', 'demo_semantic_fpn_frame'])
def test_other_tasks_and_kinds(config, tmp_path):
    pytest.importorskip('mmpretrain' if 'resnet' in config else 'mmseg', exc_type=ImportError)
    found = fit_from_command_line(arguments(tmp_path, config=config, judge=()))
    contents = {'clean', 'learned', 'grey', 'noise'} | ({'random places'} if 'pixels' in config else set())
    assert set(found) == contents and found['learned']['patches'] == 2
    assert ('accuracy/top1' if 'resnet' in config else 'mIoU') in (tmp_path / 'judging.md').read_text()
    assert found['learned']['changed'] > 0 or 'resnet' in config, 'two pictures are hardly ever changed'
    artefact = Artefact.load(tmp_path / 'patch.json')
    if 'pixels' in config:
        assert artefact.mask.sum() == round(0.01 * artefact.mask.numel())


def boxes(*rows):
    return Found(np.array([row[:4] for row in rows], float).reshape(-1, 4), np.array([row[4] for row in rows], int),
                 np.array([row[5] for row in rows], float))


def test_measures_of_objects_by_hand():
    truth = boxes((0, 0, 10, 10, 1, 1), (20, 20, 30, 30, 2, 1))
    found = boxes((0, 0, 10, 9, 1, 0.9), (20, 20, 30, 30, 1, 0.8), (50, 50, 60, 60, 2, 0.7), (20, 20, 30, 30, 2, 0.1))
    assert detected(truth, found).tolist() == [True, False]
    assert hallucinated(truth, found, boxes()) == 2
    assert hallucinated(truth, found, boxes((40, 40, 70, 70, 2, 1))) == 1
    assert detected(boxes(), found).tolist() == [] and hallucinated(boxes(), found, boxes()) == 3


def test_average_precision_by_hand():
    truth, found = [boxes((0, 0, 10, 10, 1, 1)), boxes((0, 0, 10, 10, 1, 1))], boxes((0, 0, 10, 10, 1, 0.9))
    assert average_precisions(truth, [found, boxes()]) == pytest.approx((51 / 101, 51 / 101))
    assert average_precisions(truth, [boxes(), boxes()]) == (0, 0)
    assert average_precisions([boxes()], [found]) == (None, None)
    crowd = boxes((0, 0, 40, 40, 1, 1))
    wrong = boxes((0, 0, 10, 10, 1, 0.8), (20, 20, 30, 30, 1, 0.9))
    assert average_precisions(truth[:1], [wrong], [boxes()])[1] == pytest.approx(0.5)
    assert average_precisions(truth[:1], [wrong], [crowd])[1] == pytest.approx(1)


def test_foreign_artefacts_of_folders_of_one_name_have_a_column_each(tmp_path):
    def artefact(level):
        return Artefact(torch.full((3, 4, 4), level / 255), torch.ones(4, 4) > 0, Fixed())
    paths = [str(artefact(level).write(tmp_path / name / 'fit')) for level, name in ((10, 'a'), (20, 'b'))]
    found = Judging(foreign=paths).versions(artefact(30))
    assert [found[name].pattern[0, 0, 0] * 255 for name in ('foreign fit', f'foreign {paths[1]}')] == [10, 20]


def test_nonsense_in_judging_is_refused():
    for fields in (dict(foreign='a.json'), dict(curves=dict(size=[1])), dict(curves=dict(scale=[]))):
        with pytest.raises(InputError, match='judge'):
            Judging(**fields)
