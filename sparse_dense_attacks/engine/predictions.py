"""What a model says of photos as the annotations of a data set."""
import dataclasses
from collections.abc import Iterable

import numpy as np
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as masks

from ..errors import InputError
from ..victims.base import sample_key
from .annotations import Part

__all__ = ['EVALUATORS', 'annotated']

# How a library scores when there are annotations and no evaluator.
EVALUATORS: dict[str, dict] = {
    'mmdet': dict(type='CocoMetric', metric='bbox'),
    'mmseg': dict(type='IoUMetric', iou_metrics=['mIoU']),
    'mmpretrain': dict(type='Accuracy', topk=(1,)),
}


def annotated(part: Part, outputs: Iterable, least: float) -> Part:
    """A part whose truth is what the model finds in the clean images.

    Args:
        part: photos, which have no annotations.
        outputs: the model's predictions of all images of the run, with their metainfo.
        least: score from which a detection counts.

    Raises:
        InputError: nobody knows what the classes are called.
    """
    if part.library != 'mmpretrain' and not part.source.metainfo.get('classes'):
        raise InputError("the photos' data set names no classes: set metainfo.classes of the "
                         "config's test data set")
    rows = {sample_key(info): row for row, info in enumerate(part.infos)}
    infos, annotations = list(part.infos), []
    for output in outputs:
        row = rows.get(sample_key(output))
        if row is None:  # of another part, or not attacked
            continue
        info = dict(part.infos[row])
        if part.library == 'mmdet':
            info['img_id'] = row
            found = output.pred_instances
            annotations += _objects(row, found[found.scores >= least].cpu())
            height, width = output.ori_shape[:2]
            info |= dict(height=height, width=width)
        elif part.library == 'mmseg':
            info['seg_map_path'] = str(part.truth(f'predicted/{row}.png'))
            pixels = output.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)
            Image.fromarray(pixels).save(info['seg_map_path'])
        else:
            info['gt_label'] = int(output.pred_label.item())
        infos[row] = info
    if part.library != 'mmdet':
        return dataclasses.replace(part, infos=infos)
    return dataclasses.replace(part, infos=infos, content=_content(part, infos, annotations))


def _objects(image: int, found: InstanceData) -> list[dict]:
    """Detections in an image in COCO's format, without ids."""
    objects = []
    for row, (label, box) in enumerate(zip(found.labels.tolist(), found.bboxes.tolist(),
                                           strict=True)):
        sides = [box[2] - box[0], box[3] - box[1]]
        one: dict = dict(image_id=image, category_id=label + 1, bbox=[*box[:2], *sides],
                         area=sides[0] * sides[1], iscrowd=0)
        if 'masks' in found:
            mask = np.asfortranarray(np.asarray(found.masks[row]), dtype=np.uint8)
            code = masks.encode(mask)
            one |= dict(segmentation=dict(code, counts=code['counts'].decode()),
                        area=int(mask.sum()))
        objects.append(one)
    return objects


def _content(part: Part, infos: list[dict], objects: list[dict]) -> dict:
    images = [dict(id=info['img_id'], file_name=name, height=info['height'], width=info['width'])
              for info, name in zip(infos, part.names, strict=True)]
    categories = [dict(id=number, name=name)
                  for number, name in enumerate(part.source.metainfo['classes'], start=1)]
    annotations = [dict(one, id=number) for number, one in enumerate(objects, start=1)]
    return dict(images=images, annotations=annotations, categories=categories)
