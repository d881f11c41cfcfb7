import pytest
import torch

pytestmark = pytest.mark.openmmlab
SHAPES = torch.tensor([[6, 4], [3, 2]])


def attention_inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 30, 2, 4, generator=generator, dtype=dtype)
    locations = torch.rand(2, 5, 2, 2, 3, 2, generator=generator, dtype=dtype) * 1.4 - 0.2  # some lie outside
    weights = torch.rand(2, 5, 2, 2, 3, generator=generator, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (value, locations, weights)]


def attend(file):
    apply, start = file.MultiScaleDeformableAttnFunction.apply, torch.tensor([0, 24])
    return lambda value, locations, weights: apply(value, SHAPES, start, locations, weights, 64)


def test_deformable_attention_is_mmcvs_own_in_plain_torch(mmcv_file):
    file, inputs = mmcv_file('multi_scale_deform_attn'), attention_inputs()
    found = attend(file)(*inputs)
    expected = file.multi_scale_deformable_attn_pytorch(inputs[0], SHAPES, *inputs[1:])
    assert found.shape == (2, 5, 8)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    grads = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(*(torch.autograd.grad(y, inputs, grads) for y in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_deformable_attention_gradients_in_double_precision(mmcv_file):
    assert torch.autograd.gradcheck(attend(mmcv_file('multi_scale_deform_attn')), attention_inputs(torch.float64), fast_mode=True)


def window_input(mask, dtype=torch.float32):
    return torch.randn(2, mask[0] * mask[1], 3, 4, generator=torch.Generator().manual_seed(0), dtype=dtype, requires_grad=True)


@pytest.mark.parametrize('mask', [(5, 7), (3, 3)], ids=['all', 'near'])
@pytest.mark.parametrize('psa_type', [0, 1], ids=['collect', 'distribute'])
def test_psamask_against_the_definition(mmcv_file, psa_type, mask):
    x = window_input(mask)
    expected = torch.zeros(2, 12, 3, 4)
    for h in range(3):
        for w in range(4):
            for i in range(mask[0]):
                for j in range(mask[1]):
                    y, z = h + i - (mask[0] - 1) // 2, w + j - (mask[1] - 1) // 2  # the place spoken about
                    if 0 <= y < 3 and 0 <= z < 4:
                        if psa_type == 0:
                            expected[:, y * 4 + z, h, w] = x[:, i * mask[1] + j, h, w].detach()
                        else:
                            expected[:, h * 4 + w, y, z] = x[:, i * mask[1] + j, h, w].detach()
    assert torch.equal(mmcv_file('psa_mask').psa_mask(x, psa_type, mask), expected)


@pytest.mark.parametrize('psa_type', [0, 1], ids=['collect', 'distribute'])
def test_psamask_gradients_in_double_precision(mmcv_file, psa_type):
    psa_mask = mmcv_file('psa_mask').psa_mask
    assert torch.autograd.gradcheck(lambda x: psa_mask(x, psa_type, (3, 3)), window_input((3, 3), torch.float64))


@pytest.mark.parametrize('mask', [(5, 7), (3, 3)], ids=['all', 'near'])
@pytest.mark.parametrize('psa_type', [0, 1], ids=['collect', 'distribute'])
def test_psamask_is_the_compiled_one(compare, psa_type, mask):
    x = window_input(mask)
    grads = torch.randn(2, 12, 3, 4, generator=torch.Generator().manual_seed(1))

    def value_and_gradient(ops):
        y = ops.psa_mask(x, psa_type, mask)
        return y.detach(), torch.autograd.grad(y, x, grads)[0]

    found, expected = compare('psa_mask', value_and_gradient)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
