"""mmdet's detector families with random weights, small enough for a laptop, from the config files inside the installed wheel."""
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

import mmdet
import mmdet.models
import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
CLASSES = 4

# Upper limits for values of these names, anywhere in a model config.
SMALL = dict(num_classes=CLASSES, num_things_classes=CLASSES, num_stuff_classes=0, num_queries=30, num_proposals=30,
             max_per_img=30, nms_pre=200, fc_out_channels=32, feedforward_channels=32)

# Channels between backbone, neck and convolutional heads, which are 256 in nearly every config.
WIDTHS = ('in_channels', 'out_channels', 'feat_channels', 'conv_out_channels', 'point_feat_channels')


@dataclass(frozen=True)
class Family:
    """One detector family.

    Attributes:
        config: file below mmdet's config folder.
        change: dotted key -> value, applied to the shrunk model config.
        candidates: False where the head has no boxes with a gradient before suppression, so that Vanish is impossible.
        predicts: False where the library itself cannot predict with this head.
        empty_gradient: False where the library's own loss ignores images without objects.
        initialise: use mmdet's own initialisation, because without it parts of the model are uninitialised memory, or boxes have
            negative sizes or jump with the slightest change. Everywhere else torch's is better for tests: with mmdet's a random
            detector scores all below 0.02.
        masks: the ground truth has masks.
        sides: pattern of the names of the biases that give the sides of boxes, and their value; random ones give no boxes.
    """
    config: str
    change: dict = field(default_factory=dict)
    candidates: bool = True
    predicts: bool = True
    empty_gradient: bool = True
    initialise: bool = False
    masks: bool = False
    sides: tuple = ('', 0.0)


def build(family: Family) -> nn.Module:
    """The shrunk model in evaluation mode, with the same random weights each time; nothing is downloaded."""
    cfg = Config.fromfile(CONFIGS / family.config)
    _shrink(cfg.model)
    _use_resnet18(cfg.model)
    if 'num_heads' not in str(cfg.model):  # attention counts its channels from 256 in too many places
        _narrow(cfg.model)
    cfg.merge_from_dict({f'model.{key}': value for key, value in family.change.items()})
    with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        if family.initialise:
            logging.disable()  # mmengine logs every tensor
            model.init_weights()
            logging.disable(logging.NOTSET)
        for name, parameter in model.named_parameters():
            if family.sides[0] and re.search(family.sides[0], name):
                nn.init.constant_(parameter, family.sides[1])
    return model.eval()


def _shrink(node) -> None:
    if isinstance(node, list | tuple):
        for child in node:
            _shrink(child)
    if not isinstance(node, dict):
        return
    node.pop('init_cfg', None)
    node.pop('pretrained', None)
    for key, child in node.items():
        if key in SMALL and isinstance(child, int):
            node[key] = min(child, SMALL[key])
        if key in ('encoder', 'decoder', 'transformer_decoder') and isinstance(child, dict) and 'num_layers' in child:
            child['num_layers'] = 2
        if isinstance(child, dict) and child.get('type') == 'SyncBN':
            child['type'] = 'BN'
        if isinstance(child, dict) and child.get('type') == 'DynamicConv':
            child['feat_channels'] = 8
        _shrink(child)


def _narrow(node) -> None:
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        _narrow(child)
    if isinstance(node, dict):
        node.update({key: 64 for key in WIDTHS if node.get(key) == 256})


def _use_resnet18(model) -> None:
    if model.backbone.type != 'ResNet' or model.backbone.depth == 18:
        return
    model.backbone.depth = 18  # a quarter of ResNet-50's channels
    consumer = model.get('neck') or model.panoptic_head
    consumer = consumer[0] if isinstance(consumer, list) else consumer
    wide = consumer.in_channels
    consumer.in_channels = [c // 4 for c in wide] if isinstance(wide, list) else wide // 4


SIZES = [(72, 100), (96, 68)]  # height, width; both are padded, once by the batch and once by the model


def make_batch(objects=None, sizes=SIZES, scale=2.0, masks=False) -> dict:
    """A batch as the test dataloader yields it: raw uint8 images of different sizes, annotations in original coordinates.

    Args:
        objects: per image (boxes (n, 4) in input coordinates, labels (n,)); by default two objects in each image.
        scale: what the pipeline resized the images by.
        masks: add instance masks, filled boxes.
    """
    rng = np.random.default_rng(0)
    if objects is None:
        objects = [(torch.tensor([[10., 12, 58, 60], [25, 40, 66, 71]]), torch.tensor([0, 2])) for _ in sizes]
    inputs, samples = [], []
    for index, ((h, w), (boxes, labels)) in enumerate(zip(sizes, objects, strict=True)):
        inputs.append(torch.from_numpy(rng.integers(0, 256, (3, h, w), dtype=np.uint8)))
        original = round(h / scale), round(w / scale)
        boxes = boxes / scale
        sample = DetDataSample(metainfo=dict(img_id=index, img_path=f'{index}.jpg', img_shape=(h, w), ori_shape=original,
                                             scale_factor=(scale, scale)))
        sample.gt_instances = InstanceData(bboxes=HorizontalBoxes(boxes), labels=labels)
        sample.ignored_instances = InstanceData(bboxes=HorizontalBoxes(boxes[:0]), labels=labels[:0])
        if masks:
            filled = np.zeros((len(boxes), *original), dtype=np.uint8)
            for mask, (x1, y1, x2, y2) in zip(filled, boxes.round().int().tolist(), strict=True):
                mask[y1:y2, x1:x2] = 1
            sample.gt_instances.masks = BitmapMasks(filled, *original)
            sample.ignored_instances.masks = BitmapMasks(filled[:0], *original)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


# RTMDet's own pipeline pads every image to 640 x 640, so its preprocessor does not need to.
PADDED = {'data_preprocessor.pad_size_divisor': 32}

FAMILIES = {
    'faster_rcnn': Family('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'),
    'cascade_rcnn': Family('cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'),
    'mask_rcnn': Family('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', masks=True),
    'double_heads': Family('double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py'),
    'grid_rcnn': Family('grid_rcnn/grid-rcnn_r50_fpn_gn-head_2x_coco.py'),
    'libra_rcnn': Family('libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py'),
    'dynamic_rcnn': Family('dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py'),
    'pisa': Family('pisa/faster-rcnn_r50_fpn_pisa_1x_coco.py'),
    'sparse_rcnn': Family('sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py', initialise=True),
    'ms_rcnn': Family('ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py', masks=True),
    'htc': Family('htc/htc-without-semantic_r50_fpn_1x_coco.py', masks=True),
    'retinanet': Family('retinanet/retinanet_r50_fpn_1x_coco.py'),
    'ghm': Family('ghm/retinanet_r50_fpn_ghm-1x_coco.py'),
    'fcos': Family('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'),
    'fcos_norm_on_bbox': Family('fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py'),
    'atss': Family('atss/atss_r50_fpn_1x_coco.py'),
    'gfl': Family('gfl/gfl_r50_fpn_1x_coco.py'),
    'vfnet': Family('vfnet/vfnet_r50_fpn_1x_coco.py'),
    'reppoints': Family('reppoints/reppoints-moment_r50_fpn_1x_coco.py'),
    'centernet_update': Family('centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py'),
    'foveabox': Family('foveabox/fovea_r50_fpn_4xb4-1x_coco.py'),
    'yolof': Family('yolof/yolof_r50-c5_8xb8-1x_coco.py'),
    'tood': Family('tood/tood_r50_fpn_1x_coco.py'),
    'ddod': Family('ddod/ddod_r50_fpn_1x_coco.py', {'bbox_head.use_dcn': False}),
    'condinst': Family('condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py', masks=True),
    'autoassign': Family('autoassign/autoassign_r50-caffe_fpn_1x_coco.py'),
    'free_anchor': Family('free_anchor/freeanchor_r50_fpn_1x_coco.py'),
    'fsaf': Family('fsaf/fsaf_r50_fpn_1x_coco.py'),
    'nas_fcos': Family('nas_fcos/nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco.py', {'backbone.norm_cfg.eps': 1e-5}),
    'yolact': Family('yolact/yolact_r50_1xb8-55e_coco.py', masks=True),
    'rtmdet': Family('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', {**PADDED, 'bbox_head.exp_on_reg': True}),
    'yolox': Family('yolox/yolox_nano_8xb8-300e_coco.py'),
    'yolov3': Family('yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py'),
    'detr': Family('detr/detr_r18_8xb2-500e_coco.py', initialise=True),
    'conditional_detr': Family('conditional_detr/conditional-detr_r50_8xb2-50e_coco.py', initialise=True),
    'deformable_detr': Family('deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', initialise=True),
    'dab_detr': Family('dab_detr/dab-detr_r50_8xb2-50e_coco.py', initialise=True),
    'dino': Family('dino/dino-4scale_r50_8xb2-12e_coco.py', initialise=True),
    'ddq': Family('ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py', initialise=True),
    'rtmdet_ins': Family('rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py', {**PADDED, 'data_preprocessor.pad_mask': True},
                         masks=True, sides=(r'rtm_reg\.\d\.bias$', 2.0)),
    'sabl': Family('sabl/sabl-retinanet_r50_fpn_1x_coco.py', candidates=False),
    'cascade_rpn': Family('cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py', initialise=True),
    'centernet': Family('centernet/centernet_r18_8xb16-crop512-140e_coco.py', predicts=False,
                        sides=(r'wh_head\.2\.bias$', 5.0)),
    'ssd': Family('ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py', predicts=False, empty_gradient=False),
    'solo': Family('solo/solo_r50_fpn_1x_coco.py', masks=True),
    'solov2': Family('solov2/solov2-light_r18_fpn_ms-3x_coco.py', masks=True),
    'mask2former': Family('mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
                          {'panoptic_head.loss_cls.class_weight': [1.] * CLASSES + [.1]}, masks=True),
}
