"""Every core on a real model before and after, at three pixel budgets.

    python tools/analysis_tools/budgets.py squeezenet    ImageNet classifier, images of NIPS 2017
    python tools/analysis_tools/budgets.py deeplabv3     PASCAL VOC segmenter, COCO images
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
from suites import budget_suite, minimum_suite, pick
from torch import Tensor

from sparse_dense_attacks import Attack, Untargeted, UntargetedPixels, screen
from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.victims import TorchClassifier, TorchSegmenter

THETA = 0.5  # what minimum attacks call success on a segmenter: half of the pixels wrong


def fewest_suite(task: str, steps: int) -> dict[str, Attack]:
    """Attacks that look for the fewest; one run answers for every budget."""
    return pick(minimum_suite(task, steps), 'SigmaZero pixel', 'SigmaZero', 'ASLO', 'GSE', 'WIFGSM')


def run(argv: list[str] | None = None) -> None:
    args = parsed(argv)
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

    # all attacks spend their budget on a segmenter, where more pixels can always be fooled
    spending = {share: budget_suite(share, args.steps, args.queries, early_stop=not segments)
                for share in args.shares}
    looking = fewest_suite('segmenter' if segments else 'classifier', args.steps)
    jobs = [(f'{name} {share}', attack, goal, [share])
            for share, attacks in spending.items() for name, attack in attacks.items()]
    jobs += [(f'{name} None', attack, least, args.shares) for name, attack in looking.items()]
    settings = dict(images=sum(len(images) for images, _ in batches), seed=args.seed)
    with victim.session(), torch.enable_grad():
        scenes = [victim.open(*batch) for batch in batches]
        for key, attack, wanted, budgets in track(jobs, 'measuring', console=Console(stderr=True)):
            setup = settings | dict(attack=repr(attack), goal=repr(wanted), budgets=budgets)
            if known.get(key, {}).get('setup') == setup:
                continue
            results = [attack(wanted.objective(scene), args.seed) for scene in scenes]
            after = [_score(victim, scenes, results, budget) for budget in budgets]
            known[key] = dict(setup=setup, after=after)
            store.write_text(json.dumps(known, indent=1))
        clean = _score(victim, scenes, None, 0)

    measures = 'pixel accuracy, mIoU' if segments else 'accuracy'
    table = Table('attack', *(f'{share:.1%} of the pixels' for share in args.shares),
                  title=f'{args.model}, {settings["images"]} images, clean {_show(clean)} '
                        f'({measures}), {args.steps} iterations')
    for name in spending[args.shares[0]]:
        found = [known[f'{name} {share}']['after'][0] for share in args.shares]
        table.add_row(name, *map(_show, found))
    for name in looking:
        table.add_row(f'{name} (fewest)', *map(_show, known[f'{name} None']['after']))
    screen.show(table)
    screen.show(f'results in {store}')


def parsed(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', choices=('squeezenet', 'deeplabv3'))
    parser.add_argument('--images', type=int, help='default: 32 for squeezenet, 4 for deeplabv3')
    parser.add_argument('--shares', type=float, nargs='+', default=[0.001, 0.005, 0.02],
                        help='budgets as shares of the pixels')
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--queries', type=int, default=100, help='of Sparse-RS')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/budgets'))
    return parser.parse_args(argv)


def _score(victim, scenes: list, results: list | None, share: float) -> list[float]:
    """Accuracy, and mIoU of a segmenter, when at most this share of an image's pixels changes."""
    pairs = list(zip(scenes, results or [None] * len(scenes), strict=True))
    predicted = [_predict(scene, result, share) for scene, result in pairs]
    if isinstance(victim, TorchClassifier):
        right = [labels == scene.labels for labels, scene in zip(predicted, scenes, strict=True)]
        return [torch.cat(right).double().mean().item()]
    truth = [scene.labels.where(scene.valid, 255) for scene in scenes]
    return _segmentation_scores(predicted, truth)


def _segmentation_scores(predicted: Sequence[Tensor], truth: Sequence[Tensor]) -> list[float]:
    from mmseg.evaluation import IoUMetric
    areas = [IoUMetric.intersect_and_union(found[0], labels[0], 21, 255)
             for found, labels in zip(predicted, truth, strict=True)]
    totals = (sum(area) for area in zip(*areas, strict=True))
    scores = IoUMetric.total_area_to_metrics(*totals, ['mIoU'])
    iou = torch.as_tensor(scores['IoU'])
    return [float(scores['aAcc']), iou[~iou.isnan()].mean().item()]


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
