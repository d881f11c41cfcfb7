"""A model that computes in 16 bits while it is attacked, and in its own precision when it judges."""
import pytest
import torch
from torch import nn

from sparse_dense_attacks import SparsePGD
from sparse_dense_attacks.objectives.base import MeteredObjective
from sparse_dense_attacks.ops import gradient
from tests.helpers import Net, objective, pictures

HALVES = [torch.bfloat16, torch.float16]


class Single(Net):
    """The usual net in 32 bits."""

    def __init__(self, **options):
        super().__init__(**options)
        self.float()

    def forward(self, x):
        return self.head((2 * self.conv(x - 0.5)).tanh().sum((2, 3)))


class Spied(nn.Module):
    """Notes in what its net computes, and lets 16 bits lie if told to."""

    def __init__(self, net, lie=False):
        super().__init__()
        self.net, self.lie, self.seen = net, lie, []

    def forward(self, x):
        logits = self.net(x)
        self.seen.append(logits.dtype)
        return -logits if self.lie and logits.dtype in HALVES else logits


@pytest.mark.parametrize('dtype', HALVES)
def test_it_attacks_in_16_bits_and_judges_in_full(dtype):
    images, attack = pictures(4, 3, 6, 8), SparsePGD(k=6, steps=8)
    full = attack(objective(Single(gain=0.3), images), seed=1)
    model = Spied(Single(gain=0.3))
    task = objective(model, images)
    assert set(model.seen) == {torch.float32}, 'what is right about the clean images'
    model.seen.clear()
    half = attack(task, seed=1, precision=dtype)
    assert model.seen[-1] == torch.float32 and set(model.seen[:-1]) == {dtype}
    assert half.images.dtype == torch.float32
    assert torch.equal(half.clean_correct, full.clean_correct) and half.success.any()
    before, after = (Single(gain=0.3)(x).argmax(1) for x in (images, half.images))
    assert torch.equal(half.success, before != after), 'a success is one in full precision'


def test_what_only_16_bits_say_is_no_success():
    images = pictures(3, 3, 6, 8)
    result = SparsePGD(k=1, steps=2)(objective(Spied(Single(gain=0.05), lie=True), images), precision=torch.bfloat16)
    assert result.clean_correct.all() and not result.success.any() and not result.failed.any()
    assert result.forwards.tolist() == [2, 2, 2], 'it took the first look for a success'


@pytest.mark.parametrize(('dtype', 'gain'), [(torch.bfloat16, 0.3), (torch.float16, 0.3), (torch.float16, 2e-4)])
def test_gradients_point_where_those_of_full_precision_do_small_ones_too(dtype, gain):
    images, rows = pictures(3, 3, 6, 8), torch.arange(3)

    def slope(precision):
        x = images.clone().requires_grad_()
        meter = MeteredObjective(objective(Single(gain=gain), images), None, precision)
        return gradient(meter(x, rows).loss, x)

    full, half = slope(None), slope(dtype)
    assert half.dtype == torch.float32 and (half.norm() / full.norm() - 1).abs() < 0.1
    assert nn.functional.cosine_similarity(full.flatten(1), half.flatten(1)).amin() > 0.99, full.abs().amax()


def test_an_image_that_is_too_much_for_16_bits_has_failed():
    class Large(nn.Module):
        def forward(self, x):
            big = 6e4 * x.flatten(1)[:, :1]  # 16 bits end at 65504
            return nn.functional.linear(big, torch.tensor([[2.0], [1.0]]))

    images = torch.tensor([0.9, 0.1])[:, None, None, None].expand(2, 1, 3, 3)
    task = objective(Large(), images)
    with pytest.warns(RuntimeWarning, match=r'1 of 2 images: loss or gradient is not finite, or the result, in torch.float16'):
        result = SparsePGD(k=1, steps=2)(task, precision=torch.float16)
    assert result.failed.tolist() == [True, False] and result.l0_pixels[0] == 0
    assert not SparsePGD(k=1, steps=2)(task).failed.any()
