"""Single objects of the synthetic scenes as ordinary mmpretrain datasets, written to disk on first use."""

import json
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import DATASETS, TRANSFORMS
from mmpretrain.datasets import BaseDataset
from PIL import Image

from .scenes import CLASSES, is_complete, write_coco, write_whole

SIDE = 64  # of a crop, in pixels
MARGIN = 1.25  # side of the square that is cut out, in longer sides of the object's box


@DATASETS.register_module()
class DemoCrops(BaseDataset):
    """The objects of scenes 0 .. count - 1 of series `seed`, each in the middle of a square of its own.

    Registered in mmengine's root registry, so `type='DemoCrops'` is found from every scope.

    Args:
        split (str): Name of the set on disk; a set of the same name with another seed or count is replaced.
        count (int): Number of scenes; each has 2 to 6 objects.
        seed (int): Series of scenes; different seeds share no scene.
        data_root (str): Folder of all splits. Defaults to 'data/demo_scenes/'.
        **kwargs: The other arguments of mmpretrain's `BaseDataset`, such as `pipeline` and `test_mode`.
    """

    METAINFO = dict(classes=CLASSES)

    def __init__(self, *, split: str, count: int, seed: int, data_root: str = 'data/demo_scenes/', **kwargs):
        annotation_file = write_crops(data_root, split, count, seed)
        super().__init__(
            data_root=data_root,
            ann_file=str(annotation_file.relative_to(data_root)),
            data_prefix=f'crops/{split}',
            **kwargs,
        )


@DATASETS.register_module()
class DemoLargest(BaseDataset):
    """The files of `DemoScenes`, each with the class of its largest object and, as `crop`, the square around it.

    So a classifier of single objects looks at the same files as detectors and segmenters, through `CropObject`.
    Registered in mmengine's root registry, so `type='DemoLargest'` is found from every scope.

    Args:
        split (str): Name of the set on disk; a set of the same name with another seed or count is replaced.
        count (int): Number of scenes.
        seed (int): Series of scenes; different seeds share no scene.
        data_root (str): Folder of all splits. Defaults to 'data/demo_scenes/'.
        **kwargs: The other arguments of mmpretrain's `BaseDataset`, such as `pipeline` and `test_mode`.
    """

    METAINFO = dict(classes=CLASSES)

    def __init__(self, *, split: str, count: int, seed: int, data_root: str = 'data/demo_scenes/', **kwargs):
        self.scenes = write_coco(data_root, split, count, seed)
        super().__init__(ann_file='', data_root=data_root, data_prefix=split, **kwargs)

    def load_data_list(self) -> list[dict]:
        scenes, largest = json.loads(self.scenes.read_text()), dict[int, dict]()
        for one in scenes['annotations']:
            if one['image_id'] not in largest or one['area'] > largest[one['image_id']]['area']:
                largest[one['image_id']] = one
        return [
            dict(
                img_path=str(Path(self.img_prefix, scene['file_name'])),
                gt_label=largest[scene['id']]['category_id'] - 1,
                crop=[round(edge) for edge in window(largest[scene['id']]['bbox'], (scene['width'], scene['height']))],
            )
            for scene in scenes['images']
        ]


@TRANSFORMS.register_module()
class CropObject(BaseTransform):
    """Cut out the rectangle `crop`, x1 y1 x2 y2 in whole pixels, that the dataset gives for each image."""

    def transform(self, results: dict) -> dict:
        left, top, right, bottom = results['crop']
        results['img'] = np.ascontiguousarray(results['img'][top:bottom, left:right])
        results['img_shape'] = results['img'].shape[:2]
        return results


def write_crops(root: str | Path, split: str, count: int, seed: int) -> Path:
    """Cut the objects out of the scenes that `write_coco` writes and return the path of their annotation file.

    `crops/<split>/<scene>_<object>.png` are the crops, `annotations/crops_<split>.json` their classes in the format of
    OpenMMLab 2.0. What `write_coco` promises about killed runs and several processes holds here too.
    """
    root = Path(root)
    scenes = json.loads(write_coco(root, split, count, seed).read_text())
    annotation_file, folder = root / 'annotations' / f'crops_{split}.json', root / 'crops' / split
    info = scenes['info'] | dict(side=SIDE, margin=MARGIN)
    objects = {f'{a["image_id"]:06d}_{a["id"]}.png': a for a in scenes['annotations']}
    if annotation_file.exists():
        if is_complete(annotation_file, info, [folder / name for name in objects]):
            return annotation_file
        annotation_file.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for name, annotation in objects.items():
        with Image.open(root / split / scenes['images'][annotation['image_id']]['file_name']) as scene:
            crop = scene.resize((SIDE, SIDE), Image.Resampling.BICUBIC, window(annotation['bbox'], scene.size))
        write_whole(folder / name, crop.save, format='PNG')
    items = [dict(img_path=name, gt_label=a['category_id'] - 1) for name, a in objects.items()]
    document = dict(info=info, metainfo=dict(classes=CLASSES), data_list=items)
    write_whole(annotation_file, lambda path: path.write_text(json.dumps(document)))
    return annotation_file


def window(box: list[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The square x1 y1 x2 y2 around a box x y width height, moved into the picture of `size` = (width, height)."""
    side = min(MARGIN * max(box[2:]), *size)
    middles = box[0] + box[2] / 2, box[1] + box[3] / 2
    left, top = (min(max(middle - side / 2, 0), edge - side) for middle, edge in zip(middles, size, strict=True))
    return left, top, left + side, top + side
