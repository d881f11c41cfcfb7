"""Small victims with known answers. All arithmetic is in double, so that results do not hang on the order of float32 sums."""
import dataclasses
import itertools

import torch
from torch import nn

from sparse_dense_attacks import ATTACKS, PGD0, Boxes, Untargeted
from sparse_dense_attacks.attacks import BudgetAttack
from sparse_dense_attacks.victims import TorchClassifier


def descent(model, inputs, labels):
    """A foreign attack: a few sign steps on a random half of the pixels."""
    x, keep = inputs, torch.rand_like(inputs[:1, :1]) > 0.5
    for _ in range(12):
        probe = x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(probe), labels, reduction='sum')
        x = (x + 0.1 * torch.autograd.grad(loss, probe)[0].sign() * keep).clamp(0, 1)
    return x


SMALL = dict(k=3, steps=6)  # hyper-parameters for tests that need an attack to run, not to be strong
SPECIAL = {  # what makes the others small, and structured attacks comparable
    'ASLOAddOn': dict(base=PGD0(k=1, steps=6)),  # fits into a single pixel
    'BudgetSearch': dict(base=PGD0(k=1, steps=3), searches=3),
    'ForeignAttack': dict(function=descent),
    'GSE': dict(iters=6, k_hat=3, search_steps=3),
    'SparseAutoAttack': dict(queries=6),
    'StructuredSparsePGD': dict(kernel='pixel'),
}
EVERY_ATTACK = [(name, SPECIAL.get(name, {})) for name in ATTACKS]
EVERY_ATTACK += [('SparsePGD', dict(gradient=g)) for g in ('unprojected', 'ensemble')]
DETERMINISTIC = ('ASLO', 'GSE', 'SigmaZero')
BUDGET_ATTACKS = [(name, options) for name, options in EVERY_ATTACK if issubclass(ATTACKS.get(name), BudgetAttack)]


def make_attack(spec, **options):
    """An attack of EVERY_ATTACK with as many of ``options`` as it knows."""
    name, special = spec
    fields = {field.name for field in dataclasses.fields(ATTACKS.get(name))}
    return ATTACKS.build(name, **{key: value for key, value in (SMALL | options).items() if key in fields}, **special)


class Linear(nn.Module):
    """Two classes whose logits differ by ``bias + weight * x``: class 1 exactly where that is positive."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = weight.double(), torch.tensor(bias).double()

    def forward(self, x):
        gap = (self.weight * x.double()).flatten(1).sum(1) + self.bias
        return torch.stack([torch.zeros_like(gap), gap], 1).to(x.dtype)

    def pixel_gains(self, x):
        """(B, H * W), how much each pixel can raise the gap at most: every channel at its best end of the box."""
        return torch.maximum(self.weight * (1 - x), -self.weight * x).sum(1).flatten(1)


class Net(nn.Module):
    """A smooth convolution, a global sum and a linear layer: images of any size, even 1 x 1."""

    def __init__(self, channels=3, classes=4, seed=0, gain=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv, self.head = nn.Conv2d(channels, 6, 3, padding=1).double(), nn.Linear(6, classes).double()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * gain / parameter[0].numel() ** 0.5)
        self.requires_grad_(False)

    def forward(self, x):
        return self.head((2 * self.conv(x.double() - 0.5)).tanh().sum((2, 3))).to(x.dtype)


def pictures(*shape, seed=0):
    """Random images on the 8-bit grid, (B, C, H, W)."""
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)) / 255


def objective(model, images, labels=None, **options):
    """The untargeted objective on what the model says now, or on ``labels``."""
    if labels is None:
        with torch.no_grad():
            labels = model(images).argmax(1)
    return Untargeted().objective(TorchClassifier(model).open(images, labels, **options))


def corner_images(image, k):
    """Every image that differs from ``image`` (C, H, W) in k pixels, each at a corner of the colour cube."""
    c, h, w = image.shape
    colours = list(itertools.product((0., 1.), repeat=c))
    found = []
    for pixels in itertools.combinations(range(h * w), k):
        for chosen in itertools.product(colours, repeat=k):
            x = image.flatten(1).clone()
            for pixel, colour in zip(pixels, chosen, strict=True):
                x[:, pixel] = torch.tensor(colour)
            found.append(x.view(c, h, w))
    return torch.stack(found)


def pad_boxes(per_image):
    """``[[(box, label, score), ...], ...]`` as :class:`Boxes`."""
    longest = max(map(len, per_image), default=0)
    boxes = torch.zeros(len(per_image), longest, 4)
    labels = torch.full((len(per_image), longest), -1)
    scores = torch.zeros(len(per_image), longest)
    for b, row in enumerate(per_image):
        for n, (box, label, score) in enumerate(row):
            boxes[b, n], labels[b, n], scores[b, n] = torch.tensor(box, dtype=torch.float), label, score
    return Boxes(boxes, labels, scores)


class Detections:
    """A fake detection scene: hand-made boxes whose scores move with the image.

    The score of candidate n has the logit of its hand-made score plus ``weight[n]`` times the change of the image's sum, so the
    clean image has exactly the hand-made scores. ``losses`` is the sum of all score logits. ``below`` (N,) names the candidate of
    the same box that is reported in place of each, -1 where it is reported itself.
    """

    classes, num_classes = ('cat', 'dog', 'cow'), 3

    def __init__(self, images, truth, candidates, weight=-1.0, boxes_known=True, below=None):
        self.images, self.region = images, torch.ones_like(images[:, :1], dtype=torch.bool)
        self.keys, self.truth, self.found = list(range(len(images))), pad_boxes(truth), pad_boxes(candidates)
        self.weight, self.boxes_known, self.below = weight, boxes_known, below

    def candidates(self, x, rows, rivals=()):
        found, change = self.found[rows], (x - self.images[rows]).flatten(1).sum(1, keepdim=True)
        logits = torch.logit(found.scores.to(x.dtype), eps=1e-9) + self.weight * change
        scores = logits.sigmoid() * found.valid
        below = None if self.below is None else torch.where(self.below >= 0, scores[:, self.below.clamp(min=0)], 0)
        return Boxes(found.boxes, found.labels, scores, below)

    def losses(self, x, rows):
        loss = -(self.weight * (x - self.images[rows])).flatten(1).sum(1)
        with torch.no_grad():
            return loss, self.candidates(x, rows) if self.boxes_known else None
