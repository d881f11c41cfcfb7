"""Torchvision's detectors and segmenters at random weights, and detectors with a decoder of the user's own."""
import copy

import pytest
import torch
from torch import nn
from torchvision.models import detection, segmentation
from torchvision.ops import batched_nms

from sparse_dense_attacks import (
    DetectorLoss,
    Fabricate,
    InputError,
    Mislabel,
    SparsePGD,
    UntargetedPixels,
    Vanish,
    attack,
)
from sparse_dense_attacks.ops.boxes import covered
from sparse_dense_attacks.victims import TorchDetector, TorchSegmenter, plain_victim, unwrapped
from tests.helpers import Net, pictures

BARE = dict(weights=None, weights_backbone=None, num_classes=4)
SMALL = dict(BARE, min_size=64, max_size=96, topk_candidates=40)
MAKE = {
    'fasterrcnn': lambda: detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        **BARE, min_size=64, max_size=96, rpn_post_nms_top_n_test=60),
    'maskrcnn': lambda: detection.maskrcnn_resnet50_fpn(
        **BARE, min_size=64, max_size=96, rpn_post_nms_top_n_test=20),
    'retinanet': lambda: detection.retinanet_resnet50_fpn(**SMALL),
    'fcos': lambda: detection.fcos_resnet50_fpn(**SMALL),
    'ssdlite': lambda: detection.ssdlite320_mobilenet_v3_large(**BARE, topk_candidates=30)}
IMAGES = pictures(2, 3, 60, 80, seed=3)
MODELS: dict = {}
every_model = pytest.mark.parametrize('name', MAKE)


def final_layers(model):
    """Those that say how likely each class is."""
    if isinstance(model, detection.FasterRCNN):
        return [model.roi_heads.box_predictor.cls_score]
    head = model.head.classification_head
    if isinstance(model, detection.ssd.SSD):
        return [block[-1] for block in head.module_list]
    return [head.cls_logits]


@torch.no_grad()
def settle(model):
    """Let norms learn what images look like, or features fade from layer to layer."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.transform.eval()
    features = model.backbone(model.transform(list(IMAGES))[0].tensors)
    if not isinstance(model, detection.FasterRCNN):
        model.head(list(features.values()))


def detector(name):
    """At random weights, but sure enough of itself to report something."""
    if name not in MODELS:
        torch.manual_seed(1)
        model = MAKE[name]()
        for layer in final_layers(model):
            nn.init.normal_(layer.weight, std=1 / layer.weight[0].numel() ** 0.5)
            nn.init.normal_(layer.bias, std=1)
        settle(model)
        MODELS[name] = model.train()  # the session of a victim evaluates, and puts it back
    return MODELS[name]


def victim_of(name, **options):
    return TorchDetector(detector(name), reference='prediction', **options)


def opened(victim, images=IMAGES):
    with victim.session():
        return victim.open(images)


def suppressed(model, found):
    """What torchvision does to candidates of an image in the end."""
    end = model.roi_heads if isinstance(model, detection.FasterRCNN) else model
    sure = found['scores'] > end.score_thresh
    boxes, scores, labels = (found[name][sure] for name in ('boxes', 'scores', 'labels'))
    kept = batched_nms(boxes, scores, labels, end.nms_thresh)[:end.detections_per_img]
    return boxes[kept], labels[kept], scores[kept]


@every_model
def test_candidates_suppressed_are_the_predictions_bit_for_bit(name):
    """Suppression compares boxes of the network's input; those of an image are scaled, so images keep their size here."""
    model = copy.deepcopy(detector(name)).eval()
    size = (320, 320) if name == 'ssdlite' else (64, 96)
    images = pictures(2, 3, *size, seed=4)
    with torch.no_grad():
        expected = model(list(images))
        found = TorchDetector(model).reader.candidates(images)
    for said, own in zip(expected, found, strict=True):
        boxes, labels, scores = suppressed(model, own)
        assert len(said['scores'])
        # equal scores come in any order
        theirs, ours = (torch.cat([values[0], values[1][:, None], values[2][:, None]], 1).unique(dim=0)
                        for values in ((said['boxes'], said['labels'], said['scores']),
                                       (boxes, labels, scores)))
        assert torch.equal(theirs, ours)


@every_model
def test_what_is_reported_is_among_the_candidates_of_an_image_of_any_size(name):
    victim = victim_of(name)
    scene = opened(victim)
    reported = victim.predict(IMAGES)
    assert detector(name).training, 'put back'
    with victim.session(), torch.no_grad():
        found = scene.candidates(IMAGES, torch.arange(2))
        own = detector(name)(list(IMAGES))
    for row, (said, theirs) in enumerate(zip(reported, own, strict=True)):
        for key, value in said.items():
            assert torch.equal(value, theirs[key])
        one = torch.cat([said['boxes'], said['scores'][:, None], said['labels'][:, None]], 1)
        all_of = torch.cat([found.boxes[row], found.scores[row, :, None],
                            found.labels[row, :, None]], 1)
        assert (one[:, None] == all_of).all(2).any(1).all()
        sure = said['scores'] >= victim.reference_thr
        sure &= (said['boxes'][:, 2:] > said['boxes'][:, :2]).all(1)
        assert sure.any()
        assert torch.equal(scene.truth.boxes[row][scene.truth.valid[row]], said['boxes'][sure])


@every_model
def test_gradients_are_finite_and_not_zero_and_of_the_own_image(name):
    victim = victim_of(name)
    scene = opened(victim)
    with victim.session():
        x = IMAGES.clone().requires_grad_()
        found = scene.candidates(x, torch.arange(2))
        assert not found.boxes.requires_grad
        gradient, = torch.autograd.grad(found.scores[0].sum(), x)
    assert gradient.isfinite().all() and gradient[0].any() and not gradient[1].any()


@pytest.mark.filterwarnings('ignore:.*the gradient is zero')  # where no place is left for a new box
@every_model
def test_goals_run_and_leave_no_trace(name):
    model = detector(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    others = (Mislabel(), Fabricate()) if name in ('fasterrcnn', 'retinanet') else ()
    for goal in (Vanish(), *others):
        result = attack(victim_of(name), IMAGES, attack=SparsePGD(k=0.2, steps=3), goal=goal)
        assert (result.l0_pixels <= 0.2 * 60 * 80).all() and not result.failed.any()
        assert result.clean_correct.any() and (result.l0_pixels.any() or goal in others)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_three_lines():
    model, images = detector('fasterrcnn'), IMAGES
    targets = [dict(boxes=one['boxes'][:2], labels=one['labels'][:2])
               for one in victim_of('fasterrcnn').predict(images)]
    result = attack(model, images, targets, 'sparse_pgd', goal='vanish', k=0.2, steps=2)
    assert result.defined.all() and result.parts.max() <= 2
    for wrapped in (nn.DataParallel(model), nn.Sequential(model)):
        assert unwrapped(wrapped) is model
    alone = attack(model, images, targets, 'sparse_pgd', k=0.2, steps=2, batch_size=1)
    assert alone.images.shape == images.shape, 'Vanish is the default'


@pytest.mark.parametrize('name', ['fasterrcnn', 'fcos'])
def test_training_losses_are_the_models_own(name):
    victim = victim_of(name)
    scene = opened(victim)
    model = copy.deepcopy(detector(name)).eval()
    with victim.session():
        x = IMAGES.clone().requires_grad_()
        losses, found = scene.losses(x, torch.arange(2))
        assert torch.equal(losses, scene.losses(x, torch.arange(2))[0]), 'draws are fixed'
        gradient, = torch.autograd.grad(losses[1], x)
    assert gradient.isfinite().all() and gradient[1].any() and not gradient[0].any()
    assert not found.scores.requires_grad and losses.shape == (2,)
    target = dict(boxes=scene.truth.boxes[0][scene.truth.valid[0]],
                  labels=scene.truth.labels[0][scene.truth.valid[0]])
    for module in model.modules():
        module.training = 'Norm' not in type(module).__name__
    model.transform.eval()
    torch.manual_seed(0)
    assert torch.allclose(losses[0], sum(model([IMAGES[0]], [target]).values()))
    result = attack(victim, IMAGES, attack=SparsePGD(k=0.2, steps=2), goal=DetectorLoss())
    assert not result.failed.any()


def test_an_image_without_objects():
    none = dict(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    ball = dict(boxes=torch.tensor([[4., 5, 30, 40]]), labels=torch.tensor([1]))
    for name in ('fasterrcnn', 'retinanet', 'fcos'):
        result = attack(detector(name), IMAGES, [none, ball], 'pgd0', k=5, steps=1)
        assert result.defined.tolist() == [False, True]
        victim = TorchDetector(detector(name))
        with victim.session():
            scene = victim.open(IMAGES[:1], [none])
            assert scene.losses(IMAGES[:1], torch.arange(1))[0].isfinite().all()
    assert not len(attack(detector('fcos'), IMAGES[:0], [], 'pgd0', k=5, steps=1).images)


# A decoder of the user's own

class Spots(nn.Module):
    """Finds a 2 x 2 box of class 0 at each even place, as sure as its top left pixel is bright."""

    def forward(self, x):
        return x[:, 0, ::2, ::2].flatten(1)


def decode(model, images):
    brightness = model(images)
    w = images.shape[-1] // 2
    place = torch.arange(brightness.shape[1])
    corner = torch.stack([place % w, place // w], 1) * 2.
    boxes = torch.cat([corner, corner + 2], 1)
    return [dict(boxes=boxes, labels=torch.zeros_like(place), scores=row) for row in brightness]


def test_a_decoder_of_ones_own():
    """Every bright spot is hidden by one pixel, and no other has to change."""
    images = torch.zeros(2, 3, 6, 6)
    images[0, :, 2, 4] = images[1, :, 0, 0] = images[1, :, 4, 2] = 1
    targets = [dict(boxes=torch.tensor([[4., 2, 6, 4]]), labels=torch.tensor([0])),
               dict(boxes=torch.tensor([[0., 0, 2, 2], [2, 4, 4, 6], [4, 4, 6, 6]]),
                    labels=torch.tensor([0, 0, 0]), iscrowd=torch.tensor([0, 0, 1]))]
    victim = TorchDetector(Spots(), decode, classes=['spot'])
    result = attack(victim, images, targets, 'sigma_zero', unit='pixel', steps=200)
    assert result.success.all() and result.parts.tolist() == [1, 2]
    assert result.l0_pixels.tolist() == [1, 2]
    with victim.session():
        scene = victim.open(images, targets)
    assert scene.objects().sum((1, 2, 3)).tolist() == [4, 8]
    assert scene.ignored().sum((1, 2, 3)).tolist() == [0, 4]
    assert not scene.objects([1]).any()
    inside = attack(victim, images, targets, 'sparse_pgd', k=2, steps=30, where='inside')
    assert not (inside.images != images).any(1)[~scene.objects()[:, 0]].any()


def test_reference_is_what_suppression_leaves():
    images = torch.zeros(1, 3, 4, 4)
    images[0, 0, 0, 0], images[0, 0, 2, 2] = 0.9, 0.2

    def twice(model, x):
        found, = decode(model, x)
        return [{name: torch.cat([value, value]) for name, value in found.items()}]

    victim = TorchDetector(Spots(), twice, reference='prediction')
    scene = opened(victim, images)
    assert scene.truth.boxes[0].tolist() == [[0, 0, 2, 2]]
    with victim.session(), pytest.raises(InputError, match='DetectorLoss.*not known'):
        scene.losses(images, torch.arange(1))


def test_nothing_found_is_a_zero_gradient():
    def empty(model, x):
        return [dict(boxes=x.new_zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64),
                     scores=x.new_zeros(0)) for _ in x]

    victim = TorchDetector(Spots(), empty)
    target = dict(boxes=torch.tensor([[0., 0, 2, 2]]), labels=torch.tensor([0]))
    result = attack(victim, torch.zeros(1, 3, 4, 4), [target], 'pgd0', k=1, steps=2)
    assert not result.clean_correct.any() and not result.failed.any()


BOX = torch.tensor([[0., 0, 2, 2]])
ONE = torch.tensor([0])


def giving(**changed):
    """A decoder that gives something else than it has to."""
    def decoder(model, images):
        return [{**found, **changed} for found in decode(model, images)]
    return decoder


@pytest.mark.parametrize(('decoder', 'said'), [
    (lambda model, x: model(x), r'decode gives Tensor for 1 images: decode\(model, images\) takes'),
    (lambda model, x: decode(model, x) * 2, 'decode gives list of 2 for 1 images'),
    (lambda model, x: [BOX] * len(x), 'decode gives tensor.* for an image: '),
    (giving(labels=ONE), r'labels a tensor \(1,\) and scores a tensor \(4,\): decode\(model'),
    (giving(labels=torch.zeros(4)), r'labels a tensor \(4,\) and'),
    (giving(scores=torch.full((4,), 2.)), r'scores reach from 2 to 2, expected probabilities'),
    (giving(scores=torch.full((4,), float('nan'))), 'scores reach from nan'),
    (giving(labels=torch.full((4,), -1)), 'label -1, expected class indices'),
    (lambda model, x: decode(model, x.detach()), 'scores have no gradient: leave out detach')])
def test_a_decoder_that_breaks_its_promise_is_one_clear_line(decoder, said):
    with pytest.raises(InputError, match=said) as error:
        attack(TorchDetector(Spots(), decoder), torch.ones(1, 3, 4, 4),
               [dict(boxes=BOX, labels=ONE)], 'pgd0', k=1, steps=1)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('labels', 'said'), [
    (None, "no labels: give them .* reference='prediction'"),
    (BOX, r'expected a list with a dict of boxes and labels for each image \(1\), found torch'),
    ([BOX], 'labels of image 0: expected a dict of boxes and labels, found tensor'),
    ([dict(boxes=BOX, labels=ONE)] * 2, r'for each image \(1\), found list of 2'),
    ([dict(boxes=BOX[0], labels=ONE)], r'boxes: expected a tensor \(G, 4\).* found a tensor \(4,\)'),
    ([dict(boxes=BOX, labels=ONE.float())], 'expected int64 class indices, found torch.float32'),
    ([dict(boxes=BOX, labels=ONE.repeat(2))], r'one entry per box \(1\), found a tensor \(2,\)'),
    ([dict(boxes=BOX.flip(1), labels=ONE)], r'box \[2.0, 2.0, 0.0, 0.0\] is none'),
    ([dict(boxes=BOX * float('inf'), labels=ONE)], 'is none, expected x1 < x2'),
    ([dict(boxes=BOX, labels=ONE)], 'labels reach from 0 to 0, but the model knows 1 to 3'),
    ([dict(boxes=BOX, labels=ONE + 4)], 'labels reach from 4 to 4, but the model knows 1 to 3')])
def test_labels_that_are_none_are_one_clear_line(labels, said):
    with pytest.raises(InputError, match=said) as error:
        attack(detector('ssdlite'), IMAGES[:1], labels, 'pgd0', goal='vanish', k=1, steps=1)
    assert '\n' not in str(error.value)


def test_a_detector_without_a_known_decoder_says_what_is_needed():
    class Unknown(nn.Module):
        def forward(self, x):
            return [dict(boxes=x.new_zeros(0, 4))] * len(x)

    for goal in (None, 'vanish'):
        with pytest.raises(InputError, match=r'decode is needed, because Unknown .*decode\(model, images\) '
                           r'takes images .*boxes \(N, 4\).*labels \(N,\).*scores \(N,\)') as error:
            attack(Unknown(), IMAGES, [], goal=goal)
        assert '\n' not in str(error.value)
    with pytest.raises(InputError, match='this is a detector: give TorchDetector'):
        attack(Unknown(), IMAGES, torch.zeros(2, dtype=torch.int64), goal='untargeted')


def test_covered_pixels():
    boxes = torch.tensor([[[0.6, 0, 2, 1.5], [0, 2, 3, 3]]])
    found = covered(boxes, torch.tensor([[True, False]]), (3, 3))
    assert found[0].tolist() == [[False, True, False], [False] * 3, [False] * 3]
    assert covered(boxes, torch.tensor([[True, True]]), (3, 3))[0, 2].all()


# Segmenters, and what other libraries answer with

@pytest.mark.parametrize('make', [segmentation.deeplabv3_mobilenet_v3_large,
                                  segmentation.lraspp_mobilenet_v3_large])
def test_segmenters_of_torchvision(make):
    torch.manual_seed(0)
    model = make(**BARE)
    labels = model.eval()(IMAGES)['out'].argmax(1).detach()
    victim = plain_victim(model, IMAGES)
    assert isinstance(victim, TorchSegmenter)
    with victim.session():
        scene = victim.open(IMAGES, labels)
        x = IMAGES.clone().requires_grad_()
        logits = scene.logits(x, torch.arange(2))
        assert torch.equal(logits, model(IMAGES)['out'])
        gradient, = torch.autograd.grad(logits.sum(), x)
    assert gradient.isfinite().all() and gradient.any()
    result = attack(model, IMAGES, labels, SparsePGD(k=0.3, steps=4))
    named = attack(model, IMAGES, labels, SparsePGD(k=0.3, steps=4), goal=UntargetedPixels())
    assert torch.equal(result.images, named.images) and result.clean_correct.all()
    assert result.l0_pixels.any()


class Answers(dict):
    """A mapping, as transformers' models answer with."""


class Wrapped(nn.Module):
    def __init__(self, model, entry):
        super().__init__()
        self.model, self.entry = model, entry

    def forward(self, x):
        return Answers(hidden_states=None, **{self.entry: self.model(x)})


def test_classifiers_and_segmenters_of_transformers_are_known_by_their_answer():
    images = pictures(3, 3, 6, 8)
    model = Net(gain=0.3)
    labels = model(images).argmax(1)
    options = dict(attack='sparse_pgd', k=4, steps=20)
    bare, wrapped = (attack(one, images, labels, **options)
                     for one in (model, Wrapped(model, 'logits')))
    assert torch.equal(bare.images, wrapped.images) and bare.success.any()
    small = nn.Conv2d(3, 4, 2, stride=2)
    truth = nn.functional.interpolate(small(images), (6, 8), mode='bilinear').argmax(1)
    segmented = [attack(one, images, truth, **options)
                 for one in (small, Wrapped(small, 'logits'), Wrapped(small, 'out'))]
    assert all(torch.equal(one.images, segmented[0].images) for one in segmented)
    assert segmented[0].clean_correct.all() and segmented[0].l0_pixels.any()
