"""Measures by name: on toy scenes of every task with known answers, in a run, and of a finished run."""
import json

import pytest
import torch
from torch import nn

from sparse_dense_attacks import (
    InputError,
    SparsePGD,
    Targeted,
    Untargeted,
    UntargetedPixels,
    Vanish,
)
from sparse_dense_attacks.objectives.roles import own_score, two_scores
from sparse_dense_attacks.testing import Answers, Detections, pictures
from sparse_dense_attacks.victims import TorchClassifier, TorchSegmenter

pytest.importorskip('mmengine')
from sparse_dense_attacks.engine.attacker import Task  # noqa: E402
from sparse_dense_attacks.engine.measures import MEASURES, Measures  # noqa: E402


def measured(names, objective, kind, images, success):
    task = Task(objective, objective, None, objective.scene)
    return Measures(names).of_batch(task, kind, [one * 255 for one in images], success)


def linear(images, seed=0):
    """An objective of three classes whose logits are weighted sums."""
    weight = torch.randn(3, images[0].numel(), generator=torch.Generator().manual_seed(seed))
    model = Answers(lambda x: x.flatten(1) @ weight.T)
    victim = TorchClassifier(model, reference='prediction')
    return Untargeted().objective(victim.open(images)), weight


def test_a_linear_classifier_has_known_numbers():
    """Z is a sum, so every measure can be written down from the weights and the change."""
    images = pictures(2, 3, 4, 5)
    objective, weight = linear(images)
    result = SparsePGD(k=6, steps=30)(objective)
    assert result.success.all()
    found = measured(['acp', 'anc', 'is', 'roles', 'necessity'], objective, 'classification',
                     result.images, [True, True])
    for image, clean, label, numbers in zip(result.images, images, objective.scene.labels, found,
                                            strict=True):
        change = image - clean
        logits = weight @ image.flatten()
        own, reached = weight[label], weight[logits.argmax()]
        assert numbers['acp'] == (change != 0).any(0).sum()
        saliency = (reached * own.abs()).sort().values
        bar = saliency[saliency != 0][29]  # 50 % of 60, and a 0 in front
        kept = (reached * own.abs() > bar) * change.flatten()
        assert numbers['is_50'] == pytest.approx(float(kept.norm() / change.norm()), rel=1e-4)
        a = -(own * change.flatten()).view_as(change).sum(0)
        b = (reached * change.flatten()).view_as(change).sum(0)
        assert numbers['obscured_sum'] == pytest.approx(float(a.sum()), abs=1e-4)
        assert numbers['led_sum'] == pytest.approx(float(b.sum()), abs=1e-4)
        there = (change != 0).any(0)
        assert numbers['obscuring'] == pytest.approx(float((a > b)[there].double().mean()))
        assert numbers['leading'] == pytest.approx(1 - numbers['obscuring'])
        without = [image.clone() for _ in range(int(there.sum()))]
        for one, (row, column) in zip(without, there.nonzero().tolist(), strict=True):
            one[:, row, column] = clean[:, row, column]
        back = [int((weight @ one.flatten()).argmax()) == label for one in without]
        assert numbers['necessary'] == pytest.approx(sum(back) / len(back))
        assert 0 <= numbers['pruned'] < numbers['acp']


def test_failed_attacks_and_untouched_images_have_no_score():
    images = pictures(2, 3, 4, 5)
    objective, _ = linear(images)
    found = measured(list(MEASURES.keys() - {'cam', 'inside'}), objective, 'classification', images,
                     [False, True])
    for numbers in found:
        assert numbers['acp'] == numbers['anc'] == numbers['d20'] == 0
        assert all(numbers[name] is None for name in ('is_50', 'necessary', 'obscuring', 'leading'))


def test_measures_do_not_hang_on_the_batch():
    images = pictures(3, 3, 4, 5)
    together, alone = linear(images)[0], linear(images[1:2])[0]
    changed = SparsePGD(k=6, steps=30)(together)
    assert changed.success.all()
    names = ['anc', 'is', 'roles', 'necessity']
    both = [measured(names, together, 'classification', changed.images, [True] * 3)[1],
            measured(names, alone, 'classification', changed.images[1:2], [True])[0]]
    assert None not in both[0].values() and both[0] == pytest.approx(both[1], rel=1e-4)


class Backboned(nn.Module):
    """Class 0 looks at the left half of the image only, class 1 at the right."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 1, 1)
        nn.init.ones_(self.backbone.weight)
        nn.init.zeros_(self.backbone.bias)

    def forward(self, x):
        halves = self.backbone(x).unflatten(3, (2, -1))
        return halves.sum((1, 2, 4))


def test_changes_where_the_model_looks_lie_in_its_map():
    images = torch.full((1, 3, 4, 8), 0.2)
    images[:, :, 1, 1] = 0.9  # the brightest place, in the half of class 0
    objective = Untargeted().objective(TorchClassifier(Backboned(), reference='prediction').open(images))
    assert objective.scene.labels.tolist() == [0]
    for place, share in (((1, 1), 1.0), ((3, 7), 0.0)):
        changed = images.clone()
        changed[:, :, place[0], place[1]] = 0.5
        found = measured(['cam'], objective, 'classification', changed, [False])[0]
        assert found['cam_10'] == pytest.approx(share, abs=0.1)


def test_a_layer_that_is_not_there_is_refused():
    images = pictures(1, 3, 4, 5)
    objective, _ = linear(images)
    with pytest.raises(InputError, match="has no layer 'backbone'"):
        measured(['cam'], objective, 'classification', images, [True])
    with pytest.raises(InputError, match='no outlined objects'):
        measured(['inside'], objective, 'classification', images, [True])


@pytest.mark.parametrize(('wanted', 'line'), [
    (['cluster'], "measures: no measure 'cluster': "), ('anc', "measures = 'anc', expected a list"),
    ([dict(type='anc', size=3)], "measure 'anc' has no option 'size'"), ([3], 'no measure 3'),
    ([dict(type='cam', layer=3)], "measure 'cam': layer = 3, expected the name"),
    ([dict(layer='backbone')], 'no measure None'), ([dict(type='detections', a=1)], "no measure 'detec"),
])
def test_nonsense_is_one_line(wanted, line):
    with pytest.raises(InputError) as error:
        Measures(wanted)
    assert line in str(error.value) and '\n' not in str(error.value)


def test_untargeted_goals_are_said_to_have_no_target():
    assert 'Untargeted names no target class' in Measures(['is']).note(Untargeted())
    assert Measures(['is']).note(Targeted(1)) is None and Measures(['anc']).note(Untargeted()) is None


def test_names_are_those_that_measures_give():
    """What a resumed run looks for in records is what is written there."""
    images = pictures(1, 3, 4, 6)
    objective = Untargeted().objective(TorchClassifier(Backboned(), reference='prediction').open(images))
    objective.scene.__class__.objects = lambda self, classes=None: self.region
    try:
        for name, (_, names) in MEASURES.items():
            assert set(measured([name], objective, 'classification', images, [True])[0]) == set(names)
            assert Measures([name]).names == set(names)
    finally:
        del objective.scene.__class__.objects


def test_scores_of_a_segmenter_are_means_over_turned_pixels():
    images = pictures(1, 3, 3, 4)
    victim = TorchSegmenter(Answers(lambda x: x), reference='prediction')  # channels are logits
    scene = victim.open(images)
    adversarial = images[0].clone()
    for row, column in ((0, 1), (2, 3)):
        adversarial[:, row, column] = images[0, :, row, column].roll(1)
    label, reached = images[0].argmax(0), adversarial.argmax(0)
    right, wrong = two_scores('segmentation', scene, 0, adversarial)(adversarial[None])
    turned = [(row, column) for row, column in ((0, 1), (2, 3))
              if label[row, column] != reached[row, column]]
    expected = [[float(adversarial[which[place], place[0], place[1]]) for place in turned]
                for which in (label, reached)]
    assert right.item() == pytest.approx(sum(expected[0]) / len(turned))
    assert wrong.item() == pytest.approx(sum(expected[1]) / len(turned))
    assert own_score('segmentation', scene, 0)(images).item() == pytest.approx(
        float(images[0].amax(0).mean()))
    assert UntargetedPixels().objective(scene).defined.all()
    nothing = two_scores('segmentation', scene, 0, images[0])(images)
    assert all(one.isnan().all() for one in nothing)


def test_scores_of_a_detector():
    """The object's best match, and the best box that is neither a match nor was there before."""
    cat, dog, clutter = ((0, 0, 4, 4), 0, .8), ((4, 4, 8, 8), 1, .2), ((0, 4, 4, 8), 2, .6)
    scene = Detections(pictures(1, 3, 8, 8), [[cat]], [[cat, dog, clutter]],
                       weight=torch.tensor([-1., 1, 1]))
    adversarial = scene.images[0].clone()
    adversarial[0, 0, 0] += 2.0
    change = torch.tensor(2.0)
    right, wrong = two_scores('detection', scene, 0, adversarial)(adversarial[None])
    assert right.item() == pytest.approx(float(torch.logit(torch.tensor(.8)) - change), rel=1e-4)
    assert wrong.item() == pytest.approx(float(torch.logit(torch.tensor(.2)) + change), rel=1e-4)
    assert Vanish().objective(scene).eligible.all()


def test_a_detector_that_says_nothing_new_has_no_other_score():
    cat = ((0, 0, 4, 4), 0, .8)
    scene = Detections(pictures(1, 3, 8, 8), [[cat]], [[cat]])
    right, wrong = two_scores('detection', scene, 0, scene.images[0])(scene.images)
    assert right.isfinite().all() and wrong.isnan().all()


# A run of the demo, and what is measured of it afterwards

@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    for library in ('mmdet', 'mmpretrain'):
        pytest.importorskip(library, exc_type=ImportError)
    from sparse_dense_attacks.cli.attack import attack_from_command_line
    folder = tmp_path_factory.mktemp('measures')
    metrics = attack_from_command_line([
        'sparse_dense_attacks::spgd_yolox.py', '--limit', '2', '--work-dir', str(folder / 'run'),
        '--device', 'cpu', '--cfg-options', 'attack.k=60', 'attack.steps=12', 'pictures=0',
        "measures=['anc','inside','detections','is']", 'test_dataloader.num_workers=0',
        "test_evaluator.type=DetectionOutcomes", 'test_evaluator._delete_=True',
        f'test_dataloader.dataset.data_root={folder}/data/'])
    assert metrics['clean/objects/found'] == metrics['attack/before_found']
    assert metrics['adv/objects/found'] == metrics['attack/after_found']
    return folder / 'run'


@pytest.mark.openmmlab
def test_a_run_keeps_its_measures(work_dir):
    from sparse_dense_attacks.results import Run
    run = Run.load(work_dir)
    assert len(run.records) == 2
    for record in run.records:
        assert record.measures.keys() >= {'anc', 'inside_l1', 'is_90', 'before_found', 'after_missing'}
        assert record.measures['before_objects'] == record.measures['after_objects']
        assert record.measures['inside_pixels'] > 0


@pytest.mark.openmmlab
def test_what_is_stored_gives_the_same_measures(work_dir, tmp_path):
    """Also where they were never taken; nothing else of the run is changed."""
    import shutil

    from sparse_dense_attacks.cli.measures import measure
    from sparse_dense_attacks.results import Run
    folder = tmp_path / 'copy'
    shutil.copytree(work_dir, folder)
    lines = [json.loads(line) for line in (folder / 'records.jsonl').read_text().splitlines()]
    (folder / 'records.jsonl').write_text(''.join(
        json.dumps(dict(one, measures={})) + '\n' for one in lines))
    described = (folder / 'run.json').read_bytes()
    measure(folder, ['anc', 'inside', 'detections', 'is'], 'cpu')
    before, after = Run.load(work_dir), Run.load(folder)
    for one, other in zip(before.records, after.records, strict=True):
        assert one.measures.keys() == other.measures.keys()
        for name, value in one.measures.items():
            close = None if value is None else pytest.approx(value, rel=1e-4)
            assert other.measures[name] == close, name
    assert (folder / 'run.json').read_bytes() == described and not (folder / 'lock').exists()
    with pytest.raises(InputError, match="no measure 'iss'"):
        measure(folder, ['iss'], 'cpu')

    data = work_dir.parent / 'data/val'
    photo = sorted(data.glob('*.png'))[0]
    kept = photo.read_bytes()
    try:
        photo.write_bytes(sorted(data.glob('*.png'))[1].read_bytes())
        with pytest.raises(InputError, match='the clean image is not the one that was attacked'):
            measure(folder, ['d20'], 'cpu')
        photo.write_bytes(b'broken')
        with pytest.raises(InputError, match="the clean image of '.*' cannot be read"):
            measure(folder, ['d20'], 'cpu')
    finally:
        photo.write_bytes(kept)
    info = json.loads(described)
    for broken, said in ((dict(config=None, config_text=None), 'has no config of one model'),
                         (dict(config_text='{'), 'config_text: '), (dict(checkpoint=None), 'random weights'),
                         (dict(identity=dict(info['identity'], weights='others')), 'another weights')):
        (folder / 'run.json').write_text(json.dumps(info | broken))
        with pytest.raises(InputError, match=said):
            measure(folder, ['d20'], 'cpu')


@pytest.mark.openmmlab
def test_on_the_grid_of_the_files_places_are_those_of_the_files(tmp_path):
    """Beside what the PNG files and the annotation file say."""
    np, image = pytest.importorskip('numpy'), pytest.importorskip('PIL.Image')
    pytest.importorskip('mmdet', exc_type=ImportError)
    from sparse_dense_attacks.cli.attack import attack_from_command_line
    from sparse_dense_attacks.results import Run
    attack_from_command_line([
        'sparse_dense_attacks::spgd_yolox_original.py', '--limit', '1', '--work-dir', str(tmp_path / 'run'),
        '--device', 'cpu', '--cfg-options', 'attack.k=40', 'attack.steps=5', 'pictures=0',
        "measures=['acp','inside','cam','roles']", 'test_dataloader.num_workers=0',
        f'test_dataloader.dataset.data_root={tmp_path}/data/',
        f'test_evaluator.ann_file={tmp_path}/data/annotations/instances_val.json'])
    record, = Run.load(tmp_path / 'run').records
    scenes = json.loads((tmp_path / 'data/annotations/instances_val.json').read_text())
    file = next(one['file_name'] for one in scenes['images'] if str(one['id']) == record.key)
    clean, attacked = (np.asarray(image.open(path)) for path in
                       (tmp_path / 'data/val' / file, tmp_path / 'run' / record.file))
    changed = (clean != attacked).any(2)
    inside = np.zeros_like(changed)
    rows, columns = np.indices(changed.shape) + 0.5
    for one in scenes['annotations']:
        if str(one['image_id']) == record.key:
            x, y, w, h = one['bbox']
            inside |= (x <= columns) & (columns < x + w) & (y <= rows) & (rows < y + h)
    assert record.measures['acp'] == changed.sum() > 0
    assert record.measures['inside_pixels'] == pytest.approx(
        inside[changed].mean() / inside.mean())
    assert 0 <= record.measures['cam_10'] <= record.measures['cam_30'] <= 1
    assert record.measures['obscured_sum'] is not None


@pytest.mark.openmmlab
def test_the_hook_hands_measures_to_the_metric(tmp_path):
    pytest.importorskip('mmpretrain', exc_type=ImportError)
    from mmengine.runner import Runner

    from sparse_dense_attacks.cli.configs import load_config
    cfg = load_config('sparse_dense_attacks::spgd_resnet18.py')
    attack = dict(type='SparsePGD', k=5, steps=2)
    cfg.custom_hooks = [dict(type='AttackHook', attack=attack, goal='Untargeted', measures=['acp'])]
    cfg.test_evaluator, cfg.test_cfg = dict(type='AttackMeasures'), dict(type='TestLoop')
    cfg.work_dir = str(tmp_path / 'run')
    cfg.test_dataloader.num_workers = 0
    cfg.test_dataloader.dataset.update(data_root=f'{tmp_path}/data/', indices=2)
    cfg.pop('attack')
    cfg.pop('goal')
    assert 0 < Runner.from_cfg(cfg).test()['attack/acp'] <= 5


def test_the_metric_of_an_own_loop_is_a_mean():
    from sparse_dense_attacks.engine import AttackMeasures
    metric = AttackMeasures()
    metric.process({}, [dict(attack_measures=dict(anc=2, is_50=None)),
                        dict(attack_measures=dict(anc=4, is_50=0.5))])
    assert metric.evaluate(2) == {'attack/anc': 3.0, 'attack/is_50': 0.5}
    with pytest.raises(InputError, match="samples have no 'attack_measures'"):
        metric.process({}, [dict(gt_label=1)])
