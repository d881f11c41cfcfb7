"""What a perturbation does and where it lies, measured with the model's own scores and gradients.

Models come in as callables. ``scores`` takes candidates (n, C, H, W) of one image and gives two
numbers of each, both (n,): the score of what is right, Z_y, and that of what the attack has reached,
Z_t. Of a classifier they are two logits.
"""
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..ops import changed_pixels

__all__ = ['PERCENTILES', 'SHARES', 'Roles', 'adversarial_saliency', 'cam_overlap', 'grad_cam',
           'interpretability_score', 'necessary', 'pruned', 'roles']

Scores = Callable[[Tensor], tuple[Tensor, Tensor]]

PERCENTILES = (50, 60, 70, 80, 90)
SHARES = (0.1, 0.2, 0.3)
BATCH = 32  # candidates that are shown to the model at once


def adversarial_saliency(scores: Scores, image: Tensor) -> Tensor:
    """ASM, ``dZ_t/dx * |dZ_y/dx|`` of every channel value: where the class reached is raised.

    Without the sign condition of the original saliency maps, as the published code has it.

    Args:
        scores: of the model.
        image: (C, H, W) float in [0, 1], the clean image.

    Returns:
        (C, H, W) float; NaN everywhere where a score is NaN.

    Reference: arXiv 2311.17434, section 4, and its published code.
    """
    with torch.enable_grad():
        x = image[None].clone().requires_grad_()
        right, reached = scores(x)
        if not (right.isfinite() & reached.isfinite()).all():
            return torch.full_like(image, torch.nan)
        of_right, = torch.autograd.grad(right.sum(), x, retain_graph=True)
        of_reached, = torch.autograd.grad(reached.sum(), x)
    return (of_reached * of_right.abs())[0].detach()


def interpretability_score(change: Tensor, saliency: Tensor,
                     percentiles: Sequence[float] = PERCENTILES) -> Tensor:
    """IS(P), the share of a perturbation's 2-norm on the most salient channel values.

    ``|B w|_2 / |w|_2`` with ``B = 1[ASM > nu_P]``. Of the sorted non-zero entries of the saliency
    with one 0 put in front, ``nu_P`` is the one of index ``ceil(P n / 100)``.

    Args:
        change: (C, H, W), w, the adversarial image less the clean one.
        saliency: (C, H, W), see :func:`adversarial_saliency`.
        percentiles: P, each in [0, 100].

    Returns:
        (len(percentiles),) float64 in [0, 1]; NaN where nothing is changed or the saliency is NaN.

    Example:
        >>> change = torch.tensor([[[3., 4.]]])
        >>> interpretability_score(change, torch.tensor([[[1., 2.]]]), [50]).tolist()
        [0.8]

    Reference: arXiv 2311.17434, section 4, and its published code.
    """
    wrong = [one for one in percentiles if not 0 <= one <= 100]
    if wrong:
        raise InputError(f'percentiles = {wrong[0]}, expected numbers from 0 to 100')
    w, values = change.double(), saliency.double()
    if saliency.isnan().any() or not w.any():
        return torch.full((len(percentiles),), torch.nan, dtype=torch.float64)
    known = values[values != 0].sort().values
    known = torch.cat([known.new_zeros(1), known])
    n = len(known) - 1
    index = [-int(-percentile * n // 100) for percentile in percentiles]
    bars = known[index].view(-1, 1, 1, 1)
    return ((values > bars) * w).flatten(1).norm(dim=1) / w.norm()


def grad_cam(features: Tensor, gradient: Tensor, size: tuple[int, int]) -> Tensor:
    """Grad-CAM: the channels of a feature map, each weighted by the mean gradient of a score.

    Args:
        features, gradient: (K, h, w), a map and the gradient of the score with respect to it.
        size: of the images that the map covers.

    Returns:
        ``size`` float >= 0, resized bilinearly.

    Reference: arXiv 1610.02391.
    """
    weight = gradient.mean((1, 2), keepdim=True)
    cam = (weight * features).sum(0).clamp(min=0)
    return F.interpolate(cam[None, None], size, mode='bilinear', align_corners=False)[0, 0]


def cam_overlap(changed: Tensor, cam: Tensor, content: Tensor,
                shares: Sequence[float] = SHARES) -> Tensor:
    """Share of the changed pixels that lie in the top of a class activation map.

    Changes that do not care about the map have ``q`` of their pixels in its top ``q``. Where many
    pixels have the value at the border of the top, each counts for its part of the places left.

    Args:
        changed: (H, W) bool.
        cam: (H, W) float.
        content: (H, W) bool, the pixels that count.
        shares: q, each in (0, 1], of the pixels.

    Returns:
        (len(shares),) float64; NaN where nothing is changed, or the map is the same everywhere.
    """
    values, where = cam[content], changed[content]
    if not where.any() or values.min() == values.max():
        return torch.full((len(shares),), torch.nan, dtype=torch.float64)
    order = values.sort(descending=True).values
    found = []
    for share in shares:
        top = max(1, round(share * len(values)))
        bar = order[top - 1]
        above, level = values > bar, values == bar
        part = (top - above.sum()).double() / level.sum()
        found.append(((above & where).sum() + part * (level & where).sum()) / where.sum())
    return torch.stack(found).double()


@dataclass(frozen=True)
class Roles:
    """What every changed pixel is for.

    Attributes:
        places: (n, 2) int64, rows and columns of the changed pixels.
        obscured: (n,) float, a: how much the score of what is right rises when the pixel alone is
            restored.
        led: (n,) float, b: how much the score of what was reached falls then.
    """
    places: Tensor
    obscured: Tensor
    led: Tensor

    @property
    def obscuring(self) -> Tensor:
        """(n,) bool, pixels that hide what is right more than they show what is wrong."""
        return self.obscured > self.led


def roles(scores: Scores, clean: Tensor, adversarial: Tensor) -> Roles:
    """Obscuring and leading pixels: what the scores do when each alone is as it was.

    Costs a forward for each changed pixel, and one.

    Args:
        scores: of the model.
        clean, adversarial: (C, H, W) float in [0, 1].

    The idea of obscuring and leading noise is that of arXiv 2506.17250, which shows pictures and no
    formula; this one is ours.
    """
    places = _places(clean, adversarial)
    with torch.no_grad():
        right, reached = scores(adversarial[None])
        found = [scores(part) for part in _restored_alone(clean, adversarial, places)]
    empty = right[:0]
    rights = torch.cat([empty, *(one for one, _ in found)])
    others = torch.cat([empty, *(one for _, one in found)])
    return Roles(places, rights - right, reached - others)


def necessary(success: Callable[[Tensor], Tensor], clean: Tensor, adversarial: Tensor) -> Tensor:
    """Which changed pixels the success needs: without the pixel alone there is none.

    Costs a forward for each changed pixel.

    Args:
        success: takes candidates (n, C, H, W) and says of each whether the attack has succeeded.
        clean, adversarial: (C, H, W) float in [0, 1]; the adversarial image is a success.

    Returns:
        (n,) bool, in the order of the changed pixels, row by row.
    """
    places = _places(clean, adversarial)
    with torch.no_grad():
        found = [~success(part) for part in _restored_alone(clean, adversarial, places)]
    return torch.cat([torch.zeros(0, dtype=torch.bool, device=clean.device), *found])


def pruned(success: Callable[[Tensor], Tensor], gradient: Tensor, clean: Tensor,
           adversarial: Tensor) -> Tensor:
    """The image with as many changed pixels restored as greedily can be while success holds.

    The pixels with the least ``gradient * w`` are tried first; one that is needed stays as it is.
    Costs a forward for each changed pixel, one after the other.

    Args:
        success: as for :func:`necessary`.
        gradient: (C, H, W), of what the attack raises, at the adversarial image.
        clean, adversarial: (C, H, W) float in [0, 1]; the adversarial image is a success.

    Returns:
        (C, H, W), still a success.
    """
    places = _places(clean, adversarial)
    worth = (gradient * (adversarial - clean)).sum(0)[places[:, 0], places[:, 1]]
    left = adversarial.clone()
    with torch.no_grad():
        for row, column in places[worth.argsort(stable=True)].tolist():
            tried = left.clone()
            tried[:, row, column] = clean[:, row, column]
            if success(tried[None]).item():
                left = tried
    return left


def _places(clean: Tensor, adversarial: Tensor) -> Tensor:
    """(n, 2), where an image is changed."""
    return changed_pixels(adversarial[None], clean[None])[0].nonzero()


def _restored_alone(clean: Tensor, adversarial: Tensor, places: Tensor) -> Iterator[Tensor]:
    """The image without the change of one pixel, for each of ``places``, in batches."""
    for part in places.split(BATCH) if len(places) else ():
        x = adversarial.repeat(len(part), 1, 1, 1)
        rows, columns = part.unbind(1)
        x[torch.arange(len(part), device=x.device), :, rows, columns] = clean[:, rows, columns].T
        yield x
