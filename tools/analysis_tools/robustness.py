"""Train the demo models adversarially, attack them, and write docs/robustness.md: plain against sAT against sTRADES.

    python tools/analysis_tools/robustness.py

Trains what work_dirs/ does not hold yet (70 minutes of CPU time) and measures what work_dirs/robustness does not hold yet (about
as long), so that it goes on where it was stopped.
"""
import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console

from sparse_dense_attacks import ATTACKS, InputError
from sparse_dense_attacks.cli.attack import prepare
from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.cli.train import train_from_command_line
from sparse_dense_attacks.results import describe, file_digest

TRAININGS = ('plain', 'sAT', 'sTRADES')


@dataclass(frozen=True)
class Subject:
    """A demo model and how it is judged.

    Attributes:
        title: what it is called.
        metric: of its evaluator.
        broken: the metric of the attack that says which share of images, objects or pixels is broken.
        pixels: of an image.
        budgets: in pixels; the middle one is the evaluation budget.
        steps: of Sparse-PGD, twice those in training, and at least ten times.
    """
    title: str
    metric: str
    broken: str
    pixels: int
    budgets: tuple[int, int, int]
    steps: tuple[int, int]

    def show(self, value: float) -> str:
        return f'{value:.3f}' if self.metric.startswith('coco/') else f'{value:.1f}'  # the others are per cent

    def attacks(self, queries: int) -> dict[str, dict]:
        """What is measured, by name."""
        stops = self.broken == 'attack/success_rate'  # of an image that falls in parts, more can always be broken
        k, (short, long) = self.budgets[1], self.steps

        def spgd(k, steps, gradient='projected') -> dict:
            return dict(type='SparsePGD', k=k, steps=steps, gradient=gradient, early_stop=stops)

        whole = {f'budget {k}': dict(type='SparseAutoAttack', k=k, steps=long, queries=queries) for k in self.budgets}
        modes = {f'budget {k} {gradient}': spgd(k, long, gradient)
                 for k in self.budgets for gradient in ('projected', 'unprojected')}
        return {
            **(whole if stops else modes),
            'short projected': spgd(k, short),
            'short unprojected': spgd(k, short, 'unprojected'),
            'long projected': spgd(k, long),
            'long unprojected': spgd(k, long, 'unprojected'),
            'Sparse-RS': dict(type='SparseRS', k=k, steps=queries, early_stop=stops),
            'every pixel': dict(spgd(self.pixels, 10 * long), early_stop=True),
        }


SUBJECTS = {
    'resnet18': Subject('Classifier: ResNet-18, accuracy', 'accuracy/top1', 'attack/success_rate', 64 * 64, (10, 20, 40),
                        (20, 100)),
    'faster_rcnn': Subject('Detector: Faster R-CNN, bbox_mAP_50', 'coco/bbox_mAP_50', 'attack/share_pooled', 128 * 160,
                           (102, 204, 409), (10, 100)),
    'semantic_fpn': Subject('Segmenter: Semantic FPN, mIoU', 'mIoU', 'attack/share_pooled', 128 * 160, (204, 409, 819),
                            (10, 100)),
}


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('models', nargs='*', metavar='MODEL', help=f'of {", ".join(SUBJECTS)}; default: all')
    parser.add_argument('--images', type=int, default=32, help='scenes of detector and segmenter')
    parser.add_argument('--objects', type=int, default=253, help='of the classifier')
    parser.add_argument('--queries', type=int, default=500, help='of Sparse-RS')
    parser.add_argument('--work-dirs', type=Path, default=Path('work_dirs'))
    parser.add_argument('--out', type=Path, default=Path('docs/robustness.md'))
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.models) - set(SUBJECTS)):
        raise InputError(f'no model is called {unknown[0]}: {", ".join(SUBJECTS)}')
    found = {name: {training: measure(name, training, args) for training in TRAININGS}
             for name in args.models or SUBJECTS}
    args.out.write_text(page(found, args))
    draw(found, args.out.with_suffix('.png'))
    Console().print(f'written: {args.out}, {args.out.with_suffix(".png")}')


def measure(name: str, training: str, args: argparse.Namespace) -> dict:
    """The metrics of every attack on a model that was trained in this way, and its training time in seconds."""
    weights, seconds = trained(name, training, args.work_dirs)
    images = args.objects if name == 'resnet18' else args.images
    results, measured = {}, {}  # some attacks answer two questions
    for attack_name, attack in SUBJECTS[name].attacks(args.queries).items():
        if repr(attack) in measured:
            results[attack_name] = measured[repr(attack)]
            continue
        folder = args.work_dirs / 'robustness' / name / training / attack_name.replace(' ', '_')
        begun = same_run(folder, attack, weights)
        metrics = json.loads((folder / 'metrics.json').read_text()) if begun and (folder / 'metrics.json').is_file() else {}
        if metrics.get('attack/images') != images:
            metrics = prepare([
                f'configs/spgd_{name}.py', '--checkpoint', str(weights), '--work-dir', str(folder), '--limit', str(images),
                *(['--resume'] if begun else []), '--cfg-options', 'attack._delete_=True', 'pictures=1',
                *(f'attack.{key}={value}' for key, value in attack.items()),
            ]).test()
        results[attack_name] = measured[repr(attack)] = metrics
    return dict(attacks=results, seconds=seconds)


def same_run(folder: Path, attack: dict, weights: Path) -> bool:
    """Whether the folder holds a run of this attack on these weights, finished or not."""
    if not (folder / 'run.json').is_file():
        return False
    identity = json.loads((folder / 'run.json').read_text())['identity']
    described = json.loads(json.dumps(describe(ATTACKS.build(attack))))
    return (identity['attack'], identity['weights']) == (described, file_digest(str(weights)))


def trained(name: str, training: str, work_dirs: Path) -> tuple[Path, float | None]:
    """Weights of a training, which is run if they are not there, and its seconds.

    The last ones: the best were chosen on the very scenes that are attacked here.
    """
    if training == 'plain':
        return Path('sparse_dense_attacks/demo/weights') / f'{name}.pth', None
    run_name = f'{name}_demo_{training.lower()}'
    folder = work_dirs / run_name
    argv = [f'configs/training/{run_name}.py', '--work-dir', str(folder)]
    train_from_command_line([*argv, '--resume'] if (folder / 'last_checkpoint').is_file() else argv)
    last = Path((folder / 'last_checkpoint').read_text().strip())
    log = torch.load(last, map_location='cpu', weights_only=False)['message_hub']['log_scalars']
    return last, float(log['train/time'].data[0].sum())


def page(found: dict, args: argparse.Namespace) -> str:
    """The results as markdown."""
    sections = []
    for name, trainings in found.items():
        subject = SUBJECTS[name]
        head = ['training', 'clean', *(f'{k} pixels ({k / subject.pixels:.2%})' for k in subject.budgets), 'training time']
        rows = [[training, subject.show(clean(subject, result)),
                 *(f'**{subject.show(value)}**' if k == subject.budgets[1] else subject.show(value)
                   for k, value in robust(subject, result).items()),
                 f'{result["seconds"] / 60:.0f} min' if result['seconds'] else '-'] for training, result in trainings.items()]
        checks = ['training', f'{subject.steps[0]} iterations', f'{subject.steps[1]} iterations', 'Sparse-RS', 'every pixel',
                  'gradients']
        lines = []
        for training, result in trainings.items():
            shares = broken(subject, result)
            lines.append([training, *(f'{share:.3f}' for share in shares), verdict(*shares)])
        sections.append(f'## {subject.title}\n\n{table(head, rows)}\n'
                        f'Are gradients masked? Share of the {"images" if name == "resnet18" else "objects or pixels"} that are '
                        f'broken with {subject.budgets[1]} pixels:\n\n{table(checks, lines)}')
    return HEAD.format(images=args.images, objects=args.objects, queries=args.queries) + '\n'.join(sections)


HEAD = """# Robust demo models

Made by `python tools/analysis_tools/robustness.py` from `configs/training/<model>_demo_{{sat,strades}}.py`; all figures on 8-bit images, of
{objects} objects for the classifier and of {images} scenes for the others. *Plain* are the weights in the package, from which the
others started; theirs are those of the last epoch. Bold is the evaluation budget.

- Classifier: accuracy under Sparse-AutoAttack (100 iterations of each Sparse-PGD, {queries} queries of Sparse-RS), at the
  evaluation budget also under either Sparse-PGD with other draws, whichever leaves less.
- Detector and segmenter: the metric under Sparse-PGD with 100 iterations, all of them spent, along projected or unprojected
  gradients, whichever leaves less.
- Training time is by the clock, whatever else the machine did; the configs name the processor time.

Gradients count as sound if more iterations break more, if Sparse-RS ({queries} queries, no gradients) breaks at most 0.05
more than Sparse-PGD, and if every image is broken when every pixel may change (in at most 1000 iterations; last column, share
of images).

![metric against budget](robustness.png)

"""


def clean(subject: Subject, result: dict) -> float:
    return result['attacks']['long projected'][f'clean/{subject.metric}']


def robust(subject: Subject, result: dict) -> dict[int, float]:
    """Budget -> what is left of the metric under the strongest attack."""
    def names(k: int) -> set[str]:
        return {name for name in result['attacks'] if name.split()[:2] == ['budget', str(k)]
                or name.startswith('long') and k == subject.budgets[1]}

    return {k: min(result['attacks'][name][f'adv/{subject.metric}'] for name in names(k)) for k in subject.budgets}


def broken(subject: Subject, result: dict) -> tuple[float, float, float, float]:
    """Shares that are broken by few iterations, by many, and by Sparse-RS; share of the images broken with every pixel."""
    def share(*names: str) -> float:
        return max(result['attacks'][name][subject.broken] for name in names)

    return (share('short projected', 'short unprojected'), share('long projected', 'long unprojected'), share('Sparse-RS'),
            result['attacks']['every pixel']['attack/success_rate'])


def verdict(short: float, long: float, black_box: float, unlimited: float) -> str:
    """What speaks against sound gradients."""
    doubts = [text for text, doubt in (('more iterations break less', long < short),
                                       ('Sparse-RS breaks more', black_box > long + 0.05),
                                       ('every pixel does not break all', unlimited < 1)) if doubt]
    return ', '.join(doubts) or 'sound'


def table(head: list[str], rows: list[list[str]]) -> str:
    return ''.join(f'| {" | ".join(row)} |\n' for row in (head, ['---'] * len(head), *rows))


def draw(found: dict, path: Path) -> None:
    """The metric against the budget, a panel for every model."""
    figure = Figure(figsize=(4.6 * len(found), 3.8), layout='constrained')
    for axes, (name, trainings) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        subject = SUBJECTS[name]
        for training, result in trainings.items():
            values = {0: clean(subject, result)} | robust(subject, result)
            axes.plot(list(values), list(values.values()), marker='o', label=training)
        axes.set(title=subject.title, xlabel='pixels that may change', ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == '__main__':
    sys.exit(main(run))
