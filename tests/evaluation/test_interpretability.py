"""Measures with the model's scores, on models whose answers can be worked out."""
import itertools
import math

import pytest
import torch

from sparse_dense_attacks import InputError
from sparse_dense_attacks.evaluation.interpretability import (
    adversarial_saliency,
    cam_overlap,
    grad_cam,
    interpretability_score,
    necessary,
    pruned,
    roles,
)
from sparse_dense_attacks.testing import Net, pictures

SIZE = (3, 4, 5)


def linear(right, reached):
    """Scores that are weighted sums of the pixels."""
    return lambda x: ((x * right).flatten(1).sum(1), (x * reached).flatten(1).sum(1))


@pytest.fixture
def image():
    return pictures(1, *SIZE)[0]


def test_saliency_of_a_linear_model(image):
    right, reached = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(0))
    found = adversarial_saliency(linear(right, reached), image)
    torch.testing.assert_close(found, reached * right.abs())
    assert not found.requires_grad


def test_saliency_is_that_of_finite_differences(image):
    net = Net(gain=2)
    x = image.double()

    def scores(candidates):
        return net(candidates)[:, 0], net(candidates)[:, 1]

    found = adversarial_saliency(scores, x)
    for place in ((0, 1, 2), (2, 3, 4)):
        step = torch.zeros_like(x)
        step[place] = 1e-5
        slopes = [float(up - down) / 2e-5 for up, down in
                  zip(scores((x + step)[None]), scores((x - step)[None]), strict=True)]
        assert found[place].item() == pytest.approx(slopes[1] * abs(slopes[0]), rel=1e-4)


def test_saliency_of_an_unknown_score_is_unknown(image):
    unknown = adversarial_saliency(lambda x: (x.sum((1, 2, 3)), x.sum((1, 2, 3)) * torch.nan), image)
    assert unknown.isnan().all()
    assert interpretability_score(torch.ones(SIZE), unknown).isnan().all()


def test_interpretability_by_hand():
    """Eight values; six are not zero, so P = 50 puts the bar at the third smallest of them."""
    saliency = torch.tensor([-2., 0, 1, 5, 0, 3, 4, -1]).view(2, 2, 2)
    change = torch.tensor([.1, .2, .3, -.4, .5, 0, .6, .7]).view(2, 2, 2)
    whole = sum(v * v for v in change.flatten().tolist())
    above = {0: [.3, -.4, 0, .6], 50: [-.4, 0, .6], 60: [-.4, .6], 90: []}  # sorted: -2 -1 1 3 4 5
    found = interpretability_score(change, saliency, list(above))
    for value, kept in zip(found.tolist(), above.values(), strict=True):
        assert value == pytest.approx(math.sqrt(sum(v * v for v in kept) / whole))


def test_interpretability_at_its_ends():
    saliency, change = torch.tensor([[[3., 1, 2]]]), torch.tensor([[[1., 1, 1]]])
    assert interpretability_score(change, saliency, [0, 100]).tolist() == [1, 0]
    assert interpretability_score(change, torch.zeros_like(change), [50]).tolist() == [0]
    assert interpretability_score(torch.zeros_like(change), saliency, [50]).isnan().all()
    with pytest.raises(InputError, match='percentiles = 101'):
        interpretability_score(change, saliency, [50, 101])


def test_interpretability_does_not_hang_on_the_scale():
    saliency, change = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(interpretability_score(change, saliency),
                               interpretability_score(5 * change, 0.1 * saliency))


def test_grad_cam_by_hand():
    features = torch.tensor([[[1., 2], [3, 4]], [[4., 3], [2, 1]]])
    gradient = torch.tensor([[[2., 0], [0, 2]], [[-1., -1], [-1, -1]]])
    assert grad_cam(features, gradient, (2, 2)).tolist() == [[0, 0], [1, 3]]
    assert grad_cam(features, gradient, (5, 7)).shape == (5, 7)


def test_overlap_with_a_map():
    cam = torch.arange(10.).view(2, 5)
    changed = torch.zeros(2, 5, dtype=torch.bool)
    changed[1, 3:] = changed[0, 0] = True
    everywhere = torch.ones_like(changed)
    assert cam_overlap(changed, cam, everywhere, [0.1, 0.2, 1]).tolist() == pytest.approx(
        [1 / 3, 2 / 3, 1])
    assert cam_overlap(changed & False, cam, everywhere).isnan().all()
    assert cam_overlap(changed, cam * 0, everywhere).isnan().all()


def test_pixels_that_share_a_value_share_the_places():
    cam = torch.tensor([[2., 1, 1, 1, 1]])
    for place, share in ((0, 1), (1, 0.25), (4, 0.25)):
        changed = torch.zeros(1, 5, dtype=torch.bool)
        changed[0, place] = True
        assert cam_overlap(changed, cam, torch.ones_like(changed), [0.4]).item() == share


def test_padding_is_in_no_map():
    cam = torch.tensor([[9., 9, 1, 2, 3]])
    changed, content = torch.tensor([[1, 0, 0, 0, 1], [0, 0, 1, 1, 1]]).bool()[:, None]
    assert cam_overlap(changed, cam, content, [1 / 3]).item() == 1


def test_planted_roles(image):
    """Of a linear model each pixel's part in either score is known: its change times the weight."""
    right, reached, change = torch.zeros(3, *SIZE)
    right[:, 0, 0], right[:, 1, 1], reached[:, 1, 1], reached[:, 2, 2] = -1, -2, 1, 3
    change[0, 0, 0] = change[1, 1, 1] = change[2, 2, 2] = 0.5  # hides; does both; leads
    found = roles(linear(right, reached), image, image + change)
    assert found.places.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert found.obscured.tolist() == pytest.approx([0.5, 1, 0], abs=1e-5)
    assert found.led.tolist() == pytest.approx([0, 0.5, 1.5], abs=1e-5)
    assert found.obscuring.tolist() == [True, True, False]


def test_roles_agree_with_saliency_where_the_model_is_nearly_linear(image):
    net, x = Net(gain=0.05), image.double()
    change = torch.zeros_like(x)
    change[:, ::2, ::3] = 0.02 * torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(3))

    def scores(candidates):
        logits = net(candidates)
        return logits[:, 0], logits[:, 1]

    found = roles(scores, x, x + change)
    z = (x + change)[None].requires_grad_()
    for measured, score, sign in ((found.obscured, 0, -1), (found.led, 1, 1)):
        slope, = torch.autograd.grad(net(z)[0, score], z)
        expected = sign * (slope[0] * change).sum(0)[found.places[:, 0], found.places[:, 1]]
        torch.testing.assert_close(measured.double(), expected, rtol=0.02, atol=1e-6)


def test_roles_of_an_untouched_image(image):
    found = roles(linear(torch.ones(SIZE), torch.ones(SIZE)), image, image)
    assert found.places.shape == (0, 2) and not len(found.obscured) and not len(found.obscuring)


def test_roles_do_not_hang_on_batches(image, monkeypatch):
    change = torch.rand(SIZE, generator=torch.Generator().manual_seed(2)) / 2
    right, reached = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(0))
    whole = roles(linear(right, reached), image, image + change)
    monkeypatch.setattr('sparse_dense_attacks.evaluation.interpretability.BATCH', 3)
    parts = roles(linear(right, reached), image, image + change)
    assert torch.equal(whole.places, parts.places)
    torch.testing.assert_close(whole.obscured, parts.obscured)


def planted(needed):
    """Success where the image's changes add up to this much."""
    gains = torch.tensor([[4., 3, 2], [1, 1, 0]])

    def success(x):
        return (x * gains).flatten(1).sum(1) >= needed

    return success, gains[None]


def test_what_is_needed():
    success, _ = planted(8)  # of 11 in all: without 4 there is no success, without 3 there is just
    clean, adversarial = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    assert necessary(success, clean, adversarial).tolist() == [True, False, False, False, False, False]
    assert not len(necessary(success, clean, clean))


@pytest.mark.parametrize('needed', range(1, 12))
def test_pruning_leaves_a_success_of_which_every_pixel_is_needed(needed):
    success, gains = planted(needed)
    clean, adversarial = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    left = pruned(success, gains, clean, adversarial)
    assert success(left[None]).item() and necessary(success, clean, left).all()
    values = gains.flatten().tolist()
    fewest = min(n for n in range(7) for chosen in itertools.combinations(values, n)
                 if sum(chosen) >= needed)
    assert fewest <= int((left != 0).sum()) <= fewest + 1  # greedy, so not always the fewest
