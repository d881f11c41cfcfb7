"""mmdet's detector families with random weights: raw pixels of different sizes in, finite non-zero gradients out.

Families that are not here are in LEFT_OUT with the reason. Truth for Vanish is two of the model's own clean candidates per image,
because no candidate of a random network matches an arbitrary box.
"""
import copy
import random
from functools import cached_property

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet', reason='the mmdet victim is tested on mmdet: make setup')

from mmdet.structures.mask import BitmapMasks
from mmengine.structures import BaseDataElement

from sparse_dense_attacks.errors import InputError
from sparse_dense_attacks.objectives.detection import DetectorLoss, Fabricate, Mislabel, Vanish
from sparse_dense_attacks.victims.mmdet import MMDetDetector
from tests.zoo import CONFIGS, FAMILIES, build, make_batch

pytestmark = pytest.mark.openmmlab

# Folders of mmdet's configs without a family above.
LEFT_OUT = {
    **dict.fromkeys(
        ['albu_example', 'carafe', 'convnext', 'dcn', 'dcnv2', 'detectors', 'dyhead', 'efficientnet', 'empirical_attention',
         'fpg', 'gcnet', 'gn', 'gn+ws', 'groie', 'hrnet', 'instaboost', 'legacy_1.x', 'nas_fpn', 'pafpn', 'pvt', 'regnet',
         'res2net', 'resnest', 'resnet_strikes_back', 'scratch', 'seesaw_loss', 'selfsup_pretrain', 'simple_copy_paste',
         'strong_baselines', 'swin', 'timm_example'],
        'another backbone, neck, normalisation or training recipe for a family that is here'),
    **dict.fromkeys(
        ['_base_', 'cityscapes', 'common', 'deepfashion', 'dsdl', 'lvis', 'misc', 'objects365', 'openimages', 'pascal_voc',
         'v3det', 'wider_face'],
        'another data set for a family that is here'),
    **dict.fromkeys(
        ['bytetrack', 'deepsort', 'mask2former_vis', 'masktrack_rcnn', 'ocsort', 'qdtrack', 'reid', 'sort', 'strongsort'],
        'tracks objects in videos'),
    **dict.fromkeys(['glip', 'grounding_dino', 'mm_grounding_dino'], 'needs a text model from the network'),
    **dict.fromkeys(['lad', 'ld', 'soft_teacher'], 'needs a trained teacher'),
    **dict.fromkeys(['maskformer', 'panoptic_fpn', 'scnet'], 'its loss needs semantic maps beside the boxes'),
    **dict.fromkeys(['cornernet', 'centripetalnet'], 'Hourglass-104 is too large here; paired corners have no candidates'),
    'boxinst': 'its loss compares colours of the training batch, which only its own data_preprocessor keeps',
    'clrnet': 'finds lanes, not boxes',
    'crowddet': 'its loss reads two boxes per proposal and CrowdHuman annotations',
    'fast_rcnn': 'needs proposals from a file',
    'guided_anchoring': 'masked convolution exists for CUDA only',
    'paa': 'its loss needs scikit-learn; that Vanish is refused is in test_mmdet_victim.py',
    'point_rend': 'its loss asserts at least one positive region, so it fails on images without objects in mmdet itself',
    'queryinst': 'random weights put boxes outside the image, where mmdet cannot paste masks; its boxes are those of sparse_rcnn',
    'rpn': 'proposals have no classes',
    'tridentnet': 'its backbone returns other features in training than in test, but both are computed once here',
}


class Case:
    """One family and what the two goals say about a batch of two images of different sizes."""

    def __init__(self, name: str):
        self.family = FAMILIES[name]
        self.model = build(self.family)
        self.victim = MMDetDetector(self.model)

    def batch(self, objects=None) -> dict:
        return make_batch(objects, masks=self.family.masks)

    def judge(self, goal, batch) -> tuple:
        """The objective, its verdict on slightly changed images, and the gradients of loss and margin."""
        with self.victim.session():
            objective = goal.objective(self.victim.open(batch))
            x = (objective.images * 0.995).requires_grad_()
            verdict = objective(x, torch.arange(len(x)))
            gradients = [torch.autograd.grad(value.sum(), x, retain_graph=True)[0] for value in (verdict.loss, verdict.margin)]
        return objective, verdict, gradients

    @cached_property
    def seen(self) -> tuple:
        """Two of the model's clean candidates per image as ground truth, and a score threshold below both."""
        with self.victim.session(), torch.no_grad():
            scene = self.victim.open(self.batch())
            found = scene.candidates(scene.images, torch.arange(2))
        objects, scores = [], []
        for boxes, labels, score in zip(found.boxes, found.labels, found.scores, strict=True):
            usable = (boxes[:, 2:] - boxes[:, :2]).amin(1) > 2
            best = (score * usable).argmax()
            other = (score * usable * (labels != labels[best])).argmax()
            pair = torch.stack([best, other])
            assert (score[pair] > 0).all()
            objects.append((boxes[pair], labels[pair]))
            scores.append(score[pair].min())
        return objects, float(torch.stack(scores).min()) / 2

    @cached_property
    def vanish(self) -> tuple:
        objects, score_thr = self.seen
        return self.judge(Vanish(score_thr=score_thr), self.batch(objects))

    @cached_property
    def detector_loss(self) -> tuple:
        return self.judge(DetectorLoss(), self.batch())


@pytest.fixture(scope='module', params=FAMILIES)
def case(request):
    return Case(request.param)


def check_gradients(objective, verdict, gradients):
    assert verdict.loss.isfinite().all() and verdict.margin.isfinite().all()
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert (gradient * objective.region).flatten(1).any(1).all(), 'no gradient inside'
        assert not (gradient * ~objective.region).any(), 'gradient in the padding'


def test_every_family_of_mmdet_is_here_or_left_out_for_a_reason():
    here = {family.config.split('/')[0] for family in FAMILIES.values()}
    folders = {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}
    assert len(here) >= 20
    assert not here & LEFT_OUT.keys()
    assert folders - here - LEFT_OUT.keys() == set()


def test_vanish_has_a_gradient_or_is_refused(case):
    if not case.family.candidates:
        with pytest.raises(InputError, match="use goal = dict\\(type='DetectorLoss'\\)"):
            case.judge(Vanish(), case.batch())
        return
    objective, verdict, gradients = case.vanish
    assert objective.eligible.all() and objective.defined.all()
    assert (verdict.loss < 0).all() and (verdict.margin > 0).all() and not verdict.success.any()
    check_gradients(objective, verdict, gradients)


@pytest.mark.parametrize('goal', [Mislabel, Fabricate])
@pytest.mark.parametrize('name', ['faster_rcnn', 'retinanet', 'yolox', 'rtmdet', 'dino', 'detr', 'solov2'])
def test_goals_about_classes_have_a_gradient_and_judge_an_image_alone(name, goal):
    """Boxes are fabricated on images without objects and detections: those of a random DETR all cover the whole image."""
    case = Case(name)
    objects, score_thr = case.seen
    with case.victim.session(), torch.no_grad():
        scene = case.victim.open(case.batch())
        highest = float(scene.candidates(scene.images, torch.arange(2)).scores.max())
    if goal is Fabricate:
        objects, score_thr = [(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))] * 2, (1 + highest) / 2
    goal = goal(score_thr=score_thr)
    together, verdict, gradients = case.judge(goal, case.batch(objects))
    assert together.eligible.all() and together.defined.all()
    assert (verdict.margin > 0).all() and not verdict.success.any()
    check_gradients(together, verdict, gradients)
    with case.victim.session(), torch.no_grad():
        batch = case.batch(objects)
        objective = goal.objective(case.victim.open({key: values[:1] for key, values in batch.items()}))
        alone = objective(objective.images * 0.995, torch.arange(1))
    for key in ('loss', 'margin', 'success'):
        torch.testing.assert_close(getattr(alone, key), getattr(verdict, key)[:1].detach())


def test_detector_loss_has_a_gradient(case):
    objective, verdict, gradients = case.detector_loss
    check_gradients(objective, verdict, gradients[:1])


def test_images_without_objects(case):
    nothing = [(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))] * 2
    objective, verdict, gradients = case.judge(DetectorLoss(), case.batch(nothing))
    assert not objective.defined.any() and not objective.eligible.any()
    if case.family.empty_gradient:
        check_gradients(objective, verdict, gradients[:1])
    else:
        assert not verdict.loss.any() and not gradients[0].any()
    if case.family.candidates:
        objective, verdict, gradients = case.judge(Vanish(), case.batch(nothing))
        assert not objective.defined.any() and not objective.region.any()
        assert not verdict.loss.any() and not verdict.margin.any() and not any(gradient.any() for gradient in gradients)


def test_an_image_is_judged_alone(case):
    """Also: losses that sample say the same twice."""
    goals = [(DetectorLoss(), case.batch(), case.detector_loss)]
    if case.family.candidates:
        objects, score_thr = case.seen
        goals.append((Vanish(score_thr=score_thr), case.batch(objects), case.vanish))
    for goal, batch, (_, together, _) in goals:
        with case.victim.session(), torch.no_grad():
            objective = goal.objective(case.victim.open({name: values[:1] for name, values in batch.items()}))
            alone = objective(objective.images * 0.995, torch.arange(1))
        for name in ('loss', 'margin', 'success'):
            torch.testing.assert_close(getattr(alone, name), getattr(together, name)[:1].detach())


def test_no_trace(case):
    batch = case.batch(case.seen[0] if case.family.candidates else None)
    original = copy.deepcopy(batch)
    before, prediction = snapshot(case.model), case.family.predicts and predict(case.model, batch)
    case.judge(DetectorLoss(), batch)
    if case.family.candidates:
        case.judge(Vanish(), batch)
    after = snapshot(case.model)
    for name in before:
        assert same(before[name], after[name]), name
    assert same([contents(s) for s in original['data_samples']], [contents(s) for s in batch['data_samples']])
    assert same(original['inputs'], batch['inputs'])
    if case.family.predicts:
        assert same(prediction, predict(case.model, batch))


def snapshot(model) -> dict:
    """Everything an attack could leave behind: tensors, flags, numbers and lists kept by modules, random states."""
    modules = dict(model.named_modules())
    plain = {(name, key): len(value) if isinstance(value, list) else value for name, module in modules.items()
             for key, value in vars(module).items() if isinstance(value, int | float | str | list | None)}
    return dict(tensors={name: t.clone() for name, t in [*model.named_parameters(), *model.named_buffers()]}, plain=plain,
                trainable=[p.requires_grad for p in model.parameters()], gradients=[p.grad for p in model.parameters()],
                torch=torch.get_rng_state(), numpy=str(np.random.get_state()), python=random.getstate())


def predict(model, batch) -> list:
    with torch.no_grad():
        samples = model.test_step(copy.deepcopy(batch))
    return [contents(sample.pred_instances) for sample in samples]


def contents(element) -> dict:
    """A data element as nested dicts of tensors, arrays and plain values."""
    found = dict(element.metainfo_items())
    for key, value in element.items():
        if isinstance(value, BaseDataElement):
            value = contents(value)
        elif isinstance(value, BitmapMasks):
            value = value.masks
        found[key] = getattr(value, 'tensor', value)  # HorizontalBoxes
    return found


def same(a, b) -> bool:
    """Equality to the last bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
