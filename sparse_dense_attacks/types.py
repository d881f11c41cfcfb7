"""What travels between attacks, objectives and the engine: frozen containers."""
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ['AttackResult', 'Boxes', 'Judgement', 'Surroundings', 'Verdict']


@dataclass(frozen=True)
class Verdict:
    """What the victim says about b candidate images; every entry depends on its own image only.

    Attributes:
        loss: (b,) float, differentiable; the attacker maximises it and it need not saturate.
        margin: (b,) float, differentiable; > 0 until the attack has succeeded and <= 0 after,
            ``relu(margin)`` is exactly 0 with zero gradient at success.
        success: (b,) bool; authoritative where ``margin`` is 0.
        logits: (b, K) float, differentiable, where the goal is to leave one of K classes: that
            class first, then the others.
    """
    loss: Tensor
    margin: Tensor
    success: Tensor
    logits: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> 'Verdict':
        logits = None if self.logits is None else self.logits[rows]
        return Verdict(self.loss[rows], self.margin[rows], self.success[rows], logits)

    def replaced(self, rows: Tensor, other: 'Verdict') -> 'Verdict':
        """This one with ``other`` in place of its entries ``rows``, (b,) int64; nothing is written into."""
        def joined(mine: Tensor, its: Tensor) -> Tensor:
            return mine.index_copy(0, rows.to(mine.device), its.to(mine.dtype))

        logits = self.logits
        if logits is not None and other.logits is not None:
            logits = joined(logits, other.logits)
        return Verdict(joined(self.loss, other.loss), joined(self.margin, other.margin),
                       joined(self.success, other.success), logits)


@dataclass(frozen=True)
class Boxes:
    """Boxes of a batch, padded to the longest list.

    Attributes:
        boxes: (B, N, 4) float, ``x1 y1 x2 y2`` in pixels of the network input.
        labels: (B, N) int64, class indices; -1 marks padding.
        scores: (B, N) float in [0, 1], the probability of that class; 0 at padding, 1 for ground
            truth.
        below: (B, N) float, score of the class that the detector reports for this box in place of
            ``labels``; 0 where it reports ``labels``, as all do if this is None.
    """
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    below: Tensor | None = None

    @property
    def valid(self) -> Tensor:
        """(B, N) bool, False at padding."""
        return self.labels >= 0

    def __getitem__(self, rows: Tensor) -> 'Boxes':
        below = None if self.below is None else self.below[rows]
        return Boxes(self.boxes[rows], self.labels[rows], self.scores[rows], below)


@dataclass(frozen=True)
class Surroundings:
    """What attacks that put pictures into images have to know of these, beside their pixels.

    Attributes:
        boxes: (B, N, 4) float, ``x1 y1 x2 y2`` in pixels of the attacked images, of the objects that
            the attack asked about; NaN at padding. None where it asked about none.
        channels: their order in the images, 'rgb' or 'bgr'; None if nobody knows.
    """
    boxes: Tensor | None = None
    channels: str | None = None

    def __getitem__(self, rows: Tensor) -> 'Surroundings':
        return Surroundings(None if self.boxes is None else self.boxes[rows], self.channels)


@dataclass(frozen=True)
class Judgement:
    """What is said about finished images by looking at them, one entry per image.

    Attributes:
        success: (B,) bool, judged on the image rounded to 8 bits.
        success_float: (B,) bool, judged on the float image.
        l0_pixels: (B,) int64, pixels with any changed channel.
        l0_elements: (B,) int64, changed channel values.
        linf: (B,) float, largest change of a channel value, in [0, 1].
        share: (B,) float64, share of the image's parts (objects, pixels of a label map) that are as
            the goal wants them, on the image rounded to 8 bits; NaN for goals without parts.
        parts: (B,) int64, how many parts count; 0 for goals without.
        queries: (B,) int64 on the CPU, how often the victim was shown the image to find all this
            out.
    """
    success: Tensor
    success_float: Tensor
    l0_pixels: Tensor
    l0_elements: Tensor
    linf: Tensor
    share: Tensor
    parts: Tensor
    queries: Tensor


@dataclass(frozen=True)
class AttackResult(Judgement):
    """Adversarial images, what :class:`Judgement` says of them, and what they cost.

    Attributes:
        images: (B, C, H, W) float in [0, 1]; on the 8-bit grid unless the run was asked for float
            images. The untouched image where the attack was not needed or failed.
            Where a minimum attack found no success within its budget, the best image within it: the
            largest changes of what it found, or the untouched image.
        success, success_float: as in :class:`Judgement`, but False for images that failed.
        clean_correct: (B,) bool, the victim was right about the clean image: the denominator of the
            success rate.
        defined: (B,) bool, False where success has no meaning (an image without objects, say).
        groups: (B,) int64, groups of the attack's structure; equal to ``l0_pixels`` for
            unstructured attacks.
        forwards, backwards: (B,) int64, passes the attack spent on the image, the look at the clean
            one included.
        queries: (B,) int64, all forwards of the image, as somebody counts them who watches the
            model: ``forwards``, and those that judged the result.
        seconds: (B,) float, time of the attack, shared out in proportion to the forwards.
        failed: (B,) bool, loss or gradient became non-finite; the image is reported as not broken.
        short: (B,) bool, the image is too small for the budget: it asks for more pixels (or groups)
            than may change, so all of them were at the attack's disposal, or no group fits.
        stage: (B,) int64, which member of a cascade was the first to break the image, a position in
            the attack's ``member_names``; -1 if none was, and for attacks without members.
    """
    images: Tensor
    clean_correct: Tensor
    defined: Tensor
    groups: Tensor
    forwards: Tensor
    backwards: Tensor
    seconds: Tensor
    failed: Tensor
    short: Tensor
    stage: Tensor

    @classmethod
    def joined(cls, parts: Sequence['AttackResult']) -> 'AttackResult':
        """The results of several batches of images of one size as one."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def with_row(self, row: int, alone: 'AttackResult') -> 'AttackResult':
        """This result with that of one image, which was attacked alone, in place of its own.

        Args:
            row: which image.
            alone: a result of one image, whose size may be less.
        """
        changed = {}
        for field in dataclasses.fields(self):
            values = getattr(self, field.name).clone()
            value = getattr(alone, field.name)[0]
            if field.name == 'images':
                h, w = value.shape[-2:]
                values[row, :, :h, :w] = value
            else:
                values[row] = value
            changed[field.name] = values
        return AttackResult(**changed)
