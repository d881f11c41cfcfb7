"""Test pipelines of the three libraries as maps from the file: the same pixels, the right places, clear refusals."""
import os
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmseg', reason='the pipelines are those of mmdet, mmseg and mmpretrain',
                    exc_type=ImportError)

import mmdet.datasets.transforms  # noqa: F401
import mmpretrain.datasets.transforms  # noqa: F401
import mmseg.datasets.transforms  # noqa: F401
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image

from sparse_dense_attacks import InputError
from sparse_dense_attacks.victims.pipeline import FilePipeline

pytestmark = pytest.mark.openmmlab

PACK = dict(mmseg='PackSegInputs', mmdet='PackDetInputs', mmpretrain='PackInputs')
GREY = dict(img=(114.0, 114.0, 114.0))
MEAN = dict(img=(104, 117, 124))
PIPELINES = [  # library, steps
    ('mmdet', [dict(type='Resize', scale=(133, 80), keep_ratio=True), dict(type='LoadAnnotations', with_bbox=True)]),
    ('mmdet', [dict(type='Resize', scale=(64, 64), keep_ratio=True), dict(type='Pad', pad_to_square=True, pad_val=GREY)]),
    ('mmdet', [dict(type='Resize', scale=(60, 40), keep_ratio=True), dict(type='Pad', size=(72, 64), pad_val=MEAN)]),
    ('mmdet', [dict(type='Resize', scale=(50, 50)), dict(type='Pad', size_divisor=32)]),
    ('mmdet', [dict(type='FixScaleResize', scale=(40, 90), keep_ratio=True, backend='pillow')]),
    ('mmdet', [dict(type='FixShapeResize', width=64, height=64, keep_ratio=True, pad_val=GREY)]),
    ('mmdet', [dict(type='FixShapeResize', width=64, height=32)]),
    ('mmdet', [dict(type='ResizeShortestEdge', scale=32, max_size=90, keep_ratio=True)]),
    ('mmdet', [dict(type='RandomFlip', prob=1.0, direction='vertical'), dict(type='Resize', scale_factor=0.5)]),
    ('mmseg', [dict(type='Resize', scale=(90, 45), keep_ratio=True), dict(type='ResizeToMultiple', size_divisor=32)]),
    ('mmseg', [dict(type='ResizeShortestEdge', scale=(32, 40), max_size=90)]),
    ('mmseg', [dict(type='Resize', scale=(90, 45), keep_ratio=True), dict(type='RandomFlip', prob=1.0)]),
    ('mmseg', [dict(type='Pad', size=(90, 90)), dict(type='Resize', scale=(45, 45), interpolation='area')]),
    ('mmpretrain', [dict(type='ResizeEdge', scale=36, edge='short', backend='pillow', interpolation='bicubic'),
                    dict(type='CenterCrop', crop_size=32)]),
    ('mmpretrain', [dict(type='ResizeEdge', scale=36, edge='long'), dict(type='CenterCrop', crop_size=(30, 20))]),
    ('mmpretrain', [dict(type='Resize', scale=40, interpolation='lanczos'), dict(type='RandomFlip', prob=0.0)]),
    ('mmpretrain', [dict(type='CenterCrop', crop_size=96, auto_pad=True)]),
    ('mmpretrain', [dict(type='EfficientNetCenterCrop', crop_size=32)]),
    ('mmpretrain', [dict(type='EfficientNetCenterCrop', crop_size=48, crop_padding=0, backend='pillow')]),
    ('mmpretrain', [dict(type='RandomFlip', prob=1.0, direction='diagonal'), dict(type='CenterCrop', crop_size=(20, 30)),
                    dict(type='Pad', size=(40, 40))]),
]


def built(library, steps, **loader):
    with DefaultScope.overwrite_default_scope(library):
        pipeline = Compose([dict(type='LoadImageFromFile', **loader), *steps, dict(type=PACK[library])])
    return FilePipeline(pipeline.transforms)


def photo(folder, size=(61, 83), mode='RGB', name='photo.png', **options):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    path = Path(folder, name)
    Image.fromarray(noise).convert(mode).save(path, **options)
    return str(path)


def mapped(pipeline, path):
    """What the map makes of a file, in grey levels."""
    image = torch.from_numpy(pipeline.load(path)).permute(2, 0, 1)
    return pipeline.geometry(tuple(image.shape[1:])).forward(image / 255) * 255


@pytest.mark.parametrize('size', [(61, 83), (83, 61), (64, 64), (31, 95)])
@pytest.mark.parametrize(('library', 'steps'), PIPELINES)
def test_the_map_is_the_pipeline(tmp_path, library, steps, size):
    pipeline, path = built(library, steps), photo(tmp_path, size)
    expected = pipeline.shown(path).float()
    found = mapped(pipeline, path)
    assert found.shape == expected.shape
    exact = not any(step.get('interpolation') in ('area', 'lanczos', 'bicubic') or 'Efficient' in step['type']
                    for step in steps if step.get('backend') != 'pillow')
    assert (found - expected).abs().max() <= (0.01 if exact else 1.01)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('kind', ['grey', 'palette', 'alpha', 'sixteen', 'turned'])
def test_what_the_loader_makes_of_a_file_is_what_is_attacked(tmp_path, kind, backend):
    pipeline = built('mmdet', [dict(type='Resize', scale=(40, 40))], imdecode_backend=backend)
    if kind == 'sixteen':
        path = str(tmp_path / 'deep.png')
        Image.fromarray(np.arange(61 * 83, dtype=np.uint16).reshape(61, 83) * 12).save(path)
    elif kind == 'turned':
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter
        path = photo(tmp_path, name='turned.jpg', exif=exif)
    else:
        path = photo(tmp_path, mode=dict(grey='L', palette='P', alpha='RGBA')[kind])
    image = pipeline.load(path)
    assert image.shape == ((83, 61, 3) if kind == 'turned' else (61, 83, 3)) and image.dtype == np.uint8
    assert (mapped(pipeline, path) - pipeline.shown(path)).abs().max() <= 0.01


def test_files_that_a_png_of_8_bits_cannot_hold_are_refused(tmp_path):
    pipeline = built('mmdet', [dict(type='Resize', scale=(40, 40))], color_type='unchanged')
    deep = str(tmp_path / 'deep.png')
    Image.fromarray(np.ones((5, 5), np.uint16)).save(deep)
    with pytest.raises(InputError, match=r'deep.png is loaded as \(5, 5\), expected three channels'):
        pipeline.load(deep)
    with pytest.raises(InputError, match=r'loaded as \(61, 83, 4\), expected three channels'):
        pipeline.load(photo(tmp_path, mode='RGBA'))
    for path, said in ((None, 'an image from memory is no file'), ('s3://bucket/a.png', 's3://bucket/a.png is no file')):
        with pytest.raises(InputError, match=said):
            pipeline.load(path)


def test_float_images_are_followed_without_rounding(tmp_path):
    pipeline = built('mmdet', [dict(type='Resize', scale=(40, 40))], to_float32=True)
    path = photo(tmp_path)
    expected = pipeline.shown(path)
    assert expected.is_floating_point() and (expected != expected.round()).any()
    assert (mapped(pipeline, path) - expected).abs().max() <= 0.01


@pytest.mark.parametrize(('library', 'step', 'said'), [
    ('mmdet', dict(type='RandomFlip', prob=0.5), r'mmdet.RandomFlip\(prob=0.5, direction=.horizontal.\).* at random'),
    ('mmdet', dict(type='RandomFlip', prob=[0.5, 0.5], direction=['horizontal', 'vertical']), 'draws at random'),
    ('mmdet', dict(type='PhotoMetricDistortion'), 'the transform mmdet.PhotoMetricDistortion'),
    ('mmdet', dict(type='RandomCrop', crop_size=(8, 8)), 'the transform mmdet.RandomCrop'),
    ('mmpretrain', dict(type='ColorJitter', brightness=0.5), 'the transform mmpretrain.ColorJitter'),
    ('mmseg', dict(type='CLAHE'), 'the transform mmseg.CLAHE'),
    ('mmseg', dict(type='Pad', size=(99, 99), padding_mode='reflect'), 'mmcv.Pad pads with parts of the image'),
])
def test_transforms_that_cannot_be_followed_are_named(library, step, said):
    with pytest.raises(InputError, match=said) as caught:
        built(library, [step])
    assert "grid='input'" in str(caught.value) and '\n' not in str(caught.value)


def test_a_pipeline_that_does_not_begin_with_a_file_is_refused():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        transforms = Compose([dict(type='Resize', scale=32), dict(type='PackInputs')]).transforms
    with pytest.raises(InputError, match=r'begins with mmcv.Resize, expected LoadImageFromFile'):
        FilePipeline(transforms)
    with pytest.raises(InputError, match='is empty'):
        FilePipeline([])
    with pytest.raises(InputError, match=r"file backend 'petrel'"):
        built('mmdet', [], backend_args=dict(backend='petrel'))


@pytest.mark.parametrize(('library', 'steps'), PIPELINES)
def test_gradients_reach_the_window_and_nothing_else(library, steps):
    """The map's transpose against its own columns: every pixel of the file that has a weight is in the window."""
    plan = built(library, steps).geometry((61, 83))
    torch.manual_seed(0)
    grad = plan.adjoint(torch.rand(3, *plan.target) + 0.5)
    assert grad.shape == (3, 61, 83)
    rows, columns = plan.window()
    outside = torch.ones(61, 83, dtype=torch.bool)
    outside[rows, columns] = False
    assert not grad[:, outside].any()
    cropped = any('Crop' in step['type'] for step in steps)
    assert bool(outside.any()) == (cropped and not steps[0].get('auto_pad', False))


@pytest.mark.parametrize(('library', 'steps'), PIPELINES)
def test_the_adjoint_is_the_transpose(library, steps):
    """Of the linear map, which large changes of single pixels show through the rounding."""
    plan = built(library, steps).geometry((61, 83))
    rows, columns = plan.window()
    y, x = (rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2
    dark, bright = torch.zeros(2, 3, 61, 83)
    bright[0, y - 3:y + 3, x - 3:x + 3] = 1
    changed = plan.forward(bright) - plan.forward(dark)
    probe = torch.rand(3, *plan.target)
    by_gradient = (plan.adjoint(probe) * (bright - dark)).sum()
    assert abs(float((probe * changed).sum() - by_gradient)) < 0.05 * float(by_gradient) + 0.1


@pytest.mark.parametrize(('library', 'steps'), PIPELINES)
def test_boxes_are_found_again_in_the_file(library, steps):
    """A bright rectangle of the file, as boxes of the network input and back."""
    plan = built(library, steps).geometry((61, 83))
    rows, columns = plan.window()
    y, x = rows.start + 4, columns.start + 6
    image = torch.zeros(3, 61, 83)
    image[:, y:y + 14, x:x + 10] = 1
    empty = plan.forward(torch.zeros(3, 61, 83))
    bright = (plan.forward(image) - empty)[0] > 0.4
    there = bright.nonzero()
    (top, left), (bottom, right) = there.amin(0).tolist(), (there.amax(0) + 1).tolist()
    box = plan.onto_file(torch.tensor([[left, top, right, bottom]], dtype=torch.float32))[0]
    reach = max(plan.steps[0].source[0] / max(plan.target[0], 1), 1) + 1.5
    assert (box - torch.tensor([x, y, x + 10, y + 14])).abs().max() <= reach
    # and every pixel of the file says where it went
    places = [plan.onto_input(axis) for axis in (0, 1)]
    assert abs(places[0][y + 7] - (top + bottom) / 2) <= 2.5
    assert abs(places[1][x + 5] - (left + right) / 2) <= 2.5


def test_every_image_may_have_a_rectangle_of_its_own(tmp_path):
    """As the demo classifier looks at the largest object of each scene."""
    import sparse_dense_attacks.demo.classification  # noqa: F401
    pipeline = built('mmpretrain', [dict(type='CropObject'), dict(
        type='Resize', scale=(24, 24), interpolation='bicubic', backend='pillow')])
    path = photo(tmp_path)
    pixels = torch.from_numpy(pipeline.load(path)).permute(2, 0, 1) / 255
    for crop in ([3, 7, 43, 47], [40, 20, 83, 61]):
        plan = pipeline.geometry((61, 83), dict(crop=crop))
        assert (plan.forward(pixels) * 255 - pipeline.shown(path, dict(crop=crop))).abs().max() <= 1
        rows, columns = plan.window()
        assert [columns.start, rows.start, columns.stop, rows.stop] == crop
    with pytest.raises(InputError, match="the samples do not say 'crop', which the test pipeline reads"):
        pipeline.geometry((61, 83))


def test_edges_between_pixels_stay_between_pixels():
    plan = built('mmdet', [dict(type='Resize', scale=(133, 80), keep_ratio=True)]).geometry((61, 83))
    boxes = torch.tensor([[10.5, 3.0, 30.25, 41.5], [0.0, 0.0, 83.0, 61.0]])
    scale = torch.tensor([plan.target[1] / 83, plan.target[0] / 61]).repeat(2)
    assert torch.equal(plan.onto_file(boxes * scale), boxes)


def test_running_the_pipeline_leaves_the_generators_alone(tmp_path):
    pipeline, path = built('mmseg', [dict(type='RandomFlip', prob=1.0)]), photo(tmp_path)
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    pipeline.shown(path)
    pipeline.geometry((5, 5))
    assert np.random.rand() == expected


ASSETS = Path(os.environ.get('SDA_ASSETS', 'data'))
STOCK = [  # the commonest test pipelines of the installed configs, with what is exact in them
    ('mmdet', [dict(type='Resize', scale=(1333, 800), keep_ratio=True)], True),
    ('mmdet', [dict(type='Resize', scale=(416, 416), keep_ratio=True), dict(type='Pad', pad_to_square=True, pad_val=GREY)], True),
    ('mmdet', [dict(type='FixScaleResize', scale=(800, 1333), keep_ratio=True, backend='pillow')], True),
    ('mmseg', [dict(type='Resize', scale=(2048, 512), keep_ratio=True), dict(type='ResizeToMultiple', size_divisor=32)], True),
    ('mmpretrain', [dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
                    dict(type='CenterCrop', crop_size=224)], True),
    ('mmpretrain', [dict(type='ResizeEdge', scale=256, edge='short'), dict(type='CenterCrop', crop_size=224)], True),
    ('mmpretrain', [dict(type='EfficientNetCenterCrop', crop_size=224)], False),
]


@pytest.mark.real
@pytest.mark.skipif(not (ASSETS / 'coco').is_dir(), reason=f'no real images in {ASSETS} (set SDA_ASSETS)')
@pytest.mark.parametrize(('library', 'steps', 'exact'), STOCK)
def test_photographs_come_out_as_the_zoos_pipelines_make_them(library, steps, exact):
    """The full sweep is tools/analysis_tools/geometry.py."""
    pipeline = built(library, steps)
    for folder in ('coco/val2017', 'nips17/images', 'camvid/images'):
        path = str(min((ASSETS / folder).iterdir()))
        off = (mapped(pipeline, path) - pipeline.shown(path)).abs().max()
        assert off <= (0.01 if exact else 1.01)
