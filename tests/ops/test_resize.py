"""Resampling against OpenCV and Pillow themselves, and its gradient against finite differences."""
import numpy as np
import pytest
import torch
from PIL import Image

from sparse_dense_attacks import InputError
from sparse_dense_attacks.ops.resize import (
    FILTERS,
    Resampling,
    pillow_rows_first,
    resampling,
)

EVERY = [(backend, name) for backend, names in FILTERS.items() for name in names]
SIZES = [((48, 64), (31, 41)), ((40, 60), (75, 113)), ((40, 60), (20, 30)), ((45, 64), (9, 70)),
         ((3, 5), (7, 2)), ((1, 1), (4, 3)), ((90, 120), (9, 12)), ((37, 53), (37, 20)),
         ((37, 53), (12, 53))]
# Sums of floats in another order round otherwise where they lie between two grey levels.
ALMOST = {('cv2', 'bicubic'), ('cv2', 'area'), ('cv2', 'lanczos'), ('pillow', 'hamming')}


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def as_batch(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()


def by_library(image, target, backend, name):
    if backend == 'pillow':
        kind = Image.Resampling[name.upper()]
        return np.asarray(Image.fromarray(image).resize(target[::-1], kind))
    cv2 = pytest.importorskip('cv2', reason='compares with OpenCV')
    kinds = dict(nearest=cv2.INTER_NEAREST, bilinear=cv2.INTER_LINEAR, bicubic=cv2.INTER_CUBIC,
                 area=cv2.INTER_AREA, lanczos=cv2.INTER_LANCZOS4)
    return cv2.resize(image, target[::-1], interpolation=kinds[name])


def new_pillow(source, target):
    """Whether this Pillow mixes rows first, asked of a filter that tells."""
    image = noise((8, 8))
    rows_first = Resampling((8, 8), (2, 7), 'lanczos', 'pillow', rows_first=True)
    found = rows_first(as_batch(image))[0].permute(1, 2, 0).numpy()
    chooses = np.array_equal(found, by_library(image, (2, 7), 'pillow', 'lanczos'))
    return chooses and pillow_rows_first(source, target)


@pytest.mark.parametrize(('source', 'target'), SIZES)
@pytest.mark.parametrize(('backend', 'name'), EVERY)
def test_pixels_are_those_of_the_library(backend, name, source, target):
    image = noise(source)
    plan = Resampling(source, target, name, backend, rows_first=new_pillow(source, target))
    found = plan(as_batch(image))[0].permute(1, 2, 0).numpy()
    off = np.abs(found - by_library(image, target, backend, name).astype(float))
    if (backend, name) in ALMOST:
        assert off.max() <= 1 and (off > 0).mean() < 0.01
    else:
        assert off.max() == 0


def test_a_float_image_is_not_rounded():
    cv2 = pytest.importorskip('cv2', reason='compares with OpenCV')
    image = noise((20, 30)).astype(np.float32)
    found = Resampling((20, 30), (13, 37), rounded=False)(as_batch(image))[0].permute(1, 2, 0)
    expected = cv2.resize(image, (37, 13), interpolation=cv2.INTER_LINEAR)
    assert np.abs(found.numpy() - expected).max() < 0.01
    assert (found != found.round()).any()


@pytest.mark.parametrize(('backend', 'name'), EVERY)
@pytest.mark.parametrize(('source', 'target'), [((9, 7), (4, 5)), ((4, 5), (9, 7)), ((6, 6), (3, 3))])
def test_the_gradient_is_that_of_finite_differences(backend, name, source, target):
    torch.manual_seed(0)
    plan = Resampling(source, target, name, backend, rounded=False, dtype=torch.float64)
    x = (torch.rand(2, 3, *source, dtype=torch.float64) * 255).requires_grad_()

    def value(pixels):
        return (plan(pixels) / 50).sin().sum()

    [grad] = torch.autograd.grad(value(x), x)
    for place in torch.randint(x.numel(), (12,)).tolist():
        step = torch.zeros(x.numel(), dtype=torch.float64)
        step[place] = 1e-4
        step = step.view_as(x)
        with torch.no_grad():
            slope = float(value(x + step) - value(x - step)) / 2e-4
        assert abs(slope - float(grad.flatten()[place])) <= 1e-3 * max(abs(slope), 1e-2)


@pytest.mark.parametrize(('backend', 'name'), EVERY)
def test_rounding_passes_the_gradient_of_the_linear_map(backend, name):
    x = torch.randint(0, 256, (1, 3, 12, 10)).float().requires_grad_()
    weight = torch.randn(1, 3, 5, 7)
    rounded, linear = (Resampling((12, 10), (5, 7), name, backend, rounded=how)
                       for how in (True, False))
    grads = [torch.autograd.grad((plan(x) * weight).sum(), x)[0] for plan in (rounded, linear)]
    torch.testing.assert_close(*grads, rtol=0, atol=5e-3)  # weights are rounded, too
    assert grads[0].abs().sum() > 0


@pytest.mark.parametrize(('backend', 'name'), EVERY)
def test_the_difference_of_two_files_is_what_the_gradient_says(backend, name):
    """Of the map as it is, rounding included: a pixel that becomes 100 grey levels brighter changes
    each pixel of the target by 100 times its weight, to about a grey level."""
    plan = Resampling((8, 9), (5, 6), name, backend)
    grey = torch.full((1, 1, 8, 9), 100.)
    white = grey.clone()
    white[0, 0, 3, 4] = 200
    changed = plan(white) - plan(grey)
    for place in torch.cartesian_prod(torch.arange(5), torch.arange(6)).tolist():
        x = grey.clone().requires_grad_()
        [grad] = torch.autograd.grad(plan(x)[0, 0, place[0], place[1]], x)
        expected = 100 * grad[0, 0, 3, 4]
        assert abs(changed[0, 0, place[0], place[1]] - expected) <= 1.51


def test_batches_are_their_images():
    images = torch.randint(0, 256, (4, 3, 15, 11)).float()
    plan = Resampling((15, 11), (8, 20), 'bicubic', 'pillow')
    assert torch.equal(plan(images), torch.cat([plan(one[None]) for one in images]))


def test_a_size_that_stays_is_left_alone():
    images = torch.randint(0, 256, (1, 3, 15, 11)).float()
    for backend, name in EVERY:
        assert torch.equal(Resampling((15, 11), (15, 11), name, backend)(images), images)


def test_the_same_way_is_computed_once():
    arguments = (5, 5), (3, 3), 'area', 'cv2', True, False, torch.device('cpu')
    assert resampling(*arguments) is resampling(*arguments)


@pytest.mark.parametrize(('backend', 'name'), [('cv2', 'hamming'), ('pillow', 'area'), ('gd', 'nearest')])
def test_unknown_filters_are_refused(backend, name):
    with pytest.raises(InputError, match=f"no filter '{name}' of {backend}: cv2 has nearest"):
        Resampling((2, 2), (1, 1), name, backend)
