"""Every core on a real model before and after, at three pixel budgets.

    python tools/analysis_tools/budgets.py squeezenet     ImageNet classifier, images of the NIPS 2017 set
    python tools/analysis_tools/budgets.py deeplabv3      PASCAL VOC segmenter, COCO images
"""
import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from assets import load_model, load_nips17, load_voc
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from sparse_dense_attacks import (
    ASLO,
    GSE,
    PGD0,
    WIFGSM,
    Attack,
    RandomPixels,
    SigmaZero,
    SparseAutoAttack,
    SparsePGD,
    SparseRS,
    SwapPGD,
    Untargeted,
    UntargetedPixels,
)
from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.victims import TorchClassifier, TorchSegmenter

THETA = 0.5  # what minimum attacks call success on a segmenter: half of the pixels wrong


def suite(k: float, steps: int, queries: int, stop: bool) -> dict[str, Attack]:
    """Attacks with a budget of a share k of the pixels; all spend it on a segmenter, where more pixels can always be fooled."""
    budget = dict(k=k, steps=steps, early_stop=stop)
    return {
        'SparsePGD': SparsePGD(**budget),
        'SparsePGD unprojected': SparsePGD(**budget, gradient='unprojected'),
        'SwapPGD': SwapPGD(**budget),
        'SparseRS': SparseRS(k=k, steps=queries, early_stop=stop),
        'SparseAutoAttack': SparseAutoAttack(**budget, queries=queries),
        'PGD0': PGD0(**budget),
        'RandomPixels': RandomPixels(**budget),
    }


def minimum_suite(steps: int, steepness: float | None) -> dict[str, Attack]:
    """Attacks that look for the fewest; one run answers for every budget."""
    return {
        'SigmaZero pixel': SigmaZero(steps=steps, unit='pixel'),
        'SigmaZero': SigmaZero(steps=steps),
        'ASLO': ASLO(steps=steps),
        'GSE': GSE(iters=steps, search_steps=4, steepness=steepness),
        'WIFGSM': WIFGSM(steps=steps),
    }


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', choices=('squeezenet', 'deeplabv3'))
    parser.add_argument('--images', type=int, help='default: 32 for squeezenet, 4 for deeplabv3')
    parser.add_argument('--shares', type=float, nargs='+', default=[0.001, 0.005, 0.02], help='budgets as shares of the pixels')
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--queries', type=int, default=100, help='of Sparse-RS')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/budgets'))
    args = parser.parse_args(argv)
    model = load_model(args.model)
    segments = args.model == 'deeplabv3'
    if segments:
        victim, batches = TorchSegmenter(model), load_voc(args.images or 4)
        goal, least = UntargetedPixels(), UntargetedPixels(THETA)
    else:
        victim, batches = TorchClassifier(model), [load_nips17(args.images or 32)]
        goal = least = Untargeted()
    args.out.mkdir(parents=True, exist_ok=True)
    store = args.out / f'{args.model}.json'
    known = json.loads(store.read_text()) if store.exists() else {}

    jobs = [(name, share, attack, goal) for share in args.shares
            for name, attack in suite(share, args.steps, args.queries, not segments).items()]
    jobs += [(name, None, attack, least) for name, attack in minimum_suite(args.steps, 1.0 if segments else None).items()]
    settings = dict(images=sum(len(images) for images, _ in batches), seed=args.seed)
    with victim.session(), torch.enable_grad():
        scenes = [victim.open(*batch) for batch in batches]
        for name, share, attack, wanted in track(jobs, 'measuring', console=Console(stderr=True)):
            budgets = [share] if share else args.shares
            key, setup = f'{name} {share}', settings | dict(attack=repr(attack), goal=repr(wanted), budgets=budgets)
            if known.get(key, {}).get('setup') == setup:
                continue
            results = [attack(wanted.objective(scene), args.seed) for scene in scenes]
            known[key] = dict(setup=setup, after=[_score(victim, scenes, results, budget) for budget in budgets])
            store.write_text(json.dumps(known, indent=1))
        clean = _score(victim, scenes, None, 0)

    names = ('pixel accuracy, mIoU' if segments else 'accuracy')
    table = Table('attack', *(f'{share:.1%} of the pixels' for share in args.shares),
                  title=f'{args.model}, {settings["images"]} images, clean {_show(clean)} ({names}), {args.steps} iterations')
    for name in suite(0.1, 1, 1, True):
        table.add_row(name, *(_show(known[f'{name} {share}']['after'][0]) for share in args.shares))
    for name in minimum_suite(1, None):
        table.add_row(f'{name} (fewest)', *map(_show, known[f'{name} None']['after']))
    console = Console()
    console.print(table)
    console.print(f'results in {store}')


def _score(victim, scenes: list, results: list | None, share: float) -> list[float]:
    """Accuracy, and mIoU of a segmenter, with the adversarial images that changed at most this share of their pixels."""
    if isinstance(victim, TorchClassifier):
        right = [_predict(scene, result, share) == scene.labels for scene, result in _pairs(scenes, results)]
        return [torch.cat(right).double().mean().item()]
    from mmseg.evaluation import IoUMetric
    areas = [IoUMetric.intersect_and_union(_predict(scene, result, share)[0], scene.labels.where(scene.valid, 255)[0], 21, 255)
             for scene, result in _pairs(scenes, results)]
    scores = IoUMetric.total_area_to_metrics(*(sum(area) for area in zip(*areas, strict=True)), ['mIoU'])
    iou = torch.as_tensor(scores['IoU'])
    return [float(scores['aAcc']), iou[~iou.isnan()].mean().item()]


def _pairs(scenes: list, results: list | None) -> Sequence:
    return zip(scenes, results or [None] * len(scenes), strict=True)


def _predict(scene, result, share: float) -> Tensor:
    images = scene.images
    if result is not None:
        within = result.l0_pixels <= share * images[0, 0].numel()
        images = torch.where(within[:, None, None, None], result.images, images)
    with torch.no_grad():
        return scene.logits(images, torch.arange(len(images))).argmax(1)


def _show(scores: list[float]) -> str:
    return ', '.join(f'{score:.3f}' for score in scores)


if __name__ == '__main__':
    sys.exit(main(run))
