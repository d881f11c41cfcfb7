"""The score of what is right about an image, and of what an attack has reached: two numbers.

Of classifiers they are two logits. Of segmenters they are means over the pixels that were turned. Of
detectors they are logits of scores: the mean over the objects detected on the clean image of each
one's best match, and the best box that is neither a match nor was there before.
"""
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..ops.boxes import overlaps
from ..types import Boxes
from .detection import logit, matches, object_scores

__all__ = ['own_score', 'two_scores']

SCORE, OVERLAP = 0.3, 0.5  # of a detection that counts, as in the goals
Scores = Callable[[Tensor], tuple[Tensor, Tensor]]


def two_scores(task: str, scene, row: int, adversarial: Tensor) -> Scores:
    """Z_y and Z_t of an attacked image.

    Args:
        task: the victim's.
        scene: opened by the victim.
        row: the image's place in the scene.
        adversarial: (C, H, W), what the attack made of the network input.

    Returns:
        Takes candidates (n, C, H, W) of the image and gives both scores, (n,) each; NaN where the
        attack has reached nothing else, or there was nothing right.
    """
    return _TASKS[task](_Image(scene, row)).both(adversarial)


def own_score(task: str, scene, row: int) -> Callable[[Tensor], Tensor]:
    """Z_y alone, of any image: for segmenters over all pixels that have a class."""
    return _TASKS[task](_Image(scene, row)).own()


@dataclass(frozen=True)
class _Image:
    """One image of a scene."""
    scene: Any
    row: int

    @property
    def clean(self) -> Tensor:
        return self.scene.images[self.row:self.row + 1]

    def rows(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), self.row)

    def logits(self, x: Tensor) -> Tensor:
        return self.scene.logits(x, self.rows(x))


@dataclass(frozen=True)
class _Classifier:
    image: _Image

    def own(self) -> Callable[[Tensor], Tensor]:
        return lambda x: self.image.logits(x)[:, self._label]

    @property
    def _label(self) -> int:
        return int(self.image.scene.labels[self.image.row])

    def both(self, adversarial: Tensor) -> Scores:
        with torch.no_grad():
            reached = int(self.image.logits(adversarial[None]).argmax(1))
        unknown = torch.nan if reached == self._label else 0.0

        def scores(x: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.image.logits(x)
            return logits[:, self._label], logits[:, reached] + unknown

        return scores


@dataclass(frozen=True)
class _Segmenter:
    image: _Image

    @property
    def _labels(self) -> tuple[Tensor, Tensor]:
        scene, row = self.image.scene, self.image.row
        return scene.labels[row], scene.valid[row]

    def own(self) -> Callable[[Tensor], Tensor]:
        labels, valid = self._labels
        return lambda x: _mean_at(self.image.logits(x), labels, valid)

    def both(self, adversarial: Tensor) -> Scores:
        labels, valid = self._labels
        with torch.no_grad():
            reached, before = self.image.logits(
                torch.cat([adversarial[None], self.image.clean])).argmax(1)
        turned = valid & (before == labels) & (reached != labels)

        def scores(x: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.image.logits(x)
            return _mean_at(logits, labels, turned), _mean_at(logits, reached, turned)

        return scores


@dataclass(frozen=True)
class _Detector:
    image: _Image

    @property
    def _truth(self) -> Boxes:
        return self.image.scene.truth[torch.tensor([self.image.row])]

    def _found(self, x: Tensor, extra: tuple[int, ...] = ()) -> Boxes:
        truth = self._truth
        wanted = {*truth.labels[truth.valid].tolist(), *extra}
        return self.image.scene.candidates(x, self.image.rows(x), tuple(sorted(wanted)))

    def _detected(self) -> Tensor:
        """(G,) bool, the objects detected on the clean image."""
        with torch.no_grad():
            found = self._found(self.image.clean)
        return self._best(found)[0] >= SCORE

    def _best(self, found: Boxes) -> Tensor:
        """(n, G), the score of each object's best match."""
        truth = self._truth[torch.zeros(len(found.scores), dtype=torch.int64)]
        return object_scores(found, matches(found, truth, OVERLAP))

    def own(self) -> Callable[[Tensor], Tensor]:
        objects = self._detected()
        return lambda x: self._mean(self._found(x), objects)

    def _mean(self, found: Boxes, objects: Tensor) -> Tensor:
        return logit(self._best(found))[:, objects].mean(1)  # of none it is NaN

    def both(self, adversarial: Tensor) -> Scores:
        objects = self._detected()
        with torch.no_grad():
            after, before = self._found(adversarial[None]), self._found(self.image.clean)
        old = before.valid[0] & (before.scores[0] >= SCORE)
        there = overlaps(after.boxes, before.boxes, OVERLAP)[0] & old
        same = after.labels[0, :, None] == before.labels[0]
        right = matches(after, self._truth, OVERLAP)[0].any(1)
        new = torch.where(right | (there & same).any(1), 0, after.scores[0])
        if not len(new) or new.max() <= 0:
            label, box = -2, after.boxes.new_zeros(1, 1, 4)  # of no candidate
        else:
            best = int(new.argmax())
            label, box = int(after.labels[0, best]), after.boxes[:, best:best + 1]

        def scores(x: Tensor) -> tuple[Tensor, Tensor]:
            found = self._found(x, (label,) if label >= 0 else ())
            fits = (found.labels == label)[..., None] & overlaps(
                found.boxes, box.expand(len(x), -1, -1), OVERLAP)
            reached = logit(object_scores(found, fits))[:, 0]
            return self._mean(found, objects), reached + (0.0 if label >= 0 else torch.nan)

        return scores


def _mean_at(logits: Tensor, classes: Tensor, where: Tensor) -> Tensor:
    """(n,), the mean logit (n, K, H, W) of each pixel's class (H, W) over some pixels; NaN over none."""
    own = logits.gather(1, classes.expand(len(logits), 1, *classes.shape))[:, 0]
    return own[:, where].mean(1)


_TASKS: dict[str, Callable] = dict(classification=_Classifier, segmentation=_Segmenter,
                                   detection=_Detector)
