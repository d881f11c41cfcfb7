"""The synthetic scenes as an ordinary mmseg dataset, written to disk on first use."""

from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset

from .scenes import CLASSES, PALETTE, write_coco


@DATASETS.register_module()
class DemoLabelMaps(BaseSegDataset):
    """The files of `DemoScenes`, with the class of each pixel as the truth: 0 is background and 1 + label an object.

    Registered in mmengine's root registry, so `type='DemoLabelMaps'` is found from every scope.

    Args:
        split (str): Name of the set on disk; a set of the same name with another seed or count is replaced.
        count (int): Number of scenes.
        seed (int): Series of scenes; different seeds share no scene.
        data_root (str): Folder of all splits. Defaults to 'data/demo_scenes/'.
        **kwargs: The other arguments of `BaseSegDataset`, such as `pipeline` and `test_mode`.
    """

    METAINFO = dict(classes=('background', *CLASSES), palette=[(40, 40, 40), *PALETTE])

    def __init__(self, *, split: str, count: int, seed: int, data_root: str = 'data/demo_scenes/', **kwargs):
        write_coco(data_root, split, count, seed)
        self.count = count
        super().__init__(
            data_root=data_root,
            data_prefix=dict(img_path=split, seg_map_path=f'masks/{split}'),
            img_suffix='.png',
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """The scenes of this set; a larger one of the same name may have left more files."""
        return super().load_data_list()[: self.count]
