"""Counts, projections and the 8-bit grid against brute force."""
import itertools

import pytest
import torch

from sparse_dense_attacks.attacks.pgd0 import _project
from sparse_dense_attacks.ops import (
    box_bounds,
    changed_pixels,
    count_elements,
    count_pixels,
    linf_distance,
    pixel_budget,
    to_8bit,
    top_k,
)


def region_of(*sizes):
    """One image per size, all on a 10 x 10 canvas."""
    return torch.stack([(torch.arange(100) < size).view(1, 10, 10) for size in sizes])


def test_opposite_channel_changes_do_not_cancel_in_counts():
    a, b = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    b[1, 0, 0, 1], b[1, 1, 0, 1], b[1, 2, 1, 0] = 0.25, -0.25, 0.5
    assert count_pixels(a, b).tolist() == [0, 2]
    assert count_elements(a, b).tolist() == [0, 3]
    assert linf_distance(a, b).tolist() == [0, 0.5]
    assert changed_pixels(a, b)[1].tolist() == [[False, True], [True, False]]


def test_counts_of_an_empty_batch_are_empty():
    empty = torch.zeros(0, 3, 5, 7)
    for count in (count_pixels, count_elements, linf_distance):
        assert count(empty, empty).shape == (0,)


@pytest.mark.parametrize('k, expected', [(1, [1, 1, 0]), (40, [40, 40, 0]), (0.5, [50, 20, 0]), (0.29, [29, 11, 0]),
                                         (0.001, [1, 1, 0])])
def test_pixel_budget_per_image(k, expected):
    budget = pixel_budget(k, region_of(100, 40, 0))
    assert budget.tolist() == expected and budget.dtype == torch.int64


@pytest.mark.parametrize('k, room, expected', [(0.009, 3000, 27), (0.018, 1500, 27), (0.57, 100, 57), (0.999999, 100, 99)])
def test_share_is_rounded_as_on_paper(k, room, expected):
    assert pixel_budget(k, torch.ones(1, 1, 1, room, dtype=torch.bool)).tolist() == [expected]


def test_budget_beyond_the_region_is_all_of_it_and_names_the_image():
    with pytest.warns(RuntimeWarning, match='fewer pixels may change .* 40 of 1$'):
        assert pixel_budget(41, region_of(100, 40, 0)).tolist() == [41, 40, 0]
    with pytest.warns(RuntimeWarning, match='40 of street.png'):
        pixel_budget(41, region_of(100, 40, 0), ['a.png', 'street.png', 'b.png'])


def test_budget_beyond_the_image_is_all_of_it():
    """One small image must not stop a run (issue 13, kind J)."""
    with pytest.warns(RuntimeWarning, match='40 of street.png'):
        assert pixel_budget(101, region_of(0, 40), ['a.png', 'street.png']).tolist() == [0, 40]


def test_top_k_is_per_image_and_descending():
    scores = torch.tensor([[1., 5, 3, 4], [-1, -2, -torch.inf, -3], [7, 7, 7, 8]])
    index, keep = top_k(scores, torch.tensor([2, 3, 0]), 3)
    assert keep.tolist() == [[True, True, False], [True, True, True], [False] * 3]
    assert index[keep].tolist() == [1, 3, 0, 1, 3]


def test_top_k_of_nothing():
    index, keep = top_k(torch.rand(2, 4), torch.zeros(2, dtype=torch.long), 0)
    assert index.shape == keep.shape == (2, 0)


def test_box_bounds_are_the_tighter_of_eps_and_box():
    low, high = box_bounds(torch.tensor([0., 0.2, 0.9, 1.]), 0.25)
    torch.testing.assert_close(low, torch.tensor([0., -0.2, -0.25, -0.25]))
    torch.testing.assert_close(high, torch.tensor([0.25, 0.25, 0.1, 0.]))


def test_to_8bit_values_are_exactly_what_a_file_holds():
    grid = torch.arange(256) / 255
    assert torch.equal(to_8bit(grid), grid)
    assert torch.equal(to_8bit(grid) * 255, torch.arange(256.))
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert (to_8bit(x) - x).abs().max() <= 0.5 / 255 + 1e-7
    assert torch.equal(to_8bit(to_8bit(x)), to_8bit(x))


def test_to_8bit_passes_the_gradient_and_leaves_its_input():
    x = torch.rand(3, 4, requires_grad=True)
    before = x.detach().clone()
    weight = torch.rand(3, 4)
    grad, = torch.autograd.grad((weight * to_8bit(x)).sum(), x)
    assert torch.equal(grad, weight) and torch.equal(x.detach(), before)


@pytest.mark.parametrize('scale', [0.3, 3, 1e4])
@pytest.mark.parametrize('c, k', [(1, 2), (3, 1), (3, 4)])
def test_pgd0_projection_is_the_nearest_point_of_all_pixel_sets(c, k, scale):
    generator = torch.Generator().manual_seed(k)
    x = torch.rand(5, c, 2, 3, generator=generator)
    delta = (torch.randn(5, c, 2, 3, generator=generator) * scale).double()
    low, high = (bound.double() for bound in box_bounds(x, 1.0))
    region = torch.ones(5, 1, 2, 3, dtype=torch.bool)
    region[:, :, 0, 0] = False
    inside = delta.clamp(low, high)
    nearest = torch.full((5,), torch.inf, dtype=torch.double)
    for pixels in itertools.combinations(range(1, 6), k):
        mask = torch.zeros(6).index_fill_(0, torch.tensor(pixels), 1).view(2, 3)
        nearest = torch.minimum(nearest, (delta - inside * mask).square().flatten(1).sum(1))

    found = _project(delta.float(), low.float(), high.float(), region, torch.full((5,), k), k).double()
    torch.testing.assert_close((delta - found).square().flatten(1).sum(1), nearest, rtol=1e-5, atol=1e-5)
    assert (found != 0).any(1).flatten(1).sum(1).max() <= k
    assert not found[:, :, 0, 0].any()


def test_pgd0_projection_ranks_long_steps_by_what_the_box_leaves_of_them():
    """The squares of the steps are so large that a difference of squares is lost in float32."""
    high = torch.tensor([0.40, 0.45, 0.41, 0.44, 0.42, 0.43]).view(1, 1, 2, 3)
    delta, region = torch.full_like(high, 1e7), torch.ones_like(high, dtype=torch.bool)
    found = _project(delta, -torch.ones_like(high), high, region, torch.tensor([3]), 3)
    assert torch.equal(found.flatten(), torch.tensor([0, 0.45, 0, 0.44, 0, 0.43]))
