import pytest
import torch
import torch.nn.functional as F

pytestmark = pytest.mark.openmmlab


def inputs(kernel, groups, scale, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 3, 5, generator=generator, dtype=dtype)
    masks = torch.randn(2, groups * kernel**2, 3 * scale, 5 * scale, generator=generator, dtype=dtype)
    return features.requires_grad_(), masks.requires_grad_()


@pytest.mark.parametrize('kernel, groups, scale', [(3, 1, 2), (5, 2, 2), (1, 4, 3)])
def test_against_the_definition(mmcv_file, kernel, groups, scale):
    features, masks = inputs(kernel, groups, scale)
    padded = F.pad(features, [kernel // 2] * 4)
    expected = torch.zeros(2, 4, 3 * scale, 5 * scale)
    for c in range(4):
        group = c // (4 // groups)
        for y in range(3 * scale):
            for x in range(5 * scale):
                around = padded[:, c, y // scale:y // scale + kernel, x // scale:x // scale + kernel]
                weights = masks[:, group * kernel**2:(group + 1) * kernel**2, y, x]
                expected[:, c, y, x] = (around.flatten(1) * weights).sum(1).detach()
    found = mmcv_file('carafe').carafe(features, masks, kernel, groups, scale)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_in_double_precision(mmcv_file):
    carafe = mmcv_file('carafe').carafe
    assert torch.autograd.gradcheck(lambda *tensors: carafe(*tensors, 3, 2, 2), inputs(3, 2, 2, torch.float64), fast_mode=True)
