"""The synthetic scenes as an ordinary mmdet dataset, written to disk on first use."""

from mmdet.datasets import CocoDataset
from mmengine.registry import DATASETS

from .scenes import CLASSES, PALETTE, write_coco


@DATASETS.register_module()
class DemoScenes(CocoDataset):
    """Scenes 0 .. count - 1 of series `seed`, kept below `data_root` as COCO files.

    Registered in mmengine's root registry, so `type='DemoScenes'` is found from every scope. The files are written
    while the dataset is built, that is before any evaluator opens `annotations/instances_<split>.json`.

    Args:
        split (str): Name of the set on disk; a set of the same name with another seed or count is replaced.
        count (int): Number of scenes.
        seed (int): Series of scenes; different seeds share no scene.
        data_root (str): Folder of all splits. Defaults to 'data/demo_scenes/'.
        **kwargs: The other arguments of `CocoDataset`, such as `pipeline` and `test_mode`.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)

    def __init__(self, *, split: str, count: int, seed: int, data_root: str = 'data/demo_scenes/', **kwargs):
        annotation_file = write_coco(data_root, split, count, seed)
        super().__init__(
            data_root=data_root,
            ann_file=str(annotation_file.relative_to(data_root)),
            data_prefix=dict(img=f'{split}/'),
            **kwargs,
        )
