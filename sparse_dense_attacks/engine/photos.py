"""A folder of photos without labels in place of a config's test data."""
import colorsys
import os
from pathlib import Path

from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from ..errors import InputError

__all__ = ['PhotoFolder', 'find_photos', 'use_photos']

SUFFIXES = {'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'}


def find_photos(folder: Path) -> tuple[list[Path], str]:
    """The images of a folder and of the folders within, in the order of their names.

    Hidden files and folders, whose names begin with a dot, are passed over. Links are followed, but
    nothing is taken twice: of several names of one file or folder the first one counts.

    Returns:
        The paths, and a line that says what was taken and what was passed over.

    Raises:
        InputError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f'no folder {folder}')
    found: list[Path] = []
    seen: set[str] = set()
    hidden = again = 0
    for root, folders, files in os.walk(folder, followlinks=True):
        if _known(root, seen):
            again += 1
            folders.clear()
            continue
        hidden += sum(name.startswith('.') for name in (*folders, *files))
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in sorted(files):
            path = Path(root, name)
            if name.startswith('.') or path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            if _known(path, seen):
                again += 1
            else:
                found.append(path)
    if not found:
        looked = ', '.join(sorted(SUFFIXES))
        raise InputError(f'no image in {folder}: looked for {looked}, not in hidden files')
    folders_of = len({path.parent for path in found})
    text = f'photos: {len(found)} images in {folders_of} folders below {folder}'
    passed = [f'{hidden} hidden'] if hidden else []
    passed += [f'{again} linked twice'] if again else []
    return sorted(found), f"{text}; passed over: {', '.join(passed)}" if passed else text


def _known(path: str | Path, seen: set[str]) -> bool:
    """Whether a file or folder has been met by whatever name; it has from now on."""
    real = os.path.realpath(path)
    known = real in seen
    seen.add(real)
    return known


@DATASETS.register_module()
class PhotoFolder(BaseDataset):
    """The images of a folder, as :func:`find_photos` finds them, without annotations.

    Files that do not end like an image are passed over; one that ends like an image but holds none
    is for the loop to report.

    Args:
        folder: where the images are.
        **kwargs: those of mmengine's BaseDataset, such as ``pipeline`` (without a step that loads
            annotations) and ``metainfo``.

    Raises:
        InputError: no such folder, or no image in it.
    """

    def __init__(self, folder: str, **kwargs):
        self.paths, _ = find_photos(Path(folder))
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        # What the loading steps of mmdet, mmseg and mmpretrain take from a data set beside the path.
        return [dict(img_path=str(path), reduce_zero_label=False, seg_fields=[])
                for path in self.paths]


def use_photos(cfg: ConfigDict, folder: str) -> str:
    """Let a config's test run look at a folder of photos.

    Its pipeline stays, without annotations, and its classes; it has no evaluator.

    Returns:
        A line that says which files are taken.

    Raises:
        InputError: the config's test data set has no pipeline of its own; no image in the folder.
    """
    _, taken = find_photos(Path(folder))
    dataset = cfg.test_dataloader.dataset
    while 'pipeline' not in dataset and ('dataset' in dataset or dataset.get('datasets')):
        dataset = dataset.dataset if 'dataset' in dataset else dataset.datasets[0]
    if 'pipeline' not in dataset:
        raise InputError('--images: the test data set of the config has no pipeline that could '
                         'load them')
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = registry.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
    metainfo = {**getattr(kind, 'METAINFO', {}), **dataset.get('metainfo', {})}
    if classes := metainfo.get('classes'):
        hues = (colorsys.hsv_to_rgb(i / len(classes), 0.7, 0.9) for i in range(len(classes)))
        palette = [[round(255 * value) for value in colour] for colour in hues]
        metainfo.setdefault('palette', palette)  # mmseg draws with it
    pipeline = [step for step in dataset.pipeline if 'Annotations' not in str(step.type)]
    cfg.test_dataloader.dataset = dict(type='PhotoFolder', folder=folder, pipeline=pipeline,
                                       metainfo=metainfo)
    cfg.test_evaluator = []
    cfg.victim = {**cfg.get('victim', {}), 'reference': 'prediction'}
    return taken
