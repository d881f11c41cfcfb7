"""One image as every victim sees it, before and after."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .transfer import Answer, Found

__all__ = ['draw_seen', 'join_seen', 'seen_file']

SCORE = 0.3  # of boxes that are drawn, as of those that the label-free change counts
INCHES = 2.4  # side of a picture


def seen_file(folder: Path, source: str, victim: str) -> Path:
    """Where the picture of a cell is."""
    return folder / 'gallery' / f'{source}__{victim}.png'


def draw_seen(path: Path, title: str, views: Sequence[tuple[str, np.ndarray, Answer]],
              classes: Sequence[str] | None) -> None:
    """Pictures side by side, each with what a model says of it.

    Args:
        path: of the PNG.
        title: above all.
        views: of each picture its name, its pixels (H, W, 3) uint8 RGB and the model's answer.
        classes: names of the model's classes, None if unknown.
    """
    from matplotlib.figure import Figure  # not pyplot, which would choose a window system
    figure = Figure(figsize=(INCHES * len(views), INCHES), layout='constrained')
    figure.suptitle(title, fontsize=9)
    for index, (name, pixels, answer) in enumerate(views, start=1):
        axes = figure.add_subplot(1, len(views), index)
        axes.imshow(pixels)
        axes.set_axis_off()
        axes.set_title(f'{name}: {_word(answer, classes)}', fontsize=7)
        if isinstance(answer, Found):
            _draw_boxes(axes, answer.above(SCORE), classes)
        elif isinstance(answer, np.ndarray):
            height, width = pixels.shape[:2]
            axes.imshow(answer, cmap='tab20', vmin=0, vmax=19, alpha=0.5, interpolation='nearest',
                        extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def join_seen(folder: Path, sources: Sequence[str], victims: Sequence[str]) -> Path | None:
    """All pictures of a table in one, ``gallery.png``: a row for each victim; None without any."""
    rows = [[seen_file(folder, source, victim) for source in sources] for victim in victims]
    rows = [kept for row in rows if (kept := [one for one in row if one.is_file()])]
    if not rows:
        return None
    pictures = [[Image.open(one).convert('RGB') for one in row] for row in rows]
    width = max(sum(one.width for one in row) for row in pictures)
    height = sum(max(one.height for one in row) for row in pictures)
    whole, top = Image.new('RGB', (width, height), 'white'), 0
    for row in pictures:
        left = 0
        for one in row:
            whole.paste(one, (left, top))
            left += one.width
        top += max(one.height for one in row)
    path = folder / 'gallery.png'
    whole.save(path)
    return path


def _word(answer: Answer, classes: Sequence[str] | None) -> str:
    if isinstance(answer, Found):
        return f'{len(answer.above(SCORE).scores)} objects'
    if isinstance(answer, np.ndarray):
        return f'{len(np.unique(answer))} classes'
    return _class_name(answer, classes)


def _class_name(label: int, classes: Sequence[str] | None) -> str:
    return classes[label] if classes and label < len(classes) else f'class {label}'


def _draw_boxes(axes, found: Found, classes: Sequence[str] | None) -> None:
    from matplotlib.patches import Rectangle
    for (x1, y1, x2, y2), label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True):
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor='red'))
        axes.text(x1, y1, _class_name(label, classes), fontsize=5, color='white',
                  bbox=dict(facecolor='red', linewidth=0, pad=0.5), clip_on=True)
