"""What is kept about one image."""
from dataclasses import dataclass

__all__ = ['Record']


@dataclass(frozen=True)
class Record:
    """One line of records.jsonl.

    Attributes:
        key: sample id.
        success, success_float: broken, judged on the 8-bit and on the float image; None where success has no meaning (an image
            without objects, an image that could not be read).
        clean_correct: the victim was right about the clean image.
        l0_pixels, l0_elements, groups, linf: size of the perturbation; linf in [0, 1].
        forwards, backwards, seconds: cost.
        share: share of the image's objects or pixels that are as the goal wants them; None for goals without such parts.
        parts: how many of them count.
        file: the PNG, relative to the work_dir; empty if there is none.
        note: why an image failed or was skipped; normally empty.
    """
    key: str
    success: bool | None = None
    success_float: bool | None = None
    clean_correct: bool = False
    l0_pixels: int = 0
    l0_elements: int = 0
    groups: int = 0
    linf: float = 0.0
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    share: float | None = None
    parts: int = 0
    file: str = ''
    note: str = ''

    @property
    def skipped(self) -> bool:
        """The image could not be read."""
        return not self.file
