"""Data sets of every flavour are written around other images so that stock classes say the same of them."""
import copy
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

pytest.importorskip('mmdet', reason='the data sets are those of the libraries', exc_type=ImportError)

from mmengine.dataset import BaseDataset  # noqa: E402
from mmengine.registry import DATASETS, DefaultScope  # noqa: E402

from sparse_dense_attacks.engine import export  # noqa: E402
from sparse_dense_attacks.engine.annotations import IMAGES, Part, coco_subset, names_for  # noqa: E402
from sparse_dense_attacks.engine.export import check_exportable  # noqa: E402
from sparse_dense_attacks.engine.metric_files import MetricFiles  # noqa: E402
from sparse_dense_attacks.engine.truth import coco_content  # noqa: E402
from sparse_dense_attacks.errors import InputError  # noqa: E402
from sparse_dense_attacks.models import PreActResNet  # noqa: E402

pytestmark = pytest.mark.openmmlab

DETECT = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(20, 16), keep_ratio=True),
          dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]
SEGMENT = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
CLASSIFY = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
NAMES = ['b/a b.jpg', 'c/a b.bmp', 'c/é ü.jpg', 'd.png']  # two of one name, with spaces, not ASCII


def pixels(seed: int, shape=(16, 20, 3), high=256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def pictures(folder: Path, names=NAMES) -> list[str]:
    for seed, name in enumerate(names):
        save(folder / name, pixels(seed))
    return names


def coco(root: Path, names=NAMES) -> dict:
    """An annotation file of two classes, with a crowd, an RLE and an image without objects."""
    objects = [dict(image_id=10, bbox=[1, 2, 5, 6], category_id=7),
               dict(image_id=10, bbox=[3, 3, 9, 9], category_id=9, iscrowd=1),
               dict(image_id=11, bbox=[0, 0, 4, 4], category_id=9, segmentation=[[0, 0, 4, 0, 4, 4, 0, 4]]),
               dict(image_id=13, bbox=[2, 2, 8, 8], category_id=7)]
    annotations = [dict(iscrowd=0) | one | dict(id=number, area=one['bbox'][2] * one['bbox'][3])
                   for number, one in enumerate(objects)]
    images = [dict(id=10 + number, file_name=name, height=16, width=20) for number, name in enumerate(names)]
    content = dict(images=images, annotations=annotations, licenses=[dict(id=1, name='CC BY')],
                   categories=[dict(id=7, name='cat'), dict(id=9, name='dog')])
    (root / 'ann').mkdir(exist_ok=True)
    (root / 'ann/some.json').write_text(json.dumps(content))
    return dict(type='mmdet.CocoDataset', data_root=str(root), ann_file='ann/some.json', data_prefix=dict(img='pictures'),
                metainfo=dict(classes=('cat', 'dog')), test_mode=True, pipeline=DETECT)


def exported(cfg: dict, library: str, folder: Path, left_out=(1,)) -> tuple:
    """The data set of a config, and what was written of it: without some images, the others in PNGs of the same pixels."""
    with DefaultScope.overwrite_default_scope(library):
        source = DATASETS.build(copy.deepcopy(cfg))
        rows = [row for row in range(len(source)) if row not in left_out]
        infos = [source.get_data_info(row) for row in rows]
        prefix = getattr(source, 'data_prefix', {})
        names = names_for([info['img_path'] for info in infos], prefix.get('img') or prefix.get('img_path'))
        for info, name in zip(infos, names, strict=True):
            goal = folder / IMAGES / name
            goal.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(info['img_path']) as image:
                image.save(goal)
        content = coco_content(getattr(source, 'ann_file', None))
        new = Part(source, cfg, library, infos, names, folder, content).write()
        found = DATASETS.build(copy.deepcopy(new))
        assert len(found) == len(rows)
        pairs = [(source[row], found[index]) for index, row in enumerate(rows)]
    return new, found, pairs


def same_inputs(pairs) -> None:
    for before, after in pairs:
        if not before['data_samples'].img_path.endswith('.jpg'):  # JPEGs are decoded by another library than wrote the PNGs
            assert (before['inputs'] == after['inputs']).all()


def same_boxes(pairs) -> None:
    same_inputs(pairs)
    for before, after in pairs:
        for name in ('gt_instances', 'ignored_instances'):
            old, new = getattr(before['data_samples'], name), getattr(after['data_samples'], name)
            assert np.array_equal(old.bboxes.tensor, new.bboxes.tensor) and np.array_equal(old.labels, new.labels)


# Names

@pytest.mark.parametrize(('paths', 'names'), [
    (['/d/a.jpg', '/d/a.JPG'], ['a.jpg.png', 'a.JPG.png']),
    (['/d/a.jpg', '/d/A.png'], ['a.jpg.png', 'A.png.png']),
    (['/d/x/1.jpg', '/d/y/1.jpg'], ['x/1.png', 'y/1.png']),
    (['/e/x/1.jpg', '/e/y/1.jpg', '/e/y/2.jpg'], ['x/1.png', 'y/1.png', 'y/2.png']),
    (['/d/ a.jpg', '/d/b\n.jpg', '/d/c .jpg'], ['%20a.png', 'b%0A.png', 'c%20.png']),
    (['/d/\udcff.jpg'], ['%FF.png']),
    (['/d/a.b.jpg', '/d/a.c.jpg'], ['a.b.png', 'a.c.png']),
])
def test_names_known_answers(paths, names):
    assert names_for(paths, '/d') == names


# Detection

def test_coco(tmp_path):
    pictures(tmp_path / 'pictures')
    new, found, pairs = exported(coco(tmp_path), 'mmdet', tmp_path / 'new')
    same_boxes(pairs)
    content = json.loads((tmp_path / 'new/annotations/some.json').read_text())
    assert [one['file_name'] for one in content['images']] == ['b/a b.png', 'c/é ü.png', 'd.png']
    assert [one['id'] for one in content['images']] == [10, 12, 13]
    assert [one['id'] for one in content['annotations']] == [0, 1, 3]
    assert content['licenses'] and new['type'] == 'mmdet.CocoDataset' and new['metainfo'] == dict(classes=('cat', 'dog'))


def test_lvis_names_its_files_by_their_url():
    images = [dict(id=1, coco_url='http://some.host/train/1.jpg', license=3), dict(id=2, coco_url='x')]
    content = dict(images=images, annotations=[dict(id=1, image_id=1), dict(id=2, image_id=2)], categories=[1])
    assert coco_subset(content, {1: 'train/1.png'}) == dict(
        images=[dict(id=1, coco_url='train/1.png', license=3)], annotations=[dict(id=1, image_id=1)], categories=[1])
    both = dict(content, images=[dict(id=1, coco_url='clean', file_name='1.jpg')])
    assert coco_subset(both, {1: '1.png'})['images'] == [dict(id=1, coco_url='clean', file_name='1.png')]


@pytest.mark.parametrize('kind', ['CityscapesDataset', 'Objects365V1Dataset', 'DeepFashionDataset'])
def test_kin_of_coco_keep_their_class(tmp_path, kind):
    pictures(tmp_path / 'pictures')
    new, _, pairs = exported(coco(tmp_path) | dict(type=f'mmdet.{kind}'), 'mmdet', tmp_path / 'new')
    same_boxes(pairs)
    assert new['type'] == f'mmdet.{kind}'


def test_a_class_that_reads_names_its_own_way_is_written_as_a_list(tmp_path):
    """Objects365 V2 keeps the last two parts of a name only, which our names may have less of."""
    names = ['a/x/1.jpg', 'a/y/1.jpg', 'a/y/2.jpg']
    pictures(tmp_path / 'pictures', [name[2:] for name in names])
    cfg = coco(tmp_path, names) | dict(type='mmdet.Objects365V2Dataset')
    _, _, pairs = exported(cfg, 'mmdet', tmp_path / 'new')
    same_boxes(pairs)


def test_voc(tmp_path):
    root = tmp_path / 'VOCdevkit/VOC2007'
    pictures(root / 'JPEGImages', ['1 a.jpg', '2.jpg', '3.jpg'])
    (root / 'Annotations').mkdir()
    for name, difficult in (('1 a', 0), ('2', 0), ('3', 1)):
        box = '<bndbox><xmin>3</xmin><ymin>2</ymin><xmax>9</xmax><ymax>12</ymax></bndbox>'
        objects = (f'<object><name>{kind}</name><difficult>{hard}</difficult>{box}</object>' for kind, hard in (
            ('dog', difficult), ('cat', 0), ('nothing', 0)))
        (root / f'Annotations/{name}.xml').write_text(
            f'<annotation><size><width>20</width><height>16</height></size>{"".join(objects)}</annotation>')
    (root / 'test.txt').write_text('1 a\n2\n3\n')
    cfg = dict(type='mmdet.VOCDataset', data_root=str(tmp_path / 'VOCdevkit'), ann_file='VOC2007/test.txt',
               data_prefix=dict(sub_data_root='VOC2007/'), test_mode=True, pipeline=DETECT)
    new, found, pairs = exported(cfg, 'mmdet', tmp_path / 'new')
    same_boxes(pairs)
    assert len(pairs[1][1]['data_samples'].ignored_instances) == 1, 'difficult'
    assert found.metainfo['dataset_type'] == 'VOC2007', 'its metric asks for that'
    assert new['type'] == 'mmdet.BaseDetDataset' and found.get_data_info(0)['img_id'] == '1 a'


def test_panoptic_label_maps_come_along(tmp_path):
    pictures(tmp_path / 'pictures')
    cfg = coco(tmp_path)
    content = json.loads((tmp_path / 'ann/some.json').read_text())
    content['annotations'] = [
        dict(image_id=image['id'], file_name='x.png', segments_info=[dict(
            id=5, category_id=7, bbox=[1, 1, 4, 4], area=16, iscrowd=0)]) for image in content['images']]
    content['categories'] = [dict(one, isthing=1) for one in content['categories']]
    (tmp_path / 'ann/some.json').write_text(json.dumps(content))
    for seed, name in enumerate(NAMES):
        save(tmp_path / 'seg' / name.replace('.jpg', '.png'), pixels(seed))
    cfg |= dict(type='mmdet.CocoPanopticDataset', data_prefix=dict(img='pictures', seg='seg'), pipeline=[DETECT[0], DETECT[-1]],
                metainfo=dict(classes=('cat', 'dog'), thing_classes=('cat', 'dog'), stuff_classes=()))
    new, found, pairs = exported(cfg, 'mmdet', tmp_path / 'new')
    assert new['type'] == 'mmdet.CocoPanopticDataset'
    for row, source in ((0, NAMES[0]), (1, NAMES[2]), (2, NAMES[3])):
        path = tmp_path / 'seg' / source.replace('.jpg', '.png')
        assert Path(found.get_data_info(row)['seg_map_path']).read_bytes() == path.read_bytes()


def test_a_class_of_the_users_own_becomes_a_stock_one(tmp_path):
    from mmdet.datasets import CocoDataset

    class Mine(CocoDataset):
        METAINFO = dict(classes=('cat', 'dog'), palette=[(1, 2, 3), (4, 5, 6)])

        def __init__(self, *, folder, **kwargs):
            super().__init__(data_root=str(folder), ann_file='ann/some.json', data_prefix=dict(img='pictures'), **kwargs)

    pictures(tmp_path / 'pictures')
    coco(tmp_path)
    new, found, pairs = exported(dict(type=Mine, folder=tmp_path, test_mode=True, pipeline=DETECT), 'mmdet', tmp_path / 'new')
    same_boxes(pairs)
    assert new['type'] == 'mmdet.CocoDataset' and 'folder' not in new
    assert found.metainfo['classes'] == ['cat', 'dog'] and found.metainfo['palette'] == [[1, 2, 3], [4, 5, 6]]


def test_a_class_that_says_other_things_than_its_file_is_written_as_a_list(tmp_path):
    from mmdet.datasets import CocoDataset

    class Halved(CocoDataset):
        """Boxes of half their size: an annotation file copied as it is would be wrong, silently."""

        def parse_data_info(self, raw):
            info = super().parse_data_info(raw)
            for one in info['instances']:
                one['bbox'] = [value / 2 for value in one['bbox']]
            return info

    pictures(tmp_path / 'pictures')
    new, _, pairs = exported(coco(tmp_path) | dict(type=Halved), 'mmdet', tmp_path / 'new')
    same_boxes(pairs)
    assert new['type'] == 'mmdet.BaseDetDataset'
    assert not (tmp_path / 'new/annotations/some.json').exists(), 'the file that was no use'


# Segmentation

def same_maps(pairs) -> None:
    same_inputs(pairs)
    for before, after in pairs:
        assert (before['data_samples'].gt_sem_seg.data == after['data_samples'].gt_sem_seg.data).all()


def maps(folder: Path, names, high=4) -> None:
    for seed, name in enumerate(names):
        save(folder / name, pixels(seed + 50, (16, 20), high))


def segmented(tmp_path, kind='BaseSegDataset', **options) -> dict:
    return dict(type=f'mmseg.{kind}', data_root=str(tmp_path), pipeline=SEGMENT, test_mode=True,
                data_prefix=dict(img_path='pictures', seg_map_path='maps')) | options


@pytest.mark.parametrize('zero', [False, True])
@pytest.mark.parametrize('listed', [False, True])
def test_label_maps(tmp_path, zero, listed):
    bases = ['b/a b', 'c/a b', 'c/é ü']
    pictures(tmp_path / 'pictures', [f'{base}.jpg' for base in bases])
    maps(tmp_path / 'maps', [f'{base}.png' for base in bases])
    (tmp_path / 'list.txt').write_text('\n'.join(bases[::-1]), encoding='utf-8')
    options = dict(ann_file='list.txt') if listed else {}
    cfg = segmented(tmp_path, reduce_zero_label=zero, metainfo=dict(classes=('x', 'y', 'z')), **options)
    new, found, pairs = exported(cfg, 'mmseg', tmp_path / 'new')
    same_maps(pairs)
    assert found.metainfo['reduce_zero_label'] == zero and new['type'] == 'mmseg.BaseSegDataset'
    assert (tmp_path / 'new/annotations/maps/b/a b.png').read_bytes() == (tmp_path / 'maps/b/a b.png').read_bytes()


def test_endings_of_names_as_cityscapes_has_them(tmp_path):
    bases = ['aachen/aachen_1', 'bern/bern_2']
    pictures(tmp_path / 'pictures', [f'{base}_leftImg8bit.png' for base in bases])
    maps(tmp_path / 'maps', [f'{base}_gtFine_labelTrainIds.png' for base in bases], 19)
    new, found, pairs = exported(segmented(tmp_path, 'CityscapesDataset'), 'mmseg', tmp_path / 'new', left_out=())
    same_maps(pairs)
    there = sorted(path.relative_to(tmp_path / 'new').as_posix() for path in (tmp_path / 'new').rglob('*.png'))
    assert there == ['annotations/maps/aachen/aachen_1_gtFine_labelTrainIds.png',
                     'annotations/maps/bern/bern_2_gtFine_labelTrainIds.png',
                     'images/aachen/aachen_1_leftImg8bit.png', 'images/bern/bern_2_leftImg8bit.png']
    assert found.metainfo['classes'][0] == 'road' and found.metainfo['palette'][0] == [128, 64, 128]


@pytest.mark.parametrize('classes', [('wall', 'sky', 'floor'), None])
def test_ade20k_also_with_some_of_its_classes(tmp_path, classes):
    """Some classes renumber the maps, which only ADE20K's own class would do: written, they are renumbered already."""
    pictures(tmp_path / 'pictures', ['1.jpg', '2.jpg'])
    maps(tmp_path / 'maps', ['1.png', '2.png'], 6)
    options = dict(metainfo=dict(classes=classes)) if classes else {}
    _, found, pairs = exported(segmented(tmp_path, 'ADE20KDataset', **options), 'mmseg', tmp_path / 'new', left_out=())
    same_maps(pairs)
    assert found.metainfo['reduce_zero_label'] == (classes is None)
    assert len(found.metainfo['classes']) == (3 if classes else 150)


def test_label_maps_in_another_format(tmp_path):
    pictures(tmp_path / 'pictures', ['1.jpg', '2.jpg'])
    maps(tmp_path / 'maps', ['1.tif', '2.tif'])
    cfg = segmented(tmp_path, seg_map_suffix='.tif', metainfo=dict(classes=('a', 'b', 'c', 'd')))
    same_maps(exported(cfg, 'mmseg', tmp_path / 'new')[2])


# Classification

def labels(pairs) -> list[int]:
    same_inputs(pairs)
    for before, after in pairs:
        assert before['data_samples'].gt_label == after['data_samples'].gt_label
    return [int(after['data_samples'].gt_label) for _, after in pairs]


def test_folders_of_classes(tmp_path):
    pictures(tmp_path / 'pictures', ['cat/a b.jpg', 'cat/é.jpg', 'dog/a b.jpg', 'dog/deep/x.png'])
    cfg = dict(type='mmpretrain.CustomDataset', data_prefix=str(tmp_path / 'pictures'), pipeline=CLASSIFY)
    _, found, pairs = exported(cfg, 'mmpretrain', tmp_path / 'new')
    assert labels(pairs) == [0, 1, 1] and found.metainfo['classes'] == ['cat', 'dog']
    assert (tmp_path / 'new/annotations/labels.txt').read_text() == 'cat/a b.png 0\ndog/a b.png 1\ndog/deep/x.png 1\n'


def test_a_list_of_images(tmp_path):
    pictures(tmp_path / 'pictures')
    lines = [f'{name} {label}\n' for label, name in enumerate(NAMES)]
    (tmp_path / 'list.txt').write_text(''.join(lines), encoding='utf-8')
    cfg = dict(type='mmpretrain.CustomDataset', data_root=str(tmp_path), data_prefix='pictures', ann_file='list.txt',
               pipeline=CLASSIFY)
    assert labels(exported(cfg, 'mmpretrain', tmp_path / 'new')[2]) == [0, 2, 3]


def test_imagenet_and_openmmlabs_own_format(tmp_path):
    pictures(tmp_path / 'val')
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta/val.txt').write_text(''.join(f'{name} {label}\n' for label, name in enumerate(NAMES)), encoding='utf-8')
    cfg = dict(type='mmpretrain.ImageNet', data_root=str(tmp_path), split='val', pipeline=CLASSIFY)
    new, found, pairs = exported(cfg, 'mmpretrain', tmp_path / 'new')
    assert labels(pairs) == [0, 2, 3] and len(found.metainfo['classes']) == 1000 and new['type'] == 'mmpretrain.CustomDataset'

    content = dict(metainfo=dict(classes=['a', 'b']), data_list=[dict(img_path=name, gt_label=[1]) for name in NAMES])
    (tmp_path / 'list.json').write_text(json.dumps(content))
    cfg = dict(type='mmpretrain.BaseDataset', data_root=str(tmp_path), data_prefix='val', ann_file='list.json', pipeline=CLASSIFY)
    assert labels(exported(cfg, 'mmpretrain', tmp_path / 'newer')[2]) == [1, 1, 1]


# Evaluators and configs

def test_files_of_metrics_are_found_or_come_along(tmp_path, monkeypatch):
    """The data set's own annotation file, another one of the same images, one in another format, and a folder."""
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / 'pictures')
    cfg = coco(tmp_path)
    (tmp_path / 'other').mkdir()
    content = json.loads((tmp_path / 'ann/some.json').read_text())
    (tmp_path / 'other/some.json').write_text(json.dumps(content | dict(info='other')))
    (tmp_path / 'ann/list.odgt').write_text('x')
    (tmp_path / 'bbox').mkdir()  # a folder that is called like a metric
    with DefaultScope.overwrite_default_scope('mmdet'):
        source = DATASETS.build(cfg)
        infos = [source.get_data_info(row) for row in (0, 2)]
        part = Part(source, cfg, 'mmdet', infos, ['1.png', '2.png'], tmp_path / 'new', coco_content(source.ann_file))
        written = part.write() | dict(data_root='')
    files = MetricFiles(tmp_path / 'new', [part], [written])
    found = files.moved([dict(type='CocoMetric', ann_file='ann/some.json', metric=['bbox'], outfile_prefix='other'),
                         dict(type='X', ann_file=str(tmp_path / 'other/some.json'), seg_prefix='other'),
                         dict(type='Y', ann_file='ann/list.odgt', again='ann/list.odgt', metric='bbox',
                              list_file='ann/list.odgt')])
    assert found[0] == dict(type='CocoMetric', ann_file='annotations/some.json', metric=['bbox'], outfile_prefix='other')
    assert repr(found[0]['ann_file']) == "root + 'annotations/some.json'"
    other = json.loads((tmp_path / 'new' / found[1]['ann_file']).read_text())
    assert [one['id'] for one in other['images']] == [10, 12] and other['info'] == 'other'
    assert found[1]['seg_prefix'] == str(tmp_path / 'other') and files.outside == [str(tmp_path / 'other')]
    assert (tmp_path / 'new' / found[2]['ann_file']).read_text() == 'x' and found[2]['list_file'] == found[2]['ann_file']
    assert found[2]['again'] == 'ann/list.odgt' and found[2]['metric'] == 'bbox'


def test_what_is_ours_stays_out_of_the_config():
    content = dict(custom_imports=dict(imports=['sparse_dense_attacks.demo.dataset', 'theirs'], allow_failed_imports=False),
                   custom_hooks=[dict(type='AttackHook', attack=1), dict(type='EMAHook')],
                   default_hooks=dict(a=dict(type='AttackVisualizationHook'), b=dict(type='IterTimerHook')))
    assert export._without_us(content, nn.Linear(1, 1)) == dict(
        custom_imports=dict(imports=['theirs'], allow_failed_imports=False), custom_hooks=[dict(type='EMAHook')],
        default_hooks=dict(b=dict(type='IterTimerHook')))
    assert export._without_us(dict(custom_imports=dict(imports='sparse_dense_attacks')), nn.Linear(1, 1)) == {}
    assert export._without_us({}, PreActResNet()) == dict(custom_imports=dict(imports=['sparse_dense_attacks']))


def test_values_are_written_as_python():
    value = dict(a=float('inf'), b=(1, [Path('x')]), c=nn.Linear, d=None, e='{0}', f=True)
    written = repr(export._literal(value))
    assert eval(written) == dict(a=float('inf'), b=(1, ['x']), c='torch.nn.modules.linear.Linear', d=None, e='{0}', f=True)
    with pytest.raises(InputError, match='the config holds a object'):
        export._literal([object()])


# Refused

def test_images_elsewhere_are_refused_before_the_run(tmp_path):
    pictures(tmp_path / 'pictures')
    with DefaultScope.overwrite_default_scope('mmdet'):
        check_exportable(DATASETS.build(coco(tmp_path)))
        elsewhere = DATASETS.build(coco(tmp_path) | dict(data_prefix=dict(img='s3://bucket')))
    with pytest.raises(InputError, match=r"CocoDataset's images are elsewhere \(s3://bucket/b/a b.jpg\), .*threat\.grid='input'"):
        check_exportable(elsewhere)


def test_what_no_form_holds_is_named(tmp_path):
    from mmpretrain.datasets import CustomDataset

    class Odd(CustomDataset):
        @property
        def metainfo(self):
            return dict(classes=['of', 'another', 'kind'])

    pictures(tmp_path / 'pictures', ['cat/1.png', 'dog/1.png'])
    cfg = dict(type=Odd, data_prefix=str(tmp_path / 'pictures'), pipeline=CLASSIFY)
    new, found, pairs = exported(cfg, 'mmpretrain', tmp_path / 'new', left_out=())
    assert found.metainfo['classes'] == ['of', 'another', 'kind']
    source = BaseDataset(lazy_init=True)
    part = Part(source, {}, 'mmdet', [dict(img_path='a')], ['a.png'], tmp_path, None)
    with pytest.raises(InputError, match='a BaseDataset cannot be written as a data set of mmdet: it has no annot'):
        part.write()
