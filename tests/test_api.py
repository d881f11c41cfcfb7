"""Attacks in one call."""
import pytest
import torch
from helpers import Net, pictures
from torch import nn

from sparse_dense_attacks import InputError, SigmaZero, SparsePGD, Vanish, attack
from sparse_dense_attacks.victims import TorchClassifier

MODEL, IMAGES = Net(gain=0.3), pictures(7, 3, 5, 7, seed=3)
LABELS = MODEL(IMAGES).argmax(1)


def same(first, second):
    fields = ('images', 'success', 'l0_pixels', 'forwards')
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in fields)


def test_names_dicts_objects_and_victims_give_the_same_result():
    expected = attack(MODEL, IMAGES, LABELS, SparsePGD(k=3, steps=10), seed=4)
    assert same(expected, attack(MODEL, IMAGES, LABELS, 'sparse_pgd', k=3, steps=10, seed=4))
    assert same(expected, attack(MODEL, IMAGES, LABELS, dict(type='SparsePGD', k=3, steps=10), seed=4))
    assert same(expected, attack(TorchClassifier(MODEL), IMAGES, LABELS, 'SparsePGD', k=3, steps=10, seed=4, goal='untargeted'))
    assert expected.success.any() and (expected.l0_pixels <= 3).all()


def test_batch_size_changes_nothing():
    whole, parts = (attack(MODEL, IMAGES, LABELS, 'sparse_pgd', k=3, steps=10, batch_size=size) for size in (7, 3))
    assert same(whole, parts) and parts.images.shape == IMAGES.shape


def test_default_is_the_minimum_question():
    result = attack(MODEL, IMAGES[:2], LABELS[:2], steps=20)
    assert same(result, attack(MODEL, IMAGES[:2], LABELS[:2], SigmaZero(steps=20)))


def test_region_keys_and_batch_of_none():
    region = torch.zeros(7, 1, 5, 7, dtype=torch.bool)
    region[..., :2, :] = True
    result = attack(MODEL, IMAGES, LABELS, 'sparse_pgd', k=3, steps=10, region=region, keys=list('abcdefg'), batch_size=3)
    assert torch.equal(result.images[..., 2:, :], IMAGES[..., 2:, :])
    assert not same(result, attack(MODEL, IMAGES, LABELS, 'sparse_pgd', k=3, steps=10, region=region))
    assert len(attack(MODEL, IMAGES[:0], LABELS[:0], 'sparse_pgd', k=3).images) == 0


def test_model_is_as_before_and_gradients_may_be_off():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        attack(model, IMAGES, torch.zeros(7, dtype=torch.int64), 'sparse_pgd', k=3, steps=3)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize('arguments, options, message', [
    ((lambda x: x, IMAGES, LABELS), {}, 'expected a torch.nn.Module or a victim, found function'),
    ((MODEL, IMAGES, LABELS, SigmaZero()), dict(steps=5), 'options steps belong to an attack given by name'),
    ((MODEL, IMAGES, LABELS, 'sparse_pdg'), {}, "did you mean 'SparsePGD'"),
    ((MODEL, IMAGES, LABELS, 'sparse_pgd'), dict(kay=5), "no argument 'kay'"),
    ((MODEL, IMAGES, LABELS, 'sparse_pgd'), dict(goal=Vanish()), 'Vanish is a goal of detection, but the model'),
    ((MODEL, IMAGES * 255, LABELS), {}, r'expected \[0, 1\]'),
])
def test_bad_input_is_one_clear_line(arguments, options, message):
    with pytest.raises(InputError, match=message) as error:
        attack(*arguments, **options)
    assert '\n' not in str(error.value)


def test_what_undoing_a_normalisation_leaves_behind_is_accepted():
    images = IMAGES.clone()
    images[:, :, 0, 0], images[:, :, 1, 1] = -2.98e-8, 1 + 1.2e-7
    result = attack(MODEL, images, LABELS, 'sparse_pgd', k=3, steps=10, eight_bit=False)
    assert result.images.min() >= 0 and result.images.max() <= 1 and (result.l0_pixels <= 3).all()


def test_targets_are_reached():
    targets = MODEL(IMAGES).topk(2).indices[:, 1]
    result = attack(MODEL, IMAGES, LABELS, 'sparse_pgd', k=15, steps=100, goal='targeted', targets=targets, batch_size=3)
    assert result.success.any() and torch.equal(MODEL(result.images).argmax(1) == targets, result.success)
    with pytest.raises(InputError, match='target'):
        attack(MODEL, IMAGES, LABELS, 'sparse_pgd', goal='targeted')
