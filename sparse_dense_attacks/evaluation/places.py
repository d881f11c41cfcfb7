"""Where changed pixels lie: on the image, and relative to its objects."""
from collections.abc import Sequence

import numpy as np

__all__ = ['Places', 'heat_picture']

CELLS = 16  # so many that a hundred images of some pixels each show more than noise
MARGIN = 0.5  # of a box's sides, that is looked at around it
MOST = 5.0  # times the even share, at which the colours end


class Places:
    """Sums over images; a value is how much more often than by an even spread a place is changed.

    ``1`` means as often as if the image's changed pixels were spread evenly over it, 0 never.
    Both maps have ``CELLS x CELLS`` cells. The one of objects covers a box and half its sides
    around it; a pixel in the reach of two boxes counts for both.
    """

    def __init__(self) -> None:
        self.images = self.boxes = 0
        self._image, self._changed, self._expected = np.zeros((3, CELLS, CELLS))

    def add(self, changed: np.ndarray, boxes: Sequence[Sequence[float]] = (),
            content: tuple[int, int] | None = None) -> None:
        """Add an image.

        Args:
            changed: (H, W) bool.
            boxes: of its objects, ``x1 y1 x2 y2`` in its pixels.
            content: height and width of what is no padding, from the upper left corner.
        """
        height, width = content or changed.shape
        rows, columns = np.nonzero(changed[:height, :width])
        if not len(rows):
            return
        self.images += 1
        share = _histogram(_cell(rows, 0, height), _cell(columns, 0, width)) / len(rows)
        area = np.outer(_lines(np.arange(height), 0, height), _lines(np.arange(width), 0, width))
        self._image += np.divide(share * height * width, area, out=np.zeros_like(share),
                                 where=area > 0)
        for left, top, right, bottom in boxes:
            if right - left < 1 or bottom - top < 1:
                continue
            self.boxes += 1
            vertical, horizontal = _reach(top, bottom), _reach(left, right)
            self._changed += _histogram(_cell(rows, *vertical), _cell(columns, *horizontal))
            here = np.outer(_lines(np.arange(height), *vertical),
                            _lines(np.arange(width), *horizontal))
            self._expected += here * (len(rows) / (height * width))

    @property
    def on_image(self) -> np.ndarray:
        """(CELLS, CELLS) float, the mean over images; NaN without any."""
        return self._image / (self.images or np.nan)

    @property
    def on_objects(self) -> np.ndarray:
        """(CELLS, CELLS) float, over all boxes together; NaN where no image reaches."""
        return np.divide(self._changed, self._expected, out=np.full((CELLS, CELLS), np.nan),
                         where=self._expected > 0)

    @property
    def inside(self) -> float:
        """The same over the boxes themselves, as one number; NaN without boxes."""
        edge = round(CELLS * MARGIN / (1 + 2 * MARGIN))
        inner = slice(edge, CELLS - edge), slice(edge, CELLS - edge)
        expected = self._expected[inner].sum()
        return float(self._changed[inner].sum() / expected) if expected else np.nan


def _reach(start: float, end: float) -> tuple[float, float]:
    margin = MARGIN * (end - start)
    return start - margin, end + margin


def _cell(places: np.ndarray, start: float, end: float) -> np.ndarray:
    """Cells of pixels, by their centres; negative or CELLS and more beyond the ends."""
    return np.floor((places + 0.5 - start) / (end - start) * CELLS).astype(np.int64)


def _lines(places: np.ndarray, start: float, end: float) -> np.ndarray:
    """How many rows (or columns) fall into each cell."""
    cells = _cell(places, start, end)
    return np.bincount(cells[(cells >= 0) & (cells < CELLS)], minlength=CELLS)


def _histogram(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    kept = (rows >= 0) & (rows < CELLS) & (columns >= 0) & (columns < CELLS)
    flat = np.bincount(rows[kept] * CELLS + columns[kept], minlength=CELLS * CELLS)
    return flat.reshape(CELLS, CELLS)


def heat_picture(values: np.ndarray) -> np.ndarray:
    """Values as colours that the colour-blind tell apart, dark for 0, light for MOST and more.

    Returns:
        (H, W, 4) uint8, transparent where there is no value.
    """
    from matplotlib import colormaps
    colours = colormaps['cividis'](np.nan_to_num(values) / MOST, bytes=True)
    colours[np.isnan(values), 3] = 0
    return colours
