"""mmpretrain classifiers: exactness, labels, no traces, every attack."""
import copy
import pickle

import pytest
import torch

pytest.importorskip('mmpretrain', reason='the mmpretrain victim is tested on mmpretrain', exc_type=ImportError)

from mmengine.registry import DefaultScope  # noqa: E402
from mmpretrain.models.classifiers import BaseClassifier, TimmClassifier  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402
from mmpretrain.structures import DataSample, MultiTaskDataSample  # noqa: E402
from torch import nn  # noqa: E402

from sparse_dense_attacks import PGD0, InputError, SigmaZero, SparsePGD, Targeted, Untargeted  # noqa: E402
from sparse_dense_attacks.engine import Attacker  # noqa: E402
from sparse_dense_attacks.victims import TorchClassifier, wrap  # noqa: E402
from sparse_dense_attacks.victims.base import sample_key  # noqa: E402
from sparse_dense_attacks.victims.mmpretrain import MMPretrainClassifier  # noqa: E402
from tests.helpers import EVERY_ATTACK, Net, make_attack  # noqa: E402
from tests.mmpretrain_zoo import CLASSES, FAMILIES, build, channels, make_batch  # noqa: E402
from tests.objectives.test_classification_goals import nips17, real, squeezenet  # noqa: E402

pytestmark = pytest.mark.openmmlab

SIZES = [(24, 30)] * 4
IMAGENET = dict(type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


class Backbone(nn.Module):
    """A module as mmpretrain's backbones are: a tuple comes out."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return (self.net(x),)


def classifier(net, head=None, preprocess=IMAGENET):
    """An mmpretrain classifier whose backbone gives the logits already."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(type='ImageClassifier', backbone=Backbone(net), head=head or dict(type='ClsHead'),
                                 data_preprocessor=preprocess)).eval()


@pytest.fixture(scope='module')
def tiny():
    """A smooth net in double precision inside, so that results do not hang on the order of float sums."""
    return classifier(Net(gain=0.5))


def predicted(model, batch):
    """Scores of the library's own prediction, (B, K)."""
    with torch.no_grad():
        return torch.stack([sample.pred_score for sample in model.test_step(copy.deepcopy(batch))])


def as_found(model):
    """All that an attack must leave alone, as bytes and flags."""
    return ({name: value.clone() for name, value in model.state_dict().items()}, [m.training for m in model.modules()],
            [p.requires_grad for p in model.parameters()], [sorted(vars(m)) for m in model.modules()])


def assert_as_found(model, before):
    state, *rest = as_found(model)
    assert all(torch.equal(value, before[0][name]) for name, value in state.items()) and tuple(rest) == before[1:]


# What the network sees

@pytest.mark.parametrize('name', FAMILIES)
def test_families_agree_with_the_library_bit_for_bit(name):
    """Clean scores of model.test_step, on lists and on stacked tensors; a usable gradient; no traces."""
    model = build(FAMILIES[name])
    before = as_found(model)
    sizes = [FAMILIES[name].size] * 2
    batches = [make_batch(sizes, depth=channels(model), stacked=stacked) for stacked in (False, True)]
    victim = wrap(model)
    assert isinstance(victim, MMPretrainClassifier) and victim.num_classes in (CLASSES, None)
    with victim.session():
        for batch in batches:
            scene = victim.open(batch)
            scores = scene.logits(scene.images, torch.arange(2)).softmax(1)
            assert torch.equal(scores, predicted(model, batch))
        x = scene.images.clone().requires_grad_()
        grad, = torch.autograd.grad(Untargeted().objective(scene)(x, torch.arange(2)).margin.sum(), x)
    assert grad.isfinite().all() and (grad != 0).flatten(1).any(1).all()
    assert_as_found(model, before)


@pytest.mark.parametrize('options', [dict(to_rgb=True), dict(to_rgb=False), dict(mean=None, std=None), dict(pad_size_divisor=32)],
                         ids='-'.join)
def test_float_pixels_reach_the_network_as_uint8_pixels_do(options):
    """Bit for bit, for all 256 values."""
    model, seen = classifier(Net(), preprocess=IMAGENET | options), []
    batch = make_batch(SIZES[:1])
    batch['inputs'][0].view(-1)[:256] = torch.arange(256, dtype=torch.uint8)
    scene = MMPretrainClassifier(model).open(batch)
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    scene.logits(scene.images, torch.tensor([0]))
    model.test_step(copy.deepcopy(batch))
    assert torch.equal(*seen)


def test_gradient_agrees_with_finite_differences(monkeypatch):
    monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)  # mmpretrain's preprocessor calls it
    model = classifier(Net(gain=0.5)).double()
    scene = MMPretrainClassifier(model).open(make_batch([(5, 6)] * 3))
    for goal in (Untargeted(), Targeted('runner_up')):
        judge, rows = goal.objective(scene), torch.tensor([2, 0])
        x = scene.images[rows].double().requires_grad_()
        assert torch.autograd.gradcheck(lambda z, judge=judge, rows=rows: judge(z, rows).margin, x, check_undefined_grad=False)


def test_images_of_other_sizes_are_seen_as_if_alone(tiny):
    """Batch padding is neither attacked nor shown to the model."""
    batch = make_batch([(9, 12), (14, 8), (9, 12)], labels=[0, 1, 2])
    scene = MMPretrainClassifier(tiny).open(batch)
    assert scene.images.shape == (3, 3, 14, 12)
    assert [int(region.sum()) for region in scene.region] == [108, 112, 108] and not scene.region[0, :, 9:].any()
    alone = [predicted(tiny, dict(inputs=[image], data_samples=[sample])) for image, sample in zip(*batch.values(), strict=True)]
    rows = torch.tensor([2, 1, 0])
    assert torch.equal(scene.logits(scene.images[rows], rows).softmax(1), torch.cat(alone)[rows])


def test_pictures_of_a_letterbox_are_not_attacked(tiny):
    batch = make_batch([(20, 20)])
    batch['data_samples'][0].set_metainfo(dict(ori_shape=(10, 5), scale_factor=(2.0, 2.0)))
    batch['inputs'][0][..., 10:] = 114
    region = MMPretrainClassifier(tiny).open(batch).region
    assert region[..., :20, :10].all() and region.sum() == 200


# Labels

def test_labels_are_those_of_the_samples(tiny):
    assert MMPretrainClassifier(tiny).open(make_batch(SIZES, labels=[3, 0, 2, 1])).labels.tolist() == [3, 0, 2, 1]


def test_prediction_may_be_the_reference(tiny):
    batch = make_batch(SIZES)
    for sample in batch['data_samples']:
        del sample.gt_label
    with pytest.raises(InputError, match="sample 'val/0.png' has no gt_label.*reference='prediction'"):
        MMPretrainClassifier(tiny).open(batch)
    scene = MMPretrainClassifier(tiny, reference='prediction').open(batch)
    assert torch.equal(scene.labels, predicted(tiny, batch).argmax(1)) and not scene.labels.requires_grad
    assert Untargeted().objective(scene).eligible.all()


@pytest.mark.parametrize(('label', 'message'), [
    ([1, 2], r"sample 'val/0.png' has 2 labels, \[1, 2\]: expected one"),
    (4, "sample 'val/0.png' has label 4, but the model has 4 classes, 0 to 3"),
    (-1, "sample 'val/0.png' has label -1"),
])
def test_labels_that_are_not_one_class_are_refused(tiny, label, message):
    with pytest.raises(InputError, match=message) as error:
        MMPretrainClassifier(tiny).open(make_batch(SIZES[:1], labels=[label]))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('image', 'message'), [
    (torch.rand(3, 8, 8), 'expected raw pixels in'),
    (torch.randn(3, 8, 8), 'expected raw pixels in'),
    (torch.zeros(10, 3, 8, 8, dtype=torch.uint8), r'expected images \(C, H, W\), found \(10, 3, 8, 8\)'),
])
def test_inputs_that_are_no_raw_images_are_refused(tiny, image, message):
    with pytest.raises(InputError, match=message):
        MMPretrainClassifier(tiny).open(dict(inputs=[image], data_samples=make_batch([(8, 8)])['data_samples']))


@pytest.mark.parametrize('head', [
    dict(type='MultiLabelClsHead'),
    dict(type='MultiLabelLinearClsHead', num_classes=4, in_channels=4, topk=5),
    dict(type='MultiTaskHead', task_heads=dict(a=dict(type='LinearClsHead', num_classes=4)), in_channels=4),
])
def test_models_without_a_soft_max_are_refused(head):
    message = f'ImageClassifier with head {head["type"]} does not predict one class by a soft-max'
    with pytest.raises(InputError, match=message) as error:
        wrap(classifier(Net(), head))
    assert '\n' not in str(error.value)


def test_models_that_are_no_classifiers_are_refused():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(type='SimSiam', backbone=dict(type='ResNet', depth=18), neck=None,
                                  head=dict(type='LatentPredictHead', loss=dict(type='CosineSimilarityLoss'),
                                            predictor=dict(type='LinearNeck', in_channels=4, out_channels=4))))
    with pytest.raises(InputError, match='SimSiam with head LatentPredictHead does not predict one class'):
        wrap(model)


def test_multi_task_samples_are_refused(tiny):
    batch = dict(make_batch(SIZES[:1]), data_samples=[MultiTaskDataSample(metainfo=dict(img_path='a/b.png'))])
    with pytest.raises(InputError, match="sample 'a/b.png' has no gt_label"):
        MMPretrainClassifier(tiny).open(batch)


def test_heads_that_combine_scores_are_followed():
    """Conformer's head gives two outputs and predicts from their sum."""
    model = build(FAMILIES['conformer'])
    scene = wrap(model).open(make_batch([FAMILIES['conformer'].size]))
    with torch.no_grad():
        first, second = model(model.data_preprocessor(dict(inputs=scene.images * 255))['inputs'], mode='tensor')
        assert torch.equal(scene.logits(scene.images, torch.tensor([0])), first + second)


class Wrapped(TimmClassifier):
    """mmpretrain's wrapper of timm models, around another module: it has no head and predicts by itself."""

    def __init__(self):
        BaseClassifier.__init__(self, data_preprocessor=IMAGENET)
        self.model = Net()


def test_wrapped_models_of_other_libraries_are_followed():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model, batch = Wrapped().eval(), make_batch(SIZES)
    scene = wrap(model).open(batch)
    assert torch.equal(scene.logits(scene.images, torch.arange(4)).softmax(1), predicted(model, batch))


def test_keys_do_not_depend_on_where_the_data_lie():
    for path in ('/data/imagenet/val/n01/x.JPEG', 'elsewhere/n01/x.JPEG', 's3://bucket/n01/x.JPEG'):
        assert sample_key(DataSample(metainfo=dict(img_path=path, sample_idx=5))) == 'n01/x.JPEG'
    assert sample_key(DataSample(metainfo=dict(sample_idx=5))) == '5'
    assert sample_key(dict(img_id=7, img_path='a/b.png')) == '7'


# Attacks

@pytest.mark.parametrize('spec', EVERY_ATTACK, ids=lambda spec: '-'.join(map(str, (spec[0], *spec[1].values())))[:40])
def test_every_attack_runs_and_leaves_no_trace(tiny, spec):
    """What it calls success is what the library then predicts; model, samples and global generator stay as they were."""
    batch = make_batch(SIZES, stacked=True)
    for sample, scores in zip(batch['data_samples'], predicted(tiny, batch), strict=True):
        sample.set_gt_label(scores.argmax())
    batch['data_samples'][1].set_gt_label((batch['data_samples'][1].gt_label + 1) % 4)
    samples, inputs = pickle.dumps([sample.to_dict() for sample in batch['data_samples']]), batch['inputs'].clone()
    before, generator = as_found(tiny), torch.get_rng_state()
    found = Attacker.of_model(tiny, make_attack(spec, k=20, steps=15), Untargeted()).perturb(batch)
    assert_as_found(tiny, before)
    assert torch.equal(torch.get_rng_state(), generator) and torch.equal(batch['inputs'], inputs)
    assert pickle.dumps([sample.to_dict() for sample in batch['data_samples']]) == samples
    labels = torch.cat([sample.gt_label for sample in batch['data_samples']])
    assert found.batch['inputs'].dtype == torch.uint8 and found.batch['inputs'].shape == inputs.shape
    assert torch.equal(predicted(tiny, found.batch).argmax(1) != labels, found.result.success)
    assert found.result.clean_correct.tolist() == [True, False, True, True] and found.result.success[1]
    assert torch.equal((found.batch['inputs'] != inputs).any(1).flatten(1).sum(1), found.result.l0_pixels)


@pytest.mark.parametrize('attack', [SparsePGD(k=12, steps=8), SigmaZero(steps=12, unit='pixel'), PGD0(k=12, steps=8)],
                         ids=lambda attack: type(attack).__name__)
def test_neighbours_order_and_collating_change_nothing(tiny, attack):
    batch = make_batch(SIZES)
    attacker = Attacker.of_model(tiny, attack, Targeted('random'))
    together = attacker.perturb(batch)
    back = attacker.perturb({name: values[::-1] for name, values in batch.items()})
    stacked = attacker.perturb(dict(batch, inputs=torch.stack(batch['inputs'])))
    assert together.result.l0_pixels.any()
    for b in range(4):
        alone = attacker.perturb({name: values[b:b + 1] for name, values in batch.items()})
        for other in (alone.batch['inputs'][0], back.batch['inputs'][3 - b], stacked.batch['inputs'][b]):
            assert torch.equal(other, together.batch['inputs'][b])


class TestSqueezeNet:
    """torchvision's SqueezeNet as an mmpretrain classifier."""
    pytestmark = real

    def test_both_victims_agree(self):
        images, labels, keys = nips17(6)
        plain = squeezenet()
        model = classifier(plain[1])
        samples = [DataSample(metainfo=dict(img_path=f'nips17/{key}.png')).set_gt_label(label)
                   for key, label in zip(keys, labels, strict=True)]
        batch = dict(inputs=list((images * 255).flip(1).byte()), data_samples=samples)
        attacker = Attacker.of_model(model, SparsePGD(k=100, steps=5), Untargeted())
        found = attacker.perturb(batch)
        victim = TorchClassifier(plain)
        with victim.session():
            scene = victim.open(images, labels, keys=[f'nips17/{key}.png' for key in keys])
            expected = SparsePGD(k=100, steps=5)(Untargeted().objective(scene))
        assert torch.equal(found.result.clean_correct, expected.clean_correct)
        assert torch.equal(found.result.success, expected.success)
