"""Attacks in one call."""
import pytest
import torch
from torch import nn

from sparse_dense_attacks import InputError, SigmaZero, SparsePGD, Vanish, attack
from sparse_dense_attacks.victims import TorchClassifier
from sparse_dense_attacks.victims.base import Victim
from tests.helpers import Net, pictures

MODEL, IMAGES = Net(gain=0.3), pictures(7, 3, 5, 7, seed=3)
LABELS = MODEL(IMAGES).argmax(1)


BATCH = dict(inputs=IMAGES, data_samples=LABELS)


class Library(Victim):
    """A victim of another library's batches."""
    task, model, reference = 'classification', MODEL, 'truth'

    def open(self, batch):
        return TorchClassifier(MODEL).open(batch['inputs'], batch['data_samples'])


class Tuple(nn.Module):

    def forward(self, x):
        return MODEL(x), x


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


def test_region_of_a_batch_of_another_library():
    region = torch.zeros(7, 1, 5, 7, dtype=torch.bool)
    region[..., :2, :] = True
    assert same(attack(Library(), BATCH, attack='sparse_pgd', k=3, steps=10, region=region),
                attack(MODEL, IMAGES, LABELS, 'sparse_pgd', k=3, steps=10, region=region))


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
    ((MODEL, list(IMAGES), LABELS), {}, r'images: TorchClassifier takes a tensor \(B, C, H, W\), found list of 7'),
    ((MODEL, IMAGES[0], LABELS), {}, r'found torch.float32 \(3, 5, 7\)'),
    ((MODEL, dict(inputs=IMAGES), LABELS), {}, 'images: TorchClassifier takes a tensor .*, found dict of 1'),
    ((MODEL, IMAGES, LABELS.tolist()), {}, r'labels: expected a tensor with one entry per image \(7\), found list of 7'),
    ((MODEL, IMAGES, LABELS[:6]), {}, r'labels: .* \(7\), found torch.int64 \(6,\)'),
    ((MODEL, IMAGES, LABELS.repeat(2)), {}, r'labels: .* \(7\), found torch.int64 \(14,\)'),
    ((MODEL, IMAGES, LABELS), dict(keys='ab'), r'keys: expected one id per image \(7\), found list of 2'),
    ((MODEL, IMAGES, LABELS), dict(region=torch.ones(8, 1, 5, 7).bool()), r'region: .* \(7\), found torch.bool \(8, 1, 5, 7\)'),
    ((MODEL, IMAGES, LABELS), dict(batch_size=0), 'batch_size = 0, expected an int >= 1'),
    ((Tuple(), IMAGES, LABELS), {}, r'the model gives tuple for \d images, expected logits \(\d, classes\)'),
    ((TorchClassifier(Tuple(), reference='prediction'), IMAGES), {}, 'the model gives tuple for 7 images'),
    ((nn.Identity(), IMAGES, LABELS), {}, r'labels: expected int64 \(7, height, width\)'),
    ((nn.Identity(), IMAGES, LABELS), dict(goal='untargeted'), r'the model gives a tensor \(\d, 3, 5, 7\) for \d images'),
    ((Library(), IMAGES), {}, r'images: Library takes a batch \(dict\) of .*, found torch.float32'),
    ((Library(), BATCH, LABELS), {}, 'labels: Library has no use for it'),
    ((Library(), BATCH), dict(keys=range(7)), 'keys: Library has no use for it'),
    ((Library(), BATCH), dict(targets=LABELS), 'targets: Library has no use for it'),
    ((Library(), BATCH), dict(batch_size=3), 'batch_size: Library has no use for it'),
    ((Library(), BATCH), dict(region=torch.ones(7, 5, 7).bool()), r'region: expected a bool tensor \(7, 1, 5, 7\), found'),
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


@pytest.mark.parametrize('max_forwards', [None, 4, 30])
def test_a_counter_inside_the_model_sees_the_queries(max_forwards):
    """All that ``attack()`` shows the model, whatever for; without a budget two looks see whether the model is random."""
    model, images, shown = Net(gain=0.3), pictures(5, 3, 6, 6), []
    labels = model(images).argmax(1)
    model.register_forward_hook(lambda module, args, out: shown.append(len(args[0])))
    result = attack(model, images, labels, 'sparse_pgd', k=2, steps=8, max_forwards=max_forwards, batch_size=2,
                    goal='untargeted')  # without a goal one look tells the task
    assert sum(shown) == result.queries.sum() + (2 if max_forwards is None else 0)
    assert max_forwards is None or result.queries.max() == min(max_forwards, 11)
