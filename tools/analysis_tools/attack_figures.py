"""Draw the figure of each attack's page: a demo scene before, after, and what was changed.

    python tools/analysis_tools/attack_figures.py [NAME ...]

Writes docs/attacks/PAGE.png, 2 minutes for all on two cores. The caption that a page has is printed beside it.
"""
import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image

from sparse_dense_attacks import screen
from sparse_dense_attacks.cli.attack import attack_from_command_line
from sparse_dense_attacks.results import Run

PAGES = Path(__file__).parents[2] / 'docs/attacks'
CONFIG = 'sparse_dense_attacks::spgd_faster_rcnn.py'
WIDTH = 874  # of a figure; single pixels of the scene are still seen

# Page -> what the demo detector is attacked with; budgets are such that a scene breaks, or nearly does.
ATTACKS = dict(
    sparse_pgd=dict(type='SparsePGD', k=204, steps=100, early_stop=True),
    structured_sparse_pgd=dict(type='StructuredSparsePGD', k=8, steps=100, kernel=dict(type='Patch', height=8, width=8)),
    swap_pgd=dict(type='SwapPGD', k=204, steps=100),
    screened_corners=dict(type='ScreenedCorners', k=4, steps=300),
    relay=dict(type='Relay', k=150, steps=100),
    sparse_rs=dict(type='SparseRS', k=1024, steps=300),
    sparse_auto_attack=dict(type='SparseAutoAttack', k=150, steps=50, queries=100),
    pgd0=dict(type='PGD0', k=204, steps=100),
    random_pixels=dict(type='RandomPixels', k=1024),
    sigma_zero=dict(type='SigmaZero', unit='pixel', steps=200),
    descent=dict(type='Descent', unit='pixel', steps=300),
    aslo=dict(type='ASLO', unit='pixel', steps=200),
    gse=dict(type='GSE', iters=60, search_steps=6, k_hat=20, mu=0.1, sigma=0.05, steepness=1.0),
    wi_fgsm=dict(type='WIFGSM', steps=200, steepness=28.0),
    budget_search=dict(type='BudgetSearch', base=dict(type='SparsePGD', k=1024, steps=100), searches=6),
    foreign_attack=dict(type='ForeignAttack', function='attack_figures.largest_gradients'),
)


def largest_gradients(model, inputs, labels, share=.05):
    """The function behind ForeignAttack: one gradient, and its largest values go to an end of the box."""
    images = inputs.clone().requires_grad_()
    gradient, = torch.autograd.grad(torch.nn.functional.cross_entropy(model(images), labels), images)
    least = gradient.abs().flatten(1).quantile(1 - share, dim=1).view(-1, 1, 1, 1)
    return torch.where(gradient.abs() > least, (gradient > 0).float(), inputs)


def words(key: str, value) -> list[str]:
    """A setting as --cfg-options takes it."""
    if isinstance(value, dict):
        return [word for name, inner in value.items() for word in words(f'{key}.{name}', inner)]
    return [f'{key}={value}']


def draw(page: str, out: Path) -> str:
    """Attack the first scene, store its picture, and say what was spent and reached."""
    with tempfile.TemporaryDirectory() as folder, screen.quiet():
        attack_from_command_line([CONFIG, '--limit', '1', '--work-dir', folder, '--cfg-options', 'pictures=1',
                                  *words('attack', dict(ATTACKS[page], _delete_=True))])
        record, = Run.load(folder).records
        picture, = Path(folder, 'pictures').iterdir()
        with Image.open(picture) as image:
            small = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
        small.quantize(128, dither=Image.Dither.NONE).save(out / f'{page}.png', optimize=True)
    outcome = 'every object hidden' if record.success else f'{record.share:.0%} of the objects hidden'
    return f'{page}: {record.l0_pixels} pixels, {outcome}, {record.forwards} forwards, {record.backwards} backwards'


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'of {", ".join(ATTACKS)}; default: all')
    parser.add_argument('--out', type=Path, default=PAGES, help='folder for the figures; default: docs/attacks')
    args = parser.parse_args()
    for name in args.names or ATTACKS:
        print(draw(name, args.out), flush=True)
