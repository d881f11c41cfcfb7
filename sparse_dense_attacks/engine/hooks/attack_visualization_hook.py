"""Pictures of what an attack did: clean and adversarial predictions side by side, and the perturbation itself."""
import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, VISUALIZERS
from mmengine.structures import PixelData
from PIL import Image, ImageDraw, ImageFont

from ...checks import check_int, check_number
from ...results import file_name
from ...victims.base import sample_key
from ..data import to_picture

__all__ = ['AttackVisualizationHook', 'show_perturbation']


@HOOKS.register_module()
class AttackVisualizationHook(Hook):
    """Writes ``pictures/<key>.png`` for the first images of an AttackLoop run, and sends them to the visualizer's backends.

    Left the clean image, in the middle the adversarial one, each with the victim's predictions (boxes, a coloured label map)
    drawn by the library's own visualizer; right the perturbation alone. The stock visualization hooks read the image from disk
    again: they would show the clean one.

    Args:
        images: how many pictures.
        score_thr: least score of a drawn box.
        width: width of a panel in screen pixels; images are enlarged by a whole factor so that single pixels stay visible.
    """
    priority = 'VERY_LOW'

    def __init__(self, images: int = 8, score_thr: float = 0.3, width: int = 480):
        self.images, self.score_thr = images, score_thr
        self.width = width
        check_int(self, 'images', low=0)
        check_number(self, 'score_thr', 0, 1, low_ok=True, high_ok=True)
        check_int(self, 'width')
        self.drawn = 0

    def before_test(self, runner) -> None:
        self.drawn = 0
        visualizer = copy.deepcopy(runner.cfg.get('visualizer') or dict(type='Visualizer'))
        visualizer.update(name='attack', vis_backends=None)
        self.painter = VISUALIZERS.build(visualizer)
        self.painter.dataset_meta = runner.visualizer.dataset_meta

    @master_only
    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        loop = runner.test_loop
        shown = zip(loop.clean_batch['inputs'], data_batch['inputs'], loop.clean_outputs, outputs, strict=True)
        for clean, adversarial, before, after in shown:
            if self.drawn >= self.images:
                return
            self.drawn += 1
            clean, adversarial = to_picture(clean), to_picture(adversarial)
            pixels = int((clean != adversarial).any(2).sum())
            share = pixels / clean[..., 0].size
            panels = [self._predictions(clean, before), self._predictions(adversarial, after),
                      self._enlarge(show_perturbation(clean, adversarial))]
            key = sample_key(after)
            picture = _beside(panels, ['clean', 'adversarial', f'{pixels} changed pixels ({share:.2%})'])
            path = Path(runner.work_dir) / 'pictures' / f'{file_name(key)}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
            runner.visualizer.add_image(f'attack_{path.stem}', picture, self.drawn)

    def _enlarge(self, image: np.ndarray) -> np.ndarray:
        factor = self._factor(image)
        return image.repeat(factor, 0).repeat(factor, 1)

    def _factor(self, image: np.ndarray) -> int:
        return max(1, round(self.width / image.shape[1]))

    def _predictions(self, image: np.ndarray, sample) -> np.ndarray:
        """The library's own drawing of the predictions, on the enlarged network input."""
        sample, options = copy.deepcopy(sample).cpu(), {}
        if 'pred_instances' in sample:
            boxes = sample.pred_instances.bboxes  # in coordinates of the original image
            scale = torch.tensor(sample.metainfo.get('scale_factor', (1.0, 1.0))[:2], dtype=boxes.dtype).repeat(2)
            sample.pred_instances.bboxes = boxes * scale * self._factor(image)
            options['pred_score_thr'] = self.score_thr
        image = self._enlarge(image)
        if 'pred_sem_seg' in sample:
            classes = sample.pred_sem_seg.data  # in the size of the original image
            sample.pred_sem_seg = PixelData(data=F.interpolate(classes[None].float(), image.shape[:2])[0].long())
        if hasattr(self.painter, 'visualize_cls'):  # mmpretrain's visualizer has a method for each of its tasks
            return self.painter.visualize_cls(image, sample)
        self.painter.set_image(image)  # which mmengine's own visualizer leaves as it is
        self.painter.add_datasample('attack', image, sample, draw_gt=False, **options)
        return self.painter.get_image()


def show_perturbation(clean: np.ndarray, adversarial: np.ndarray, radius: int = 1) -> np.ndarray:
    """The changed pixels in their new colours, thickened, over a faint grey version of the image.

    Args:
        clean, adversarial: (H, W, 3) uint8.
        radius: every changed pixel is drawn as a square of side ``2 * radius + 1``.

    Returns:
        (H, W, 3) uint8.
    """
    faint = 200 + clean.mean(2, keepdims=True).repeat(3, 2) * (55 / 255)
    canvas = faint.astype(np.uint8)
    rows, columns = np.nonzero((clean != adversarial).any(2))
    h, w = clean.shape[:2]
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            y, x = rows + dy, columns + dx
            inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
            canvas[y[inside], x[inside]] = adversarial[rows[inside], columns[inside]]
    canvas[rows, columns] = adversarial[rows, columns]  # a neighbour's halo never hides a changed pixel
    return canvas


def _beside(panels: list[np.ndarray], titles: list[str], gap: int = 8, head: int = 26) -> np.ndarray:
    """Panels in a row, each with its title above."""
    height, width = max(p.shape[0] for p in panels), sum(p.shape[1] for p in panels) + gap * (len(panels) - 1)
    sheet = Image.new('RGB', (width, height + head), 'white')
    draw, font, x = ImageDraw.Draw(sheet), ImageFont.load_default(16), 0
    for panel, title in zip(panels, titles, strict=True):
        draw.text((x + 4, 4), title, fill='black', font=font)
        sheet.paste(Image.fromarray(panel), (x, head))
        x += panel.shape[1] + gap
    return np.array(sheet)
