"""Targeted and untargeted classification: which class, what counts as success, and that attacks honour it."""
import csv
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from sparse_dense_attacks import GOALS, InputError, SigmaZero, SparsePGD, SparseRS, Targeted, Untargeted
from sparse_dense_attacks.victims import TorchClassifier
from tests.helpers import EVERY_ATTACK, Net, make_attack, pictures

ASSETS = Path(os.environ.get('SDA_ASSETS', 'data'))
ALL = torch.arange(4)


class Scores(nn.Module):
    """Class j scores ``bias[j]`` plus the sum of ``weight[j] * x``."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = torch.as_tensor(weight), torch.as_tensor(bias)

    def forward(self, x):
        return (x[:, None] * self.weight).flatten(2).sum(2) + self.bias


def fixed(*logits):
    """A model whose class scores are the pixels of 1 x K x 1 x 1 images, and such images, here already divided by 10."""
    images = torch.tensor(logits)[:, None, None] / 10
    return Scores(torch.eye(len(logits[0]))[:, None, None] * 10, torch.zeros(len(logits[0]))), images


def opened(model, images, labels, **options):
    return TorchClassifier(model).open(images, torch.tensor(labels), **options)


LOGITS = [[4., 3., 1., 2.], [0., 1., 3., 2.], [2., 2., 5., 1.], [1., 2., 3., 4.]]
LABELS = [0, 2, 2, 0]  # the last image is misclassified as class 3


@pytest.fixture
def scene():
    return opened(*fixed(*LOGITS), LABELS, keys=['d/a.png', 'd/b.png', 'd/c.png', 'd/d.png'])


# Which class

@pytest.mark.parametrize(('target', 'expected'), [
    (1, [1, 1, 1, 1]),
    ('least_likely', [2, 0, 3, 1]),
    ('runner_up', [1, 3, 0, 3]),
    ({'d/a.png': 1, 'b.png': 0, 'c': 3, 'd': 2, 'unused': 9}, [1, 0, 3, 2]),
])
def test_targets_are_chosen_as_told(scene, target, expected):
    assert Targeted(target).objective(scene).targets.tolist() == expected


def test_the_true_class_is_never_chosen_by_a_rule():
    """Not even where it is the least likely one."""
    scene = opened(*fixed([1., 3., 2.], [3., 3., 1.]), [0, 2])
    assert Targeted('least_likely').objective(scene).targets.tolist() == [2, 0]
    assert Targeted('runner_up').objective(scene).targets.tolist() == [1, 0]


def test_random_targets_depend_on_seed_and_key_only():
    images, labels = pictures(60, 3, 4, 4), torch.arange(60) % 4
    keys = [f'image {b}' for b in range(60)]
    targets = Targeted('random').objective(opened(Net(), images, labels.tolist(), keys=keys)).targets
    assert (targets != labels).all()
    for label in range(4):
        assert set(targets[labels == label].tolist()) == set(range(4)) - {label}
    order = torch.arange(60).flip(0)
    shuffled = opened(Net(seed=1), images[order][:7], labels[order][:7].tolist(), keys=keys[::-1][:7])
    assert torch.equal(Targeted('random').objective(shuffled).targets, targets[order][:7])
    other = Targeted('random', seed=1).objective(opened(Net(), images, labels.tolist(), keys=keys))
    assert not torch.equal(other.targets, targets)


def test_targets_may_come_with_the_images(scene):
    given = torch.tensor([3, 0, 1, 2])
    scene = opened(scene.model, scene.images, LABELS, targets=given)
    assert torch.equal(Targeted().objective(scene).targets, given)
    assert Targeted(1).objective(scene).targets.tolist() == [1] * 4, 'what the goal says comes first'


@pytest.fixture
def nips(tmp_path):
    path = tmp_path / 'images.csv'
    path.write_text('ImageId,TrueLabel,TargetClass,Other\na,1,2,1\nb,3,1,1\nc,3,4,1\nd,1,3,1\n')
    return str(path)


def test_targets_from_a_csv_file(scene, nips):
    """NIPS 2017 counts classes from 1."""
    assert Targeted(nips, offset=1).objective(scene).targets.tolist() == [1, 0, 3, 2]
    assert Targeted(nips, target_column='Other').objective(scene).targets.tolist() == [1] * 4
    assert GOALS.build(dict(type='Targeted', target=nips, offset=1)) == Targeted(nips, offset=1)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(target='runnerup'), "target = 'runnerup'.*did you mean 'runner_up'"),
    (dict(target=1.5), 'target = 1.5, expected a class'),
    (dict(target=True), 'target = True, expected a class'),
    (dict(target='nowhere.csv'), 'no file nowhere.csv'),
    (dict(target={'a': 'cat'}), "target of image 'a' is 'cat', expected the number of a class"),
])
def test_bad_goals_are_refused_when_they_are_built(options, message):
    with pytest.raises(InputError, match=message) as error:
        GOALS.build('targeted', **options)
    assert '\n' not in str(error.value)


def test_a_csv_file_without_the_column_is_refused(nips):
    with pytest.raises(InputError, match="no column 'Target', did you mean 'TargetClass'"):
        Targeted(nips, target_column='Target')


def test_a_csv_file_that_is_no_utf_8_is_refused(tmp_path):
    path = tmp_path / 'latin.csv'
    path.write_bytes('ImageId,TargetClass\nmüde,1\n'.encode('latin-1'))
    with pytest.raises(InputError, match='latin.csv is no UTF-8 text'):
        Targeted(str(path))


@pytest.mark.parametrize(('target', 'message'), [
    (None, 'Targeted without targets: set its target'),
    (4, "image 'd/a.png' has target 4, but the model's classes are 0 to 3"),
    (-1, "image 'd/a.png' has target -1"),
    ({'a': 1, 'b': 4, 'c': 1, 'd': 1}, "image 'd/b.png' has target 4.*offset=1"),
    ({'a': 1, 'b': 1}, "no target for image 'd/c.png'; the list has 2 images, for example a, b"),
])
def test_impossible_targets_are_refused_by_name(scene, target, message):
    with pytest.raises(InputError, match=message) as error:
        Targeted(target).objective(scene)
    assert '\n' not in str(error.value)


def test_given_targets_are_checked(scene):
    with pytest.raises(InputError, match='targets reach from 0 to 4, but the model has 4 classes'):
        opened(scene.model, scene.images, LABELS, targets=torch.tensor([0, 1, 2, 4]))
    with pytest.raises(InputError, match=r'targets: expected one int64 class index per image \(4\)'):
        opened(scene.model, scene.images, LABELS, targets=torch.tensor([0, 1]))


# What counts as success

def test_targeted_known_answers(scene):
    judge = Targeted({'a': 1, 'b': 2, 'c': 0, 'd': 3}).objective(scene)
    verdict = judge.clean
    assert verdict.margin.tolist() == pytest.approx([1, -1, 3, -1])
    torch.testing.assert_close(verdict.loss, -F.cross_entropy(torch.tensor(LOGITS), torch.tensor([1, 2, 0, 3]), reduction='none'))
    assert judge.defined.tolist() == [True, False, True, True], 'the target of the second image is its true class'
    assert verdict.success.tolist() == [False, False, False, True], 'the last image has its target already'
    assert judge.eligible.tolist() == [True, True, True, False]
    assert Targeted(1).objective(scene).eligible.tolist() == [True, True, True, False], 'wrong is wrong, whatever the target'
    assert judge.region.flatten(1).any(1).tolist() == [True, False, True, True]


def test_success_follows_arg_max_at_a_tie():
    images = torch.tensor([[2., 2.]])[:, None, None] / 10
    model = Scores(torch.eye(2)[:, None, None] * 10, torch.zeros(2))
    first, second = (Targeted(t).objective(opened(model, images, [1 - t])).clean for t in (0, 1))
    assert first.margin.item() == second.margin.item() == 0
    assert first.success.item() and not second.success.item()


@pytest.mark.parametrize('what', ['loss', 'margin'])
def test_gradients_agree_with_finite_differences(what):
    judge = Targeted('runner_up').objective(opened(Net(), pictures(4, 3, 5, 7), [0, 1, 2, 3]))
    rows = torch.tensor([2, 0])
    x = judge.images[rows].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: getattr(judge(z, rows), what), x, check_undefined_grad=False)


def test_hinge_has_zero_gradient_at_success(scene):
    judge = Targeted(1).objective(scene)
    x = judge.images[:1].clone()
    x[..., 1] = 0.9  # class 1 on top
    x.requires_grad_()
    verdict = judge(x, ALL[:1])
    grad, = torch.autograd.grad(verdict.margin.relu().sum(), x)
    assert verdict.success.item() and not grad.any()


# Attacks honour it

def corner_model():
    """From a black 3 x 3 image, white at the first pixel leads to class 1, at the last to class 2; the rest is of no use."""
    weight = torch.zeros(3, 1, 3, 3)
    weight[1, 0, 0, 0], weight[2, 0, 2, 2] = 3, 2
    return Scores(weight, torch.tensor([1., 0., 0.])), torch.zeros(2, 1, 3, 3)


@pytest.mark.parametrize('attack', [SparsePGD(k=1, steps=30, gradient='unprojected'), SigmaZero(steps=60, unit='pixel'),
                                    SparseRS(k=1, steps=60)], ids=lambda attack: type(attack).__name__)
def test_attacks_change_the_pixel_that_leads_to_the_target(attack):
    model, images = corner_model()
    result = attack(Targeted({'0': 1, '1': 2}).objective(opened(model, images, [0, 0])))
    assert result.success.tolist() == [True, True]
    changed = (result.images != images).any(1)
    assert changed.nonzero().tolist() == [[0, 0, 0], [1, 2, 2]]


@pytest.mark.parametrize('spec', EVERY_ATTACK, ids=lambda spec: spec[0])
def test_every_attack_judges_by_the_target(spec):
    """Success is the target, not just another class; where the target is the true class nothing is touched."""
    model, images = Net(), pictures(6, 3, 5, 6)
    with torch.no_grad():
        labels = model(images).argmax(1)
    targets = (labels + torch.tensor([1, 2, 3, 0, 1, 2])) % 4
    victim = TorchClassifier(model)
    result = make_attack(spec, k=8, steps=20)(Targeted().objective(victim.open(images, labels, targets=targets)))
    with torch.no_grad():
        reached = model(result.images).argmax(1) == targets
    assert result.defined.tolist() == [True, True, True, False, True, True]
    assert torch.equal(result.images[3], images[3]) and not result.success[3] and result.forwards[3] == 1
    keep = result.defined
    assert torch.equal(result.success[keep], reached[keep])
    assert result.clean_correct.all()


@pytest.mark.parametrize('attack', [SparsePGD(k=3, steps=5), SigmaZero(steps=5)], ids=lambda attack: type(attack).__name__)
def test_an_image_that_has_its_target_is_left_alone(scene, attack):
    result = attack(Targeted(3).objective(opened(scene.model, scene.images.expand(4, 3, 1, 4) / 3, LABELS)))
    assert result.success[3] and result.l0_pixels[3] == 0 and not result.clean_correct[3]


# The victim's own prediction as the truth

def test_prediction_may_be_the_reference():
    model, images = Net(), pictures(5, 3, 4, 5)
    with torch.no_grad():
        said = model(images).argmax(1)
    scene = TorchClassifier(model, reference='prediction').open(images)
    assert torch.equal(scene.labels, said)
    assert Untargeted().objective(scene).eligible.all()
    assert torch.equal(TorchClassifier(model, reference='prediction').open(images, (said + 1) % 4).labels, said)


def test_without_labels_the_reference_must_be_the_prediction():
    with pytest.raises(InputError, match="no labels: give them with the images, or build the victim with reference='prediction'"):
        TorchClassifier(Net()).open(pictures(2, 3, 4, 5))
    with pytest.raises(InputError, match="reference = 'predicted'.*did you mean 'prediction'"):
        TorchClassifier(Net(), reference='predicted')


# SqueezeNet on the NIPS 2017 images

real = [pytest.mark.real,
        pytest.mark.skipif(not (ASSETS / 'nips17').is_dir(), reason=f'no real images in {ASSETS} (set SDA_ASSETS)')]


def squeezenet():
    spec = importlib.util.spec_from_file_location('asset_models', ASSETS / 'models.py')
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    return models.squeezenet()


def nips17(count=None):
    """Images (B, 3, 224, 224), their labels counted from 0, and their ids."""
    with (ASSETS / 'nips17/images.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))[:count]
    images = []
    for row in rows:
        with Image.open(ASSETS / f"nips17/images/{row['ImageId']}.png") as image:
            images.append(np.array(image.convert('RGB').resize((224, 224), Image.Resampling.BILINEAR)))
    images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255)
    return images, torch.tensor([int(row['TrueLabel']) - 1 for row in rows]), [row['ImageId'] for row in rows]


@pytest.fixture(scope='module')
def victim():
    return TorchClassifier(squeezenet())


class TestSqueezeNet:
    pytestmark = real

    def test_clean_accuracy(self, victim):
        images, labels, keys = nips17()
        with victim.session():
            objective = Untargeted().objective(victim.open(images, labels, keys=keys))
        assert objective.eligible.float().mean().item() == pytest.approx(0.61, abs=0.011)

    def test_more_pixels_break_more_images_and_targets_cost_more(self, victim):
        """8 images that the model gets right; targets are those of the data set's file."""
        images, labels, keys = nips17(16)
        goal = Targeted(str(ASSETS / 'nips17/images.csv'), offset=1)
        with victim.session():
            right = victim.open(images, labels).logits(images, torch.arange(16)).argmax(1) == labels
            rows = right.nonzero()[:8, 0]
            scene = victim.open(images[rows], labels[rows], keys=[keys[r] for r in rows])
            few, many = (SparsePGD(k=k, steps=10)(Untargeted().objective(scene)) for k in (20, 300))
            aimed = SparsePGD(k=300, steps=10)(goal.objective(scene))
        assert many.success.float().mean() >= 0.75
        assert few.success.sum() < many.success.sum() > aimed.success.sum()
