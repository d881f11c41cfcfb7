"""What is asked of annotations before the first image is attacked."""
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.evaluator import Evaluator
from PIL import Image

from ..errors import InputError
from .data import irregular, members
from .warn import warn

__all__ = ['check_categories', 'check_files', 'check_metrics', 'check_truth', 'coco_content']


def check_files(*configs) -> None:
    """Refuse annotation files whose reading would never end.

    Args:
        configs: of data sets and evaluators.

    Raises:
        InputError: one is a named pipe, a socket or a device.
    """
    for part in _parts(configs):
        name = part.get('ann_file')
        path = Path(part.get('data_root') or '', name) if isinstance(name, str) else None
        if path and (kind := irregular(path)):
            raise InputError(f'annotation file {path} is {kind}, expected an ordinary file')


def _parts(config) -> Iterator[dict]:
    """All dicts within a config."""
    if isinstance(config, dict):
        yield config
        config = list(config.values())
    if isinstance(config, list | tuple):
        for value in config:
            yield from _parts(value)


def check_truth(dataset) -> None:
    """Look at the annotations of a data set as a whole, without decoding an image.

    Boxes that no metric can make sense of are counted in a warning.

    Raises:
        InputError: ids of images or annotations that are not unique, class names that do not fit
            the annotation file, label maps with colours in place of class indices.
    """
    for member in members(dataset):
        path = getattr(member, 'ann_file', None)
        content = coco_content(path)
        if content is not None:
            _check_ids(content, path)
            if getattr(member, 'cat_ids', None):
                names = {one['id']: one['name'] for one in content['categories']}
                check_categories(names, member.cat_ids, member.metainfo.get('classes'), path)
            _count_boxes(_coco_boxes(content), str(path))
        else:
            _count_boxes(_boxes(member), type(member).__name__)
        _check_label_maps(member)


def coco_content(path) -> dict | None:
    """The content of an annotation file in COCO's format, None for any other."""
    if not isinstance(path, str) or not path.endswith('.json') or not Path(path).is_file():
        return None
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError:
        return None  # whatever the data set reads from it
    parts = ('images', 'annotations', 'categories')
    whole = isinstance(content, dict) and all(isinstance(content.get(p), list) for p in parts)
    return content if whole else None


def _check_ids(content: dict, path) -> None:
    for part, name in (('images', 'image'), ('annotations', 'annotation')):
        counts = Counter(one.get('id') for one in content[part] if isinstance(one, dict))
        twins = [key for key, count in counts.items() if count > 1 and key is not None]
        if twins:
            raise InputError(f'{path}: {name} id {twins[0]} is there {counts[twins[0]]} times'
                             f'{f" ({len(twins)} such ids)" if len(twins) > 1 else ""}, but ids '
                             'have to be unique: all but one would be lost silently')


def check_categories(names: dict, ids: Iterable, classes, path) -> None:
    """Refuse classes that are called otherwise than the categories that their numbers stand for.

    Args:
        names: of the categories of an annotation file by their ids.
        ids: of the category that each class number stands for.
        classes: names of the classes in the data set's metainfo.
        path: the annotation file.

    Raises:
        InputError: a class that is no category, or another order.
    """
    if not classes:
        return
    found, wanted = [names.get(key) for key in ids], list(classes)
    missing = [name for name in wanted if name not in names.values()]
    listed = ', '.join(map(str, names.values()))
    if missing:
        raise InputError(f"metainfo.classes names {', '.join(map(str, missing))}, but the "
                         f'categories of {path} are: {listed}')
    if found != wanted:
        raise InputError(f'metainfo.classes are in another order than the categories of {path}, '
                         f'which number the labels: metainfo.classes: {", ".join(wanted)}; '
                         f'categories: {", ".join(map(str, found))}. Put the classes into the '
                         'order of the categories')


def check_metrics(evaluator: Evaluator, classes) -> None:
    """Ask :func:`check_categories` of the annotation files that COCO's metrics read themselves."""
    for metric in evaluator.metrics:
        api = getattr(metric, '_coco_api', None)
        if api is not None and classes:
            names = {key: one['name'] for key, one in api.cats.items()}
            ids = api.get_cat_ids(cat_names=list(classes))
            check_categories(names, ids, classes, "the metric's annotation file")


def _coco_boxes(content: dict) -> Iterator[tuple]:
    """Box (x1, y1, x2, y2), size of its image (width, height) and a name for it."""
    sizes = {image['id']: (image.get('width'), image.get('height')) for image in content['images']}
    for one in content['annotations']:
        if isinstance(one.get('bbox'), list) and len(one['bbox']) == 4:
            low, sides = one['bbox'][:2], one['bbox'][2:]
            box = (*low, *(a + side for a, side in zip(low, sides, strict=True)))
            where = f"annotation {one.get('id')} of image {one.get('image_id')}"
            yield box, sizes.get(one.get('image_id'), (None, None)), where


def _boxes(dataset) -> Iterator[tuple]:
    """As :func:`_coco_boxes`, of any data set that lists instances."""
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for one in info.get('instances') or ():
            if len(one.get('bbox') or ()) == 4:
                yield one['bbox'], (info.get('width'), info.get('height')), info.get('img_path')


def _count_boxes(boxes: Iterable[tuple], source: str) -> None:
    counts: Counter = Counter()
    first = None
    for box, size, where in boxes:
        if kind := _flaw(box, *size):
            counts[kind] += 1
            first = first or where
    if counts:
        found = ', '.join(f'{count} {kind}' for kind, count in counts.items())
        warn(f'{source}: boxes that no metric can make sense of: {found} (the first is {first}); '
             'what a detector is scored on may be other than what is attacked, so mend them')


def _flaw(box, width, height) -> str | None:
    if not all(isinstance(side, int | float) and math.isfinite(side) for side in box):
        return 'with NaN or infinity'
    low, high = box[:2], box[2:]
    sides = [end - start for start, end in zip(low, high, strict=True)]
    if min(sides) < 0:
        return 'of negative width or height'
    if min(sides) == 0:
        return 'of no area'
    beyond = width and height and (low[0] >= width or low[1] >= height)
    return 'outside of the image' if beyond or min(high) <= 0 else None


def _check_label_maps(dataset) -> None:
    """Refuse label maps that mmseg's LoadAnnotations would read as colours; looks at headers."""
    load = next((step for step in getattr(dataset.pipeline, 'transforms', ())
                 if type(step).__name__ == 'LoadAnnotations'
                 and type(step).__module__.startswith('mmseg.')), None)
    if load is None:
        return
    coloured = {'RGB', 'RGBA', 'LA', 'CMYK', 'YCbCr'}
    if load.imdecode_backend == 'cv2':
        coloured.add('P')  # OpenCV looks the colours up
    for index in range(len(dataset)):
        path = dataset.get_data_info(index).get('seg_map_path')
        if path is None or '://' in path:
            continue
        if kind := irregular(path):
            raise InputError(f'label map {path} is {kind}, expected an image file')
        try:
            with Image.open(path) as image:
                mode = image.mode
        except OSError:
            continue  # missing, broken or of another format: for the loader to say
        if mode in coloured:
            classes = len(dataset.metainfo.get('classes') or ())
            upto = f' (0 to {classes - 1})' if classes else ''
            raise InputError(f'label map {path} has colours (mode {mode}), expected one channel '
                             f'with class indices{upto}: replace each colour by its class and '
                             'save as 8-bit grey')
