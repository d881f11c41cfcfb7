"""Keeps what a report shows beside the images of a run."""
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from torch import Tensor

from ...errors import InputError
from ...results.views import Views
from ...victims.base import sample_key
from ...victims.geometry import Geometry, geometry_of
from ..pictures import to_picture
from ..warn import warn

__all__ = ['ViewsHook', 'answer_on_grid']

SCORE = 0.3  # of boxes that are kept, as of those that the label-free change counts
PADDING = 255


class ViewsHook(Hook):
    """Keeps the clean colours of changed pixels and the predictions before and after, in ``views/``.

    Every AttackLoop has it. What it cannot keep is a warning, and the run goes on.
    """
    priority = 'VERY_LOW'

    def before_test(self, runner) -> None:
        self.views = Views(runner.test_loop.store.work_dir, get_rank())
        self.known = set(self.views.answers())
        self.views.name_classes(runner.test_loop.dataloader.dataset.metainfo.get('classes'))
        self.warned = False

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        loop = runner.test_loop
        images = zip(loop.clean_images, loop.attacked_images, strict=True)
        samples = zip(loop.clean_outputs, outputs, strict=True)
        for inputs, said in zip(images, samples, strict=True):
            key = sample_key(said[1])
            if key in self.known:
                continue
            self.known.add(key)
            try:
                clean, adversarial = (to_picture(image, loop.channels) for image in inputs)
                whole = bool(loop.attacker.files)
                answers = [answer_on_grid(one, image, whole)
                           for one, image in zip(said, inputs, strict=True)]
                self.views.add(key, clean, adversarial, answers)
            except OSError:
                raise  # a full disk ends the run as it does elsewhere
            except Exception as error:  # predictions are the library's, and no part of the result
                if not self.warned:
                    warn(f"reports will not show what the model says of image '{key}', nor of "
                         f'others like it: {type(error).__name__}: {error}')
                self.warned = True


def answer_on_grid(sample, image: Tensor, whole: bool) -> Mapping[str, Any] | np.ndarray:
    """What a data sample predicts, in pixels of the image that is stored of it.

    Args:
        sample: of any of the libraries, with predictions.
        image: (3, H, W), that image.
        whole: the image is the whole file; otherwise a network input.

    Returns:
        A label map (H, W), or an object as :meth:`.Views.add` takes it.
    """
    geometry = geometry_of(sample, image)
    if whole:
        size = image.shape[-2], image.shape[-1]
        geometry = Geometry(geometry.file, size, size, size, True)
    if 'pred_sem_seg' in sample:
        return _labels(sample.pred_sem_seg.data[0].cpu(), geometry)
    if 'pred_instances' in sample:
        found = sample.pred_instances
        found = found[found.scores >= SCORE].cpu()
        boxes = found.bboxes if isinstance(found.bboxes, Tensor) else found.bboxes.tensor
        return dict(boxes=_on_input(boxes.float(), sample, geometry, whole),
                    labels=found.labels.tolist(),
                    scores=[round(score, 3) for score in found.scores.tolist()])
    return dict(label=int(sample.pred_label.reshape(-1)[0]))


def _labels(labels: Tensor, geometry: Geometry) -> np.ndarray:
    """A label map of the file as one of the stored image; 255 at padding."""
    if labels.max() >= PADDING:
        raise InputError(f'label maps up to {PADDING - 1} can be kept, found {int(labels.max())}')
    found = torch.full(geometry.input, PADDING, dtype=torch.uint8)
    content = F.interpolate(labels[None, None].float(), geometry.content, mode='nearest-exact')
    found[geometry.window] = content[0, 0].to(torch.uint8)
    return found.numpy()


def _on_input(boxes: Tensor, sample, geometry: Geometry, whole: bool) -> list[list[float]]:
    if not whole:
        scale = sample.metainfo.get('scale_factor', (1.0, 1.0))[:2]
        boxes = boxes * boxes.new_tensor(scale).repeat(2)
        top, left = geometry.corner
        boxes = boxes + boxes.new_tensor([left, top, left, top])
    return [[round(side, 1) for side in box] for box in boxes.tolist()]
