"""Draws depend on (seed, sample key) and on nothing else."""
import pytest
import torch

from sparse_dense_attacks.attacks import ImageRNG


def full(b, h, w):
    return torch.ones(b, 1, h, w, dtype=torch.bool)


@pytest.mark.parametrize('draw', ['uniform', 'normal'])
def test_draws_do_not_depend_on_neighbours_order_or_padding(draw):
    alone = getattr(ImageRNG(3, ['b'], full(1, 5, 7)), draw)(2)
    region = torch.zeros(3, 1, 9, 8, dtype=torch.bool)
    region[0], region[1, :, :5, :7], region[2, :, :, :3] = True, True, True
    together = getattr(ImageRNG(3, ['a', 'b', 'c'], region), draw)(2)
    assert torch.equal(together[1, :, :5, :7], alone[0])
    assert not together[1, :, 5:].any() and not together[1, :, :, 7:].any()
    backwards = getattr(ImageRNG(3, ['c', 'b', 'a'], region.flip(0)), draw)(2)
    assert torch.equal(backwards, together.flip(0))


@pytest.mark.parametrize('shape', [(5, 7), (1, 6), (6, 1), (1, 1)])
def test_same_seed_and_key_repeat_while_others_differ(shape):
    first = [ImageRNG(seed, [key], full(1, *shape)).normal(3) for seed, key in ((0, 'a'), (0, 'a'), (1, 'a'), (0, 'b'), (0, 1))]
    assert torch.equal(first[0], first[1])
    assert not any(torch.equal(first[0], other) for other in first[2:])


def test_seed_and_key_do_not_run_into_each_other():
    assert not torch.equal(ImageRNG(1, ['11'], full(1, 2, 2)).normal(1), ImageRNG(11, ['1'], full(1, 2, 2)).normal(1))


def test_restricted_continues_the_streams_of_its_images():
    plain = ImageRNG(0, ['a', 'b', 'c'], full(3, 4, 4))
    expected = [plain.uniform(1), plain.normal(2)]
    rng = ImageRNG(0, ['a', 'b', 'c'], full(3, 4, 4))
    part = rng.restricted(torch.tensor([2, 0]))
    assert torch.equal(part.uniform(1), expected[0][[2, 0]])
    assert torch.equal(rng.normal(2, torch.tensor([0])), expected[1][:1]), 'draws of the part advance the original'
    assert torch.equal(rng.uniform(1, torch.tensor([1])), expected[0][1:2]), 'images outside the part have not moved'


def test_restricted_keeps_the_size_of_each_image():
    region = torch.zeros(3, 1, 6, 6, dtype=torch.bool)
    region[0], region[1, :, :2, :3], region[2, :, :4, :5] = True, True, True
    keys = ['a', 'b', 'c']
    part = ImageRNG(0, keys, region).restricted(torch.tensor([2, 1]))
    assert part.sizes == [(4, 5), (2, 3)]
    assert torch.equal(part.uniform(2), ImageRNG(0, keys, region).uniform(2)[[2, 1]])


def test_rows_draw_for_these_images_only():
    rng, twin = (ImageRNG(0, ['a', 'b'], full(2, 4, 4)) for _ in range(2))
    rng.normal(1, torch.tensor([1]))
    assert torch.equal(rng.normal(1, torch.tensor([0])), twin.normal(1)[:1])


def test_distributions():
    rng = ImageRNG(0, ['a'], full(1, 200, 200))
    uniform, normal = rng.uniform(1), rng.normal(1)
    assert 0 <= uniform.min() < 1e-3 and 1 - 1e-3 < uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.01
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02


def test_global_generator_is_neither_used_nor_moved():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = ImageRNG(0, ['a'], full(1, 3, 3)).normal(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(ImageRNG(0, ['a'], full(1, 3, 3)).normal(1), first)


def test_images_without_region_and_empty_batches_draw_nothing():
    region = full(2, 3, 3)
    region[0] = False
    assert not ImageRNG(0, ['a', 'b'], region).normal(2)[0].any()
    assert ImageRNG(0, [], full(0, 3, 3)).uniform(2).shape == (0, 2, 3, 3)
