"""UntargetedPixels and TargetedPixels on hand-made logits, and TorchSegmenter on small smooth networks."""
import copy
from math import log

import pytest
import torch
from PIL import Image
from torch import nn

from sparse_dense_attacks import PGD0, InputError, SigmaZero, SparsePGD, SparseRS, TargetedPixels, UntargetedPixels
from sparse_dense_attacks.objectives import EightBit
from sparse_dense_attacks.victims import TorchSegmenter
from sparse_dense_attacks.victims.base import Geometry
from tests.helpers import EVERY_ATTACK, make_attack, pictures

ROW, VOID = torch.tensor([0]), 255
BOTH = torch.arange(2)


class LabelMaps:
    """A fake scene: hand-made logits, those of class 0 falling by the change of the image's sum.

    Args:
        logits: (B, K, H', W').
        labels: (B, H', W'), VOID where nothing is valid.
    """

    def __init__(self, logits, labels, keys=None, classes=None):
        self.given = torch.tensor(logits).double()
        labels = torch.tensor(labels)
        self.images, self.region = pictures(len(labels), 1, 3, 3), torch.ones(len(labels), 1, 3, 3, dtype=torch.bool)
        self.valid, self.labels = labels != VOID, labels.where(labels != VOID, 0)
        self.keys, self.classes = list(range(len(labels))) if keys is None else keys, classes
        self.shapes = [tuple(labels.shape[1:])] * len(labels)
        self.geometry = Geometry.of_memory(self.images)

    def logits(self, x, rows):
        change = (x - self.images[rows]).double().flatten(1).sum(1)
        first = torch.arange(self.given.shape[1]).view(1, -1, 1, 1) == 0
        return self.given[rows] - change[:, None, None, None] * first


class Pixels(nn.Module):
    """A smooth two-layer network with logits at every pixel; ``stride`` makes them coarser than the image."""

    def __init__(self, classes=4, seed=0, stride=1):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = nn.Conv2d(3, 6, 3, padding=1, stride=stride).double()
        self.head = nn.Conv2d(6, classes, 1).double()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x):
        return self.head(self.conv(x.double() - 0.5).tanh()).to(x.dtype)


def row(*pixels):
    """Logits (1, K, 1, W) of pixels given one after the other."""
    return torch.tensor([pixels], dtype=torch.double).permute(0, 2, 1)[:, :, None].tolist()


def segmented(model=None, reference='prediction', seed=0, size=(6, 5), count=2):
    return TorchSegmenter(model or Pixels(), reference=reference).open(pictures(count, 3, *size, seed=seed))


GOALS = [UntargetedPixels(theta=0.5), UntargetedPixels(theta=0.5, reweight=False), TargetedPixels(target=1, theta=0.5),
         TargetedPixels(erase=0, theta=0.5), TargetedPixels(erase=0, theta=0.5, reweight=False)]


# Known answers

def test_untargeted_known_answers():
    """Pixels: sure and right, barely right, wrong, and one without a class."""
    logits = row([2., 0., 0.], [0., 1., 0.5], [0., 3., 0.], [5., 0., 0.])
    judge = UntargetedPixels(theta=0.5).objective(LabelMaps(logits, [[[0, 1, 0, VOID]]]))
    assert judge.pixels.tolist() == [[[True, True, False, False]]] and judge.parts.tolist() == [2]
    expected = [log(1 + 2 * torch.tensor(-2.).exp()), log(1 + torch.tensor(-1.).exp() + torch.tensor(-.5).exp())]
    torch.testing.assert_close(judge.clean.loss, torch.tensor([sum(expected) / 2]).double())
    torch.testing.assert_close(judge.clean.margin, torch.tensor([(2 + 0.5) / 2]).double())
    assert not judge.clean.success and judge.eligible.all() and judge.defined.all()
    assert judge.share(judge.images, ROW).tolist() == [0]


def test_a_fooled_pixel_counts_the_most_a_right_one_can_reach():
    """One of three pixels falls: it counts log K however wrong it is, and draws no gradient."""
    fake = LabelMaps(row([1., 0., 0.], [0., 1., 0.], [9., 0., 0.]), [[[0, 1, 0]]])
    judge, plain = UntargetedPixels().objective(fake), UntargetedPixels(reweight=False).objective(fake)
    x = (fake.images + 3 / 9).requires_grad_()  # class 0 falls by 3
    verdict = judge(x, ROW)
    logits = fake.logits(x, ROW)[0, :, 0]
    losses = -logits.log_softmax(0)[torch.tensor([0, 1, 0]), torch.arange(3)]
    torch.testing.assert_close(verdict.loss, (log(3) + losses[1:].sum())[None] / 3)
    torch.testing.assert_close(plain(x, ROW).loss, losses.sum()[None] / 3)
    torch.testing.assert_close(verdict.margin, torch.tensor([(1 + 6) / 3]).double())
    gradient, = torch.autograd.grad(verdict.loss.sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad(losses[1:].sum() / 3, x)[0])
    torch.testing.assert_close(judge.share(x, ROW), torch.tensor([1 / 3]).double())


def test_loss_rises_with_every_fooled_pixel():
    fake = LabelMaps(row(*[[s / 4, 0., -1.] for s in range(1, 9)]), [[[0] * 8]])
    judge = UntargetedPixels().objective(fake)
    losses = [judge(fake.images + change / 9, ROW).loss.item() for change in torch.arange(0, 2.5, 0.1).tolist()]
    assert losses == sorted(losses)


@pytest.mark.parametrize('theta, needed', [(0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.76, 4), (1, 4)])
def test_untargeted_success_is_a_share_of_the_pixels_that_were_right(theta, needed):
    """Four right pixels that fall one after the other; wrong ones and those without a class do not count."""
    fake = LabelMaps(row(*[[s, 0., -9.] for s in (1., 2., 3., 4.)], [0., 5., 0.], [1., 0., 0.]), [[[0, 0, 0, 0, 0, VOID]]])
    judge = UntargetedPixels(theta=theta).objective(fake)
    for fooled in range(5):
        x = (fake.images + (fooled + 0.5) / 9).requires_grad_()
        verdict = judge(x, ROW)
        assert verdict.success.item() == (fooled >= needed)
        torch.testing.assert_close(judge.share(x, ROW), torch.tensor([fooled / 4]).double())
        gradient, = torch.autograd.grad(verdict.margin.relu().sum(), x)
        assert (verdict.margin.item() == 0 and not gradient.any()) if verdict.success else (verdict.margin > 0 and gradient.any())


@pytest.mark.parametrize('theta, total', [(0.07, 100), (0.99, 100), (0.7, 10), (0.29, 100), (0.1, 30)])
def test_success_at_exactly_theta(theta, total):
    """Shares such as 7 of 100 are compared without rounding errors."""
    needed = round(theta * total)
    right = [[1., 0.]] * needed + [[9., 0.]] * (total - needed)
    fake = LabelMaps(row(*right), [[[0] * total]])
    judge = UntargetedPixels(theta=theta).objective(fake)
    assert judge(fake.images + 2 / 9, ROW).success and not judge(fake.images, ROW).success


def test_a_tie_goes_to_the_lower_class_as_in_arg_max():
    judge = UntargetedPixels().objective(LabelMaps(row([1., 1.]), [[[0]]]))
    assert judge.eligible.all() and not judge.clean.success and judge.clean.margin == 0


def test_images_without_a_class_and_images_all_wrong():
    logits = [*row([1., 0.], [1., 0.]), *row([1., 0.], [1., 0.]), *row([1., 0.], [1., 0.])]
    fake = LabelMaps(logits, [[[VOID, VOID]], [[1, 1]], [[0, 0]]])
    judge = UntargetedPixels().objective(fake)
    assert judge.defined.tolist() == [False, True, True] and judge.eligible.tolist() == [False, False, True]
    assert judge.clean.loss[:2].tolist() == judge.clean.margin[:2].tolist() == [0, 0] and judge.clean.success[1]
    assert judge.share(fake.images, torch.arange(3)).isnan().tolist() == [True, True, False]
    result = SparsePGD(k=2, steps=3, early_stop=False)(judge)
    assert torch.equal(result.images[:2], fake.images[:2]) and result.forwards.tolist() == [1, 1, 5]
    assert result.success.tolist()[1] and not result.failed.any()


# Targets

def test_targeted_at_one_class():
    """Pixels: to be changed, already changed by the model's own error, of the wanted class, without a class."""
    logits = row([2., 1., 0.], [0., 2., 0.5], [0., 3., 0.], [5., 0., 0.])
    judge = TargetedPixels(target=1, theta=1).objective(LabelMaps(logits, [[[0, 2, 1, VOID]]]))
    assert judge.pixels.tolist() == [[[True, True, False, False]]]
    torch.testing.assert_close(judge.clean.loss, -torch.tensor([log(1 + log_e(1) + log_e(-1))]).double() / 2)
    torch.testing.assert_close(judge.clean.margin, torch.tensor([1 / 2]).double())
    assert judge.defined.all() and judge.eligible.all() and not judge.clean.success
    assert judge.share(judge.images, ROW).tolist() == [0.5]
    verdict = judge(judge.images + 1.5 / 9, ROW)
    assert verdict.success and verdict.margin == 0 and verdict.loss == 0


def log_e(x):
    return torch.tensor(x).double().exp().item()


def test_targets_equal_to_the_truth_are_nothing_to_attack():
    fake = LabelMaps([*row([2., 0.]), *row([2., 0.])], [[[1]], [[0]]])
    judge = TargetedPixels(target=1).objective(fake)
    assert judge.defined.tolist() == [False, True] and judge.eligible.tolist() == [False, True]
    result = SparsePGD(k=2, steps=3, early_stop=False)(judge)
    assert torch.equal(result.images[0], fake.images[0]) and result.l0_pixels[1] > 0


@pytest.mark.parametrize('name', [0, 'road'])
def test_erase_wants_the_likeliest_other_class_of_the_clean_image(name):
    logits = row([1., -2., -1.], [1., -1., -2.], [0., 1., 4.], [1., 4., 2.])
    judge = TargetedPixels(erase=name).objective(LabelMaps(logits, [[[0, 0, 2, 0]]], classes=('road', 'sky', 'car')))
    assert judge.pixels.tolist() == [[[True, True, False, True]]]
    assert judge.wanted[judge.pixels].tolist() == [2, 1, 1]
    torch.testing.assert_close(judge.clean.margin, torch.tensor([(2 + 2) / 3]).double())


def test_erasing_a_class_that_is_not_there():
    fake = LabelMaps([*row([2., 0.]), *row([2., 0.])], [[[1]], [[0]]])
    judge = TargetedPixels(erase=0).objective(fake)
    assert judge.defined.tolist() == [False, True]
    result = SparsePGD(k=2, steps=3)(judge)
    assert torch.equal(result.images[0], fake.images[0]) and result.forwards[0] == 1


def test_label_maps_from_a_folder(tmp_path):
    """Found by the name of the image file, whatever its folder and ending; palette files are read as indices."""
    Image.frombytes('L', (3, 1), bytes([1, VOID, 2])).save(tmp_path / 'a.png')
    indexed = Image.frombytes('P', (3, 1), bytes([0, 1, 0]))
    indexed.putpalette([7, 8, 9] * 256)
    indexed.save(tmp_path / 'b.png')
    logits = [*row(*[[2., 0., 1.]] * 3), *row(*[[2., 0., 1.]] * 3)]
    fake = LabelMaps(logits, [[[0, 1, VOID]], [[1, 0, 2]]], keys=['images/a.jpg', 'b'])
    judge = TargetedPixels(target=str(tmp_path)).objective(fake)
    assert judge.pixels.tolist() == [[[True, False, False]], [[True, True, True]]]
    assert judge.wanted[judge.pixels].tolist() == [1, 0, 1, 0]


# What every goal must keep

@pytest.mark.parametrize('goal', GOALS, ids=str)
def test_gradients_agree_with_finite_differences(goal):
    scene = segmented()
    object.__setattr__(scene, 'images', scene.images.double())
    judge = goal.objective(scene)
    x = (scene.images + 0.01 * torch.rand(scene.images.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    verdict = judge(x, BOTH)
    for name in ('loss', 'margin'):
        gradient, = torch.autograd.grad(getattr(verdict, name).sum(), x, retain_graph=True)
        assert gradient.any()
        step = 1e-7 * gradient.sign()
        with torch.no_grad():
            ahead, behind = (getattr(judge(x + sign * step, BOTH), name).sum() for sign in (1, -1))
        torch.testing.assert_close((ahead - behind) / 2e-7, gradient.abs().sum(), rtol=1e-4, atol=0)


@pytest.mark.parametrize('goal', GOALS, ids=str)
def test_verdicts_do_not_depend_on_neighbours(goal):
    images = pictures(3, 3, 6, 5)
    victim = TorchSegmenter(Pixels(), reference='prediction')
    together = goal.objective(victim.open(images))
    x = images.roll(1, 3)
    verdict = together(x, torch.arange(3))
    for b in range(3):
        alone = goal.objective(victim.open(images[b:b + 1]))(x[b:b + 1], ROW)
        some = together(x[b:b + 1], torch.tensor([b]))
        for name in ('loss', 'margin', 'success'):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(verdict, name)[b])
            torch.testing.assert_close(getattr(some, name)[0], getattr(verdict, name)[b])


@pytest.mark.parametrize('spec', EVERY_ATTACK, ids=lambda spec: spec[0])  # a function's address is no name
@pytest.mark.parametrize('goal', [UntargetedPixels(theta=0.1), TargetedPixels(erase=0, theta=0.1)], ids=['untargeted', 'erase'])
def test_every_attack_runs(spec, goal):
    """And leaves the model, the image without a class and everything outside the region alone."""
    model = Pixels().train()
    before = copy.deepcopy(model.state_dict())
    victim, images = TorchSegmenter(model), pictures(3, 3, 8, 8)
    labels = torch.stack([torch.full((8, 8), VOID), *model(images[1:]).argmax(1)])
    region = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    region[..., :6] = True
    with victim.session():
        scene = victim.open(images, labels, region)
        result = make_attack(spec)(goal.objective(scene))
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(result.images[0], images[0]) and not result.defined[0] and not result.failed.any()
    assert torch.equal(result.images[..., 6:], images[..., 6:])
    assert result.images.min() >= 0 and result.images.max() <= 1


@pytest.mark.parametrize('attack', [SigmaZero(steps=60), *(attack(k=12, steps=60) for attack in (SparsePGD, SparseRS, PGD0))])
def test_attacks_reach_the_goal(attack):
    result = attack(UntargetedPixels(theta=0.25).objective(segmented(size=(8, 8))))
    assert result.success.all() and (result.l0_pixels > 0).all()


def test_spgd_fools_more_pixels_than_it_changes():
    judge = UntargetedPixels().objective(segmented(size=(16, 16)))
    result = SparsePGD(k=8, steps=60, early_stop=False)(judge)
    assert (judge.share(result.images, BOTH) > 16 / 256).all() and (result.l0_pixels <= 8).all()


def test_eight_bit_keeps_what_the_goal_says():
    scene = segmented()
    object.__setattr__(scene, 'images', (scene.images * 0.999 + 0.0005).float())
    wrapped = EightBit(UntargetedPixels().objective(scene))
    assert wrapped.eligible.shape == (2,) and wrapped.clean.margin.shape == (2,)


# TorchSegmenter

def test_prediction_as_reference_is_right_everywhere():
    scene = segmented(Pixels(stride=2))
    assert scene.labels.shape == (2, 6, 5) and scene.valid.all()
    assert torch.equal(scene.logits(scene.images, BOTH).argmax(1), scene.labels)
    assert UntargetedPixels().objective(scene).parts.tolist() == [30, 30]


def test_coarse_logits_are_resized_to_the_labels_and_dicts_are_read():
    class Torchvision(Pixels):
        def forward(self, x):
            return dict(out=super().forward(x), aux=None)

    images, labels = pictures(2, 3, 8, 8), torch.zeros(2, 12, 10, dtype=torch.int64)
    plain, wrapped = (TorchSegmenter(kind(stride=2)).open(images, labels) for kind in (Pixels, Torchvision))
    logits = plain.logits(images, BOTH)
    expected = nn.functional.interpolate(Pixels(stride=2)(images), (12, 10), mode='bilinear', align_corners=False)
    assert torch.equal(logits, expected) and torch.equal(logits, wrapped.logits(images, BOTH))


def test_ignored_labels_are_not_valid():
    labels = torch.tensor([[[0, 1], [7, 2]], [[7, 7], [7, 7]]])
    scene = TorchSegmenter(Pixels()).open(pictures(2, 3, 2, 2), labels, ignore_index=7)
    assert torch.equal(scene.valid, labels != 7) and scene.labels.max() == 2
    assert UntargetedPixels().objective(scene).defined.tolist() == [True, False]


@pytest.mark.parametrize('change, message', [
    (dict(batch=pictures(2, 3, 4, 4) * 255), r'images: values reach from .* expected \[0, 1\]'),
    (dict(batch=pictures(2, 3, 4, 4).double()), r'images: expected float32'),
    (dict(labels=None), "no labels: .* reference='prediction'"),
    (dict(labels=torch.zeros(2, 4)), r'labels: expected int64 \(2, height, width\)'),
    (dict(labels=torch.zeros(3, 4, 4, dtype=torch.int64)), r'labels: expected int64 \(2, height, width\)'),
    (dict(labels=torch.full((2, 4, 4), 4)), r'labels: label 4 is none of the 4 classes .* ignored one \(255\)'),
    (dict(labels=torch.full((2, 4, 4), -1)), r'labels: label -1 is none of the 4 classes'),
    (dict(region=torch.ones(2, 1, 4, 4)), 'region: expected bool'),
    (dict(keys=['a']), 'keys: expected one sample id per image'),
])
def test_bad_batches(change, message):
    batch = dict(batch=pictures(2, 3, 4, 4), labels=torch.zeros(2, 4, 4, dtype=torch.int64)) | change
    with pytest.raises(InputError, match=message):
        TorchSegmenter(Pixels()).open(**batch)


def test_a_classifier_is_no_segmenter():
    with pytest.raises(InputError, match=r'a tensor \(1, 3\), expected logits \(B, K, height, width\)'):
        TorchSegmenter(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), reference='prediction').open(pictures(1, 3, 2, 2))


# Errors of goals

@pytest.mark.parametrize('build, message', [
    (lambda: UntargetedPixels(theta=0), 'UntargetedPixels: theta = 0'),
    (lambda: UntargetedPixels(theta=1.5), 'UntargetedPixels: theta = 1.5'),
    (TargetedPixels, 'give either target .* or erase'),
    (lambda: TargetedPixels(target=1, erase=2), 'give either target .* or erase'),
    (lambda: TargetedPixels(target=1.0), 'give either target .* found target = 1.0'),
    (lambda: TargetedPixels(erase=True), 'give either target .* erase = True'),
    (lambda: TargetedPixels(target='nowhere'), "target = 'nowhere' is no folder"),
    (lambda: TorchSegmenter(Pixels(), reference='predicton'), "reference = 'predicton'.*did you mean 'prediction'"),
])
def test_bad_arguments(build, message):
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize('options, message', [
    (dict(target=3), r'target = 3, but the classes are 0 to 2'),
    (dict(erase=-1), 'erase = -1, but the classes are 0 to 2'),
    (dict(erase='rod'), "no class 'rod': did you mean 'road'"),
])
def test_no_such_class(options, message):
    fake = LabelMaps(row([2., 0., 0.]), [[[0]]], classes=('road', 'sky', 'car'))
    with pytest.raises(InputError, match=message):
        TargetedPixels(**options).objective(fake)


def test_names_without_a_model_that_knows_them():
    with pytest.raises(InputError, match="erase = 'road', but no class names are known"):
        TargetedPixels(erase='road').objective(LabelMaps(row([2., 0.]), [[[0]]]))


@pytest.mark.parametrize('image, message', [
    (None, "no label map '.*0.png', or no readable PNG"),
    (b'text', "no label map '.*0.png', or no readable PNG"),
    (torch.arange(4096).remainder(251).to(torch.uint8), "no label map '.*0.png', or no readable PNG"),
    (Image.new('L', (2, 1)), r'is \(1, 2\), the ground truth \(1, 1\)'),
    (Image.new('RGB', (1, 1)), 'has mode RGB, expected class indices'),
    (Image.new('L', (1, 1), 2), r'holds 2, but the model has 2 classes \(0 to 1\), and 255 is for'),
])
def test_bad_label_maps(image, message, tmp_path):
    if isinstance(image, bytes):
        (tmp_path / '0.png').write_bytes(image)
    elif isinstance(image, torch.Tensor):  # the file ends early
        Image.fromarray(image.view(64, 64).numpy()).save(tmp_path / '0.png')
        (tmp_path / '0.png').write_bytes((tmp_path / '0.png').read_bytes()[:100])
    elif image:
        image.save(tmp_path / '0.png')
    with pytest.raises(InputError, match=message):
        TargetedPixels(target=str(tmp_path)).objective(LabelMaps(row([2., 0.]), [[[0]]]))
