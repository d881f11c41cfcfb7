import pytest
import torch
import torch.nn.functional as F

pytestmark = pytest.mark.openmmlab
OPTIONS = dict(stride=2, padding=1, dilation=1)


def tensors(modulated, groups=1, deform_groups=2, dtype=torch.float32, size=(5, 6), spread=2.0):
    """input, offset, mask, weight, bias for an output of 5 x 6 from 9 x 11; offset and mask may be larger than that."""
    generator = torch.Generator().manual_seed(0)
    taps = deform_groups * 9
    shapes = [(2, 4, 9, 11), (2, 2 * taps, *size), (2, taps, *size), (6, 4 // groups, 3, 3), (6,)]
    x, offset, mask, weight, bias = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    offset = offset * spread
    found = (x, offset, mask.sigmoid(), weight, bias) if modulated else (x, offset, weight)
    return [tensor.requires_grad_() for tensor in found]


def convolution(mmcv_file, modulated, groups=1, deform_groups=2):
    if modulated:
        return lambda *inputs: mmcv_file('modulated_deform_conv').modulated_deform_conv2d(*inputs, 2, 1, 1, groups, deform_groups)
    return lambda *inputs: mmcv_file('deform_conv').deform_conv2d(*inputs, 2, 1, 1, groups, deform_groups)


def value_and_gradients(function, inputs):
    y = function(*inputs)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return y.detach(), *torch.autograd.grad((y * weights).sum(), inputs)


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('modulated', [False, True])
def test_without_offsets_it_is_a_convolution(mmcv_file, modulated, groups):
    inputs = tensors(modulated, groups, spread=0.0)
    found = convolution(mmcv_file, modulated, groups)(*inputs)
    x, weight = inputs[0], inputs[3 if modulated else 2]
    if not modulated:
        torch.testing.assert_close(found, F.conv2d(x, weight, groups=groups, **OPTIONS))
    else:
        inputs[2] = torch.full_like(inputs[2], 0.5)
        found = convolution(mmcv_file, modulated, groups)(*inputs)
        torch.testing.assert_close(found, F.conv2d(x, weight * 0.5, inputs[4], groups=groups, **OPTIONS))


def test_an_offset_of_one_row_sees_the_row_below(mmcv_file):
    x, offset, weight = tensors(False)
    rows = torch.zeros_like(offset)
    rows[:, ::2] = 1  # y of every tap
    found = convolution(mmcv_file, False)(x, rows, weight)
    moved = F.pad(x, (1, 1, 0, 2))[:, :, :]  # rows 0 .. 10 instead of -1 .. 9
    torch.testing.assert_close(found[:, :, :4], F.conv2d(moved, weight, stride=2)[:, :, :4])


@pytest.mark.parametrize('modulated', [False, True])
def test_gradients_in_double_precision(mmcv_file, modulated):
    inputs = tensors(modulated, deform_groups=1, dtype=torch.float64)
    function = convolution(mmcv_file, modulated, deform_groups=1)
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


def test_offsets_for_a_larger_output_are_read_as_mmcv_does(mmcv_file):
    inputs = tensors(True, size=(10, 12))
    found = convolution(mmcv_file, True)(*inputs)
    small = [inputs[i].detach().flatten(1)[:, :channels * 30].view(2, channels, 5, 6) for i, channels in ((1, 36), (2, 18))]
    assert torch.equal(found, convolution(mmcv_file, True)(inputs[0], *small, *inputs[3:]))


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('deform_groups', [1, 2])
@pytest.mark.parametrize('modulated, size', [(False, (5, 6)), (True, (5, 6)), (True, (10, 12))])
def test_is_the_compiled_one(compare, modulated, size, groups, deform_groups):
    inputs = tensors(modulated, groups, deform_groups, size=size)
    name = 'modulated_deform_conv' if modulated else 'deform_conv'
    found, expected = compare(name, lambda ops: value_and_gradients(
        lambda *inputs: getattr(ops, f'{name}2d')(*inputs, 2, 1, 1, groups, deform_groups), inputs))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
