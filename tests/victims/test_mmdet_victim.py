"""What the mmdet victim promises besides gradients: coordinates, regions, modes, exactness, and errors that say what to do."""
import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet', reason='the mmdet victim is tested on mmdet: make setup')

from mmdet.structures import DetDataSample
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import nn

from sparse_dense_attacks.errors import InputError
from sparse_dense_attacks.objectives.detection import DetectorLoss, Fabricate, Mislabel, Vanish
from sparse_dense_attacks.ops.boxes import iou
from sparse_dense_attacks.types import Boxes
from sparse_dense_attacks.victims.context import evaluating, frozen_training, untouched_rng
from sparse_dense_attacks.victims.mmdet import MMDetDetector
from tests.zoo import FAMILIES, SIZES, Family, build, make_batch

pytestmark = pytest.mark.openmmlab

BOX = torch.tensor([[20., 30, 60, 50]])
LABEL = torch.tensor([1])
BOTH = torch.arange(2)


@pytest.fixture(scope='module')
def retinanet():
    return build(FAMILIES['retinanet'])


@pytest.fixture(scope='module')
def mask_rcnn():
    return build(FAMILIES['mask_rcnn'])


def letterboxed(masks=False) -> dict:
    """A 64 x 32 image, enlarged to 128 x 64 and padded to 416 x 416; mmcv's Pad overwrites ``img_shape``."""
    batch = make_batch([(BOX, LABEL)], sizes=[(128, 64)], masks=masks)
    image = torch.full((3, 416, 416), 114, dtype=torch.uint8)
    image[:, :128, :64] = batch['inputs'][0]
    batch['data_samples'][0].set_metainfo(dict(img_shape=(416, 416)))
    return dict(inputs=[image], data_samples=batch['data_samples'])


# Coordinates and regions

def test_region_excludes_padding_and_letterbox(retinanet):
    scene = MMDetDetector(retinanet).open(make_batch())
    assert scene.images.shape == (2, 3, 96, 100) and scene.region.shape == (2, 1, 96, 100)
    for region, (h, w) in zip(scene.region, SIZES, strict=True):
        assert region[:, :h, :w].all() and region.sum() == h * w

    region = MMDetDetector(retinanet).open(letterboxed()).region
    assert region.shape == (1, 1, 416, 416)
    assert region[..., :128, :64].all() and region.sum() == 128 * 64


def test_pixels_are_those_of_the_loader(retinanet):
    batch = make_batch()
    scene = MMDetDetector(retinanet).open(batch)
    for image, pixels in zip(scene.images, batch['inputs'], strict=True):
        h, w = pixels.shape[-2:]
        assert torch.equal((image * 255)[:, :h, :w], pixels.float())
        assert not image[:, h:].any() and not image[:, :, w:].any()


def test_truth_is_moved_to_input_coordinates(retinanet):
    batch = make_batch([(BOX, LABEL)] * 2, scale=2.0)
    assert torch.equal(batch['data_samples'][0].gt_instances.bboxes.tensor, BOX / 2)
    truth = MMDetDetector(retinanet).open(batch).truth
    assert torch.equal(truth.boxes, BOX.expand(2, 1, 4)) and torch.equal(truth.labels, LABEL.expand(2, 1))
    assert torch.equal(truth.scores, torch.ones(2, 1))


def test_truth_is_not_moved_twice(retinanet):
    batch = make_batch([(BOX, LABEL)] * 2, scale=2.0)
    truth = MMDetDetector(retinanet, boxes_follow_resize=True).open(batch).truth
    assert torch.equal(truth.boxes, (BOX / 2).expand(2, 1, 4))


def test_truth_may_be_plain_tensors_and_ignored_regions_follow(retinanet):
    batch = make_batch([(BOX, LABEL)], sizes=[(72, 100)], scale=2.0)
    sample = batch['data_samples'][0]
    sample.gt_instances.bboxes = sample.gt_instances.bboxes.tensor
    sample.ignored_instances = InstanceData(bboxes=BOX / 2, labels=LABEL)
    scene = MMDetDetector(retinanet).open(batch)
    assert torch.equal(scene.truth.boxes, BOX[None])
    assert torch.equal(scene.samples[0].ignored_instances.bboxes, BOX)
    del sample.ignored_instances
    assert torch.equal(MMDetDetector(retinanet).open(batch).truth.boxes, BOX[None])


def test_objects_of_a_batch_are_padded(retinanet):
    three = (BOX.expand(3, 4) + torch.arange(3.)[:, None], torch.tensor([0, 1, 2]))
    truth = MMDetDetector(retinanet).open(make_batch([(BOX, LABEL), three])).truth
    assert truth.labels.tolist() == [[1, -1, -1], [0, 1, 2]]
    assert truth.valid.sum(1).tolist() == [1, 3]


def test_masks_follow_the_content_not_the_letterbox(mask_rcnn):
    masks = MMDetDetector(mask_rcnn).open(letterboxed(masks=True)).samples[0].gt_instances.masks.masks
    expected = np.zeros((1, 416, 416), dtype=np.uint8)
    expected[0, 30:50, 20:60] = 1
    assert np.array_equal(masks, expected)


def test_objects_are_the_pixels_of_boxes_or_masks(retinanet, mask_rcnn):
    """A pixel belongs to a box when its centre does; nothing outside the region belongs to an object."""
    boxes = torch.tensor([[20.4, 30, 60, 49.6], [50, 40, 300, 45], [5, 5, 5, 9]])
    batch = make_batch([(boxes, torch.tensor([0, 1, 2])), (boxes[:0], boxes[:0, 0].long())])
    scene = MMDetDetector(retinanet).open(batch)
    expected = torch.zeros_like(scene.region)
    expected[0, 0, 30:50, 20:60] = expected[0, 0, 40:45, 50:100] = True
    assert torch.equal(scene.objects(), expected)

    batch = letterboxed(masks=True)
    batch['data_samples'][0].gt_instances.masks.masks[:, 15:20] = 0  # in coordinates of the original image, half the size
    scene = MMDetDetector(mask_rcnn, use_masks=True).open(batch)
    expected = torch.zeros_like(scene.region)
    expected[..., 40:50, 20:60] = True
    assert torch.equal(scene.objects(), expected)
    assert MMDetDetector(mask_rcnn).open(batch).objects().sum() == 20 * 40


def test_objects_of_padded_masks(mask_rcnn):
    """The preprocessor pads masks to a multiple of 32, beyond the batch."""
    victim = MMDetDetector(mask_rcnn, use_masks=True)
    scene = victim.open(make_batch([(BOX, LABEL), (BOX[:0], LABEL[:0])], masks=True))
    assert scene.objects().shape == scene.region.shape
    assert scene.objects()[0, 0, 30:50, 20:60].all() and scene.objects().sum() == 20 * 40


def without_annotations(batch):
    for sample in batch['data_samples']:
        sample.gt_instances = InstanceData()
    return batch


@pytest.mark.parametrize('family', ['faster_rcnn', 'yolox', 'mask_rcnn', 'solov2', 'detr', 'mask2former'])
def test_predictions_are_the_truth_of_images_without_annotations(family):
    """They are what ``test_step`` predicts for each image alone, in input coordinates, and the detector finds its own truth."""
    model = build(FAMILIES[family])
    batch = make_batch(scale=2.0)
    with torch.no_grad():
        predicted = [model.test_step({name: [copy.deepcopy(values[b])] for name, values in batch.items()})[0].pred_instances
                     for b in range(2)]
    ranked = torch.cat([p.scores for p in predicted]).sort().values
    thr = float(ranked[-6:-4].mean())  # between two scores: a frozen model may round otherwise
    victim = MMDetDetector(model, reference='prediction', reference_thr=thr, use_masks='masks' in predicted[0])
    with victim.session():
        scene = victim.open(without_annotations(batch))
        assert all(len(s.gt_instances) == 0 and s.scale_factor == (2.0, 2.0) and 'pred_instances' not in s
                   for s in batch['data_samples'])
        assert scene.truth.valid.sum() == sum((p.scores >= thr).sum() for p in predicted) >= 5
        for b, p in enumerate(predicted):
            keep = p.scores >= thr
            boxes = scene.truth.boxes[b][scene.truth.valid[b]]
            assert torch.equal(scene.truth.labels[b][scene.truth.valid[b]], p.labels[keep].long())
            if p.bboxes.any():
                near = iou(boxes[None], p.bboxes[None, keep] * 2)[0].diagonal() if keep.any() else torch.ones(1)
                assert (near > 0.9).all()
            if victim.use_masks and keep.any():
                assert scene.objects()[b].any()
        judge = Vanish(score_thr=thr / 2).objective(scene)
        assert torch.equal(judge.counted, scene.truth.valid)
        loss, _ = scene.losses(scene.images, BOTH)
        assert loss.isfinite().all()


def test_predictions_replace_annotations(retinanet):
    """And do not depend on the neighbours in the batch."""
    victim = MMDetDetector(retinanet, reference='prediction', reference_thr=0.0)
    with victim.session():
        together = victim.open(make_batch()).truth
        alone = victim.open({name: values[1:] for name, values in make_batch().items()}).truth
    assert together.valid.sum() > 2
    assert torch.equal(together.boxes[1][together.valid[1]], alone.boxes[0]) and alone.valid.all()


def test_class_names_come_from_the_model_or_the_user(retinanet, monkeypatch):
    assert MMDetDetector(retinanet).open(make_batch()).classes is None
    monkeypatch.setattr(retinanet, 'dataset_meta', dict(classes=('a', 'b', 'c', 'd')), raising=False)
    assert MMDetDetector(retinanet).open(make_batch()).classes == ('a', 'b', 'c', 'd')
    scene = MMDetDetector(retinanet, classes=('w', 'x', 'y', 'z')).open(make_batch())
    assert scene.classes == ('w', 'x', 'y', 'z') and scene.num_classes == 4
    with MMDetDetector(retinanet).session():
        assert Mislabel(target='y').objective(scene).target == 2


# What the network sees

@pytest.mark.parametrize('family', ['retinanet', 'yolox', 'detr'])
def test_float_pixels_reach_the_network_as_uint8_pixels_do(family):
    """Bit for bit, for all 256 values, with the padding mmdet would give each image alone."""
    model = build(FAMILIES[family])
    batch = make_batch()
    batch['inputs'][0].view(-1)[:256] = torch.arange(256, dtype=torch.uint8)
    scene = MMDetDetector(model).open(batch)
    for row, (image, sample) in enumerate(zip(batch['inputs'], batch['data_samples'], strict=True)):
        h, w = scene.geometry[row].input
        inputs, _ = scene._network_input(scene.images[row:row + 1, :, :h, :w], torch.tensor([row]))
        stock = model.data_preprocessor(dict(inputs=[image], data_samples=[copy.deepcopy(sample)]), training=False)['inputs']
        assert torch.equal(inputs, stock)


def test_vanish_gradient_agrees_with_finite_differences(monkeypatch):
    """Through preprocessing, backbone, neck, head and decoding, in float64.

    The step is small enough that hardly a ReLU changes sides, which is what the tolerance allows for.
    """
    monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)  # mmengine's preprocessor calls it
    model = build(FAMILIES['atss']).double()
    step = 1e-7
    with evaluating(model):
        scene = MMDetDetector(model).open(make_batch())
        scene = replace(scene, images=scene.images.double())
        with torch.no_grad():
            found = scene.candidates(scene.images, BOTH)
        best = found.scores.argmax(1)
        best = Boxes(found.boxes[BOTH, best][:, None], found.labels[BOTH, best][:, None], torch.ones(2, 1))
        scene = replace(scene, truth=best)
        objective = Vanish(score_thr=0.1).objective(scene)
        x = scene.images.clone().requires_grad_()
        verdict = objective(x, BOTH)
        assert verdict.loss.dtype == torch.float64
        for name in ('loss', 'margin'):
            gradient, = torch.autograd.grad(getattr(verdict, name).sum(), x, retain_graph=True)
            with torch.no_grad():
                ahead, behind = (getattr(objective(x + sign * step * gradient.sign(), BOTH), name).sum() for sign in (1, -1))
            torch.testing.assert_close((ahead - behind) / (2 * step), gradient.abs().sum(), rtol=1e-3, atol=0)


def test_yolox_shows_the_classes_below_the_best_of_each_box():
    model = build(FAMILIES['yolox'])
    victim = MMDetDetector(model)
    with victim.session():
        scene = victim.open(make_batch(sizes=SIZES[:1] * 2))
        x = scene.images.clone().requires_grad_()
        best, both, one = (scene.candidates(x, BOTH, rivals) for rivals in ((), range(4), (2,)))
        n = best.scores.shape[1]
        assert best.below is None
        for found in (both, one):
            assert torch.equal(found.scores[:, :n], best.scores) and torch.equal(found.boxes[:, n:], best.boxes)
            assert not found.below[:, :n].any() and torch.equal(found.below[:, n:], best.scores)
            assert (found.scores[:, n:] <= best.scores).all()
        assert (both.labels[:, n:] != best.labels).all() and (both.scores[:, n:] > 0).all()
        shown = one.scores[:, n:] > 0
        assert (one.labels[:, n:][shown] == 2).all() and torch.equal(shown, best.labels != 2)
        gradient, = torch.autograd.grad(both.scores[:, n:].sum(), x)
        assert gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize(('config', 'change'), [
    ('crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py', {}),
    ('htc/htc_r50_fpn_1x_coco.py', {}),
    ('scnet/scnet_r50_fpn_1x_coco.py', {'roi_head.feat_relay_head': dict(
        type='FeatureRelayHead', in_channels=32, out_conv_channels=64, roi_feat_size=7, scale_factor=2)}),
])
def test_every_predicted_box_is_a_candidate(config, change):
    """Also where the background is the first class (CrowdDet), and regions see a semantic or global context (HTC, SCNet)."""
    model = build(Family(config, {'test_cfg.rcnn.score_thr': 0.0, 'test_cfg.rcnn.max_per_img': 10, **change}))
    batch = {name: values[:1] for name, values in make_batch(scale=1.0).items()}
    victim = MMDetDetector(model)
    with victim.session(), torch.no_grad():
        predicted = model.test_step(copy.deepcopy(batch))[0].pred_instances
        scene = victim.open(batch)
        found = scene.candidates(scene.images, torch.tensor([0]))
    same = (found.scores[0, :, None] == predicted.scores) & (found.labels[0, :, None] == predicted.labels)
    assert len(predicted) and (same & (found.boxes[0, :, None] == predicted.bboxes).all(2)).any(0).all()


# Modes and traces

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.dropout, self.steps = nn.BatchNorm2d(3), nn.Dropout(0.5), []
        self.register_buffer('count', torch.zeros(1))

    def forward(self, x):
        self.count += 1
        self.steps.append(self.training)
        self.seen = self.training
        return self.dropout(self.norm(x))


def test_frozen_training_is_training_without_noise_and_without_records():
    model = Noisy().eval()
    model.norm.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    x = torch.rand(2, 3, 8, 8)
    expected = model.norm(x)
    with frozen_training(model):
        assert model.training
        assert torch.equal(model(x), expected) and model.seen
        assert not any(p.requires_grad for p in model.parameters())
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert model.steps == [] and not hasattr(model, 'seen')


def test_modes_come_back_after_an_error():
    model = Noisy().train()
    model.norm.weight.requires_grad_(False)
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not model.training
        with frozen_training(model):
            raise ZeroDivisionError
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [False, True]


def test_a_fixed_seed_leaves_the_generator_alone():
    before = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with untouched_rng(torch.device('cpu'), 3):
            draws.append(torch.rand(4))
    assert torch.equal(*draws) and torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize('family', ['mask2former', 'dino'])
def test_losses_that_sample_depend_on_the_seed_only(family):
    """Mask2Former samples points; DINO's random queries must not even enter the loss."""
    model = build(FAMILIES[family])
    batch = make_batch(masks=True)
    found = []
    for seed in (0, 0, 1):
        victim = MMDetDetector(model, loss_seed=seed)
        torch.manual_seed(len(found))
        with victim.session(), torch.no_grad():
            scene = victim.open(batch)
            found.append(scene.losses(scene.images, BOTH)[0])
    assert torch.equal(found[0], found[1])
    if family == 'dino':
        torch.testing.assert_close(found[0], found[2])
    else:
        assert not torch.equal(found[0], found[2])


def test_dynamic_rcnn_does_not_move_its_thresholds():
    """It does after ``update_iter_interval`` losses; an attack of that many steps would change the model it attacks."""
    model = build(Family(FAMILIES['dynamic_rcnn'].config, {'train_cfg.rcnn.dynamic_rcnn.update_iter_interval': 2}))
    assigner = model.roi_head.bbox_assigner
    before = assigner.pos_iou_thr, model.roi_head.bbox_head.loss_bbox.beta
    victim = MMDetDetector(model)
    with victim.session(), torch.no_grad():
        scene = victim.open(make_batch())
        for _ in range(2):
            scene.losses(scene.images, BOTH)
    assert (assigner.pos_iou_thr, model.roi_head.bbox_head.loss_bbox.beta) == before
    assert model.roi_head.iou_history == []


def test_tood_shows_the_loss_of_its_last_epochs():
    model = build(FAMILIES['tood'])
    hub = MessageHub.get_current_instance()
    hub.runtime_info.pop('epoch', None)  # of a training in the same process
    victim = MMDetDetector(model)
    found = []
    with victim.session(), torch.no_grad():
        scene = victim.open(make_batch())
        found.append(scene.losses(scene.images, BOTH)[0])
        assert 'epoch' not in hub.runtime_info
        hub.update_info('epoch', 0)
        try:
            found.append(scene.losses(scene.images, BOTH)[0])
            assert hub.get_info('epoch') == 0
        finally:
            hub.pop_info('epoch')
    assert torch.equal(*found)


def test_batch_augmentations_of_training_stay_out():
    """YOLOX resizes whole batches at random in training."""
    model = build(FAMILIES['yolox'])
    augments = model.data_preprocessor.batch_augments
    assert augments
    scene = MMDetDetector(model).open(make_batch())
    assert [sample.img_shape for sample in scene.samples] == SIZES
    assert model.data_preprocessor.batch_augments is augments


def test_a_box_detector_ignores_loaded_masks():
    model = build(FAMILIES['rtmdet'])
    victim = MMDetDetector(model)
    with victim.session(), torch.no_grad():
        found = [scene.losses(scene.images, BOTH)[0] for scene in (victim.open(make_batch(masks=m)) for m in (False, True))]
    assert torch.equal(*found)


# Errors

def test_missing_annotations(retinanet):
    batch = make_batch()
    batch['data_samples'][1].gt_instances = InstanceData()  # what PackDetInputs packs without LoadAnnotations
    with pytest.raises(InputError, match=r"sample '1' has no ground truth: add LoadAnnotations"):
        MMDetDetector(retinanet).open(batch)
    batch['data_samples'][1] = DetDataSample(metainfo=batch['data_samples'][1].metainfo)
    with pytest.raises(InputError, match=r"sample '1' has no ground truth: add LoadAnnotations"):
        MMDetDetector(retinanet).open(batch)


def test_missing_masks(mask_rcnn):
    victim = MMDetDetector(mask_rcnn)
    with victim.session(), pytest.raises(InputError, match='MaskRCNN needs instance masks .* with_mask=True'):
        DetectorLoss().objective(victim.open(make_batch()))


@pytest.mark.parametrize('family', ['retinanet', 'faster_rcnn', 'detr'])
def test_missing_train_cfg(family):
    model = build(Family(FAMILIES[family].config, {'train_cfg': None}))
    victim = MMDetDetector(model)
    with victim.session():
        scene = victim.open(make_batch())
        with pytest.raises(InputError, match='the model config has no train_cfg'):
            DetectorLoss().objective(scene)
        Vanish().objective(scene)


@pytest.mark.parametrize('family', ['retinanet', 'faster_rcnn'])
def test_components_of_the_training_loss_add_up(family):
    victim = MMDetDetector(build(FAMILIES[family]))
    names = dict(retinanet=['loss_cls', 'loss_bbox'],
                 faster_rcnn=['loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'])[family]
    with victim.session():
        scene = victim.open(make_batch())

        def loss(components):
            x = scene.images.clone().requires_grad_()
            return DetectorLoss(components=components).objective(scene)(x, BOTH).loss

        parts = [loss([name]) for name in names]
        torch.testing.assert_close(torch.stack(parts).sum(0), loss(None))
        torch.testing.assert_close(parts[0] + parts[-1], loss([names[0], names[-1]]))
        assert all((part > 0).any() for part in parts)
        with pytest.raises(InputError, match=r"DetectorLoss: components: \w+ has no loss 'loss_clz': did you mean "
                                             rf"'loss_cls'\? it has {', '.join(names)}$"):
            DetectorLoss(components=['loss_clz']).objective(scene)
        with pytest.raises(InputError, match="has no loss 'acc'"):  # an accuracy is none
            DetectorLoss(components=['acc']).objective(scene)


def test_a_wrong_component_is_refused_before_an_attack_begins():
    victim = MMDetDetector(build(FAMILIES['retinanet']))
    looks = []
    handle = victim.model.backbone.register_forward_hook(lambda *_: looks.append(1))
    with victim.session(), pytest.raises(InputError, match="has no loss 'loss_obj'"):
        DetectorLoss(components=['loss_obj']).objective(victim.open(make_batch()))
    handle.remove()
    assert len(looks) == 1


@pytest.mark.parametrize('pixels', [lambda x: (x.float() - 120) / 60, lambda x: x.float() / 255, lambda x: x.float() + 1])
def test_normalised_inputs(retinanet, pixels):
    batch = make_batch()
    batch['inputs'][0] = pixels(batch['inputs'][0])
    with pytest.raises(InputError, match=r"input of sample '0' reaches from .* expected raw pixels in \[0, 255\]"):
        MMDetDetector(retinanet).open(batch)


def test_padding_on_all_sides(retinanet):
    batch = make_batch()
    batch['data_samples'][0].set_metainfo(dict(border=np.array([10, 50, 10, 60])))
    with pytest.raises(InputError, match="sample '0' was padded on all sides"):
        MMDetDetector(retinanet).open(batch)


@pytest.mark.parametrize('goal', [Vanish(), Mislabel(), Fabricate()])
@pytest.mark.parametrize('config', [FAMILIES['sabl'].config, 'solo/decoupled-solo_r50_fpn_1x_coco.py'])
def test_heads_without_differentiable_candidates_are_refused_at_once(config, goal):
    victim = MMDetDetector(build(Family(config)))
    with victim.session(), torch.no_grad():
        scene = victim.open(make_batch())
        assert not scene.has_candidates
        with pytest.raises(InputError, match=r"use goal = dict\(type='DetectorLoss'\)"):
            goal.objective(scene)


def test_heads_that_insist_on_suppression_have_candidates():
    """PAA's loss needs scikit-learn, so it is not among the families."""
    victim = MMDetDetector(build(Family('paa/paa_r50_fpn_1x_coco.py')))
    with victim.session():
        scene = victim.open(make_batch())
        x = scene.images.clone().requires_grad_()
        found = scene.candidates(x, BOTH)
        h, w = scene.geometry[0].input
        predicted = victim.model.predict(*scene._network_input(x[:1, :, :h, :w], BOTH[:1]), rescale=False)[0].pred_instances
        assert found.scores[0].max() == predicted.scores.max() and (found.labels[0] == 0).sum() == len(found.labels[0]) / 4
        gradient, = torch.autograd.grad(found.scores.sum(), x)
        assert gradient.isfinite().all() and gradient.flatten(1).any(1).all()


def test_a_mask_head_that_finds_nothing_has_zero_gradient():
    model = build(FAMILIES['solov2'])
    model.mask_head.test_cfg.score_thr = 0.999
    victim = MMDetDetector(model)
    with victim.session():
        judge = Fabricate().objective(victim.open(make_batch()))
        x = judge.images.clone().requires_grad_()
        gradient, = torch.autograd.grad(judge(x, BOTH).loss.sum(), x)
    assert judge.eligible.all() and not gradient.any()


def test_predictions_by_a_model_without_instances():
    model = build(Family('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py'))
    victim = MMDetDetector(model, reference='prediction', use_masks=True)
    with victim.session(), pytest.raises(InputError, match='PanopticFPN predicts no'):
        victim.open(make_batch())


@pytest.mark.parametrize('options, message', [
    (dict(reference='predictions'), "reference = 'predictions'.*did you mean 'prediction'"),
    (dict(reference_thr=1), 'reference_thr = 1, expected')])
def test_wrong_options(retinanet, options, message):
    with pytest.raises(InputError, match=message):
        MMDetDetector(retinanet, **options)


def test_masks_that_are_not_there(retinanet):
    with pytest.raises(InputError, match="use_masks=True, but sample '0' has no masks: set LoadAnnotations"):
        MMDetDetector(retinanet, use_masks=True).open(make_batch())
    victim = MMDetDetector(retinanet, use_masks=True, reference='prediction')
    with victim.session(), pytest.raises(InputError, match='use_masks=True, but RetinaNet predicts no masks'):
        victim.open(make_batch())


def test_losses_wait_for_no_other_process(tmp_path, monkeypatch):
    """FCOS averages its normalisers over all processes; under attack each asks for another number of losses."""
    victim = MMDetDetector(build(FAMILIES['fcos']))
    batch = make_batch()
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        def waits(*args, **kwargs):
            raise AssertionError('waits for the other processes')
        monkeypatch.setattr(torch.distributed, 'all_reduce', waits)
        with victim.session():
            scene = victim.open(batch)
            assert scene.losses(scene.images, torch.arange(2))[0].isfinite().all()
        data = victim.model.data_preprocessor(batch, training=True)
        with pytest.raises(AssertionError, match='waits'):
            victim.model(**data, mode='loss')  # everybody else still averages
    finally:
        torch.distributed.destroy_process_group()
