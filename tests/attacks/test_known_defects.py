"""Known defects of published codes, each with the test that shows it is not ours.

What ours do instead is in docs/attacks/README.md, "What every attack keeps", and on the pages of the attacks under
"Differences from the published code".

General (docs/attacks/README.md)
  pixels, elements and groups mixed up: test_attacks::test_budget_box_region_and_grid_are_kept.
  a margin of 0 taken for a verdict: here test_at_a_tie_success_decides; test_objectives::test_untargeted_known_answers.
  global generator used or seeded, training flags changed: test_attacks::test_no_trace_is_left.
  device of the parameters, or written down: here test_core_texts_name_no_device; test_conformance::Flat has none.
  l0 as float in one version: here test_counts_are_integers.
  logits overwritten: here test_logits_are_not_written_to.
  tensors quadratic in the pixels or of all windows: here test_no_tensor_is_much_larger_than_the_batch.
  graphs kept: test_attacks::test_no_graph_outlives_its_iteration.
  success lost in 8 bits or JPEG: test_attacks::test_success_agrees_with_the_png, ..._is_what_rounding_keeps.
  the victim or the caller's data changed: test_attacks::test_no_trace_is_left.

sigma-zero (docs/attacks/sigma_zero.md)
  targeted attacks return their input: here test_targets_are_reached.
  a success that changes everything is never stored: test_sigma_zero::test_success_that_changes_everything_counts.
  the threshold never adapts (Cinofix): test_sigma_zero::test_threshold_adapts.
  the step size lags by one step (adv-lib): test_sigma_zero::test_every_step_is_the_published_one.
  finished images move on: test_sigma_zero::test_budget_stops_an_image_at_its_first_result_within_it.

Sparse-PGD (docs/attacks/sparse_pgd.md, docs/attacks/structured_sparse_pgd.md)
  ties where the sigmoid is 1: test_attacks::test_huge_mask_logits_do_not_break_the_mask.
  the target is ignored: here test_targets_are_reached.
  stagnation counted per batch: test_attacks::test_mask_is_drawn_anew_per_image_after_patience_unchanged_masks.
  a stale gradient meets a new mask: test_attacks::test_no_stale_gradient_meets_a_new_mask.
  a batch of misclassified images is attacked: test_conformance::test_batch_of_misclassified_images_costs_one_look.
  squeezed batches of one: test_conformance::test_alone_as_in_a_batch_of_equal_dimensions, test_attacks::test_odd_shapes.
  pixels counted by channel sums: here test_changes_that_cancel_are_counted; test_ops.
  results as long as the last active set: test_attacks::test_odd_shapes, test_misclassified_images_come_back_untouched.
  strides that leave a rest: test_kernels::test_expansion_and_correlation_are_the_naive_loops.
  height or width 1 takes the other mode: here test_thin_images_have_rows_and_columns; test_kernels.
  fresh masks are not seeded: here test_fresh_masks_of_groups_are_seeded.

Sparse-RS (docs/attacks/sparse_rs.md), its copies, and the cascade (docs/attacks/sparse_auto_attack.md)
  the best failed candidate is dropped: test_sparse_rs::test_failed_images_keep_their_best_candidate.
  the last place of a patch is out of reach: here test_patches_reach_every_pixel.
  square images and three channels only: test_sparse_rs::test_odd_shapes.
  positions shared by the batch: test_sparse_rs::test_images_do_not_share_positions.
  counts instead of images from the cascade:
    test_sparse_auto_attack::test_stages_tell_who_broke_it_and_survivors_only_are_attacked.
  black only (a copy elsewhere): here test_all_corners_of_the_colour_cube_are_tried.
  endless where one pixel has the colour already: here test_single_pixels_at_a_corner_of_the_cube_end.

GSE (docs/attacks/gse.md), and the PGD0 beside it (docs/attacks/pgd0.md)
  the prox overwrites its input, NaN gradients: test_prox::test_prox_takes_one_weight_..., test_prox_has_a_finite_gradient.
  doubling without end on NaN: test_conformance::test_bad_output_fails_one_image_at_once_and_no_other.
  a blurred mask compared with 1: test_prox::test_blur_is_zero_exactly_beyond_two_pixels.
  PGD0's projection keeps the wrong pixels: test_ops::test_pgd0_projection_is_the_nearest_point_of_all_pixel_sets.
  square images only: the tests' images are 5 x 7, 10 x 9, 6 x 8.

WI-FGSM (docs/attacks/wi_fgsm.md)
  gradients of I-FGSM add up: here test_wi_fgsm_step_by_step.
  a failed dense attack points the wrong way: test_wi_fgsm::test_failed_dense_attack_still_leads_to_success.
  first weights negative, first candidate out of the box: test_wi_fgsm::test_every_candidate_keeps_box_and_region.
  frozen ends of the box: test_wi_fgsm::test_values_at_the_ends_of_the_box_are_frozen_unless_the_bound_is_one_sided.
  the l0 norm has no gradient: here test_wi_fgsm_step_by_step; test_wi_fgsm::test_gradient_is_that_of_the_smooth_count.
  no batches, silently wrong where B = H: test_conformance::test_alone_as_in_a_batch_of_equal_dimensions.
"""
import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import sparse_dense_attacks
from sparse_dense_attacks import RandomPixels, Targeted, Untargeted
from sparse_dense_attacks.attacks import WIFGSM, Attack, ImageRNG, SparseRS, StructuredSparsePGD
from tests.attacks.test_conformance import CORES, Watched, batch
from tests.helpers import Linear, Net, objective, pictures

every_core = pytest.mark.parametrize('attack', CORES.values(), ids=CORES.keys())


# General

@pytest.mark.parametrize('name', ['sigma-zero', 'ASLO', 'sPGD', 'sPGD unprojected', 'rows', 'RS', 'RS ce', 'RS frame', 'PGD0',
                                  'random'])
def test_at_a_tie_success_decides(name):
    """Class 1 turns into class 0 exactly where the logits tie, at the end of the box: the margin is 0 and the image broken."""
    attack = replace(CORES[name], steps=60, **(dict(k=1) if 'k' in vars(CORES[name]) else {}))
    result = attack(objective(Linear(torch.ones(1, 1, 1), 0.), torch.full((2, 1, 1, 1), 128 / 255), torch.tensor([1, 1])))
    assert result.clean_correct.all() and result.success.all() and not result.images.any()


@every_core
def test_targets_are_reached(attack):
    judge = batch()
    towards = Targeted('runner_up').objective(judge.scene)
    result = (replace(attack, k=12) if 'k' in vars(attack) and 'kernel' not in vars(attack) else attack)(towards)
    with torch.no_grad():
        reached = judge.scene.model(result.images).argmax(1) == towards.targets
    assert torch.equal(result.success, reached) and reached.any()


def test_core_texts_name_no_device():
    package = Path(sparse_dense_attacks.__file__).parent
    for path in (path for part in ('attacks', 'ops', 'objectives') for path in (package / part).glob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Constant) and str(node.value).partition(':')[0] in ('cuda', 'mps')), path
            assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == 'cuda'), path


@every_core
def test_counts_are_integers(attack):
    result = attack(batch(2))
    for name in ('l0_pixels', 'l0_elements', 'groups', 'forwards', 'backwards'):
        assert getattr(result, name).dtype == torch.int64, name
    for name in ('success', 'success_float', 'clean_correct', 'defined', 'failed'):
        assert getattr(result, name).dtype == torch.bool, name


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""
    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and 0 not in tensor.stride():  # an expanded view takes no memory
                self.entries = max(self.entries, tensor.numel())
        return out


class Mean(nn.Module):
    def forward(self, x):
        return torch.stack([x.mean((1, 2, 3)), x[:, :, 0, 0].sum(1) / 9 + 0.2], 1)


@pytest.mark.skipif(torch.__version__ < '2.2', reason='no `tensor | True` under a dispatch mode of that torch')
@every_core
def test_no_tensor_is_much_larger_than_the_batch(attack):
    judge = objective(Mean(), pictures(2, 3, 56, 60))
    with Largest() as largest:
        attack(judge)
    assert 2 * 3 * 56 * 60 <= largest.entries <= 2.5 * 2 * 3 * 56 * 60


def test_logits_are_not_written_to():
    kept = []

    class Keeping(Net):
        def forward(self, x):
            logits = super().forward(x)
            kept.append((logits, logits.detach().clone()))
            return logits

    judge = objective(Keeping(), pictures(3, 3, 5, 6))
    judge(judge.images, torch.arange(3))
    assert kept and all(torch.equal(logits, copy) for logits, copy in kept)


def test_changes_that_cancel_are_counted():
    class Cancelling(Attack):
        def run(self, objective, rng):
            x = objective.images.clone()
            x[:, 0, 0, :2] += 51 / 255
            x[:, 1, 0, :2] -= 51 / 255
            return x

    result = Cancelling()(objective(Net(gain=1.), torch.full((1, 3, 4, 4), 102 / 255)))
    assert result.l0_pixels.tolist() == result.groups.tolist() == [2] and result.l0_elements.tolist() == [4]
    assert result.linf.item() == pytest.approx(51 / 255)


# Sparse-PGD

@pytest.mark.parametrize('shape, kernel, pixels', [((1, 6), 'row', 6), ((1, 6), 'column', 1), ((6, 1), 'row', 1),
                                                   ((6, 1), 'column', 6)])
def test_thin_images_have_rows_and_columns(shape, kernel, pixels):
    weight = torch.tensor([0., 0, 0, 0, 0, 1]).view(1, *shape)
    judge = objective(Linear(weight, -2.), torch.full((2, 1, *shape), 128 / 255))
    result = StructuredSparsePGD(k=1, kernel=kernel, steps=60, gradient='unprojected', early_stop=False)(judge)
    assert result.groups.tolist() == [1, 1] and result.l0_pixels.tolist() == [pixels, pixels]
    assert (result.images.flatten(1)[:, -1] == 1).all(), 'the best group'


def test_fresh_masks_of_groups_are_seeded():
    judge, attack = batch(gain=1.), StructuredSparsePGD(k=1, kernel='row', steps=12, patience=1, early_stop=False)
    shown = []
    for seed, globally in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(globally)
        watched = Watched(judge)
        attack(watched, seed=seed)
        shown.append([x for _, x in watched.seen])
    assert all(map(torch.equal, shown[0], shown[1])) and not all(map(torch.equal, shown[0], shown[2]))
    masks = [(x != judge.images).any(1).any(2) for x in shown[0][:13]]
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 6, 'many masks are drawn anew here'


# Sparse-RS

def test_patches_reach_every_pixel():
    judge = Watched(objective(Net(gain=1.), torch.full((4, 3, 5, 7), 128 / 255)))
    SparseRS(k=4, steps=150, variant='patches')(judge)
    assert torch.stack([(x != 128 / 255).any(1).any(0) for _, x in judge.seen]).any(0).all()


@pytest.mark.parametrize('attack', [SparseRS(k=4, steps=30), SparseRS(k=4, steps=30, variant='patches'),
                                    RandomPixels(k=4, steps=30),
                                    SparseRS(k=1, steps=30, variant='frames'), SparseRS(k=1, steps=30, kernel='row')])
def test_all_corners_of_the_colour_cube_are_tried(attack):
    judge = Watched(objective(Net(gain=1.), torch.full((2, 3, 6, 8), 128 / 255)))
    attack(judge)
    colours = {tuple(colour) for _, x in judge.seen for colour in x.movedim(1, 3)[(x != 128 / 255).all(1)].tolist()}
    assert colours == {(float(r), float(g), float(b)) for r in (0, 1) for g in (0, 1) for b in (0, 1)}


@pytest.mark.parametrize('value', [0., 1.])
@pytest.mark.parametrize('attack', [SparseRS(k=1), SparseRS(k=1, variant='patches'), SparseRS(k=1, variant='frames')],
                         ids=lambda a: a.variant)
@pytest.mark.parametrize('c', [1, 3])
def test_single_pixels_at_a_corner_of_the_cube_end(attack, value, c):
    result = replace(attack, steps=40)(objective(Linear(torch.zeros(c, 1, 1), -1.), torch.full((2, c, 1, 1), value)))
    assert result.forwards.tolist() == [41, 41] and not result.success.any()


# WI-FGSM

def slow_wi_fgsm(judge, row, attack, rng):
    """The steps of docs/attacks/wi_fgsm.md for one image, autograd through all of J. The best image and all candidates."""
    x, rows, shown = judge.images[row], torch.tensor([row]), []

    def look(z):
        shown.append(z.detach())
        return judge(z[None], rows)

    z, total = x, torch.zeros_like(x)
    for _ in range(attack.dense_steps):
        probe = z.clone().requires_grad_()
        g, = torch.autograd.grad(look(probe).loss[0], probe)
        total += g
        if attack.accumulate:
            z = (x + attack.eps * total.sign()).clip(0, 1)
        else:
            z = x + (z + 1.25 * attack.eps / attack.dense_steps * g.sign() - x).clip(-attack.eps, attack.eps)
            z = z.clip(0, 1)
    eta, best, fewest = z - x, x, x.numel() + 1
    if look(z).success:
        best, fewest = z, int((eta != 0).sum())
    omega = torch.minimum(x, 1 - x) if attack.bound == 'symmetric' else torch.where(eta > 0, 1 - x, x)
    omega = torch.where(eta != 0, omega / attack.eps, 0)
    w, speed = omega * torch.tanh(torch.relu(rng.normal(len(x))[0])), 0
    for t in range(attack.steps + 1):
        w = w.detach().requires_grad_()
        verdict = look(x + w * eta)
        if verdict.success and int((w > 0).sum()) < fewest:
            best, fewest = (x + w * eta).detach(), int((w > 0).sum())
        cost = attack.lam * nn.functional.softplus(verdict.margin[0])
        if attack.l0 == 'gaussian':
            width = attack.a * (attack.a_final / attack.a) ** (t / (attack.steps - 1))
            cost = cost + ((1 + torch.erf(w / width)) / 2).sum()
        g, = torch.autograd.grad(attack.beta * cost, w)
        speed = attack.momentum * speed + g
        w = omega * torch.tanh(torch.relu(w - attack.lr * speed - attack.tau / attack.eps))
    return best, shown


@pytest.mark.parametrize('options', [{}, dict(l0='none'), dict(accumulate=True), dict(bound='one_sided', tau=0.8),
                                     dict(momentum=0.5, a=0.2, a_final=0.05, tau=0.)], ids=lambda o: '-'.join(o) or 'default')
def test_wi_fgsm_step_by_step(options):
    scene = batch(gain=0.3).scene
    judge = Watched(Untargeted().objective(replace(scene, images=scene.images.double())))
    attack = WIFGSM(**dict(steps=12, dense_steps=5, eps=0.03, tau=0.3, lam=30.) | options)
    images = attack(judge, eight_bit=False).images
    together, counts = [x for _, x in judge.seen], set()
    for b in range(7):
        expected, shown = slow_wi_fgsm(judge.judge, b, attack, ImageRNG(0, [judge.keys[b]], judge.region[b:b + 1]))
        assert len(shown) <= len(together) <= len(shown) + 2, 'besides the final re-check'
        for one, all_ in zip(shown, together, strict=False):
            torch.testing.assert_close(all_[b], one, rtol=0, atol=1e-9)
            counts.add(int((one != judge.images[b]).sum()))
        torch.testing.assert_close(images[b], expected, rtol=0, atol=1e-9)
    assert len(counts) > 5
