import pytest
import torch
import torch.nn.functional as F

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize('kernel, padding', [((3, 3), (1, 1)), ((1, 1), (0, 0)), ((1, 5), (0, 2))])
def test_is_a_convolution_where_the_mask_is_positive(mmcv_file, kernel, padding):
    generator = torch.Generator().manual_seed(0)
    features, weight = torch.randn(1, 4, 6, 7, generator=generator), torch.randn(5, 4, *kernel, generator=generator)
    bias, mask = torch.randn(5, generator=generator), (torch.rand(1, 6, 7, generator=generator) > 0.6).float()
    found = mmcv_file('masked_conv').masked_conv2d(features, mask, weight, bias, padding)
    torch.testing.assert_close(found, F.conv2d(features, weight, bias, padding=padding) * mask, rtol=1e-5, atol=1e-5)


def test_nothing_where_the_mask_is_empty(mmcv_file):
    features, mask, weight, bias = torch.ones(1, 2, 3, 3), torch.zeros(1, 3, 3), torch.ones(1, 2, 1, 1), torch.ones(1)
    assert not mmcv_file('masked_conv').masked_conv2d(features, mask, weight, bias).any()
