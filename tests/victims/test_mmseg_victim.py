"""The mmseg victim on small random models from mmseg's own configs: exactness, gradients, sizes, labels, traces, errors."""
import copy
import dataclasses
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmseg', reason='the mmseg victim is tested on mmseg: make setup')

import mmseg
import mmseg.models
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.models.segmentors import DepthEstimator, SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer
from PIL import Image

from sparse_dense_attacks import InputError, SparsePGD, TargetedPixels, UntargetedPixels
from sparse_dense_attacks.engine.attacker import Attacker
from sparse_dense_attacks.engine.hooks.attack_visualization_hook import AttackVisualizationHook
from sparse_dense_attacks.victims import wrap
from sparse_dense_attacks.victims.context import evaluating
from sparse_dense_attacks.victims.mmseg import MMSegSegmenter, _two_classes
from tests.helpers import EVERY_ATTACK, make_attack

pytestmark = pytest.mark.openmmlab

CONFIGS = Path(mmseg.__file__).parent / '.mim' / 'configs'
CLASSES = 4
BOTH = torch.arange(2)
SLIDE = {'test_cfg': dict(mode='slide', crop_size=(32, 40), stride=(20, 24))}


@dataclass(frozen=True)
class Family:
    """A model config of mmseg.

    Attributes:
        config: file below mmseg's config folder.
        change: dotted key -> value, what makes it small; R-50 becomes R-18 by itself.
        redraw: draw the weights again, because without its own weights the model is partly uninitialised memory.
    """
    config: str
    change: dict = field(default_factory=dict)
    redraw: bool = False


FAMILIES = {
    'fcn': Family('fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'),
    'fcn_slide': Family('fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', SLIDE),
    'fcn_padded': Family('fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', {'data_preprocessor.test_cfg': dict(size_divisor=32)}),
    'pspnet': Family('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py'),
    'pspnet_slide': Family('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', SLIDE),
    'deeplabv3plus': Family('deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py'),
    'upernet': Family('upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py'),
    'segformer': Family('segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py', {
        'backbone.embed_dims': 8, 'backbone.num_layers': [1, 1, 1, 1], 'decode_head.in_channels': [8, 16, 40, 64],
        'decode_head.channels': 16, **SLIDE}),
    'pointrend': Family('point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py', {'neck.out_channels': 64}),
    'ocrnet': Family('ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py'),
    'pidnet': Family('pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py'),
    'ddrnet': Family('ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py'),
    'mask2former': Family('mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py'),
    'san': Family('san/san-vit-b16_coco-stuff164k-640x640.py', {
        'image_encoder.num_layers': 3, 'image_encoder.out_indices': (0, 1, 2), 'text_encoder.num_layers': 1,
        'text_encoder.dataset_name': None, 'text_encoder.vocabulary': list('abcd')}, redraw=True),
    'cgnet': Family('cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680.py'),
}


def build(family: Family, **change):
    """The shrunk model in evaluation mode, with the same random weights each time; nothing is downloaded."""
    cfg = Config.fromfile(CONFIGS / family.config)
    _shrink(cfg.model, quarter=cfg.model.get('backbone', {}).get('depth', 0) > 34)
    cfg.merge_from_dict({f'model.{key}': value for key, value in (family.change | change).items()})
    with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        for parameter in model.parameters() if family.redraw else ():
            torch.nn.init.normal_(parameter, 0, 0.02) if parameter.dim() > 1 else torch.nn.init.uniform_(parameter, 0.5, 1)
    return model.eval()


def _shrink(node, quarter: bool) -> None:
    if isinstance(node, list | tuple):
        for child in node:
            _shrink(child, quarter)
    if not isinstance(node, dict):
        return
    for key in ('init_cfg', 'pretrained'):
        if key in node:
            node[key] = None
    for key, child in node.items():
        if key == 'num_classes':
            node[key] = CLASSES
        if key == 'depth' and quarter:
            node[key] = 18
        if key in ('in_channels', 'c1_in_channels') and quarter:
            node[key] = [c // 4 for c in child] if isinstance(child, list | tuple) else child // 4
        if key == 'class_weight':
            node[key] = None
        if isinstance(child, dict) and child.get('type') == 'SyncBN':
            child['type'] = 'BN'
        _shrink(child, quarter)


def make_batch(sizes=((48, 72), (48, 72)), scale=1.0, labels=True) -> dict:
    """A batch as the test dataloader yields it: raw uint8 images, label maps in the size of the original images."""
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for index, (h, w) in enumerate(sizes):
        inputs.append(torch.randint(256, (3, h, w), generator=generator, dtype=torch.uint8))
        original = round(h / scale), round(w / scale)
        sample = SegDataSample(metainfo=dict(img_path=f'images/{index}.png', img_shape=(h, w), ori_shape=original,
                                             pad_shape=(h, w), scale_factor=(scale, scale), flip=False))
        if labels:
            sample.gt_sem_seg = PixelData(data=torch.randint(CLASSES, (1, *original), generator=generator))
            sample.gt_sem_seg.data[0, :5] = 255
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.fixture(scope='module')
def segmenter():
    return build(FAMILIES['cgnet'], **{'backbone.num_blocks': (2, 3)})


def judged(model, batch, goal, change=0, **options):
    """The verdict on a batch whose images were turned by ``change`` columns."""
    victim = MMSegSegmenter(model, **options)
    with victim.session(), torch.no_grad():
        judge = goal.objective(victim.open(batch))
        return judge(judge.images.roll(change, 3) * judge.region, torch.arange(len(judge.images)))


# What the network sees, and says

@pytest.mark.parametrize('name', FAMILIES)
def test_predictions_are_those_of_the_library(name):
    """Bit for bit, at the size of the original images; and a gradient reaches every image."""
    model = build(FAMILIES[name])
    batch = make_batch(scale=1.5)
    batch['inputs'][0].view(-1)[:256] = torch.arange(256, dtype=torch.uint8)
    victim = MMSegSegmenter(model)
    with victim.session():
        scene = victim.open(batch)
        with torch.no_grad():
            logits, expected = scene.logits(scene.images, BOTH), model.test_step(copy.deepcopy(batch))
        for b in range(2):
            assert torch.equal(logits[b], expected[b].seg_logits.data)
            assert torch.equal(logits[b].argmax(0), expected[b].pred_sem_seg.data[0])
        x = scene.images.clone().requires_grad_()
        gradient, = torch.autograd.grad(UntargetedPixels().objective(scene)(x, BOTH).loss.sum(), x)
        assert gradient.isfinite().all() and gradient.flatten(1).any(1).all()


@pytest.mark.parametrize('flip', ['horizontal', 'vertical'])
def test_flipped_inputs_are_flipped_back(segmenter, flip):
    batch = make_batch()
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(flip=True, flip_direction=flip))
    with evaluating(segmenter), torch.no_grad():
        scene = MMSegSegmenter(segmenter).open(batch)
        expected = segmenter.test_step(copy.deepcopy(batch))
        assert torch.equal(scene.logits(scene.images, BOTH)[1], expected[1].seg_logits.data)


@pytest.mark.parametrize('threshold', [None, 0.5, 0.8])
def test_one_output_channel_is_two_classes(threshold):
    """A sigmoid against a threshold (mmseg's default: 0.3), also for a pixel exactly at it."""
    binary = dict(out_channels=1, num_classes=2, threshold=threshold)
    model = build(FAMILIES['cgnet'], **{f'decode_head.{key}': value for key, value in binary.items()})
    batch = make_batch(scale=1.5)
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data[sample.gt_sem_seg.data < CLASSES] %= 2
    victim = MMSegSegmenter(model)
    assert victim.num_classes == 2
    with victim.session(), torch.no_grad():
        z = model.inference(model.data_preprocessor(copy.deepcopy(batch))['inputs'], [s.metainfo for s in batch['data_samples']])
        model.decode_head.conv_seg.bias += torch.logit(torch.tensor(model.decode_head.threshold)) - z.median()
        scene = victim.open(batch)
        logits, expected = scene.logits(scene.images, BOTH), model.test_step(copy.deepcopy(batch))
    for b in range(2):
        found = logits[b].argmax(0)
        assert torch.equal(found, expected[b].pred_sem_seg.data[0].long()) and 0 < found.float().mean() < 1


@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
def test_two_classes_agree_with_the_threshold_to_the_last_bit(threshold):
    middle = torch.logit(torch.tensor(threshold))
    z = [middle]
    for direction in (-torch.inf, torch.inf):
        for _ in range(20):
            z.append(torch.nextafter(z[-1], torch.tensor(direction)))
        z.append(middle)
    z = torch.stack(z).view(1, 1, -1)
    assert torch.equal(_two_classes(z, threshold).argmax(0), (z.sigmoid() > threshold)[0].long())


@pytest.mark.parametrize('goal', [UntargetedPixels(), TargetedPixels(erase=0)], ids=['untargeted', 'erase'])
@pytest.mark.parametrize('reweight', [True, False])
def test_gradients_agree_with_finite_differences(goal, reweight, monkeypatch):
    """Through preprocessing, padding, sliding windows and the way back to the original size, in float64."""
    monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)  # the preprocessor calls it
    model = build(FAMILIES['segformer'], **{'data_preprocessor.test_cfg': dict(size_divisor=32)}).double()
    step = 1e-7
    with evaluating(model):
        scene = MMSegSegmenter(model, reference='prediction').open(make_batch(scale=1.5, labels=False))
        scene = replace(scene, images=scene.images.double())
        judge = dataclasses.replace(goal, reweight=reweight).objective(scene)
        x = (scene.images + 1e-3 * torch.rand(scene.images.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
        verdict = judge(x, BOTH)
        assert verdict.loss.dtype == torch.float64
        for name in ('loss', 'margin'):
            gradient, = torch.autograd.grad(getattr(verdict, name).sum(), x, retain_graph=True)
            with torch.no_grad():
                ahead, behind = (getattr(judge(x + sign * step * gradient.sign(), BOTH), name).sum() for sign in (1, -1))
            torch.testing.assert_close((ahead - behind) / (2 * step), gradient.abs().sum(), rtol=1e-3, atol=0)


# Sizes

def test_images_of_unequal_size_do_not_see_each_other(segmenter):
    """mmseg itself refuses such batches."""
    batch = make_batch(sizes=((48, 72), (40, 56), (48, 72)), scale=2.0)
    victim = MMSegSegmenter(segmenter)
    with victim.session(), torch.no_grad():
        scene = victim.open(batch)
        assert scene.images.shape == (3, 3, 48, 72) and scene.labels.shape == scene.valid.shape == (3, 24, 36)
        assert scene.region[1, 0, :40, :56].all() and scene.region[1].sum() == 40 * 56
        assert not scene.valid[1, 20:].any() and not scene.valid[1, :, 28:].any()
        noise = torch.rand(scene.images.shape) * ~scene.region  # whatever is in the padding
        logits = scene.logits(scene.images + noise, torch.arange(3))
        for b, (image, sample) in enumerate(zip(batch['inputs'], batch['data_samples'], strict=True)):
            alone, = segmenter.test_step(dict(inputs=[image], data_samples=[copy.deepcopy(sample)]))
            h, w = alone.pred_sem_seg.shape
            torch.testing.assert_close(logits[b, :, :h, :w], alone.seg_logits.data)
            assert not logits[b, :, h:].any() and not logits[b, :, :, w:].any()
        torch.testing.assert_close(scene.logits(scene.images[1:2], torch.tensor([1])), logits[1:2])


@pytest.mark.parametrize('goal', [UntargetedPixels(), TargetedPixels(target=1)], ids=['untargeted', 'targeted'])
def test_verdicts_do_not_depend_on_neighbours(segmenter, goal):
    batch = make_batch(sizes=((48, 72), (40, 56), (48, 72)))
    verdict = judged(segmenter, batch, goal)
    for b in range(3):
        alone = judged(segmenter, {name: values[b:b + 1] for name, values in batch.items()}, goal)
        for name in ('loss', 'margin', 'success'):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(verdict, name)[b])


def test_the_letterbox_is_not_in_the_region(segmenter):
    """mmcv's Pad overwrites ``img_shape`` with the padded size."""
    batch = make_batch(sizes=((48, 72),))
    batch['data_samples'][0].set_metainfo(dict(scale_factor=(0.5, 0.75)))
    batch['inputs'][0][:, 36:] = batch['inputs'][0][:, :, 36:] = 114
    region = MMSegSegmenter(segmenter).open(batch).region
    assert region[..., :36, :36].all() and region.sum() == 36 * 36


def test_objects_are_all_classes_but_the_background(segmenter):
    """At the size of the input, which here is twice that of the label map; pixels without a class belong to none."""
    batch = make_batch(scale=2.0)
    labels = [sample.gt_sem_seg.data[0] for sample in batch['data_samples']]
    scene = MMSegSegmenter(segmenter, classes=('background', 'a', 'b', 'c')).open(batch)
    for classes, expected in ((None, (1, 2, 3)), ([0, 2], (0, 2))):
        for found, truth in zip(scene.objects(classes), labels, strict=True):
            large = truth.repeat_interleave(2, 0).repeat_interleave(2, 1)
            assert torch.equal(found[0], torch.isin(large, torch.tensor(expected)))
    with pytest.raises(InputError, match='no class named background, so say which classes are objects'):
        MMSegSegmenter(segmenter).open(batch).objects()


# Labels

def test_pixels_without_a_class_are_not_valid(segmenter):
    batch = make_batch()
    batch['data_samples'][1].gt_sem_seg.data[:] = 255
    scene = MMSegSegmenter(segmenter).open(batch)
    truth = batch['data_samples'][0].gt_sem_seg.data[0]
    assert torch.equal(scene.valid[0], truth != 255) and torch.equal(scene.labels[0][scene.valid[0]], truth[truth != 255])
    assert scene.labels.max() == CLASSES - 1
    judge = UntargetedPixels().objective(scene)
    assert judge.defined.tolist() == [True, False]
    result = SparsePGD(k=3, steps=2, early_stop=False)(judge)
    assert torch.equal(result.images[1], scene.images[1]) and result.l0_pixels[0] > 0


def test_the_ignored_label_is_that_of_the_decode_head():
    model = build(FAMILIES['cgnet'], **{'decode_head.ignore_index': 3})
    batch = make_batch()
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data[0, :5] = 0
    truth = batch['data_samples'][0].gt_sem_seg.data[0]
    assert torch.equal(MMSegSegmenter(model).open(batch).valid[0], truth != 3)
    assert torch.equal(MMSegSegmenter(model, ignore_index=1).open(batch).valid[0], truth != 1)


def load(tmp_path, **annotations):
    """A 4-class label map with 0 for no class, through mmseg's own transforms."""
    stored = np.arange(48 * 72).reshape(48, 72) % (CLASSES + 1)
    Image.fromarray(stored.astype(np.uint8)).save(tmp_path / 'labels.png')
    Image.fromarray(np.zeros((48, 72, 3), np.uint8)).save(tmp_path / 'image.png')
    with DefaultScope.overwrite_default_scope('mmseg'):
        pipeline = Compose([dict(type='LoadImageFromFile'), dict(type='Resize', scale=(144, 96)),
                            dict(type='LoadAnnotations', **annotations), dict(type='PackSegInputs')])
    item = pipeline(dict(img_path=str(tmp_path / 'image.png'), seg_map_path=str(tmp_path / 'labels.png'), seg_fields=[],
                         reduce_zero_label=annotations.get('reduce_zero_label', False)))
    return stored, dict(inputs=[item['inputs']], data_samples=[item['data_samples']])


def test_reduce_zero_label(segmenter, tmp_path):
    """The pipeline has moved the labels down by one already; 0, which meant no class, has become 255."""
    stored, batch = load(tmp_path, reduce_zero_label=True)
    scene = MMSegSegmenter(segmenter).open(batch)
    assert scene.images.shape[2:] == (96, 144)
    assert np.array_equal(scene.valid[0].numpy(), stored != 0)
    assert np.array_equal(scene.labels[0].numpy()[stored != 0], stored[stored != 0] - 1)


def test_labels_that_should_have_been_reduced(segmenter, tmp_path):
    _, batch = load(tmp_path)
    with pytest.raises(InputError, match=r"'.*image.png': label 4 is none of the 4 classes .* reduce_zero_label=True"):
        MMSegSegmenter(segmenter).open(batch)


def test_the_prediction_as_reference_needs_no_labels(segmenter):
    batch = make_batch(sizes=((48, 72), (40, 56)), scale=2.0, labels=False)
    victim = MMSegSegmenter(segmenter, reference='prediction')
    with victim.session(), torch.no_grad():
        scene = victim.open(batch)
        judge = UntargetedPixels().objective(scene)
    assert scene.valid.flatten(1).sum(1).tolist() == judge.parts.tolist() == [24 * 36, 20 * 28]
    assert judge.share(scene.images, BOTH).tolist() == [0, 0] and judge.eligible.all()


def test_class_names_are_those_of_the_weights(segmenter, monkeypatch):
    monkeypatch.setattr(segmenter, 'dataset_meta', dict(classes=('road', 'sky', 'car', 'tree')), raising=False)
    for options, name in ((dict(), 'car'), (dict(classes=list('abcd')), 'c')):
        judge = TargetedPixels(erase=name).objective(MMSegSegmenter(segmenter, **options).open(make_batch()))
        assert torch.equal(judge.pixels, judge.scene.valid & (judge.scene.labels == 2))


# No trace

@pytest.mark.parametrize('spec', EVERY_ATTACK, ids=lambda spec: spec[0])  # a function's address is no name
def test_every_attack_leaves_no_trace(spec, segmenter):
    batch = make_batch(sizes=((24, 32), (20, 28)))
    model = copy.deepcopy(segmenter).train()
    before, samples, rng = copy.deepcopy(model.state_dict()), copy.deepcopy(batch), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    perturbed = Attacker.of_model(model, make_attack(spec), UntargetedPixels(theta=0.3)).perturb(batch)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()] and all(p.requires_grad for p in model.parameters())
    assert torch.equal(rng, torch.get_rng_state())
    for old, new in zip(samples['data_samples'], batch['data_samples'], strict=True):
        assert old.metainfo == new.metainfo and old.keys() == new.keys()
        assert torch.equal(old.gt_sem_seg.data, new.gt_sem_seg.data)
    for given, kept, adversarial in zip(samples['inputs'], batch['inputs'], perturbed.batch['inputs'], strict=True):
        assert torch.equal(given, kept) and adversarial.shape == given.shape and adversarial.dtype == torch.uint8
    assert not perturbed.result.failed.any() and perturbed.keys == ['images/0.png', 'images/1.png']


def test_metas_are_not_shared_with_the_loader():
    """Sliding inference and test-time padding write into the meta data they are given."""
    model = build(FAMILIES['fcn_slide'], **{'data_preprocessor.test_cfg': dict(size_divisor=32)})
    batch = make_batch()
    before = [sample.metainfo for sample in batch['data_samples']]
    judged(model, batch, UntargetedPixels())
    assert [sample.metainfo for sample in batch['data_samples']] == before


def test_label_maps_are_drawn_on_the_enlarged_input():
    """They have the size of the original image, here half that of the input."""
    hook = AttackVisualizationHook(width=96)
    hook.painter = SegLocalVisualizer(name='painter', alpha=0.5)
    hook.painter.dataset_meta = dict(classes=('a', 'b'), palette=[[200, 0, 0], [0, 100, 0]])
    sample = SegDataSample(pred_sem_seg=PixelData(data=torch.arange(2).expand(1, 12, 2).repeat_interleave(12, 2)))
    sample.gt_sem_seg = sample.pred_sem_seg  # not drawn
    sample.set_metainfo(dict(ori_shape=(12, 24), scale_factor=(2.0, 2.0)))
    panel = hook._predictions(np.full((24, 48, 3), 40, np.uint8), torch.zeros(3, 24, 48), sample)
    assert panel.shape == (48, 96, 3)
    assert panel[0, 0].tolist() == panel[0, 47].tolist() == [120, 20, 20] and panel[0, 48].tolist() == [20, 70, 20]
    assert sample.pred_sem_seg.shape == (12, 24)


# Errors

def test_missing_labels(segmenter):
    with pytest.raises(InputError, match=r"sample 'images/0.png' has no ground truth: add LoadAnnotations.*='prediction'"):
        MMSegSegmenter(segmenter).open(make_batch(labels=False))


def test_labels_loaded_before_resize(segmenter):
    batch = make_batch(scale=2.0)
    batch['data_samples'][0].gt_sem_seg = PixelData(data=torch.zeros(1, 48, 72, dtype=torch.int64))
    with pytest.raises(InputError, match=r'ground truth is \(48, 72\), .* original image, \(24, 36\): put LoadAnnotations after'):
        MMSegSegmenter(segmenter).open(batch)


@pytest.mark.parametrize('pixels', [lambda x: (x.float() - 120) / 60, lambda x: x.float() / 255])
def test_normalised_inputs(segmenter, pixels):
    batch = make_batch()
    batch['inputs'][0] = pixels(batch['inputs'][0])
    with pytest.raises(InputError, match=r'expected raw pixels in \[0, 255\]'):
        MMSegSegmenter(segmenter).open(batch)


@pytest.mark.parametrize('kind', [DepthEstimator, SegTTAModel])
def test_models_without_class_logits(kind):
    with pytest.raises(InputError, match=f'{kind.__name__} gives no class logits for pixels'):
        wrap(kind.__new__(kind))


def test_one_channel_for_one_class():
    model = build(FAMILIES['cgnet'], **{'decode_head.num_classes': 1})
    with pytest.raises(InputError, match='one output channel and num_classes=1: .* needs num_classes=2 and a threshold'):
        MMSegSegmenter(model)


# Trained weights

ASSETS = Path(os.environ.get('SDA_ASSETS', 'data'))
CAMVID = str(Path(__file__).parents[2] / 'configs/camvid/spgd_cgnet_camvid.py')


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not (ASSETS / 'camvid').is_dir(), reason=f'no real weights in {ASSETS} (set SDA_ASSETS)')
def test_cgnet_on_camvid(tmp_path, monkeypatch):
    """Metrics before and after, pictures, and a resumed run that attacks nothing again."""
    from sparse_dense_attacks.cli.attack import attack_from_command_line
    monkeypatch.setenv('SDA_ASSETS', str(ASSETS.resolve()))
    run = [CAMVID, '--device', 'cpu', '--limit', '4', '--work-dir', str(tmp_path), '--cfg-options', 'attack.steps=4',
           'pictures=1', 'test_dataloader.num_workers=0']
    result = attack_from_command_line(run)
    assert result['clean/mIoU'] == pytest.approx(68.02, abs=0.05) and result['clean/aAcc'] == pytest.approx(91.83, abs=0.05)
    assert result['adv/mIoU'] < result['clean/mIoU'] / 2
    records = (tmp_path / 'records.jsonl').read_text()
    assert len(list((tmp_path / 'pictures').iterdir())) == 1 and records.count('"l0_pixels": 1728') == 4
    again = attack_from_command_line(['--resume', *run])
    assert again['adv/mIoU'] == result['adv/mIoU'] and (tmp_path / 'records.jsonl').read_text() == records
