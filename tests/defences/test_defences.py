"""What each defence makes of images, its gradient, and that draws hang on nothing but seed, image and look."""
import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from sparse_dense_attacks import DEFENCES, InputError, Untargeted, attack
from sparse_dense_attacks.attacks.rng import generator_of
from sparse_dense_attacks.defences import (
    JPEG,
    BitDepth,
    Custom,
    Defence,
    Median,
    RandomResizePad,
    Shield,
    TotalVariation,
    defend_batch,
)
from sparse_dense_attacks.defences.total_variation import _divergence, _slopes
from sparse_dense_attacks.objectives.base import MeteredObjective
from sparse_dense_attacks.objectives.expected import Expected, expected
from sparse_dense_attacks.ops import to_8bit
from sparse_dense_attacks.testing import Net, objective, pictures
from sparse_dense_attacks.victims import TorchClassifier, TorchSegmenter
from tests.helpers import darker

EVERY = [JPEG(), JPEG(quality=10), Median(), Median(size=5), BitDepth(bits=2), RandomResizePad(), TotalVariation(),
         Custom(function='tests.helpers.darker')]
IDS = [f'{type(one).__name__}{number}' for number, one in enumerate(EVERY)]


def seen(defence, x, numbers=None):
    keys = list(range(len(x)))
    return defence(x, keys, numbers or [0] * len(x))


@pytest.mark.parametrize('defence', EVERY, ids=IDS)
@pytest.mark.parametrize('size', [(7, 12), (1, 1), (16, 16)])
def test_an_image_of_8_bits_of_that_size_comes_back(defence, size):
    x = pictures(2, 3, *size)
    found = seen(defence, x)
    assert found.shape == x.shape and found.min() >= 0 and found.max() <= 1
    assert torch.equal(to_8bit(found), found)


@pytest.mark.parametrize('defence', EVERY, ids=IDS)
def test_an_image_is_defended_alone(defence):
    x = pictures(3, 3, 9, 8)
    whole = defence(x, ['a', 'b', 'c'], [0, 4, 0])
    assert torch.equal(defence(x[1:2], ['b'], [4]), whole[1:2])
    assert torch.equal(defence(x.flip(0), ['c', 'b', 'a'], [0, 4, 0]), whole.flip(0))


@pytest.mark.parametrize('defence', EVERY, ids=IDS)
def test_gradients_come_through(defence):
    x = pictures(2, 3, 9, 8).requires_grad_()
    grad, = torch.autograd.grad((seen(defence, x) * pictures(2, 3, 9, 8, seed=5)).sum(), x)
    assert grad.isfinite().all() and grad.abs().sum() > 0


@pytest.mark.parametrize('channels', [1, 3])
def test_jpeg_is_that_of_pillow(channels):
    x = pictures(1, channels, 13, 17)
    pixels = (x[0] * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, 'JPEG', quality=30)
    expected_pixels = np.array(Image.open(file)).reshape(13, 17, channels)
    assert np.array_equal((seen(JPEG(quality=30), x)[0] * 255).permute(1, 2, 0).numpy(), expected_pixels)


def test_jpeg_keeps_brightness_and_blurs_colours_backwards():
    x = torch.full((1, 3, 4, 4), 0.5).requires_grad_()
    grad, = torch.autograd.grad(seen(JPEG(), x)[0, :, 0, 0].sum(), x)  # brightness: as many of each
    assert torch.allclose(grad.sum(1)[0, 0, 0], torch.tensor(3.), atol=1e-5)
    red, = torch.autograd.grad(seen(JPEG(), x)[0, 0, 0, 0], x)
    assert red[0, 0, 1, 1] > 0 and red[0, 0, 2, 2] == 0, 'a block of 2 x 2 shares its colour'


def test_jpeg_knows_colours_and_grey_only():
    with pytest.raises(InputError, match='images have 4 channels, expected 3'):
        seen(JPEG(), pictures(1, 4, 8, 8))


def test_median_is_that_of_scipy():
    x = pictures(1, 3, 7, 9)
    for size in (3, 5):
        truth = [ndimage.median_filter(channel.numpy(), size, mode='nearest') for channel in x[0]]
        assert np.allclose(seen(Median(size=size), x)[0], np.stack(truth), atol=1e-6)


@pytest.mark.parametrize('defence', [Median(), TotalVariation(steps=5), RandomResizePad(least=0.6)])
def test_gradients_are_exact_where_there_are_any(defence):
    x = torch.rand(1, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: defence.apply(z, [generator_of(0, 1)]), x)


def test_bit_depth_has_so_many_levels():
    x = torch.linspace(0, 1, 256).view(1, 1, 16, 16).requires_grad_()
    found = seen(BitDepth(bits=1), x)
    assert found.unique().tolist() == [0, 1] and (found[x > 0.5] == 1).all()
    assert torch.equal(seen(BitDepth(bits=2), x).unique(), torch.tensor([0., 1 / 3, 2 / 3, 1]))
    grad, = torch.autograd.grad(found.sum(), x)
    assert torch.equal(grad, torch.ones_like(grad))


def test_total_variation_of_two_pixels_in_closed_form():
    """Their difference shrinks by 2 weight, and their mean stays."""
    x = torch.tensor([[[[0.2, 0.8]]]])
    assert torch.allclose(TotalVariation(weight=0.1, steps=800).apply(x, []), torch.tensor([0.3, 0.7]), atol=1e-3)
    assert torch.allclose(TotalVariation(weight=0.5, steps=800).apply(x, []), torch.tensor([0.5, 0.5]), atol=1e-3)


def test_divergence_is_the_negative_adjoint_of_slopes():
    u, down, across = torch.randn(3, 1, 2, 5, 4, dtype=torch.float64).unbind(0)
    below, right = _slopes(u)
    down[..., -1, :], across[..., -1] = 0, 0  # there is no slope at the edge
    torch.testing.assert_close((below * down + right * across).sum(), -(u * _divergence(down, across)).sum())


def test_a_little_smaller_at_a_random_place():
    x = torch.ones(1, 3, 20, 30)
    found = [seen(RandomResizePad(least=0.5), x, [number]) for number in range(30)]
    sides = [(int(one[0, 0].any(1).sum()), int(one[0, 0].any(0).sum())) for one in found]
    assert len(set(sides)) > 5 and all(10 <= h <= 20 and 15 <= w <= 30 for h, w in sides)
    corners = {tuple(one[0, 0].nonzero().amin(0).tolist()) for one in found}
    assert len(corners) > 5
    assert torch.equal(seen(RandomResizePad(least=0.5), x, [7]), found[7])
    assert not torch.equal(seen(RandomResizePad(least=0.5, seed=1), x, [7]), found[7])


def test_ones_own_function():
    x = pictures(2, 3, 4, 4)
    own = Custom(function=darker, options=dict(by=0.25), gradient='straight')
    z = x.clone().requires_grad_()
    grad, = torch.autograd.grad(seen(own, z).sum(), z)
    assert torch.equal(seen(own, x), to_8bit(x * 0.25)) and torch.equal(grad, torch.ones_like(grad))
    state = torch.get_rng_state()
    drawn = Custom(function='tests.helpers.noisy', random=True)
    assert torch.equal(seen(drawn, x), seen(drawn, x)) and not torch.equal(seen(drawn, x, [1, 1]), seen(drawn, x))
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(InputError, match=r'Custom: function gave back \(2, 3, 4\), expected images of shape'):
        seen(Custom(function=lambda x: x[..., 0]), x)
    with pytest.raises(InputError, match='draws = 3, but random = False'):
        Custom(function=darker, draws=3)


@pytest.mark.parametrize(('cfg', 'line'), [
    (dict(type='JPEG', quality=0), 'JPEG: quality = 0, expected an int from 1 to 95'),
    (dict(type='JPEG', quality=101), 'JPEG: quality = 101, expected an int from 1 to 95'),
    (dict(type='Median', size=4), 'Median: size = 4, expected an odd number'),
    (dict(type='BitDepth', bits=8), 'BitDepth: bits = 8, expected an int from 1 to 7'),
    (dict(type='RandomResizePad', least=1), r'RandomResizePad: least = 1, expected a number in \(0, 1\)'),
    (dict(type='JPEG', space='file'), 'JPEG: space = .file., expected one of input, original'),
    ('jpg', "unknown defence 'jpg': did you mean 'JPEG'"),
])
def test_what_is_outside_its_range_is_refused(cfg, line):
    with pytest.raises(InputError, match=line):
        DEFENCES.build(cfg)


def test_channels_are_turned_for_the_defence_and_back():
    x = pictures(1, 3, 8, 8)
    rgb, bgr = (Shield(JPEG(quality=20), ['a'], order) for order in ('rgb', 'bgr'))
    assert torch.equal(bgr(x.flip(1), torch.tensor([0])).flip(1), rgb(x, torch.tensor([0])))


def test_a_batch_of_raw_images_is_what_an_attack_looks_at():
    pixels = [torch.randint(256, (3, *size), dtype=torch.uint8) for size in ((8, 6), (5, 9))]
    for kind in (torch.uint8, torch.float32):
        batch = dict(inputs=[one.to(kind) for one in pixels], data_samples=['kept'])
        found = defend_batch(Median(), batch, ['a', 'b'], 'bgr')
        assert found['data_samples'] == ['kept'] and all(one.dtype == kind for one in found['inputs'])
        for before, after in zip(pixels, found['inputs'], strict=True):
            shown = Shield(Median(), ['a'], 'bgr')(before[None] / 255, torch.tensor([0]))
            assert torch.equal(shown[0] * 255, after.float())
    assert isinstance(defend_batch(Median(), dict(inputs=torch.stack(pixels[:1])), 'a', 'rgb')['inputs'], torch.Tensor)


# Attacks through defences

@pytest.mark.parametrize('defence', EVERY[:1] + EVERY[2:5] + EVERY[6:7], ids=IDS[:1] + IDS[2:5] + IDS[6:7])
@pytest.mark.parametrize('name', ['sparse_pgd', 'sigma_zero'])
def test_success_is_that_of_the_defended_model(defence, name):
    model, images = Net(), pictures(4, 3, 8, 8)
    labels = model(seen(defence, images)).argmax(1)
    options = dict(steps=40) if name == 'sigma_zero' else dict(steps=40, k=20)
    result = attack(model, images, labels, name, defence=defence, **options)
    told = model(seen(defence, result.images)).argmax(1)
    assert torch.equal(told != labels, result.success) and result.clean_correct.all()
    assert result.success.any()


def test_the_models_own_prediction_is_that_behind_the_defence():
    images = pictures(8, 3, 8, 8)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    model[2].weight.data = torch.tensor([[1., 1, 1], [0, 0, 0]])
    model[2].bias.data = torch.tensor([-0.6, 0])  # bright or dark
    dark = Custom(function=darker, options=dict(by=0.02))
    labels = model(seen(dark, images)).argmax(1)
    assert not torch.equal(labels, model(images).argmax(1))
    opened = TorchClassifier(model, reference='prediction', defence=dark).open(images)
    assert torch.equal(opened.labels, labels)
    maps = nn.Conv2d(3, 4, 1)
    segmenter = TorchSegmenter(maps, reference='prediction', defence=dark)
    assert torch.equal(segmenter.open(images).labels, maps(seen(dark, images)).argmax(1))


def random_task(images, keys=None, draws=3):
    labels = Net()(images).argmax(1)
    victim = TorchClassifier(Net(), defence=RandomResizePad(least=0.7, draws=draws))
    return expected(Untargeted().objective(victim.open(images, labels, keys=keys)), victim.draws)


def test_the_mean_over_draws():
    images = pictures(3, 3, 8, 8)
    rows = torch.arange(3)
    task = random_task(images)
    assert isinstance(task, Expected) and task.passes == 3
    one_by_one = random_task(images, draws=1)  # looks in the same order
    single = [one_by_one(images, rows) for _ in range(5)]  # the first look opened the scene
    losses = torch.stack([one_by_one.clean.loss, *[one.loss for one in single]])
    found = task(images, rows)  # after one look to open, and three for the clean verdict
    torch.testing.assert_close(task.clean.loss, losses[1:4].mean(0))
    assert not torch.equal(found.loss, task.clean.loss)
    success = torch.stack([one.success for one in single[:3]]).sum(0) >= 2
    assert torch.equal(task.clean.success, success)
    assert ((found.margin > 0) | found.success).all() and (found.margin[found.success] <= 0).all()


def test_every_draw_is_paid_for():
    images = pictures(2, 3, 8, 8)
    meter = MeteredObjective(random_task(images), max_forwards=8)
    rows = torch.arange(2)
    assert (meter.clean.loss.isfinite()).all() and meter.forwards.tolist() == [3, 3]
    x = images.clone().requires_grad_()
    torch.autograd.grad(meter(x, rows).loss.sum(), x)
    assert meter.forwards.tolist() == [6, 6] and meter.backwards.tolist() == [3, 3]
    assert meter(images, rows).loss.tolist() == [-torch.inf] * 2, 'two are left, and a look is three'


@pytest.mark.parametrize('name', ['sparse_pgd', 'sigma_zero'])
def test_draws_depend_on_nothing_but_the_image(name):
    model, images = Net(), pictures(4, 3, 8, 8)
    labels = model(images).argmax(1)
    options = dict(attack=name, steps=8, defence=RandomResizePad(least=0.7, draws=2))
    options |= dict(k=3) if name == 'sparse_pgd' else {}
    together = attack(model, images, labels, keys=list('abcd'), **options)
    again = attack(model, images, labels, keys=list('abcd'), batch_size=3, **options)
    alone = attack(model, images[2:3], labels[2:3], keys=['c'], **options)
    turned = attack(model, images.flip(0), labels.flip(0), keys=list('dcba'), **options)
    assert torch.equal(together.images, again.images) and torch.equal(together.forwards, again.forwards)
    assert torch.equal(together.images[2:3], alone.images)
    assert torch.equal(together.images, turned.images.flip(0))


def test_the_defence_changes_what_an_attack_finds():
    model, images = Net(), pictures(4, 3, 8, 8)
    labels = model(images).argmax(1)
    plain, through = (attack(model, images, labels, 'sparse_pgd', k=6, steps=30, defence=one)
                      for one in (None, Median()))
    told = model(seen(Median(), plain.images)).argmax(1)
    assert not torch.equal(plain.images, through.images)
    assert (told != labels).float().mean() <= through.success.float().mean()


def test_a_defence_of_files_is_none_of_a_victim():
    with pytest.raises(InputError, match="defence.space = 'original', but a victim sees network inputs"):
        TorchClassifier(Net(), defence=JPEG(space='original'))


def test_a_new_defence_is_one_class():
    class Nothing(Defence):
        def apply(self, x, generators):
            return x

    images = pictures(2, 3, 5, 5)
    labels = Net()(images).argmax(1)
    plain, through = (attack(Net(), images, labels, 'sparse_pgd', k=3, steps=9, defence=one) for one in (None, Nothing()))
    assert torch.equal(plain.images, through.images)
    assert objective(Net(), images).passes == 1
