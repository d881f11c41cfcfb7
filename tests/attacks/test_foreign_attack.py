"""Attacks of other libraries behind our contract."""
import pytest
import torch
import torch.nn.functional as F

from sparse_dense_attacks import ForeignAttack, InputError, Vanish
from sparse_dense_attacks.objectives import MeteredObjective
from tests.helpers import Detections, Net, descent, objective, pictures


def mixed(b=5, **options):
    return objective(Net(gain=0.3), pictures(b, 3, 5, 7, seed=3), **options)


def strongest_pixel(model, inputs, labels, candidates=4):
    """A greedy foreign attack: of each image's best pixels by gradient, whitened one at a time, the one that hurts most."""
    x = inputs.clone().requires_grad_()
    gain = torch.autograd.grad(F.cross_entropy(model(x), labels, reduction='sum'), x)[0].sum(1).flatten(1)
    tried = inputs.repeat_interleave(candidates, 0).flatten(2)
    where = gain.topk(candidates, 1).indices.flatten()
    tried[torch.arange(len(tried)), :, where] = 1.
    tried = tried.view(-1, *inputs.shape[1:])
    loss = F.cross_entropy(model(tried), labels.repeat_interleave(candidates), reduction='none').view(-1, candidates)
    return tried[torch.arange(len(inputs)) * candidates + loss.argmax(1)]


def test_the_victims_own_logits_are_shown_with_the_true_class_first():
    judge, seen = mixed(), []

    def look(model, inputs, labels):
        seen.append((model(inputs), labels))
        return inputs

    ForeignAttack(look, batched=True)(judge)
    (logits, labels), = seen
    plain = judge.scene.model(judge.images)
    assert not labels.any() and torch.equal(logits.sort(1).values, plain.sort(1).values)
    assert torch.equal(logits[:, 0], plain.gather(1, judge.scene.labels[:, None])[:, 0])


@pytest.mark.parametrize('batched', [True, False])
def test_result_is_judged_and_counted_by_us(batched):
    judge = mixed()
    result = ForeignAttack(descent, batched=batched)(judge, eight_bit=False)
    assert torch.equal(result.success_float, judge(result.images, torch.arange(5)).success) and result.success_float.any()
    assert result.forwards.tolist() == [13] * 5 and result.backwards.tolist() == [12] * 5
    assert torch.equal(result.l0_pixels, (result.images != judge.images).any(1).flatten(1).sum(1))


def test_several_candidates_of_an_image_are_counted_one_by_one():
    result = ForeignAttack(strongest_pixel)(mixed())
    assert result.forwards.tolist() == [6] * 5 and result.backwards.tolist() == [1] * 5 and (result.l0_pixels <= 1).all()


def test_a_budget_of_forwards_binds_foreign_attacks_too():
    for budget in (3, 4, 6):
        result = ForeignAttack(strongest_pixel)(mixed(), max_forwards=budget)
        assert (result.queries <= budget).all() and not result.failed.any()


def test_candidates_beyond_the_budget_are_not_shown():
    meter = MeteredObjective(mixed(2), max_forwards=3)
    assert meter.clean.loss.shape == (2,)
    rows = torch.tensor([0, 0, 1, 0])
    verdict = meter(meter.images[rows], rows)
    assert verdict.loss.isinf().tolist() == [False, False, False, True] and meter.forwards.tolist() == [3, 2]
    assert verdict.logits.shape == (4, 4) and verdict.logits.argmax(1)[3] == 0


def test_part_of_the_images_is_refused_when_batched():
    with pytest.raises(InputError, match='showed the model 2 of 5 images; use batched=False'):
        ForeignAttack(lambda model, x, y: model(x[:2]), batched=True)(mixed())


@pytest.mark.parametrize('back, found', [(lambda m, x, y: x[:, :1], r'\(1, 1, 5, 7\)'), (lambda m, x, y: (x, True), 'tuple')])
def test_something_else_than_images_is_refused(back, found):
    with pytest.raises(InputError, match=f'gave back {found}, expected images of shape'):
        ForeignAttack(back)(mixed())


def test_function_by_name_and_options():
    attack = ForeignAttack('tests.helpers.descent')
    assert attack.function.__name__ == 'descent'
    with pytest.raises(InputError, match='no function that can be imported'):
        ForeignAttack('tests.helpers.ascent')
    limited = ForeignAttack(strongest_pixel, dict(candidates=2))(mixed())
    assert limited.forwards.tolist() == [4] * 5


def test_changes_outside_the_region_are_neither_shown_nor_kept():
    region = torch.zeros(5, 1, 5, 7, dtype=torch.bool)
    region[..., 1:4, 2:5] = True
    judge, seen = mixed(region=region), []
    judge.scene.model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    result = ForeignAttack(descent)(judge, eight_bit=False)
    outside = ~region.expand_as(judge.images)
    assert torch.equal(result.images[outside], judge.images[outside]) and result.l0_pixels.any()
    for z in seen[1:]:
        assert any(torch.equal(z[0][outside[0]], image[outside[0]]) for image in judge.images)


def test_attacks_on_classifiers_work_on_detectors():
    box, other = (0., 0., 4., 4.), (8., 8., 12., 12.)
    images = torch.full((2, 3, 6, 6), 0.5)
    scene = Detections(images, [[(box, 0, 1)], [(box, 1, 1), (other, 0, 1)]], [[(box, 0, 0.6)], [(box, 1, 0.8), (other, 0, 0.5)]],
                       weight=0.2)
    result = ForeignAttack(descent)(Vanish().objective(scene))
    assert result.success.all()


def test_global_generators_are_left_alone_and_results_repeat():
    judge, state = mixed(), torch.get_rng_state()
    first, second, other = (ForeignAttack(descent)(judge, seed=seed) for seed in (2, 2, 3))
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(first.images, second.images)
    assert not torch.equal(first.images, other.images)


@pytest.mark.skipif('not __import__("importlib.util").util.find_spec("adv_lib")', reason='make env-bench installs adv-lib')
def test_adversarial_library_runs_through_our_objective():
    judge = mixed()
    for name, options, batched in (('sigma_zero', dict(num_steps=30), True), ('vfga', dict(targeted=False), False)):
        result = ForeignAttack(f'adv_lib.attacks.{name}', options, batched)(judge, eight_bit=False)
        assert result.success_float.all() and (result.l0_elements < 105).all() and (result.forwards > 1).all()
