"""The pure functions of SigmaZero, ASLO and GSE against brute force and against slower ways to the same number."""
import math

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur as torchvision_blur

from sparse_dense_attacks.ops.neighbourhood import gaussian_blur, image_extent, reflected_index, windows_changed
from sparse_dense_attacks.ops.prox import critical_lambda, half_quasinorm_prox
from sparse_dense_attacks.ops.smooth_l0 import smooth_l0, smooth_l0_grad


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


# Prox of the 1/2-quasinorm

@pytest.mark.parametrize('weight', [0.01, 0.3, 1.0, 4.0])
def test_prox_is_the_minimiser(weight):
    a = draw(40) * 2
    grid = torch.linspace(-8, 8, 160001, dtype=torch.double)
    cost = (grid - a[:, None]) ** 2 + weight * grid.abs().sqrt()
    found = half_quasinorm_prox(a, weight)
    torch.testing.assert_close(found, grid[cost.argmin(1)], rtol=0, atol=1e-4)
    assert (found == 0).any() and (found != 0).any()


def test_prox_jumps_at_its_threshold_from_zero_to_two_thirds():
    threshold = 54 ** (1 / 3) / 4 * 0.7 ** (2 / 3)
    below, above = half_quasinorm_prox(threshold * torch.tensor([1 - 1e-9, 1 + 1e-9], dtype=torch.double), 0.7)
    assert below == 0 and above.item() == pytest.approx(2 / 3 * threshold, rel=1e-6)


def test_prox_takes_one_weight_per_entry_and_keeps_its_input():
    a, weight = draw(2, 3, 4, 5), draw(2, 1, 4, 5, seed=1).abs()
    copy = a.clone()
    found = half_quasinorm_prox(a, weight)
    assert torch.equal(a, copy)
    for b in range(2):
        for i in range(4):
            for j in range(5):
                one = half_quasinorm_prox(a[b, :, i, j], weight[b, 0, i, j].item())
                torch.testing.assert_close(found[b, :, i, j], one, rtol=1e-12, atol=0)


@pytest.mark.parametrize('weight, expected', [(0., [-3., -1e-20, 0., 1e-20, 2.]), (math.inf, [0.] * 5), (1e30, [0.] * 5)])
def test_prox_is_defined_at_the_ends(weight, expected):
    a = torch.tensor([-3., -1e-20, 0., 1e-20, 2.])
    torch.testing.assert_close(half_quasinorm_prox(a, weight), torch.tensor(expected), rtol=1e-6, atol=0)


def test_prox_has_a_finite_gradient():
    a = torch.tensor([-2., -0.1, 0., 0.1, 0.9, 3.], dtype=torch.double, requires_grad=True)
    grad, = torch.autograd.grad(half_quasinorm_prox(a, 1.).sum(), a)
    assert grad.isfinite().all() and grad[1:4].tolist() == [0, 0, 0] and (grad[[0, 5]] > 1).all()


@pytest.mark.parametrize('step', [0.005, 0.05, 0.75])
def test_critical_lambda_is_what_bisection_finds(step):
    grad = draw(3, 3, 4, 5) * torch.tensor([1e-3, 1., 50.])[:, None, None, None]
    for b, found in enumerate(critical_lambda(grad, step)):
        moves = lambda lam, b=b: half_quasinorm_prox(step * grad[b], lam * step).any()  # noqa: E731
        low, high = 0., 1e-3
        while moves(high):
            high *= 2
        for _ in range(60):
            low, high = ((low + high) / 2, high) if moves((low + high) / 2) else (low, (low + high) / 2)
        assert found.item() == pytest.approx(low, rel=1e-9)
    assert critical_lambda(torch.zeros(2, 1, 2, 2), step).tolist() == [0, 0]


# Smooth l0

def test_smooth_l0_counts_from_below_and_exactly_in_the_limit():
    delta = torch.zeros(2, 3, 4, 4)
    delta[0, :, 1, 2], delta[0, 1, 0, 0], delta[1, 2, 3, 3] = torch.tensor([.5, -.5, .1]), 0.2, 1.
    for pixel, count in ((False, [4, 1]), (True, [2, 1])):
        torch.testing.assert_close(smooth_l0(delta, 1e-9, pixel), torch.tensor(count).float(), rtol=1e-5, atol=0)
        assert (smooth_l0(delta, 1e-2, pixel) < torch.tensor(count)).all()
    assert smooth_l0(torch.full((1, 1, 1, 1), 0.1), 0.01).item() == pytest.approx(0.5)
    assert smooth_l0(torch.full((1, 4, 1, 1), 0.1), 0.04, pixel=True).item() == pytest.approx(0.5)


@pytest.mark.parametrize('pixel', [False, True])
def test_smooth_l0_gradient_is_autograds(pixel):
    delta, sigma = (draw(3, 3, 4, 5) * 0.3).requires_grad_(), torch.tensor([1e-3, 0.1, 1.])[:, None, None, None].double()
    expected, = torch.autograd.grad(smooth_l0(delta, sigma, pixel).sum(), delta)
    torch.testing.assert_close(smooth_l0_grad(delta.detach(), sigma, pixel), expected)
    assert not smooth_l0_grad(torch.zeros(1, 1, 2, 2), 1e-3, pixel).any()


# Neighbourhood

def blur(mask, region):
    index = [reflected_index(e, n, 2) for e, n in zip(image_extent(region), mask.shape[1:], strict=True)]
    return gaussian_blur(mask, *index, 1.5)


@pytest.mark.parametrize('h, w', [(3, 3), (5, 9), (12, 4)])
def test_blur_is_torchvisions(h, w):
    mask = (draw(4, h, w) > 0.8).float()
    found = blur(mask, torch.ones(4, 1, h, w, dtype=torch.bool))
    torch.testing.assert_close(found, torchvision_blur(mask[:, None], [5, 5], [1.5, 1.5])[:, 0], rtol=1e-5, atol=1e-6)


def test_blur_is_zero_exactly_beyond_two_pixels():
    mask = torch.zeros(1, 11, 13)
    mask[:, 5, 6] = 1
    reach = blur(mask, torch.ones(1, 1, 11, 13, dtype=torch.bool))[0] != 0
    assert reach[3:8, 4:9].all() and reach.sum() == 25


@pytest.mark.parametrize('h, w', [(1, 1), (1, 6), (2, 2), (4, 6), (7, 8)])
def test_blur_and_windows_end_where_the_image_ends(h, w):
    mask, region = torch.zeros(2, 7, 8), torch.zeros(2, 1, 7, 8, dtype=torch.bool)
    mask[0, :h, :w] = (draw(h, w) > 0.3).float()
    mask[0, h - 1, w - 1], region[0, :, :h, :w], region[1] = 1, True, True
    alone = mask[:1, :h, :w], region[:1, :, :h, :w]
    torch.testing.assert_close(blur(mask, region)[:1, :h, :w], blur(*alone), rtol=0, atol=0)
    for size in (3, 8):
        assert windows_changed(mask > 0, region, size)[0] == windows_changed(alone[0] > 0, alone[1], size)[0]


@pytest.mark.parametrize('extent', [1, 2, 3, 6])
def test_reflected_index_walks_back_and_forth(extent):
    bounce = [*range(extent), *range(extent - 2, 0, -1)] or [0]
    expected = [bounce[i % len(bounce)] for i in range(-2, 9)]
    assert reflected_index(torch.tensor([extent]), 7, 2)[0].tolist() == expected


@pytest.mark.parametrize('h, w', [(8, 8), (11, 9), (5, 12), (9, 3), (1, 1)])
def test_windows_are_those_of_enumeration(h, w):
    changed = draw(5, h, w) > torch.tensor([1.5, 2., 2.5, 9., -9.])[:, None, None]
    tall, wide = min(8, h), min(8, w)
    expected = [sum(bool(mask[i:i + tall, j:j + wide].any()) for i in range(h - tall + 1) for j in range(w - wide + 1))
                for mask in changed]
    found = windows_changed(changed, torch.ones(5, 1, h, w, dtype=torch.bool))
    assert found.tolist() == expected and expected[3] == 0 and expected[4] == (h - tall + 1) * (w - wide + 1)


def test_extent_is_the_rectangle_from_the_top_left():
    region = torch.zeros(3, 1, 5, 6, dtype=torch.bool)
    region[0, 0, 2, 1], region[1] = True, True
    assert [e.tolist() for e in image_extent(region)] == [[3, 5, 0], [2, 6, 0]]
