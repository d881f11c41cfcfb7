"""How much of the model zoos can be attacked: one model of every config family, with random weights, is opened by its victim.

Part of ``sda doctor zoo``. A family is covered if, for one of its smallest configs, on one small noise image,

- what the victim shows of the clean image is the library's own prediction to the last bit,
- a goal that fits the model has a finite gradient that is not zero, and
- the model's state dict is unchanged afterwards.
"""
import copy
import dataclasses
import importlib
import json
import logging
import multiprocessing
import os
import re
import resource
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sparse_dense_attacks import DetectorLoss, InputError, Untargeted, UntargetedPixels, Vanish
from sparse_dense_attacks.engine import configs_folder
from sparse_dense_attacks.registry import nearest
from sparse_dense_attacks.types import Boxes
from sparse_dense_attacks.victims import wrap

SIZE = (96, 128)  # height and width of what detectors and segmenters see; a multiple of 32
LARGE = (416, 512)  # tried last: where a stack of convolutions without padding needs it
CLASSES = 4  # of detectors
TRIES = 4  # configs of a family that are tried, smallest first
MEMORY = 12 * 2**30  # bytes of address space that the check of one config may use
ROW = torch.tensor([0])

# Families that are not for attacks on classes, boxes and label maps of images; they are not built.
OTHER_TASK = {
    'mmdet': {
        'tracks objects in videos': 'bytetrack deepsort mask2former_vis masktrack_rcnn ocsort '
                                    'qdtrack reid sort strongsort',
        'detects what a text names, and fetches a text model': 'glip grounding_dino '
                                                               'mm_grounding_dino',
        'segments panoptically and predicts no instances': 'panoptic_fpn',
        'finds lanes': 'clrnet',
        'holds schedules and data sets, but no model': 'common',
        'proposes regions, without classes': 'rpn',
    },
    'mmseg': {'estimates depth': 'vpd'},
    'mmpretrain': {
        'retrieves images': 'arcface',
        'compares images with texts': 'blip blip2 chinese_clip clip',
        'answers or describes in words': 'flamingo llava minigpt4 ofa otter',
        'has a backbone but no head': 'dinov2 glip sam',
        'predicts several labels for an image': 'csra',
        'is only pretrained, without labels': 'itpn',
    },
}
# Why no config of a family can pass that has our task.
KNOWN = {
    'mmdet': {
        'needs proposals from a file': 'fast_rcnn',
        'is a student and its teacher in training: attack the detector that comes out':
            'soft_teacher',
    },
    'mmseg': {
        'draws random bases at every forward pass, so that its predictions are no function of the '
        'image': 'segnext',
        'mmseg itself fails to initialise it without the weights of CLIP': 'san',
    },
    'mmpretrain': {"mmpretrain's LeNet squeezes a batch of one image away": 'lenet'},
}
# The same by what the error says.
CAUSES = {
    r'implementation for device cpu not found':
        'needs an operator of mmcv that exists for CUDA only',
    r"mmcv's (operator '\w+'|RoIAlign .*) is not in": 'needs what only a compiled mmcv has: {0[1]}',
    r"SSDHead' object has no attribute 'loss_cls'": 'mmdet itself cannot predict with it',
    r'batch_norm eps must be positive': 'sets eps=0 in a batch norm, which this torch refuses',
    r'(ImportError|ModuleNotFoundError): .*?(detectron2|timm)':
        'needs a package that is not installed: {0[2]}',
}
COLOURS = {'covered': 'green', 'not covered': 'yellow', 'failed': 'red', 'other task': 'dim'}

# Upper limits for values of these names, anywhere in a detector's config.
SMALL = dict(num_classes=CLASSES, num_things_classes=CLASSES, num_stuff_classes=0, num_queries=20,
             num_proposals=20, max_per_img=20, max_per_image=20, nms_pre=100)
# What words in names of configs say about the size of the model, smallest first; nothing (2) is
# said by R-50 and its like.
SIZES = {0: r'atto|femto|pico|nano|tiny|t|x+s|x+small|[abs]0|s12|\D*18s?|128s|\d00mf',
         1: r'small|s|[ab]1|s24|s36|\D*34',
         3: r'base|medium|m|b|\d+b|m\d+|\D*101|\d\d+gf',
         4: r'large|l|\d+l|x101|\D*152|\D*w48|\D*s101',
         5: r'huge|h|giant|g|x|\d*xl|xlarge|hourglass104'}


class Row(NamedTuple):
    """What was found about one family; ``status`` is one of COLOURS."""
    library: str
    family: str
    status: str
    config: str
    found: str
    seconds: float


def rank(config: Path) -> tuple:
    """The smaller the model its name speaks of, and the plainer the name, the earlier.

    What mmpretrain keeps in ``benchmarks`` is a classifier, what lies above it is only pretrained; in ``deploy`` are models with
    fused layers.
    """
    words = re.split(r'[_-]', config.stem.lower())
    sizes = [
        size for size, pattern in SIZES.items() for word in words if re.fullmatch(pattern, word)
    ]
    return (
        'benchmarks' not in config.parts,
        'deploy' in config.parts,
        max(sizes, default=2),
        len(config.stem),
        config.stem,
    )


def folder(library: str) -> Path:
    """Where the installed library keeps its configs.

    Raises:
        InputError: the library, or its configs, are not installed.
    """
    configs = configs_folder(library)
    if configs is None:
        raise InputError(f'{library} is not installed with its configs; make env installs it')
    return configs


def families(configs: Path) -> dict[str, list[Path]]:
    """Family (folder below ``configs``) -> its configs, smallest model first."""
    found = {
        path.name: sorted(path.rglob('*.py'), key=rank)
        for path in sorted(configs.iterdir())
        if path.is_dir()
    }
    return {name: paths for name, paths in found.items() if name != '_base_' and paths}


def build(config: Path, library: str, size: tuple) -> tuple[torch.nn.Module, Config]:
    """The model of a config in evaluation mode, small, with the library's own random initialisation; nothing is downloaded."""
    cfg = Config.fromfile(config)
    if library == 'mmpretrain':  # as the runner does
        cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    make_small(cfg.model, library, size)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for name, parameter in model.named_parameters():
        if (
            'fc_reg.' in name
        ):  # Sparse R-CNN's random refinements would throw all boxes out of the image
            parameter.data *= 0.01
        elif (
            parameter.dim() > 1 and not parameter.any()
        ):  # last layers that start at zero hide all that is before them
            torch.nn.init.normal_(parameter, std=0.02)
    model.eval()  # of a detector with a teacher it returns None
    return model, cfg


def make_small(node, library: str, size: tuple) -> None:
    """Change a model config in place: no pretrained weights, batch norm on one device, detectors with few classes."""
    if isinstance(node, list | tuple):
        for child in node:
            make_small(child, library, size)
    if not isinstance(node, dict):
        return
    for key in ('init_cfg', 'pretrained', 'teacher_ckpt'):
        if key in node:
            node[key] = None
    for key, child in node.items():
        if isinstance(child, dict) and child.get('type') in ('SyncBN', 'MMSyncBN'):
            child['type'] = 'BN'
        if library == 'mmdet':
            if key in SMALL and isinstance(child, int):
                node[key] = min(child, SMALL[key])
            if key in ('score_thr', 'filter_thr', 'conf_thr', 'mask_thr'):
                node[key] = 0.0
            if key == 'instance_on':
                node[key] = True
            if key == 'class_weight' and isinstance(child, list):
                node[key] = child[:CLASSES] + child[-1:]
        elif library == 'mmseg' and key == 'img_size':
            node[key] = size
        make_small(child, library, size)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def settle(model: Any, batch: dict) -> None:
    """Give batch norms the statistics of noise: without any, signals die away or overflow on their way through a deep model."""
    norms: list = [
        layer
        for layer in model.modules()
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
    ]
    one_image = any(
        type(layer).__name__ == 'MaskedConv2d' for layer in model.modules()
    )  # is all that mmcv lets it see at once
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model.test_step({name: [copy.deepcopy(value) for value in values * (1 if one_image else 2)]
                         for name, values in batch.items()})
    for norm in norms:
        norm.eval()


def agree(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    if found.shape != expected.shape or not torch.equal(found, expected):
        raise AssertionError(f"{what} differ from the library's own prediction")


def check_gradient(goal, scene) -> str:
    """The goal's name, if it has a usable gradient on a slightly changed image."""
    objective = goal.objective(scene)
    x = (scene.images * 0.995).requires_grad_()
    gradient, = torch.autograd.grad(objective(x, ROW).loss.sum(), x)
    if not gradient.isfinite().all():
        raise AssertionError(f'the gradient of {type(goal).__name__} is not finite')
    if not (gradient * objective.region).any():
        raise AssertionError(f'the gradient of {type(goal).__name__} is zero')
    return type(goal).__name__


def detection_batch(model, cfg, size) -> dict:
    from mmdet.structures import DetDataSample

    sample = DetDataSample(
        metainfo=dict(
            img_id=0, img_path='0.jpg', img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)
        )
    )
    return dict(inputs=[noise(3, *size)], data_samples=[sample])


def check_detector(model, batch) -> str:
    """Vanish where the model has candidates, else DetectorLoss; what is hidden are two of its own detections.

    Every box that the library predicts must be a candidate with its label and score.
    """
    victim = wrap(model, reference='prediction', reference_thr=0.0)
    with victim.session():
        with torch.no_grad():
            predicted = model.test_step(copy.deepcopy(batch))[0].pred_instances
        predicted = predicted[predicted.scores >= 0]
        if not len(predicted):
            raise AssertionError('this random model predicts nothing')
        scene = victim.open(batch)
        agree(scene.truth.labels[0], predicted.labels.long(), 'labels')
        if has_boxes := predicted.bboxes.any():
            agree(scene.truth.boxes[0], predicted.bboxes, 'boxes')
        if not scene.has_candidates:
            return check_gradient(DetectorLoss(), scene)
        with torch.no_grad():
            found = scene.candidates(scene.images, ROW)
        same = found.labels[0, :, None] == predicted.labels
        if not hasattr(
            getattr(model, 'roi_head', None), 'mask_iou_head'
        ):  # which scores what is left after suppression anew
            same &= found.scores[0, :, None] == predicted.scores
        if has_boxes and not getattr(
            getattr(model, 'bbox_head', None), 'with_score_voting', False
        ):  # which moves it
            same &= (found.boxes[0, :, None] == predicted.bboxes).all(2)
        if not same.any(0).all():
            raise AssertionError(
                f'{int((~same.any(0)).sum())} of {len(predicted)} predicted boxes are no candidates'
            )
        usable = found.scores[0] * ((found.boxes[0, :, 2:] - found.boxes[0, :, :2]).amin(1) > 2)
        best = usable.topk(min(2, len(usable))).indices
        likely = Boxes(found.boxes[:, best], found.labels[:, best], torch.ones(1, len(best)))
        scene = dataclasses.replace(scene, truth=likely)
        return check_gradient(Vanish(score_thr=float(usable[best].min()) / 2), scene)


def segmentation_batch(model, cfg, size) -> dict:
    from mmseg.structures import SegDataSample

    sample = SegDataSample(
        metainfo=dict(
            img_path='0.png',
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            scale_factor=(1.0, 1.0),
            flip=False,
        )
    )
    return dict(inputs=[noise(3, *size)], data_samples=[sample])


def check_segmenter(model, batch) -> str:
    victim = wrap(model, reference='prediction')
    with victim.session():
        with torch.no_grad():
            predicted = model.test_step(copy.deepcopy(batch))[0]
            scene = victim.open(batch)
            agree(scene.logits(scene.images, ROW)[0], predicted.seg_logits.data, 'logits')
        agree(scene.labels[0], predicted.pred_sem_seg.data[0].long(), 'labels')
        return check_gradient(UntargetedPixels(), scene)


def classification_batch(model, cfg, size) -> dict:
    from mmpretrain.structures import DataSample

    channels = next(
        (layer.in_channels for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)), 3
    )
    steps = cfg.get('test_dataloader', {}).get('dataset', {}).get('pipeline', ())
    sides = [step[key] for step in steps for key in ('scale', 'crop_size') if key in step] or [224]
    return dict(
        inputs=[noise(channels, sides[-1], sides[-1])],
        data_samples=[DataSample(metainfo=dict(img_path='val/0.png'))],
    )


def check_classifier(model, batch) -> str:
    victim = wrap(model, reference='prediction')
    with victim.session():
        with torch.no_grad():
            predicted = model.test_step(copy.deepcopy(batch))[0]
            scene = victim.open(batch)
            agree(scene.logits(scene.images, ROW).softmax(1)[0], predicted.pred_score, 'scores')
        return check_gradient(Untargeted(), scene)


TASKS = dict(mmdet=(detection_batch, check_detector), mmseg=(segmentation_batch, check_segmenter),
             mmpretrain=(classification_batch, check_classifier))


def check(library: str, config: Path, size: tuple = SIZE, settled: bool = True) -> str:
    """The name of the goal whose gradient was found good; whatever is not good raises."""
    init_default_scope(library)
    os.chdir(folder(library).parent)  # where paths such as configs/gfl/... in configs lead
    model, cfg = build(config, library, size)
    make_batch, check_victim = TASKS[library]
    batch = make_batch(model, cfg, size)
    if settled:
        settle(model, batch)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    goal = check_victim(model, batch)
    if any(not torch.equal(value, before[name]) for name, value in model.state_dict().items()):
        raise AssertionError('the state dict has changed')
    return goal


def in_child(function, *arguments, limit: float) -> tuple[bool, str]:
    """(True, what the function returned) or (False, its error in one line); a crash or a delay there ends that call only."""
    context = multiprocessing.get_context('fork')  # the libraries are imported once, by the parent
    ours, theirs = context.Pipe(duplex=False)

    def work():
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1), os.dup2(silence, 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        try:
            theirs.send((True, function(*arguments)))
        except Exception as error:  # whatever a model of the zoo may raise is a finding
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            theirs.send(
                (False, f'{type(error).__name__}: {lines[-1] if lines else "no message"}'[:160])
            )

    child = context.Process(target=work)
    child.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(limit) else (False, f'not done within {limit:g} s')
    except EOFError:
        child.join()
        return False, f'killed by signal {-(child.exitcode or 0)}'
    finally:
        child.kill()
        child.join()


def reason(table: dict[str, str], family: str) -> str | None:
    return next((text for text, names in table.items() if family in names.split()), None)


def explain(library: str, family: str, error: str) -> str | None:
    """Why this family could not pass, if that is known."""
    for pattern, text in CAUSES.items():
        if match := re.search(pattern, error, re.IGNORECASE):
            return text.format(match)
    return reason(KNOWN[library], family)


def examine(library: str, family: str, configs: list[Path], limit: float) -> Row:
    """Try the smallest configs of a family; a family whose task is not ours is left alone."""
    if text := reason(OTHER_TASK[library], family):
        return Row(library, family, 'other task', '', text, 0.0)
    start, errors = time.monotonic(), []
    tries = [
        *((config, SIZE, True) for config in configs[:TRIES]),
        (configs[0], SIZE, False),
        (configs[0], LARGE, True),
    ]
    for config, size, settled in tries[:1] if reason(KNOWN[library], family) else tries:
        good, found = in_child(check, library, config, size, settled, limit=limit)
        if good:
            return Row(
                library, family, 'covered', config.name, found, round(time.monotonic() - start, 1)
            )
        errors.append(found)
    text = next(filter(None, (explain(library, family, error) for error in errors)), None)
    return Row(
        library,
        family,
        'not covered' if text else 'failed',
        configs[0].name,
        text or errors[0],
        round(time.monotonic() - start, 1),
    )


def survey(libraries: list[str], only: list[str] | None, limit: float) -> Iterator[Row]:
    """Check the families of some libraries, or those named in ``only``, one after the other.

    Raises:
        InputError: a library is not installed, or no family has such a name.
    """
    zoo = {library: families(folder(library)) for library in libraries}
    known = {name for found in zoo.values() for name in found}
    for name in only or ():
        if name not in known:
            raise InputError(f"no family is called '{name}'; {nearest(name, known)}")
    for library, found in zoo.items():
        importlib.import_module(f'{library}.models')
        for name, configs in found.items():
            if not only or name in only:
                yield examine(library, name, configs, limit)


def coverage(rows: list[Row]) -> dict[str, dict[str, int]]:
    """Per library: how many families are covered, how many have our task, and how many there are."""
    return {
        library: dict(
            covered=sum(row.status == 'covered' for row in rows if row.library == library),
            ours=sum(row.status != 'other task' for row in rows if row.library == library),
            all=sum(row.library == library for row in rows),
        )
        for library in dict.fromkeys(row.library for row in rows)
    }


def run(libraries: list[str], only: list[str] | None, out: Path | None, limit: float) -> int:
    """Print the table and the coverage; 2 if a family failed for a reason that is not known."""
    logging.disable()
    warnings.simplefilter('ignore')
    console, rows = Console(highlight=False, soft_wrap=True), []
    with console.status('') as status:
        for row in survey(libraries, only, limit):
            rows.append(row)
            status.update(f'{len(rows)} families, last: {row.library} {row.family}')
            if out:
                summary = dict(
                    coverage=coverage(rows), families=[found._asdict() for found in rows]
                )
                out.write_text(json.dumps(summary, indent=1) + '\n')
    for library in dict.fromkeys(row.library for row in rows):
        table = Table('family', 'result', 'config', 'goal, or reason', 's', title=library)
        table.columns[0].no_wrap = table.columns[1].no_wrap = True
        table.columns[2].overflow = 'fold'
        for row in rows:
            if row.library == library:
                texts = map(escape, (row.config, row.found, str(row.seconds)))
                table.add_row(row.family, f'[{COLOURS[row.status]}]{row.status}', *texts)
        console.print(table, soft_wrap=False)
    for library, n in coverage(rows).items():
        ours, every = n['covered'] / max(n['ours'], 1), n['covered'] / n['all']
        console.print(f'{library}: {n["covered"]} of {n["ours"]} families whose task is ours are '
                      f'covered ({ours:.0%}); of all {n["all"]} families {every:.0%}')
    return 2 if any(row.status == 'failed' for row in rows) else 0
