"""What of the network input is content: true extents of pipelines of all kinds, and what is said where none is known."""
from types import SimpleNamespace

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

from sparse_dense_attacks.victims.base import stack_inputs
from sparse_dense_attacks.victims.geometry import ContentTracer, geometry_of, trace_content

pytestmark = pytest.mark.openmmlab

PACK = dict(mmseg='PackSegInputs', mmdet='PackDetInputs', mmpretrain='PackInputs')


def loaded(tmp_path, library, *steps, size=(128, 160), traced=True):
    """A sample of a noise image (height, width) out of a library's own pipeline."""
    path = tmp_path / 'noise.png'
    noise = np.random.default_rng(0).integers(1, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    with DefaultScope.overwrite_default_scope(library):
        pipeline = Compose([dict(type='LoadImageFromFile'), *steps, dict(type=PACK[library])])
    dataset = SimpleNamespace(datasets=[SimpleNamespace(pipeline=pipeline)])
    if traced:
        trace_content(dataset)
        trace_content(dataset)  # twice is once
        assert sum(isinstance(step, ContentTracer) for step in pipeline.transforms) == 1
    return pipeline(dict(img_path=str(path), img_id=1, reduce_zero_label=False, seg_fields=[]))


def found(sample):
    return geometry_of(sample['data_samples'], sample['inputs'])


SMALL = dict(type='Resize', scale=(100, 80), keep_ratio=True)
HALF = dict(type='Resize', scale_factor=0.5, keep_ratio=True)


@pytest.mark.parametrize(('library', 'steps', 'size', 'content', 'resized'), [
    ('mmseg', [SMALL, dict(type='ResizeToMultiple', size_divisor=32)], (96, 128), (96, 128), True),
    ('mmseg', [SMALL, dict(type='Pad', size=(128, 128))], (128, 128), (80, 100), True),
    ('mmseg', [dict(type='Pad', size=(160, 160)), HALF], (80, 80), (64, 80), True),
    ('mmseg', [HALF, dict(type='Resize', scale=(160, 128))], (128, 160), (128, 160), True),
    ('mmseg', [HALF, HALF, dict(type='Pad', size_divisor=32)], (32, 64), (32, 40), True),
    ('mmseg', [dict(type='CenterCrop', crop_size=(64, 48))], (48, 64), (48, 64), False),
    ('mmseg', [SMALL, dict(type='RandomFlip', prob=1.0)], (80, 100), (80, 100), False),
    ('mmdet', [SMALL, dict(type='Pad', pad_to_square=True, pad_val=dict(img=(114, 114, 114)))],
     (100, 100), (80, 100), True),
    ('mmdet', [dict(type='Pad', pad_to_square=True), dict(type='Resize', scale=(64, 64))],
     (64, 64), (51, 64), True),
    ('mmpretrain', [dict(type='ResizeEdge', scale=64), dict(type='CenterCrop', crop_size=64)],
     (64, 64), (64, 64), False),
    ('mmpretrain', [dict(type='Resize', scale=(48, 32))], (32, 48), (32, 48), True),
    ('mmdet', [], (128, 160), (128, 160), True)])
def test_content_is_what_follows_the_image(tmp_path, library, steps, size, content, resized):
    """Also where the last scale_factor says otherwise, by the pipeline's own transforms."""
    sample = loaded(tmp_path, library, *steps)
    one = found(sample)
    assert one.input == size and one.original == (128, 160)
    assert (one.content, one.corner, one.resized) == (content, (0, 0), resized)
    region = stack_inputs([sample['inputs']], [sample['data_samples']], 'cpu')[1]
    assert region.sum() == content[0] * content[1] and region[0, 0, 0, 0]


def test_content_need_not_be_at_the_upper_left(tmp_path):
    steps = [dict(type='torchvision/Pad', padding=[16, 8, 16, 24])]
    sample = loaded(tmp_path, 'mmpretrain', dict(type='NumpyToPIL'), *steps, dict(type='PILToNumpy'))
    one = found(sample)
    assert (one.corner, one.content, one.resized) == ((8, 16), (128, 160), True)
    mask = torch.zeros(128, 160, dtype=torch.bool)
    mask[3, 5] = True
    assert one.onto_input(mask).nonzero().tolist() == [[11, 21]]


@pytest.mark.parametrize('steps, content', [
    ([SMALL, dict(type='ResizeToMultiple', size_divisor=32)], (96, 128)),
    ([SMALL, dict(type='Pad', size=(128, 128))], (80, 100))])
def test_a_batch_from_elsewhere_is_judged_by_its_pixels(tmp_path, recwarn, steps, content):
    """attack() gets no data set: what lies beyond the resized image is padding, or a warning says it is none."""
    one = found(loaded(tmp_path, 'mmseg', *steps, traced=False))
    assert one.content == content
    told = [str(w.message) for w in recwarn if 'scale_factor leads to 80 x 100' in str(w.message)]
    assert len(told) == (content != (80, 100))


def test_a_step_that_needs_more_than_an_image_leaves_the_extent_unknown():
    class Thirsty:
        def __call__(self, results):
            return results['water']

    tracer = ContentTracer([Thirsty()])
    assert tracer._traced((4, 6), (3, 4, 6)) is None


def test_tracing_draws_nothing_from_the_global_generators(tmp_path):
    np.random.seed(3)
    torch.manual_seed(3)
    loaded(tmp_path, 'mmseg', SMALL)
    drawn = np.random.rand(), torch.rand(1).item()
    np.random.seed(3)
    torch.manual_seed(3)
    assert drawn == (np.random.rand(), torch.rand(1).item())
