"""Corners of the colour cube, tried where a gradient points."""
import itertools

import pytest
import torch

from sparse_dense_attacks import InputError, ScreenedCorners
from tests.helpers import Linear, Net, objective, pictures


@pytest.mark.parametrize('early_stop', [True, False])
@pytest.mark.parametrize('k, shape', [(1, (3, 5, 6)), (2, (1, 6, 4)), (3, (3, 4, 7)), (4, (4, 5, 5)), (6, (2, 5, 6))])
def test_best_pixels_of_a_linear_model_are_found(k, shape, early_stop):
    # small weights, or the loss would drown in its type far from the boundary
    weight = 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(k))
    model, x = Linear(weight, 0.), pictures(3, *shape, seed=k)
    optimum = model.pixel_gains(x).topk(k)
    model.bias -= 0.1 + model(x)[:, 1].max() + optimum.values.sum(1).max()  # out of reach, so that the search goes on
    result = ScreenedCorners(k=k, steps=90, early_stop=early_stop)(objective(model, x), eight_bit=False)
    gain = (model(result.images) - model(x))[:, 1].double()
    torch.testing.assert_close(gain, optimum.values.sum(1), rtol=1e-5, atol=1e-5)
    assert result.forwards.tolist() == [91] * 3 and result.backwards.tolist() == [1] * 3


def best_corners(judge, k):
    """(B,) the lowest margin that any k pixels in corners reach."""
    x, everyone = judge.images, torch.arange(len(judge.images))
    b, channels, places = x.flatten(2).shape
    corners = list(itertools.product((0., 1.), repeat=channels))
    lowest = torch.full((b,), torch.inf)
    for where in itertools.combinations(range(places), k):
        for colours in itertools.product(corners, repeat=k):
            z = x.flatten(2).clone()
            z[:, :, list(where)] = torch.tensor(colours).T
            lowest = lowest.minimum(judge(z.view_as(x), everyone).margin)
    return lowest


def test_with_enough_forwards_it_is_exhaustive_for_one_pixel():
    judge = objective(Net(2, gain=1., seed=5), pictures(5, 2, 3, 4, seed=4))
    result = ScreenedCorners(k=1, steps=4 * 12 + 1)(judge, eight_bit=False)
    lowest = best_corners(judge, 1)
    assert torch.equal(result.success_float, lowest < 0)
    found = judge(result.images, torch.arange(5)).margin
    torch.testing.assert_close(found[lowest > 0], lowest[lowest > 0])
    assert (result.forwards <= 50).all()


def test_no_more_is_spent_than_there_is_to_try():
    judge = objective(Linear(torch.ones(1, 2, 2), -100.), pictures(2, 1, 2, 2))
    one, two = ScreenedCorners(k=1, steps=90)(judge), ScreenedCorners(k=2, steps=90)(judge)
    assert one.forwards.tolist() == [1 + 1 + 8] * 2 and two.forwards.tolist() == [1 + 1 + 8 + 6] * 2


def test_pairs_are_nearly_as_good_as_the_best_of_all():
    judge = objective(Net(1, gain=1.2, seed=5), pictures(6, 1, 3, 4, seed=4))
    result = ScreenedCorners(k=2, steps=80, early_stop=False)(judge, eight_bit=False)
    found, lowest = judge(result.images, torch.arange(6)).margin, best_corners(judge, 2)
    share = (judge.clean.margin - found) / (judge.clean.margin - lowest)
    assert share.min() > 0.7 and share.mean() > 0.9, share


class Ridge(torch.nn.Module):
    """The slope at black is random and says little; real gains are smooth and highest at (11, 4), in green and blue."""

    def forward(self, x):
        y, column = torch.meshgrid(*[torch.arange(16.)] * 2, indexing='ij')
        slope = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) + 0.5
        real = torch.exp(-((y - 11) ** 2 + (column - 4) ** 2) / 18) * torch.tensor([-1., 1, 1])[:, None, None]
        value = (slope * x * (1 - x) + real * x ** 2).sum((1, 2, 3))
        return torch.stack([0 * value, value - 1000], 1)


def test_the_surroundings_of_the_best_are_tried():
    result = ScreenedCorners(k=1, steps=200)(objective(Ridge(), torch.zeros(2, 3, 16, 16)), eight_bit=False)
    assert (Ridge()(result.images)[:, 1] + 1000 > 1.99).all()
    assert result.images[0, :, 11, 4].tolist() == [0, 1, 1] and result.l0_pixels.tolist() == [1, 1]


def test_images_with_budgets_of_their_own():
    judge = objective(Net(gain=1.), pictures(4, 3, 5, 6, seed=3), keys=list('abcd'))
    together = ScreenedCorners(k=dict(a=1, b=3, c=1, d=2), steps=60)(judge)
    assert together.l0_pixels.tolist() == [1, 3, 1, 2]
    alone = ScreenedCorners(k=3, steps=60)(objective(judge.scene.model, judge.images[1:2], keys=['b']))
    assert torch.equal(alone.images[0], together.images[1])


def test_more_channels_than_corners_can_be_tried_of_are_refused():
    with pytest.raises(InputError, match='images of 5 channels, expected at most 4'):
        ScreenedCorners()(objective(Net(5), pictures(1, 5, 4, 4)))
    with pytest.raises(InputError, match='pool = 0'):
        ScreenedCorners(pool=0)
