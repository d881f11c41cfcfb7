"""Goals on inner layers: known answers, gradients, independence of the batch, every attack, errors."""
import pytest
import torch
from torch import nn

from sparse_dense_attacks import FeatureDispersion, FeatureDistance, InputError, SparsePGD, attack
from sparse_dense_attacks.testing import Detections, Net, pictures
from sparse_dense_attacks.victims import TorchClassifier, TorchSegmenter
from tests.helpers import EVERY_ATTACK, make_attack

GOALS = [FeatureDispersion('conv'), FeatureDistance('conv')]
ROWS = torch.arange(3)


class Scaled(nn.Module):
    """The features of an image are the image itself, times a number, then some that nobody reads."""

    def __init__(self, scale=1.0, last=None):
        super().__init__()
        self.scale, self.backbone, self.last = scale, nn.Identity(), last
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        found = self.backbone(x * self.scale)
        if self.last is not None:
            raise RuntimeError('what comes after the layer is not run')
        return self.head(found.mean((2, 3)))


def opened(model, images, goal):
    labels = torch.zeros(len(images), dtype=torch.int64)
    return goal.objective(TorchClassifier(model).open(images, labels))


def test_dispersion_by_hand():
    images = pictures(3, 3, 5, 7)
    judge = opened(Scaled(), images, FeatureDispersion(until=0.4))
    x = torch.stack([images[0], images[1] * 0.5, torch.full_like(images[2], 0.3)])
    verdict = judge(x, ROWS)
    assert verdict.loss.tolist() == pytest.approx([-1, -0.5, 0], abs=1e-5)
    assert verdict.margin.tolist() == pytest.approx([0.6, 0.1, -0.4], abs=1e-5)
    assert verdict.success.tolist() == [False, False, True]
    assert judge.eligible.all() and judge.defined.all() and judge.parts is None


def test_distance_by_hand():
    images = pictures(3, 3, 5, 7)
    judge = opened(Scaled(), images, FeatureDistance(until=0.9))
    verdict = judge(torch.stack([images[0], images[1] * 0.5, images[2] * 0]), ROWS)
    assert verdict.loss.tolist() == pytest.approx([0.01 ** 2, 0.49 ** 2, 0.99 ** 2], abs=1e-6)
    assert verdict.margin.tolist() == pytest.approx([0.8999, 0.6599, -0.0801], abs=1e-6)
    assert verdict.success.tolist() == [False, False, True]


@pytest.mark.parametrize('kind', [FeatureDispersion, FeatureDistance])
def test_neither_depends_on_the_scale_of_the_features(kind):
    images, x = pictures(3, 3, 5, 7), pictures(3, 3, 5, 7, seed=1)
    small, large = (opened(Scaled(scale), images, kind())(x, ROWS) for scale in (1, 1000))
    torch.testing.assert_close(small.loss, large.loss)


@pytest.mark.parametrize('goal', GOALS)
def test_gradients_agree_with_finite_differences(goal):
    judge, rows = opened(Net(), pictures(3, 3, 5, 7), goal), torch.tensor([2, 0])
    x = pictures(2, 3, 5, 7, seed=4).double().requires_grad_()
    for what in ('loss', 'margin'):
        assert torch.autograd.gradcheck(lambda z, what=what: getattr(judge(z, rows), what), x)


@pytest.mark.parametrize('goal', GOALS)
def test_there_is_a_slope_at_the_clean_image(goal):
    judge = opened(Net(), pictures(3, 3, 5, 7), goal)
    x = judge.images.clone().requires_grad_()
    slope, = torch.autograd.grad(judge(x, ROWS).loss.sum(), x)
    assert slope.isfinite().all() and (slope != 0).flatten(1).any(1).all()


@pytest.mark.parametrize('goal', [FeatureDispersion(), FeatureDistance()])
def test_features_without_dispersion_do_no_harm(goal):
    judge = opened(Scaled(0), pictures(3, 3, 5, 7), goal)
    x = judge.images.clone().requires_grad_()
    verdict = judge(x, ROWS)
    slope, = torch.autograd.grad(verdict.loss.sum() + verdict.margin.sum(), x)
    assert verdict.loss.isfinite().all() and not slope.any() and not verdict.success.any()


@pytest.mark.parametrize('goal', GOALS)
def test_verdicts_do_not_depend_on_the_batch(goal):
    images, x = pictures(4, 3, 5, 7), pictures(4, 3, 5, 7, seed=1)
    together = opened(Net(), images, goal)(x, torch.arange(4))
    turned = torch.tensor([3, 1, 0, 2])
    torch.testing.assert_close(opened(Net(), images, goal)(x[turned], turned).loss,
                               together.loss[turned])
    for row in range(4):
        alone = opened(Net(), images[row:row + 1], goal)(x[row:row + 1], torch.tensor([0]))
        torch.testing.assert_close(alone.loss, together.loss[row:row + 1])


@pytest.mark.parametrize('spec', EVERY_ATTACK, ids=lambda s: f'{s[0]}{"-".join(map(str, s[1].values()))}'[:40])
def test_every_attack_ascends_the_dispersion(spec):
    """No labels are given that mean anything, and the head is a stranger to the goal."""
    if spec[0] == 'ForeignAttack':
        pytest.skip('foreign attacks want logits')
    images = pictures(3, 3, 8, 9)
    judge = opened(Net(gain=3), images, FeatureDispersion('conv', until=0.97))
    if spec[0] == 'GSE':
        spec = 'GSE', dict(iters=60, k_hat=5, search_steps=5, sigma=0.05, steepness=1.0)
    options = dict(k=12, steps=30, queries=60, early_stop=False)
    own = {name: value for name, value in options.items() if name not in spec[1]}
    result = make_attack(spec, **own)(judge)
    after = judge(result.images, ROWS).loss
    assert (after >= judge.clean.loss).all() and (after > judge.clean.loss + 1e-3).any()
    assert (result.success == (after >= -0.97)).all() and result.defined.all()


@pytest.mark.parametrize('goal', GOALS)
def test_more_pixels_lead_further(goal):
    images, reached = pictures(3, 3, 8, 9), []
    judge = opened(Net(), images, goal)
    for k in (2, 8, 32):
        result = SparsePGD(k=k, steps=60, early_stop=False)(judge)
        reached.append(judge(result.images, ROWS).loss)
    assert (reached[0] > judge.clean.loss).all()
    assert (reached[1] > reached[0]).all() and (reached[2] > reached[1]).all()


def test_the_rest_of_the_model_is_not_run_and_no_hook_stays():
    model = Scaled(last=True)
    judge = opened_without_head(model, pictures(2, 3, 4, 4))
    assert judge.clean.loss.tolist() == pytest.approx([-1, -1])
    assert not model.backbone._forward_hooks


def opened_without_head(model, images):
    last, model.last = model.last, None  # the classifier looks at its logits once, to check labels
    scene = TorchClassifier(model).open(images, torch.zeros(len(images), dtype=torch.int64))
    model.last = last
    return FeatureDispersion().objective(scene)


def test_attack_takes_them_for_segmenters_and_without_labels():
    images = pictures(2, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1))
    victim = TorchSegmenter(model, reference='prediction')
    result = attack(victim, images, attack=SparsePGD(k=5, steps=10, early_stop=False),
                    goal=FeatureDistance('0'))
    assert (result.l0_pixels <= 5).all() and (result.l0_pixels > 0).all()


def test_maps_of_different_sizes():
    """Images of different sizes are shown apart; each verdict is that of its image alone."""
    class Scene:
        def features(self, x, rows, layer):
            return [one[:, :size] for one, size in zip(x, (4, 6, 8), strict=True)]

    scene, images = Scene(), pictures(3, 3, 8, 9)
    scene.images, scene.keys = images, [0, 1, 2]
    scene.region = torch.ones_like(images[:, :1], dtype=torch.bool)
    judge = FeatureDispersion().objective(scene)
    alone = [one[:, :size] * 0.5 for one, size in zip(images, (4, 6, 8), strict=True)]
    assert judge.clean.loss.tolist() == pytest.approx([-1] * 3)
    assert judge(images * 0.5, ROWS).loss.tolist() == pytest.approx(
        [-float(half.std() / (half * 2).std()) for half in alone], abs=1e-5)


class Strange(nn.Module):
    """Layers whose outputs are no features, and one that is never asked."""

    def __init__(self):
        super().__init__()
        self.words, self.unused = Says('text'), nn.Identity()
        self.whole, self.names = Says(torch.zeros(7)), Says(torch.zeros(2, 3).long())
        self.pyramid = Says((torch.ones(2, 3), [torch.arange(6.).view(2, 3)]))

    def forward(self, x):
        for layer in (self.words, self.whole, self.names, self.pyramid):
            layer(x)
        return torch.stack([x.flatten(1).sum(1), x.flatten(1).mean(1)], 1)


class Says(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer


@pytest.mark.parametrize(('layer', 'message'), [
    ('pyramide', "has no layer 'pyramide': did you mean 'pyramid'?"),
    ('unused', 'is not asked on the way'),
    ('words', 'gives a str'),
    ('whole', r'gives \(7,\) for 2 images'),
    ('names', 'gives a Tensor, expected features'),
])
def test_layers_that_are_none_are_refused(layer, message):
    with pytest.raises(InputError, match=message):
        opened(Strange(), pictures(2, 3, 4, 4), FeatureDispersion(layer))


def test_of_several_maps_the_last_is_taken():
    judge = opened(Strange(), pictures(2, 3, 4, 4), FeatureDispersion('pyramid'))
    assert judge.reference.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_scene_without_a_model_says_so():
    scene = Detections(pictures(1, 3, 8, 8), truth=[[]], candidates=[[]])
    with pytest.raises(InputError, match="has no layer 'backbone'"):
        FeatureDispersion().objective(scene)


@pytest.mark.parametrize('bad', [dict(until=0), dict(until=1), dict(layer='')])
def test_bad_fields(bad):
    with pytest.raises(InputError, match='FeatureDispersion: '):
        FeatureDispersion(**bad)
