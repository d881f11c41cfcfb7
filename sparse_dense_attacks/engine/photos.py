"""A folder of photos without labels in place of a config's test data."""
import colorsys
from pathlib import Path

from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from ..errors import InputError

__all__ = ['PhotoFolder', 'use_photos']

SUFFIXES = {'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'}


@DATASETS.register_module()
class PhotoFolder(BaseDataset):
    """The images of a folder and of the folders within, in the order of their names, without annotations.

    Files that do not end like an image are passed over; one that ends like an image but holds none is for the loop to report.

    Args:
        folder: where the images are.
        **kwargs: those of mmengine's BaseDataset, such as ``pipeline`` (without a step that loads annotations) and ``metainfo``.

    Raises:
        InputError: no such folder, or no image in it.
    """

    def __init__(self, folder: str, **kwargs):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f'no folder {folder}')
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        paths = sorted(path for path in self.folder.rglob('*') if path.suffix.lower() in SUFFIXES and path.is_file())
        if not paths:
            raise InputError(f"no image in {self.folder}: looked for {', '.join(sorted(SUFFIXES))}")
        # What the loading steps of mmdet, mmseg and mmpretrain take from a data set beside the path.
        return [dict(img_path=str(path), reduce_zero_label=False, seg_fields=[]) for path in paths]


def use_photos(cfg: ConfigDict, folder: str) -> None:
    """Let a config's test run look at a folder of photos: its pipeline without annotations, its classes, no evaluator.

    Raises:
        InputError: the config's test data set has no pipeline of its own.
    """
    dataset = cfg.test_dataloader.dataset
    while 'pipeline' not in dataset and ('dataset' in dataset or dataset.get('datasets')):
        dataset = dataset.dataset if 'dataset' in dataset else dataset.datasets[0]
    if 'pipeline' not in dataset:
        raise InputError('--images: the test data set of the config has no pipeline that could load them')
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = registry.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
    metainfo = {**getattr(kind, 'METAINFO', {}), **dataset.get('metainfo', {})}
    if classes := metainfo.get('classes'):
        hues = (colorsys.hsv_to_rgb(i / len(classes), 0.7, 0.9) for i in range(len(classes)))
        metainfo.setdefault('palette', [[round(255 * value) for value in colour] for colour in hues])  # mmseg draws with it
    pipeline = [step for step in dataset.pipeline if 'Annotations' not in str(step.type)]
    cfg.test_dataloader.dataset = dict(type='PhotoFolder', folder=folder, pipeline=pipeline, metainfo=metainfo)
    cfg.test_evaluator = []
    cfg.victim = {**cfg.get('victim', {}), 'reference': 'prediction'}
