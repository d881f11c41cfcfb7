"""attack() on wrapped, randomised and unsupported models, and within inference mode."""
import warnings

import pytest
import torch
from torch import nn

from sparse_dense_attacks import InputError, SparsePGD, ThreatModel, attack
from sparse_dense_attacks.attacks import judge
from sparse_dense_attacks.objectives import Objective
from sparse_dense_attacks.victims import library_of, unwrapped
from tests.helpers import Net, objective, pictures

MODEL, IMAGES = Net(gain=0.3), pictures(5, 3, 5, 7, seed=3)
LABELS = MODEL(IMAGES).argmax(1)
OPTIONS = dict(attack='sparse_pgd', k=3, steps=10)


class Noisy(nn.Module):
    """Logits that differ each time."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return MODEL(x + self.size * torch.randn_like(x))


class Head(nn.Module):
    """Any output."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


# Edges of attack()

def same(first, second):
    return torch.equal(first.images, second.images) and torch.equal(first.success, second.success)


@pytest.mark.parametrize('inside', [False, True])
def test_inference_mode_changes_nothing(inside):
    expected = attack(MODEL, IMAGES, LABELS, **OPTIONS)
    with torch.inference_mode():
        images = IMAGES.clone() if inside else IMAGES  # an inference tensor, or one from outside
        labels = LABELS.clone() if inside else LABELS
        assert images.is_inference() == inside
        assert same(attack(MODEL, images, labels, **OPTIONS), expected)


def test_a_model_made_in_inference_mode_is_refused_in_one_line():
    with torch.inference_mode():
        model = nn.Sequential(nn.Flatten(), nn.Linear(105, 4))
        with pytest.raises(InputError, match='built or loaded within torch.inference_mode'):
            attack(model, IMAGES, LABELS, **OPTIONS)


@pytest.mark.parametrize('make', [lambda x: x.flatten(1).sum(1, keepdim=True),
                                  lambda x: x.flatten(1)[:, :1]])
def test_one_logit_is_refused_in_one_line(make):
    with pytest.raises(InputError, match='one logit per image .* expected those of at least two'):
        attack(Head(make), IMAGES, torch.zeros(5, dtype=torch.int64), **OPTIONS)


@pytest.mark.parametrize(('make', 'said'), [
    (lambda x: [dict(boxes=x[0, 0, :4], scores=x[0, 0, 0])] * len(x), 'this is a detector.*vanish'),
    (lambda x: dict(out=x), 'this looks like a segmenter.*untargeted_pixels'),
    (lambda x: x, 'this looks like a segmenter.*untargeted_pixels'),
    (lambda x: 'nothing', 'wrap it in a module')])
def test_what_is_supported_is_said(make, said):
    with pytest.raises(InputError, match=said) as error:
        attack(Head(make), IMAGES, LABELS, goal='untargeted', **OPTIONS)
    assert '\n' not in str(error.value)


def test_the_goal_that_fits_is_named():
    from sparse_dense_attacks.victims import TorchSegmenter
    segmenter = TorchSegmenter(Head(lambda x: x))
    with pytest.raises(InputError, match='set goal to one of .*UntargetedPixels'):
        attack(segmenter, IMAGES, IMAGES.argmax(1), goal='untargeted', **OPTIONS)


# Randomised models

@pytest.mark.parametrize('size', [0.02, 0.2])
def test_a_random_model_is_noticed(size):
    torch.manual_seed(0)
    with pytest.warns(RuntimeWarning, match='answers differently .* set rechecks'):
        attack(Noisy(size), IMAGES, LABELS, **OPTIONS)


@pytest.mark.parametrize('model', [MODEL, nn.Sequential(MODEL, nn.Dropout(0.5))])
def test_a_model_that_is_not_random_is_left_in_peace(model):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        attack(model, IMAGES, LABELS, **OPTIONS)


def test_success_is_what_the_majority_of_the_answers_says():
    answers = iter([True, False, True, True, False, False, False, True])
    task = objective(MODEL, IMAGES[:1])

    class Wavering(Objective):
        images, clean, parts = task.images, task.clean, None
        share = task.share

        def __call__(self, x, rows):
            said = task(x, rows)
            return type(said)(said.loss, said.margin, torch.tensor([next(answers)]))

    changed = (1 - IMAGES[:1]).round()
    assert judge(Wavering(), changed, rechecks=3).success.tolist() == [True]
    assert judge(Wavering(), changed, rechecks=5).success.tolist() == [False]


def test_rechecks_of_a_sound_model_change_nothing():
    threat = ThreatModel(rechecks=5)
    assert same(attack(MODEL, IMAGES, LABELS, **OPTIONS),
                attack(MODEL, IMAGES, LABELS, threat=threat, **OPTIONS))
    assert same(attack(MODEL, IMAGES, LABELS, **OPTIONS),
                attack(MODEL, IMAGES, LABELS, rechecks=3, **OPTIONS))


# Wrappers

def test_plain_models_stay_in_their_wrappers():
    for model in (MODEL, nn.DataParallel(MODEL), nn.Sequential(MODEL), nn.Sequential(MODEL, MODEL)):
        assert unwrapped(model) is model


def library_models():
    pytest.importorskip('mmpretrain', exc_type=ImportError)
    from tests.victims.test_mmpretrain_victim import classifier, make_batch
    return classifier(Net(gain=0.5)), make_batch([(24, 30)] * 3)


def averaged(model):
    from mmengine.model import StochasticWeightAverage
    return StochasticWeightAverage(model)


@pytest.mark.parametrize('wrapper', [
    nn.DataParallel, torch.compile, nn.Sequential, averaged,
    lambda model: nn.Sequential(nn.Identity(), model),
    lambda model: nn.DataParallel(torch.compile(nn.Sequential(model)))],
    ids=['DataParallel', 'compile', 'Sequential', 'averaged', 'Identity', 'nested'])
def test_a_wrapped_library_model_is_the_bare_model(wrapper):
    model, batch = library_models()
    wrapped = wrapper(model)
    inner = unwrapped(wrapped)
    assert library_of(inner) == 'mmpretrain' and library_of(wrapped) is None
    expected, result = (attack(one, batch, **OPTIONS) for one in (model, wrapped))
    assert same(expected, result) and torch.equal(expected.clean_correct, result.clean_correct)
    with pytest.raises(InputError, match='images: MMPretrainClassifier takes a batch'):
        attack(wrapped, IMAGES, LABELS, **OPTIONS)


def test_the_engine_unwraps_too():
    from sparse_dense_attacks.engine import Attacker
    model, batch = library_models()
    results = [Attacker.of_model(one, SparsePGD(k=3, steps=10), 'untargeted').perturb(batch).result
               for one in (model, nn.DataParallel(model))]
    assert same(*results)


def test_a_library_model_beside_other_modules_is_refused_in_one_line():
    model, batch = library_models()
    with pytest.raises(InputError, match='1 more modules beside a ImageClassifier of mmpretrain'):
        attack(nn.Sequential(nn.BatchNorm2d(3), model), batch, **OPTIONS)
