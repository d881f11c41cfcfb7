"""Classification objectives and the wrappers every run puts around an objective."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparse_dense_attacks import InputError
from sparse_dense_attacks.objectives import EightBit, MeteredObjective, Objective, Restricted
from sparse_dense_attacks.types import Verdict
from sparse_dense_attacks.victims import TorchClassifier
from tests.helpers import Linear, Net, objective, pictures

ALL = torch.arange(4)


@pytest.fixture
def plain():
    return objective(Net(), pictures(4, 3, 5, 7), labels=torch.tensor([0, 1, 2, 3]))


class Fixed(nn.Module):
    """Logits that do not look at the image."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return self.logits[:len(x)] + 0 * x.sum()


def test_untargeted_known_answers():
    logits = [[2., 1., 0.], [0., 1., 3.], [1., 1., 0.], [0., 1., 1.]]
    verdict = objective(Fixed(*logits), pictures(4, 1, 2, 2), labels=torch.tensor([0, 1, 0, 2])).clean
    assert verdict.margin.tolist() == [1, -2, 0, 0]
    assert verdict.success.tolist() == [False, True, False, True], 'at a tie success follows arg max'
    torch.testing.assert_close(verdict.loss, F.cross_entropy(torch.tensor(logits), torch.tensor([0, 1, 0, 2]), reduction='none'))


def test_eligible_are_the_images_the_model_gets_right():
    judge = objective(Fixed([2., 1.], [0., 1.]), pictures(2, 1, 2, 2), labels=torch.tensor([0, 0]))
    assert judge.eligible.tolist() == [True, False] and judge.defined.tolist() == [True, True]


@pytest.mark.parametrize('wrap', [lambda o: o, MeteredObjective, lambda o: MeteredObjective(o, 10**6),
                                  lambda o: Restricted(MeteredObjective(o), ALL)],
                         ids=['plain', 'metered', 'budget', 'restricted'])
@pytest.mark.parametrize('what', ['loss', 'margin'])
def test_gradients_agree_with_finite_differences(plain, wrap, what):
    judge, rows = wrap(plain), torch.tensor([2, 0])
    x = plain.images[rows].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: getattr(judge(z, rows), what), x, check_undefined_grad=False)


def test_hinge_has_zero_gradient_at_success():
    model = Linear(torch.ones(1, 1, 1), -0.5)
    judge = objective(model, torch.tensor([0.2, 0.9]).view(2, 1, 1, 1), labels=torch.tensor([0, 0]))
    x = judge.images.clone().requires_grad_()
    verdict = judge(x, torch.arange(2))
    grad, = torch.autograd.grad(verdict.margin.relu().sum(), x)
    assert verdict.success.tolist() == [False, True] and grad.flatten().tolist() == [-1, 0]


def test_eight_bit_shows_the_model_grid_images_only(plain):
    seen = []
    plain.scene.model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach() * 255))
    x = plain.images[:2] + 0.3 / 255
    verdict = EightBit(plain)(x, ALL[:2])
    assert all(torch.equal(z, z.round()) for z in seen)
    assert torch.equal(verdict.loss, plain.clean.loss[:2])


def test_eight_bit_passes_the_gradient_straight_through(plain):
    x = (plain.images[:2] * 0.9 + 0.04).requires_grad_()
    rounded = ((x.detach() * 255).round() / 255).requires_grad_()
    ours, = torch.autograd.grad(EightBit(plain)(x, ALL[:2]).loss.sum(), x)
    exact, = torch.autograd.grad(plain(rounded, ALL[:2]).loss.sum(), rounded)
    assert torch.equal(ours, exact)


def test_image_that_rounding_alone_breaks_is_not_eligible():
    model = Linear(torch.ones(1, 1, 1), -100.3 / 255)  # class 1 above 100.3
    images = torch.tensor([100.6, 100.4, 90]).view(3, 1, 1, 1) / 255
    judge = EightBit(objective(model, images))
    assert judge.clean.success.tolist() == [False, True, False]
    assert judge.eligible.tolist() == [True, False, True]


def test_restricted_renumbers(plain):
    rows = torch.tensor([3, 0])
    part = Restricted(MeteredObjective(plain), rows)
    assert part.keys == [3, 0] and torch.equal(part.images, plain.images[rows])
    assert torch.equal(part.clean.margin, plain.clean.margin[rows])
    assert torch.equal(part(part.images[1:], torch.tensor([1])).loss, plain.clean.loss[:1])


def test_meter_counts_per_image(plain):
    meter = MeteredObjective(plain)
    _ = meter.clean, meter.clean
    for rows in (torch.tensor([0, 1]), torch.tensor([1, 3])):
        x = plain.images[rows].requires_grad_()
        torch.autograd.grad(meter(x, rows).loss.sum(), x)
    meter(plain.images[2:3], torch.tensor([2]))
    assert meter.forwards.tolist() == [2, 3, 2, 2]
    assert meter.backwards.tolist() == [1, 2, 0, 1]


def test_spent_budget_hides_the_image_from_the_model(plain):
    meter, shown = MeteredObjective(plain, max_forwards=2), []
    _ = meter.clean
    plain.scene.model.register_forward_pre_hook(lambda module, args: shown.append(len(args[0])))
    meter(plain.images[:1], ALL[:1])
    x = plain.images[:2].requires_grad_()
    verdict = meter(x, ALL[:2])
    grad, = torch.autograd.grad(verdict.loss.sum(), x)
    assert shown == [1, 1]
    assert verdict.loss[0] == -torch.inf and verdict.margin[0] == 1 and not verdict.success[0]
    assert torch.equal(verdict.loss[1], plain.clean.loss[1])
    assert not grad[0].any() and grad[1].any() and not meter.failed.any()
    assert meter.forwards.tolist() == [2, 2, 1, 1] and meter.backwards.tolist() == [0, 1, 0, 0]
    assert not meter(plain.images[:2], ALL[:2]).success.any() and shown == [1, 1]


def test_candidates_of_one_image_in_one_call_count_each(plain):
    meter, rows = MeteredObjective(plain, max_forwards=3), torch.tensor([1, 0, 1, 1])
    _ = meter.clean
    x = plain.images[rows].requires_grad_()
    verdict = meter(x, rows)
    torch.autograd.grad(verdict.margin.sum(), x)
    assert verdict.loss.isfinite().tolist() == [True, True, True, False], 'the third exceeds the budget'
    assert meter.forwards.tolist() == [2, 3, 1, 1] and meter.backwards.tolist() == [1, 2, 0, 0]


def test_flat_are_images_of_which_every_gradient_is_zero_everywhere(plain):
    class Slope(Objective):
        images, region, keys, clean = plain.images, plain.region, plain.keys, plain.clean
        eligible, defined = plain.eligible, plain.defined
        weight = torch.zeros(4, 3, 5, 7)

        def __call__(self, x, rows):
            loss = (self.weight[rows] * x).flatten(1).sum(1)
            return Verdict(loss, loss, loss > 0)

    Slope.weight[0, 1, 2, 3], Slope.weight[1, 1, 2, 3] = 1, -1  # of one sign only
    meter = MeteredObjective(Slope())
    assert not meter.flat.any(), 'nobody has asked for a gradient'
    for rows in (torch.tensor([0, 1, 2]), torch.tensor([2])):
        x = plain.images[rows].requires_grad_()
        torch.autograd.grad(meter(x, rows).loss.sum(), x)
    assert meter.flat.tolist() == [False, False, True, False]


def test_budget_works_for_models_that_compute_in_another_precision():
    judge = objective(Linear(torch.ones(1, 2, 2), -2.), pictures(2, 1, 2, 2))
    judge.scene.model.register_forward_hook(lambda module, args, out: out.double())
    assert MeteredObjective(judge, 5)(judge.images, ALL[:2]).loss.isfinite().all()


def test_reserved_holds_one_forward_back(plain):
    meter = MeteredObjective(plain, max_forwards=2)
    _ = meter.clean
    with Restricted(meter, ALL).reserved():
        assert (meter(plain.images, ALL).loss == -torch.inf).all()
    assert meter(plain.images, ALL).loss.isfinite().all()


@pytest.mark.parametrize('budget', [0, -1, 'abc', 1.5])
def test_budget_without_room_for_the_clean_image_is_refused(plain, budget):
    with pytest.raises(InputError, match='max_forwards'):
        MeteredObjective(plain, budget)


@pytest.mark.parametrize('poison', [torch.nan, torch.inf])
def test_meter_notices_bad_gradients_of_single_images(plain, poison):
    meter = MeteredObjective(plain)
    x = plain.images.clone().requires_grad_()
    plain.scene.model.register_forward_pre_hook(lambda module, args: (Poison.apply(args[0], poison),))
    torch.autograd.grad(meter(x, ALL).loss.sum(), x)
    assert meter.failed.tolist() == [False, False, True, False]


class Poison(torch.autograd.Function):
    """Makes one value of image 2's gradient bad."""

    @staticmethod
    def forward(ctx, x, poison):
        ctx.poison = poison
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone()
        grad[2, 0, 0, 0] = ctx.poison
        return grad, None


def opened(images=None, labels=None, **options):
    images = pictures(2, 3, 4, 5) if images is None else images
    return TorchClassifier(Net()).open(images, torch.tensor([0, 1]) if labels is None else labels, **options)


@pytest.mark.parametrize('batch, message', [
    (dict(images=torch.zeros(3, 4, 5)), r'images: expected float32 \(B, C, H, W\)'),
    (dict(images=torch.zeros(2, 3, 4, 5, dtype=torch.uint8)), 'images: expected float32.*uint8'),
    (dict(images=torch.zeros(2, 3, 4, 5).double()), 'images: expected float32.*float64'),
    (dict(images=torch.full((2, 3, 4, 5), 255.)), 'reach from 255 to 255.*normalisation belongs inside the model'),
    (dict(images=torch.full((2, 3, 4, 5), -0.1)), 'reach from -0.1'),
    (dict(images=torch.full((2, 3, 4, 5), torch.nan)), 'reach from nan'),
    (dict(labels=torch.tensor([0])), r'labels: expected one int64 class index per image \(2\)'),
    (dict(labels=torch.tensor([0., 1.])), 'labels: expected one int64.*float32'),
    (dict(labels=torch.tensor([0, 4])), 'labels reach from 0 to 4, but the model has 4 classes'),
    (dict(labels=torch.tensor([-1, 0])), 'labels reach from -1'),
    (dict(region=torch.ones(2, 4, 5, dtype=torch.bool)), r'region: expected bool \(2, 1, 4, 5\)'),
    (dict(region=torch.ones(2, 1, 4, 5)), 'region: expected bool.*float32'),
    (dict(keys=['a']), r'keys: expected one sample id per image \(2\), found 1'),
])
def test_bad_batches_are_refused_with_one_line(batch, message):
    with pytest.raises(InputError, match=message) as error:
        opened(**batch)
    assert '\n' not in str(error.value)


def test_open_fills_in_region_and_keys():
    scene = opened()
    assert scene.region.shape == (2, 1, 4, 5) and scene.region.all() and scene.keys == [0, 1]


def test_images_off_the_8_bit_grid_cost_a_second_look_and_others_none():
    """Class 1 from 127.3 of 255 on: 127.499 is beyond it, what a file keeps of it, 127, is not."""
    images = torch.tensor([127.499, 100., 127.499, 200.]).view(4, 1, 1, 1) / 255
    judge, shown = objective(Linear(torch.ones(1, 1, 1), -127.3 / 255), images, torch.tensor([0, 0, 1, 1])), []
    judge.scene.model.register_forward_hook(lambda module, args, out: shown.append(len(args[0])))
    meter = MeteredObjective(EightBit(judge))
    assert meter.clean.success.tolist() == [False, False, True, False] and meter.forwards.tolist() == [2, 1, 2, 1]
    assert shown == [2] and torch.equal(meter.clean.loss[[1, 3]], judge.clean.loss[[1, 3]])
    assert meter.eligible.tolist() == [False, True, False, True]
