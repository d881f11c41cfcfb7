import math

import pytest
import torch
import torchvision

from sparse_dense_attacks import InputError

SCALE = 0.25


def features(dtype=torch.float32):
    return torch.randn(2, 3, 12, 16, generator=torch.Generator().manual_seed(0), dtype=dtype, requires_grad=True)


def regions(dtype=torch.float32):
    """In images of 48 x 64, some beyond their border, one without area, one outside."""
    boxes = [[0, 3.3, 5.1, 40.7, 30.2], [1, 0, 0, 63, 47], [1, -8, -8, 90, 60], [0, 20, 20, 20, 20], [0, 80, 80, 90, 95]]
    return torch.tensor(boxes, dtype=dtype)


def value_and_gradient(function, x):
    y = function(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return y.detach(), torch.autograd.grad((y * weights).sum(), x)[0]


def bins(region, count, size, axis):
    low, high = float(region[1 + axis]) * SCALE, (float(region[3 + axis]) + 1) * SCALE
    step = (high - low) / count
    return [(min(max(math.floor(low + i * step), 0), size), min(max(math.ceil(low + (i + 1) * step), 0), size))
            for i in range(count)]


@pytest.mark.openmmlab
class TestThroughMmcv:
    @pytest.mark.parametrize('sampling_ratio, aligned', [(0, True), (2, True), (2, False)])
    def test_align(self, mmcv_file, sampling_ratio, aligned):
        x, rois = features(), regions()
        align = mmcv_file('roi_align').roi_align
        found = value_and_gradient(lambda x: align(x, rois, (3, 4), SCALE, sampling_ratio, 'avg', aligned), x)
        expected = value_and_gradient(lambda x: torchvision.ops.roi_align(x, rois, (3, 4), SCALE, sampling_ratio, aligned), x)
        assert torch.equal(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1])

    def test_align_in_16_bits_has_a_gradient(self, mmcv_file):
        x, half, rois = features(), features(torch.bfloat16), regions()
        align = mmcv_file('roi_align').roi_align
        full = torch.autograd.grad(align(x, rois, (3, 4), SCALE, 2, 'avg', True).sum(), x)[0]
        found = torch.autograd.grad(align(half, rois.bfloat16(), (3, 4), SCALE, 2, 'avg', True).sum(), half)[0]
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), full, atol=0.05, rtol=0.05)

    def test_align_by_maximum_says_that_it_is_not_there(self, mmcv_file):
        with pytest.raises(InputError, match="pool_mode='max'"):
            mmcv_file('roi_align').roi_align(features(), regions(), (3, 4), SCALE, 0, 'max', True)

    def test_pool_against_the_definition(self, mmcv_file):
        x, rois = features(), regions()
        found = value_and_gradient(lambda x: mmcv_file('roi_pool').roi_pool(x, rois, (3, 4), SCALE), x)

        def naive(x):
            rows = []
            for region in rois:
                image = x[int(region[0])]
                for top, bottom in bins(region, 3, 12, axis=1):
                    for left, right in bins(region, 4, 16, axis=0):
                        part = image[:, top:bottom, left:right].flatten(1)
                        rows.append(part.amax(1) if part.numel() else image.new_zeros(3))
            return torch.stack(rows).view(len(rois), 3, 4, 3).permute(0, 3, 1, 2)

        expected = value_and_gradient(naive, x)
        assert torch.equal(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1])

    @pytest.mark.parametrize('count', [0, 1])
    def test_pool_of_no_region_and_of_one_outside(self, mmcv_file, count):
        x = features()
        values, gradient = value_and_gradient(lambda x: mmcv_file('roi_pool').roi_pool(x, regions()[5 - count:], 2, SCALE), x)
        assert values.shape == (count, 3, 2, 2) and not values[-1:].any() and not gradient.any()

    @pytest.mark.parametrize('sampling_ratio', [0, 2])
    @pytest.mark.parametrize('aligned', [True, False])
    def test_align_is_the_compiled_one(self, compare, sampling_ratio, aligned):
        x, rois = features(), regions()
        found, expected = compare('roi_align', lambda ops: value_and_gradient(
            lambda x: ops.roi_align(x, rois, (7, 7), SCALE, sampling_ratio, 'avg', aligned), x))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
