"""Pictures of what an attack did: predictions before and after, and the perturbation itself."""
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, VISUALIZERS
from mmengine.structures import PixelData
from mmengine.visualization import LocalVisBackend, Visualizer
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...checks import check_int, check_number
from ...results import file_name
from ...victims.base import geometry_of, sample_key
from ..pictures import to_picture
from ..warn import warn

__all__ = ['AttackVisualizationHook', 'show_perturbation']

# What draws the predictions of each library where the config has no visualizer.
_PAINTERS = dict(mmdet='DetLocalVisualizer', mmseg='SegLocalVisualizer',
                 mmpretrain='UniversalVisualizer')


@HOOKS.register_module()
class AttackVisualizationHook(Hook):
    """Writes ``pictures/<key>.png`` for the first images of an AttackLoop run, and sends them to
    the visualizer's backends, but for those that would store them in the work dir once more.

    Left the clean image, in the middle the adversarial one, each with the victim's predictions
    (boxes and masks, a coloured label map) drawn by the library's own visualizer; right the
    perturbation alone. The stock visualization hooks read the image from disk again: they would
    show the clean one. A picture that cannot be drawn is a warning, and the run goes on.

    Args:
        images: how many pictures.
        score_thr: least score of a drawn box.
        width: width of a panel in screen pixels; images are enlarged by a whole factor so that
            single pixels stay visible.
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
        self.warned: set[str] = set()
        self.painter: Any = None  # built for the first picture

    @master_only
    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        loop = runner.test_loop
        inputs = zip(loop.clean_images, loop.attacked_images, strict=True)
        samples = zip(loop.clean_outputs, outputs, strict=True)
        for shown, said in zip(inputs, samples, strict=True):
            if self.drawn >= self.images:
                return
            self.drawn += 1
            key = sample_key(said[1])
            try:
                self.painter = self.painter or _painter(runner)
                self._draw(runner, key, shown, said)
            except Exception as error:  # drawing is the library's code, and no part of the result
                reason = f'{type(error).__name__}: {error}'.strip(': ').splitlines()[0]
                if reason not in self.warned:
                    warn(f"no picture of image '{key}', nor of others like it: {reason}")
                self.warned.add(reason)

    def _draw(self, runner, key: str, inputs: tuple, samples: tuple) -> None:
        """Draw and send one picture of a pair of images, before and after, and of predictions."""
        if runner.test_loop.attacker.files:
            samples = tuple(_of_file(sample, inputs[0]) for sample in samples)
        clean, adversarial = (to_picture(image, runner.test_loop.channels) for image in inputs)
        pixels = int((clean != adversarial).any(2).sum())
        share = pixels / clean[..., 0].size
        panels = [self._predictions(clean, inputs[0], samples[0]),
                  self._predictions(adversarial, inputs[1], samples[1]),
                  self._enlarge(show_perturbation(clean, adversarial))]
        titles = ['clean', 'adversarial',
                  f'{pixels} changed pixels ({share:.2%}), each drawn as 3 x 3']
        picture = _beside(panels, titles)
        path = Path(runner.work_dir) / 'pictures' / f'{file_name(key)}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        for backend in runner.visualizer._vis_backends.values():
            if not isinstance(backend, LocalVisBackend):  # which keeps files, as pictures/ does
                backend.add_image(f'attack_{file_name(key)}', picture, self.drawn)

    def _enlarge(self, image: np.ndarray) -> np.ndarray:
        factor = self._factor(image)
        return image.repeat(factor, 0).repeat(factor, 1)

    def _factor(self, image: np.ndarray) -> int:
        return max(1, round(self.width / image.shape[1]))

    def _predictions(self, image: np.ndarray, shown: Tensor, sample) -> np.ndarray:
        """The library's own drawing of the predictions, on the enlarged image."""
        geometry, factor = geometry_of(sample, shown), self._factor(image)
        sample, options = copy.deepcopy(sample).cpu(), {}
        image = self._enlarge(image)

        def fitted(maps: Tensor) -> Tensor:
            """Maps (n, H, W) of the original image on the enlarged input; 0 at its padding."""
            h, w = (side * factor for side in geometry.content)
            scaled = F.interpolate(maps[:, None].float(), (h, w), mode='nearest-exact')[:, 0]
            return F.pad(scaled, (0, image.shape[1] - w, 0, image.shape[0] - h)).to(maps.dtype)

        if 'pred_instances' in sample:
            found = sample.pred_instances
            found = found[found.scores >= self.score_thr]  # masks of all would fill the memory
            scale = found.bboxes.new_tensor(sample.metainfo.get('scale_factor', (1.0, 1.0))[:2])
            found.bboxes = found.bboxes * scale.repeat(2) * factor
            if 'masks' in found:
                found.masks = fitted(torch.as_tensor(found.masks))
            sample.pred_instances = found
            options['pred_score_thr'] = self.score_thr
        for name in ('pred_sem_seg', 'pred_panoptic_seg'):
            if name in sample:
                maps = getattr(sample, name)
                fields = {field: fitted(value) if torch.is_tensor(value) else value
                          for field, value in maps.items()}
                sample.set_field(PixelData(**fields), name)
        if hasattr(self.painter, 'visualize_cls'):  # mmpretrain's has a method for each task
            return self.painter.visualize_cls(image, sample)
        self.painter.set_image(image)  # which mmengine's own visualizer leaves as it is
        self.painter.add_datasample('attack', image, sample, draw_gt=False, **options)
        return self.painter.get_image()


def _of_file(sample, image: Tensor):
    """A copy of a sample that says that its image was never resized: predictions are of the file."""
    size = tuple(image.shape[-2:])
    sample = copy.deepcopy(sample)
    sample.set_metainfo(dict(ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0),
                             flip=False, traced_content=((0, 0), size, True)))
    return sample


def _painter(runner) -> Visualizer:
    """The library's visualizer, or the config's, without backends.

    Built as a class, because the registry would hand out that of an earlier run of the process.
    """
    options = dict(copy.deepcopy(runner.cfg.get('visualizer') or {}))
    # mmengine marks what a config inherits from another library with the library's scope
    scope = options.pop('_scope_', None) or runner.cfg.get('default_scope')
    kind = options.pop('type', None) or _PAINTERS.get(scope, 'Visualizer')
    with VISUALIZERS.switch_scope_and_registry(scope) as registry:
        kind = registry.get(kind) if isinstance(kind, str) else kind
    options.update(name='attack', vis_backends=None)
    painter = kind(**options)
    painter.dataset_meta = runner.test_loop.dataloader.dataset.metainfo
    return painter


def show_perturbation(clean: np.ndarray, adversarial: np.ndarray, radius: int = 1) -> np.ndarray:
    """The changed pixels in their new colours, thickened, over a faint grey image.

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
    # A neighbour's halo never hides a changed pixel.
    canvas[rows, columns] = adversarial[rows, columns]
    return canvas


def _beside(panels: list[np.ndarray], titles: list[str], gap: int = 8,
            head: int = 26) -> np.ndarray:
    """Panels in a row, each with its title above."""
    height = max(panel.shape[0] for panel in panels)
    width = sum(panel.shape[1] for panel in panels) + gap * (len(panels) - 1)
    sheet = Image.new('RGB', (width, height + head), 'white')
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    x = 0
    for panel, title in zip(panels, titles, strict=True):
        draw.text((x + 4, 4), title, fill='black', font=font)
        sheet.paste(Image.fromarray(panel), (x, head))
        x += panel.shape[1] + gap
    return np.array(sheet)
