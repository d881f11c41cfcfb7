"""Images attacked as files: their pixels from the pipeline's loader, and back through all of it."""
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import TRANSFORMS
from PIL import Image
from torch import Tensor, nn

from ..defences import Shield
from ..errors import InputError
from ..victims import library_of
from ..victims.base import Scene
from ..victims.pipeline import INSTEAD, FileGeometry, FilePipeline
from .data import members
from .defend import defend_picture
from .pictures import to_picture

__all__ = ['FileGrid', 'Opened']

PIPELINE = 'pipeline'  # meta key of a sample's pipeline, where the data set has several
CLOSE = 1.01  # grey levels by which the copy of a pipeline may be off
FAST = 1  # compression of files that are read once


@dataclass(frozen=True)
class Opened:
    """The image files of a batch.

    Attributes:
        pixels: of each file, (3, h, w) uint8 in the order in which mmcv loads them, BGR.
        maps: how each becomes network input.
        images: (B, 3, H, W) the same in [0, 1], padded right and bottom.
        scene: of places in these files, see :meth:`~sparse_dense_attacks.victims.base.Scene.on_files`.
        shield: the defence of the files, None for none.
    """
    pixels: Sequence[Tensor]
    maps: Sequence[FileGeometry]
    images: Tensor
    scene: Scene
    shield: Shield | None = None

    @property
    def draws(self) -> int:
        """As :attr:`~sparse_dense_attacks.victims.base.Victim.draws`, of the files' defence."""
        return 1 if self.shield is None else self.shield.defence.draws


class FileGrid:
    """The pipelines between the files of a data set and the network.

    Args:
        pipelines: one, or one for each number that a sample's meta data may name.

    Raises:
        InputError: a pipeline that :class:`FilePipeline` refuses.
    """

    def __init__(self, pipelines: Sequence[FilePipeline]):
        self.pipelines = pipelines
        self.defence = pipelines[0].defence if pipelines else None
        if any(one.defence != self.defence for one in pipelines):
            raise InputError('threat.grid: the data sets of the test run have different defences: '
                             'attack them in separate runs')
        self._checked: set[int] = set()

    @classmethod
    def of_dataset(cls, dataset) -> 'FileGrid':
        """Of a data set or of those within a wrapper, whose samples are made to say of which."""
        parts = members(dataset)
        for part in parts:
            if len(part) and part.get_data_info(0).get('img_path') is None:
                raise InputError(f'threat.grid: {type(part).__name__} holds its images in memory, '
                                 f'expected image files; {INSTEAD}')
        pipelines = [FilePipeline(part.pipeline.transforms) for part in parts]
        if len(parts) > 1:
            for number, part in enumerate(parts):
                steps = part.pipeline.transforms
                if not any(isinstance(step, SayPipeline) for step in steps):
                    steps.append(SayPipeline(number))
        return cls(pipelines)

    @classmethod
    def of_model(cls, model: nn.Module) -> 'FileGrid':
        """Of a model that keeps its config, as those of mmdet's and mmseg's ``init_model`` do.

        Raises:
            InputError: it keeps none, or one without a test pipeline.
        """
        cfg: Any = getattr(model, 'cfg', None) or getattr(model, '_config', None)
        dataset = (cfg or {}).get('test_dataloader', {}).get('dataset', {})
        while 'pipeline' not in dataset and ('dataset' in dataset or dataset.get('datasets')):
            dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
        if 'pipeline' not in dataset:
            raise InputError('threat.grid: the model keeps no config with a test pipeline '
                             '(model.cfg.test_dataloader.dataset.pipeline), as init_detector, '
                             f'init_model and get_model leave it; {INSTEAD}')
        scope = cfg.get('default_scope') or library_of(model)
        with TRANSFORMS.switch_scope_and_registry(scope) as registry:
            return cls([FilePipeline(registry.build(dict(step)) for step in dataset['pipeline'])])

    def open(self, scene: Scene, batch: dict) -> Opened:
        """The files of a batch.

        Args:
            scene: of the network inputs.

        Raises:
            InputError: a file that cannot be attacked; a pipeline that does something else.
        """
        pixels, maps = [], []
        device = scene.images.device
        for sample, shown in zip(batch['data_samples'], batch['inputs'], strict=True):
            path, pipeline = sample.metainfo.get('img_path'), self._pipeline(sample)
            image = pipeline.load(path)
            self._check_png(pipeline, path, image)
            one = torch.from_numpy(image).permute(2, 0, 1).contiguous()
            plan = pipeline.geometry(tuple(image.shape[:2]), sample.metainfo)
            seen = one if pipeline.defence is None else torch.from_numpy(
                defend_picture(pipeline.defence, image, sample.metainfo)).permute(2, 0, 1)
            self._check_copy(plan, seen.to(device), shown.to(device), path)
            pixels.append(one)
            maps.append(plan)
        h, w = (max(one.shape[axis] for one in pixels) for axis in (1, 2))
        images = torch.zeros(len(pixels), 3, h, w)
        for image, one in zip(images, pixels, strict=True):
            image[:, :one.shape[1], :one.shape[2]] = one
        shield = None
        if self.defence is not None:
            shield = Shield(self.defence, scene.keys, 'bgr')
        return Opened(pixels, maps, images.div_(255).to(device), scene.on_files(maps), shield)

    def shown(self, samples: Sequence, pictures: Sequence[Tensor]) -> list[Tensor]:
        """What the stock pipeline makes of other pixels (3, h, w) uint8 in place of the files'."""
        with tempfile.TemporaryDirectory() as folder:
            found = []
            for sample, picture in zip(samples, pictures, strict=True):
                path = Path(folder, 'image.png')
                _save(to_picture(picture), path)
                found.append(self.stored(sample, path))
        return found

    def stored(self, sample, path: Path) -> Tensor:
        """What the stock pipeline makes of an image file in place of the sample's own."""
        return self._pipeline(sample).shown(str(path), sample.metainfo)

    def pixels(self, sample) -> Tensor:
        """The pixels of a sample's own file, (3, h, w) uint8."""
        image = self._pipeline(sample).load(sample.metainfo.get('img_path'))
        return torch.from_numpy(image).permute(2, 0, 1).contiguous()

    def _pipeline(self, sample) -> FilePipeline:
        return self.pipelines[sample.metainfo.get(PIPELINE, 0)]

    def _check_png(self, pipeline: FilePipeline, path: str, image: np.ndarray) -> None:
        """Refuse a loader that reads other pixels from a PNG than were written; once."""
        if id(pipeline) in self._checked:
            return
        self._checked.add(id(pipeline))
        with tempfile.TemporaryDirectory() as folder:
            copied = Path(folder, 'image.png')
            _save(to_picture(torch.from_numpy(image).permute(2, 0, 1)), copied)
            try:
                same = np.array_equal(pipeline.load(str(copied)), image)
            except Exception as error:  # of an image backend that reads no PNG
                raise InputError(f'threat.grid: the loader of the test pipeline reads {path}, but '
                                 f'no PNG ({type(error).__name__}: {error}); {INSTEAD}') from error
        if not same:
            raise InputError('threat.grid: the loader of the test pipeline reads other pixels '
                             f'from a PNG than were written to it (those of {path}); {INSTEAD}')

    @staticmethod
    def _check_copy(plan: FileGeometry, pixels: Tensor, shown: Tensor, path: str) -> None:
        """Refuse a pipeline whose output is another than that of the copy that is attacked."""
        if plan.target != tuple(shown.shape[1:]):
            raise InputError(f'threat.grid: the test pipeline makes {tuple(shown.shape[1:])} of '
                             f'{path}, its copy {plan.target}; {INSTEAD}')
        off = float((plan.forward(pixels / 255) * 255 - shown).abs().max())
        if off > CLOSE:
            raise InputError(f'threat.grid: the copy of the test pipeline that an attack looks '
                             f'through is off by {off:.0f} grey levels for {path}, expected at '
                             f'most 1; {INSTEAD}')


class SayPipeline:
    """The last step of a pipeline: says of each sample which pipeline it came through."""

    def __init__(self, number: int):
        self.number = number

    def __call__(self, item: dict) -> dict:
        item['data_samples'].set_metainfo({PIPELINE: self.number})
        return item


def _save(picture: np.ndarray, path: Path) -> None:
    Image.fromarray(picture).save(path, compress_level=FAST)
