"""Run every attack on every task, goal and structure, for both questions, and write docs/grid.md.

    python tools/analysis_tools/grid.py

The runs on the demo models are short (a few images and iterations): the table shows what can be
combined and that it works, not how strong it is.
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
from suites import budget_suite, minimum_suite

from sparse_dense_attacks import (
    ASLOAddOn,
    Attack,
    BudgetSearch,
    DetectorLoss,
    Fabricate,
    Mislabel,
    SparseRS,
    Targeted,
    TargetedPixels,
    Untargeted,
    UntargetedPixels,
    Vanish,
    screen,
)
from sparse_dense_attacks.cli.attack import opened
from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.evaluation import markdown_table
from sparse_dense_attacks.groups import Column, Patch, Pixel, Row, Shape

CONFIGS = {
    'configs/spgd_faster_rcnn.py': (Vanish(), DetectorLoss(), Mislabel(), Fabricate()),
    'configs/spgd_semantic_fpn.py': (
        UntargetedPixels(theta=0.5), TargetedPixels(theta=0.5, target=0),
        TargetedPixels(theta=0.5, erase='ball')),
    'configs/spgd_resnet18.py': (Untargeted(), Targeted('least_likely')),
}
KERNELS = {'pixels': Pixel(), 'rows': Row(), 'columns': Column(), '8 x 8 patches': Patch(8, 8),
           'hearts': Shape('heart', 9)}
BUDGET = {'pixels': 0.05}  # of the image; of everything else GROUPS
GROUPS = 8
MINIMUM_BUDGET = 0.1
REASONS = {
    'a': 'chooses single pixels or channel values and knows no groups; StructuredSparsePGD, '
         'SwapPGD, SparseRS, SparseAutoAttack and Descent pixel do',
    'b': 'finds groups of its own and takes none that are given',
    'c': 'is for groups; with single pixels it is SparsePGD',
    'd': 'the patch and the frame are structures of their own, of k pixels each',
}
ROWS = {  # the lines of a table, and why a cell that no attack fills is empty
    'SparsePGD': 'a', 'SparsePGD unprojected': 'a', 'StructuredSparsePGD': 'c', 'SwapPGD': 'a',
    'ScreenedCorners': 'a', 'Relay': 'a',
    'SparseRS': 'a', 'SparseRS patch': 'd', 'SparseAutoAttack': 'a', 'PGD0': 'a',
    'RandomPixels': 'a', 'SigmaZero': 'a', 'SigmaZero pixel': 'a', 'Descent': 'a',
    'Descent pixel': 'a', 'ASLO': 'a', 'ASLOAddOn': 'a',
    'GSE': 'b', 'WIFGSM': 'a',
}

HEAD = """# Every attack, task, goal, structure and question

Made by `python tools/analysis_tools/grid.py` on the demo models: at most {images} images and,
unless said below, {steps} iterations for each cell, so that it shows what can be combined, not how
strong it is. With a budget a cell is the share of objects, pixels or (of a classifier) images that
are broken, on 8 bits, in the images the victim got right. With the minimum question it is the share
of images that are broken altogether, and in parentheses the median of what these needed, in pixels
or in groups. Minimum attacks answer the budget question with `budget=0.1` (10 % of the values or
pixels), budget attacks the minimum question under `BudgetSearch`. Minimum attacks have {minimum}
iterations, GSE {gse}; it and WIFGSM a margin scaled to `steepness=1`.

Letters stand for combinations that do not exist:

{reasons}
"""


def suite(steps: int) -> dict[str, dict[str, tuple[Attack, Attack] | str]]:
    """Attack -> structure -> its forms for the two questions, or the letter of a reason."""
    queries = 4 * steps
    found = {}
    for structure, kernel in KERNELS.items():
        attacks = budget_suite(BUDGET.get(structure, GROUPS), steps, queries, kernel=kernel)
        within = minimum_suite('demo', 4 * steps, MINIMUM_BUDGET, kernel)
        fewest = minimum_suite('demo', 4 * steps, kernel=kernel)
        able = fewest if structure == 'pixels' else ('Descent pixel',)
        found[structure] = {name: _both(attack) for name, attack in attacks.items()}
        found[structure] |= {name: (within[name], fewest[name]) for name in able}
    square = SparseRS(k=64, steps=queries, variant='patches')
    found['8 x 8 patches']['SparseRS patch'] = _both(square)
    pgd0, _ = found['pixels']['PGD0']
    sigma_zero = minimum_suite('demo', 4 * steps)['SigmaZero']
    found['pixels']['ASLOAddOn'] = ASLOAddOn(pgd0), ASLOAddOn(sigma_zero)
    return {name: {structure: forms.get(name, reason) for structure, forms in found.items()}
            for name, reason in ROWS.items()}


def _both(attack: Attack) -> tuple[Attack, Attack]:
    return attack, BudgetSearch(attack, searches=3)


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=2)
    parser.add_argument('--steps', type=int, default=5,
                        help='iterations; Sparse-RS gets four queries for each')
    parser.add_argument('--configs', nargs='+', choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument('--out', type=Path, default=Path('docs/grid.md'))
    args = parser.parse_args(argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sections = []
    for config in args.configs:
        with contextlib.redirect_stdout(io.StringIO()):  # what mmengine says while it builds
            attacker, batches = opened([
                config, '--limit', str(args.images), '--work-dir', 'work_dirs/grid',
                '--cfg-options', f'test_dataloader.batch_size={args.images}'])
        with attacker.victim.session(), torch.enable_grad():
            scene = attacker.victim.open(batches[0])
            for goal in CONFIGS[config]:
                label = f'{Path(config).stem} {type(goal).__name__}'
                objective = goal.objective(scene)
                lines = rows(objective, args.steps, label)
                sections.append(section(config, goal, objective, lines))
                args.out.write_text(page(sections, args))  # a killed run leaves what is finished
    screen.show(f'{len(sections)} tables in {args.out}')


def rows(objective, steps: int, label: str) -> list[list[str]]:
    """A line for every attack: its name and two cells for every structure."""
    console, found = Console(stderr=True), []
    for name, forms in track(suite(steps).items(), label, console=console):
        texts = [text for structure in KERNELS
                 for text in cells(forms[structure], objective, structure)]
        found.append([name, *texts])
    return found


def cells(forms, objective, structure: str) -> tuple[str, str]:
    """What was found for the two questions, see HEAD."""
    if isinstance(forms, str):
        return forms, forms
    texts = []
    for question, attack in zip(('budget', 'minimum'), forms, strict=True):
        result = attack(objective, seed=0)
        counted = result.clean_correct & result.defined
        parted = question == 'budget' and result.parts.any()
        broken = result.share if parted else result.success.double()
        text = f'{broken[counted].mean():.2f}'
        counts = result.l0_pixels if structure == 'pixels' else result.groups
        sizes = counts[counted & result.success]
        if question == 'minimum' and len(sizes):
            text += f' ({statistics.median(sizes.tolist()):g})'
        texts.append(text)
    return tuple(texts)


def section(config: str, goal, objective, lines: list) -> str:
    """The table of a goal, and how many images it is about."""
    heads = ['attack']
    for structure in KERNELS:
        heads += [f'{structure}, k = {BUDGET.get(structure, GROUPS)}', f'{structure}, least']
    counted = int((objective.eligible & objective.defined).sum())
    return f'## {Path(config).stem}, {goal}\n\n{counted} images.\n\n{markdown_table(heads, lines)}'


def page(sections: list[str], args: argparse.Namespace) -> str:
    reasons = ''.join(f'- **{letter}**: {reason}\n' for letter, reason in REASONS.items())
    numbers = dict(images=args.images, steps=args.steps, minimum=4 * args.steps, gse=8 * args.steps)
    return HEAD.format(**numbers, reasons=reasons) + '\n'.join(sections)


if __name__ == '__main__':
    sys.exit(main(run))
