"""Real weights and images of $SDA_ASSETS; the figures to expect stand in that folder's README."""
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

ASSETS = Path(os.environ.get('SDA_ASSETS', 'data'))
ROOT = Path(__file__).parents[1]
YOLOX = str(ROOT / 'configs/coco/spgd_yolox-nano_coco.py')

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (ASSETS / 'checkpoints').is_dir(), reason=f'no real weights in {ASSETS} (set SDA_ASSETS)'),
]


def cifar(count=None):
    data = np.load(ASSETS / 'cifar10/test_150.npz')
    images = torch.from_numpy(data['x'][:count]).permute(0, 3, 1, 2).float().div(255)
    return images, torch.from_numpy(data['y'][:count]).long()


@pytest.fixture(scope='module')
def resnet():
    import importlib.util
    spec = importlib.util.spec_from_file_location('asset_models', ASSETS / 'models.py')
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    return models.cifar_resnet(20)


def test_spgd_beats_both_baselines_on_resnet20(resnet):
    """48 images, 10 pixels, 30 iterations: sPGD breaks nearly all, PGD0 fewer, random pixels fewest."""
    from sparse_dense_attacks import PGD0, RandomPixels, SparsePGD, Untargeted
    from sparse_dense_attacks.victims import TorchClassifier
    victim = TorchClassifier(resnet)
    with victim.session():
        objective = Untargeted().objective(victim.open(*cifar(48)))
        rates = []
        for attack in (SparsePGD(k=10, steps=30), PGD0(k=10, steps=30), RandomPixels(k=10, steps=30)):
            result = attack(objective)
            assert result.l0_pixels.max() <= 10
            rates.append(result.success[result.clean_correct].float().mean().item())
    assert rates[0] >= 0.85
    assert rates[0] > rates[1] > rates[2]


def clusters_by_hand(changed):
    """Flood fill, one pixel at a time."""
    left, count = {tuple(place) for place in np.argwhere(changed)}, 0
    while left:
        count, heap = count + 1, [left.pop()]
        while heap:
            row, column = heap.pop()
            near = {(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)} & left
            left -= near
            heap += near
    return count


def is_by_hand(model, clean, change, label, target, percentile):
    """The interpretability score in numpy, of a Jacobian that autograd gives."""
    slopes = torch.autograd.functional.jacobian(lambda x: model(x[None])[0], torch.from_numpy(clean))
    saliency = slopes[target].numpy().ravel() * np.abs(slopes[label].numpy().ravel())
    known = np.concatenate([[0], np.sort(saliency[saliency != 0])])
    bar = known[int(np.ceil(percentile * (len(known) - 1) / 100))]
    return np.linalg.norm(change.ravel()[saliency > bar]) / np.linalg.norm(change)


@pytest.mark.openmmlab
def test_measures_of_stored_gse_results_by_hand(resnet, tmp_path):
    """ACP, ANC, d_{2,0} and IS of PNGs that GSE left, beside numpy; the targets are the next classes."""
    pytest.importorskip('mmengine')
    from sparse_dense_attacks import GSE, Targeted
    from sparse_dense_attacks.engine.attacker import Task
    from sparse_dense_attacks.engine.measures import Measures
    from sparse_dense_attacks.engine.pictures import from_picture, to_picture
    from sparse_dense_attacks.results import Record, ResultStore
    from sparse_dense_attacks.victims import TorchClassifier
    images, labels = cifar(8)
    targets = (labels + 1) % 10
    victim, store = TorchClassifier(resnet.eval()), ResultStore(tmp_path)
    store.start(dict(identity={}))
    with victim.session():
        objective = Targeted().objective(victim.open(images, labels, targets=targets))
        result = GSE(k_hat=50, iters=100, search_steps=4)(objective)
        for row in range(8):
            store.add(Record.of(str(row), result, row), to_picture(result.images[row] * 255, 'rgb'))
        stored = [from_picture(store.image(str(row)), 'rgb') for row in range(8)]
        found = Measures(['acp', 'anc', 'd20', 'is']).of_batch(
            Task(objective, objective, None, objective.scene), 'classification', stored,
            result.success.tolist())
    store.close()
    assert result.success.sum() >= 4
    for row, numbers in enumerate(found):
        clean = images[row].numpy()
        change = stored[row].numpy().astype(np.float32) / np.float32(255) - clean
        changed = (np.abs(change) > 1e-3).any(0)
        assert numbers['acp'] == changed.sum() == store.records[str(row)].l0_pixels
        assert numbers['anc'] == clusters_by_hand(changed)
        assert numbers['d20'] == sum(changed[top:top + 8, left:left + 8].any()
                                     for top in range(25) for left in range(25))
        for percentile in (50, 70, 90):
            value = numbers[f'is_{percentile}']
            if not result.success[row] or not changed.any():
                assert value is None
                continue
            by_hand = is_by_hand(resnet, clean, change, labels[row], targets[row], percentile)
            assert value == pytest.approx(by_hand, rel=1e-3)


@pytest.mark.openmmlab
def test_yolox_nano_loses_its_objects_to_1000_pixels(tmp_path, monkeypatch):
    pytest.importorskip('mmdet', exc_type=ImportError)
    from sparse_dense_attacks.cli.attack import attack_from_command_line
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('SDA_ASSETS', str(ASSETS.resolve()))
    result = attack_from_command_line([
        YOLOX, '--limit', '4', '--work-dir', str(tmp_path), '--cfg-options', 'attack.k=1000', 'attack.steps=40',
        'test_dataloader.batch_size=4', 'test_dataloader.num_workers=0'])
    assert result['clean/coco/bbox_mAP'] == pytest.approx(0.363, abs=0.002)
    assert result['adv/coco/bbox_mAP'] <= 0.05
    assert result['attack/l0_pixels_mean'] <= 1000


def found_by_pycocotools(annotations, predictions):
    """Objects matched at IoU 0.5 by predictions of at least 0.3, and how many these are."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(annotations)
        kept = [one for one in json.loads(predictions.read_text()) if one['score'] >= 0.3]
        judge = COCOeval(coco, coco.loadRes(kept), 'bbox')
        judge.params.imgIds = sorted({one['image_id'] for one in json.loads(predictions.read_text())})
        judge.params.iouThrs, judge.params.maxDets = np.array([0.5]), [1000]
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ['all']
        judge.evaluate()
    known = [one for one in judge.evalImgs if one is not None]
    return (sum(int(((one['gtMatches'] > 0) & (one['gtIgnore'] == 0)).sum()) for one in known),
            sum(int(((one['dtMatches'] > 0) & ~one['dtIgnore']).sum()) for one in known))


@pytest.mark.openmmlab
def test_what_yolox_nano_finds_is_what_pycocotools_matches(tmp_path, monkeypatch):
    pytest.importorskip('mmdet', exc_type=ImportError)
    from sparse_dense_attacks.cli.attack import attack_from_command_line
    from sparse_dense_attacks.results import Run
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('SDA_ASSETS', str(ASSETS.resolve()))
    attack_from_command_line([
        YOLOX, '--limit', '6', '--work-dir', str(tmp_path), '--cfg-options', 'attack.k=300', 'attack.steps=8', 'pictures=0',
        'test_dataloader.batch_size=6', 'test_dataloader.num_workers=0', "measures=['detections']",
        f'test_evaluator.outfile_prefix={tmp_path}/said'])
    annotations = str(ASSETS / 'coco/annotations/instances_val2017_128.json')
    records = Run.load(tmp_path).records
    for when, name in (('before_', 'clean_said'), ('after_', 'said')):
        objects, predictions = found_by_pycocotools(annotations, tmp_path / f'{name}.bbox.json')
        assert objects == sum(one.measures[f'{when}found'] for one in records)
        assert predictions == sum(one.measures[f'{when}match'] for one in records)
    lost = [sum(one.measures[f'{when}found'] for one in records) for when in ('before_', 'after_')]
    assert lost[0] > lost[1] > 0


@pytest.mark.openmmlab
def test_the_zoo_config_attacks_random_weights(tmp_path, monkeypatch):
    """configs/coco/spgd_faster-rcnn_r50_fpn_coco.py as it is, on two small images and without its weights."""
    pytest.importorskip('mmdet', exc_type=ImportError)
    from sparse_dense_attacks.cli.attack import attack_from_command_line
    monkeypatch.chdir(ROOT)
    coco = ASSETS.resolve() / 'coco'
    annotations = coco / 'annotations/instances_val2017_128.json'
    result = attack_from_command_line([
        str(ROOT / 'configs/coco/spgd_faster-rcnn_r50_fpn_coco.py'), '--checkpoint', 'none', '--limit', '2',
        '--work-dir', str(tmp_path), '--cfg-options', 'attack.steps=1', f'test_dataloader.dataset.data_root={coco}/',
        f'test_dataloader.dataset.ann_file={annotations}', f'test_evaluator.ann_file={annotations}',
        'model.backbone.init_cfg=None', 'test_dataloader.dataset.pipeline.1.scale=(256,192)', 'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False'])
    assert result['attack/images'] == 2 and not result['attack/images_failed']


KEEP_RATIO = """
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(2048, 512), keep_ratio=True), dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')]))
"""


@pytest.mark.openmmlab
@pytest.mark.slow
@pytest.mark.parametrize(('library', 'base', 'more', 'weights', 'metric', 'close'), [
    ('mmdet', YOLOX, '', 'yolox_nano_coco_mmdet', 'coco/bbox_mAP', 0.001),
    ('mmseg', str(ROOT / 'configs/camvid/spgd_cgnet_camvid.py'), '', 'cgnet_camvid_mmseg', 'mIoU', 0.05),
    ('mmseg', str(ROOT / 'configs/camvid/spgd_cgnet_camvid.py'), KEEP_RATIO, 'cgnet_camvid_mmseg', 'mIoU', 0.05),
], ids=['yolox', 'cgnet', 'cgnet, as ADE20K is resized'])
def test_stock_scripts_score_the_data_set_of_a_run(tmp_path, monkeypatch, library, base, more, weights, metric, close):
    """The adversarial metric of the run and of the library's own tools/test.py; sda verify agrees."""
    pytest.importorskip(library, exc_type=ImportError)
    from sparse_dense_attacks import cli
    from tests.helpers import stock_test
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('SDA_ASSETS', str(ASSETS.resolve()))
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}\n{more}')
    assert cli.main(['attack', str(tmp_path / 'config.py'), '--limit', '2', '--work-dir', str(tmp_path / 'run'), '--cfg-options',
                     'threat.grid=original', 'attack.k=1000', 'attack.steps=5', 'test_dataloader.num_workers=0']) == 0
    moved = (tmp_path / 'run/dataset').rename(tmp_path / 'moved')
    printed = stock_test(library, moved, ASSETS.resolve() / f'checkpoints/{weights}.pth', tmp_path, ours=library == 'mmdet')
    found = float(re.findall(rf'{metric}: ([\d.]+) ', printed)[-1])
    metrics = json.loads((tmp_path / 'run/metrics.json').read_text())
    assert found == pytest.approx(metrics[f'adv/{metric}'], abs=close)
    assert found < metrics[f'clean/{metric}'] - 0.02
    assert cli.main(['verify', str(moved)]) == 0
