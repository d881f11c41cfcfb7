"""Run every attack on every task, goal and structure of the demo models, for both questions, and write the table docs/grid.md.

    python tools/analysis_tools/grid.py

The runs are short (a few images and iterations): the table shows what can be combined and that it works, not how strong it is.
"""
import argparse
import contextlib
import io
import statistics
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from sparse_dense_attacks import (
    ASLO,
    GSE,
    PGD0,
    WIFGSM,
    ASLOAddOn,
    Attack,
    BudgetSearch,
    DetectorLoss,
    Fabricate,
    Mislabel,
    RandomPixels,
    SigmaZero,
    SparseAutoAttack,
    SparsePGD,
    SparseRS,
    StructuredSparsePGD,
    SwapPGD,
    Targeted,
    TargetedPixels,
    Untargeted,
    UntargetedPixels,
    Vanish,
)
from sparse_dense_attacks.cli.attack import opened
from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.groups import Column, Patch, Pixel, Row, Shape

CONFIGS = {
    'configs/spgd_faster_rcnn.py': (Vanish(), DetectorLoss(), Mislabel(), Fabricate()),
    'configs/spgd_semantic_fpn.py': (UntargetedPixels(theta=0.5), TargetedPixels(theta=0.5, target=0),
                                     TargetedPixels(theta=0.5, erase='ball')),
    'configs/spgd_resnet18.py': (Untargeted(), Targeted('least_likely')),
}
KERNELS = {'pixels': Pixel(), 'rows': Row(), 'columns': Column(), '8 x 8 patches': Patch(8, 8), 'hearts': Shape('heart', 9)}
BUDGET = {'pixels': 0.05}  # of the image; of everything else GROUPS
GROUPS = 8
REASONS = {
    'a': 'chooses single pixels or channel values and knows no groups; StructuredSparsePGD, SwapPGD, SparseRS and '
         'SparseAutoAttack do',
    'b': 'finds groups of its own and takes none that are given',
    'c': 'is for groups; with single pixels it is SparsePGD',
    'd': 'the patch and the frame are structures of their own, of k pixels each',
}

HEAD = """# Every attack, task, goal, structure and question

Made by `python tools/analysis_tools/grid.py` on the demo models: at most {images} images and, unless said below, {steps} iterations for each
cell, so that it shows what can be combined, not how strong it is. With a budget a cell is the share of objects, pixels or (of
a classifier) images that are broken, on 8 bits, in the images the victim got right. With the minimum question it is the share
of images that are broken altogether, and in parentheses the median of what these needed, in pixels or in groups. Minimum attacks
answer the budget question with `budget=0.1` (10 % of the values or pixels), budget attacks the minimum question under
`BudgetSearch`. Minimum attacks have {minimum} iterations, GSE {gse}; it and WIFGSM a margin scaled to `steepness=1`.

Letters stand for combinations that do not exist:

{reasons}
"""


def suite(steps: int) -> dict[str, dict[str, tuple[Attack, Attack] | str]]:
    """Attack -> structure -> its forms for the budget and for the minimum question, or the letter of a reason."""
    pixels, others = dict(k=BUDGET['pixels'], steps=steps), [name for name in KERNELS if name != 'pixels']

    def both(attack: Attack) -> tuple[Attack, Attack]:
        return attack, BudgetSearch(attack, searches=3)

    def groups(attack: type, **options) -> dict:
        return {name: both(attack(k=GROUPS, kernel=KERNELS[name], **options)) for name in others}

    def nothing(reason: str) -> dict:
        return dict.fromkeys(others, reason)

    def least(attack: type, **options) -> dict:
        return {'pixels': (attack(**options, budget=0.1), attack(**options))} | nothing('b' if attack is GSE else 'a')

    auto = dict(steps=steps, queries=4 * steps)
    return {
        'SparsePGD': {'pixels': both(SparsePGD(**pixels))} | nothing('a'),
        'SparsePGD unprojected': {'pixels': both(SparsePGD(**pixels, gradient='unprojected'))} | nothing('a'),
        'StructuredSparsePGD': {'pixels': 'c'} | groups(StructuredSparsePGD, steps=steps),
        'SwapPGD': {'pixels': both(SwapPGD(**pixels))} | groups(SwapPGD, steps=steps),
        'SparseRS': {'pixels': both(SparseRS(k=pixels['k'], steps=4 * steps))} | groups(SparseRS, steps=4 * steps),
        'SparseRS patch': {'pixels': 'd', '8 x 8 patches': both(SparseRS(k=64, steps=4 * steps, variant='patches'))}
        | dict.fromkeys(('rows', 'columns', 'hearts'), 'd'),
        'SparseAutoAttack': {'pixels': both(SparseAutoAttack(k=pixels['k'], **auto))} | groups(SparseAutoAttack, **auto),
        'PGD0': {'pixels': both(PGD0(**pixels))} | nothing('a'),
        'RandomPixels': {'pixels': both(RandomPixels(**pixels))} | nothing('a'),
        'SigmaZero': least(SigmaZero, steps=4 * steps),
        'SigmaZero pixel': least(SigmaZero, steps=4 * steps, unit='pixel'),
        'ASLO': least(ASLO, steps=4 * steps),
        'ASLOAddOn': {'pixels': (ASLOAddOn(PGD0(**pixels)), ASLOAddOn(SigmaZero(steps=4 * steps)))} | nothing('a'),
        'GSE': least(GSE, iters=8 * steps, search_steps=3, mu=0.1, sigma=0.2, k_hat=4 * steps, q=0.9, steepness=1),
        'WIFGSM': least(WIFGSM, steps=4 * steps, dense_steps=2 * steps, eps=32 / 255, steepness=1),
    }


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=2)
    parser.add_argument('--steps', type=int, default=5, help='iterations; Sparse-RS gets four queries for each')
    parser.add_argument('--configs', nargs='+', choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument('--out', type=Path, default=Path('docs/grid.md'))
    args = parser.parse_args(argv)
    attacks = suite(args.steps)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sections = []
    for config in args.configs:
        with contextlib.redirect_stdout(io.StringIO()):  # what mmengine says while it builds
            attacker, batches = opened([config, '--limit', str(args.images), '--work-dir', 'work_dirs/grid', '--cfg-options',
                                        f'test_dataloader.batch_size={args.images}'])
        with attacker.victim.session(), torch.enable_grad():
            scene = attacker.victim.open(batches[0])
            for goal in CONFIGS[config]:
                objective = goal.objective(scene)
                rows = [[name, *(text for structure in KERNELS for text in cells(forms[structure], objective, structure))]
                        for name, forms in track(attacks.items(), f'{Path(config).stem} {type(goal).__name__}',
                                                 console=Console(stderr=True))]
                sections.append(section(config, goal, objective, rows))
                args.out.write_text(page(sections, args))  # a killed run leaves what is finished
    Console().print(f'{len(sections)} tables in {args.out}')


def cells(forms, objective, structure: str) -> tuple[str, str]:
    """What was found for the two questions, see HEAD."""
    if isinstance(forms, str):
        return forms, forms
    texts = []
    for question, attack in zip(('budget', 'minimum'), forms, strict=True):
        result = attack(objective, seed=0)
        counted = result.clean_correct & result.defined
        parted = question == 'budget' and result.parts.any()
        share = result.share.where(attack.answers(objective, result.images), 0)  # nothing is broken with more than the budget
        text = f'{(share if parted else result.success.double())[counted].mean():.2f}'
        sizes = (result.l0_pixels if structure == 'pixels' else result.groups)[counted & result.success]
        if question == 'minimum' and len(sizes):
            text += f' ({statistics.median(sizes.tolist()):g})'
        texts.append(text)
    return tuple(texts)


def section(config: str, goal, objective, rows: list) -> str:
    heads = ['attack', *(f'{name}, {question}' for name in KERNELS for question in (f'k = {BUDGET.get(name, GROUPS)}', 'least'))]
    counted = int((objective.eligible & objective.defined).sum())
    lines = [heads, ['---'] * len(heads), *rows]
    return f'## {Path(config).stem}, {goal}\n\n{counted} images.\n\n' + ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def page(sections: list[str], args) -> str:
    reasons = ''.join(f'- **{letter}**: {reason}\n' for letter, reason in REASONS.items())
    numbers = dict(images=args.images, steps=args.steps, minimum=4 * args.steps, gse=8 * args.steps)
    return HEAD.format(**numbers, reasons=reasons) + '\n'.join(sections)


if __name__ == '__main__':
    sys.exit(main(run))
