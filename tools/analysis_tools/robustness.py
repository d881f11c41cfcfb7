"""Train the demo models adversarially, attack them, and write docs/robustness.md.

    python tools/analysis_tools/robustness.py

Plain training against sAT against sTRADES. Trains what work_dirs/ does not hold yet (70 minutes of
CPU time) and measures what work_dirs/robustness does not hold yet (about as long), so that it goes
on where it was stopped.
"""
import argparse
import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from suites import budget_suite

from sparse_dense_attacks import Attack, InputError, screen
from sparse_dense_attacks.cli.attack import prepare
from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.cli.train import train_from_command_line
from sparse_dense_attacks.evaluation import markdown_table
from sparse_dense_attacks.results import describe, file_digest

TRAININGS = ('plain', 'sAT', 'sTRADES')
PIXELS = 128 * 160  # of a demo scene


@dataclass(frozen=True)
class Subject:
    """A demo model and how it is judged.

    Attributes:
        title: what it is called.
        metric: of its evaluator.
        broken: the attack's metric that says which share of images, objects or pixels is broken.
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

    @property
    def in_parts(self) -> bool:
        """Whether an image falls in parts, so that more of it can always be broken."""
        return self.broken != 'attack/success_rate'

    def show(self, value: float) -> str:
        """A metric as the tables have it; all but COCO's are per cent."""
        return f'{value:.3f}' if self.metric.startswith('coco/') else f'{value:.1f}'

    def attacks(self, queries: int) -> dict[str, Attack]:
        """What is measured, by name."""
        k, (short, long) = self.budgets[1], self.steps

        def suite(k: int, steps: int, stop: bool = not self.in_parts) -> dict[str, Attack]:
            return budget_suite(k, steps, queries, early_stop=stop)

        found = {}
        for budget in self.budgets:
            attacks = suite(budget, long)
            if self.in_parts:
                found[f'budget {budget} projected'] = attacks['SparsePGD']
                found[f'budget {budget} unprojected'] = attacks['SparsePGD unprojected']
            else:
                found[f'budget {budget}'] = attacks['SparseAutoAttack']
        for name, steps in (('short', short), ('long', long)):
            attacks = suite(k, steps)
            found[f'{name} projected'] = attacks['SparsePGD']
            found[f'{name} unprojected'] = attacks['SparsePGD unprojected']
        found['Sparse-RS'] = suite(k, long)['SparseRS']
        found['every pixel'] = suite(self.pixels, 10 * long, stop=True)['SparsePGD']
        return found


SUBJECTS = {
    'resnet18': Subject('Classifier: ResNet-18, accuracy', 'accuracy/top1', 'attack/success_rate',
                        64 * 64, (10, 20, 40), (20, 100)),
    'faster_rcnn': Subject('Detector: Faster R-CNN, bbox_mAP_50', 'coco/bbox_mAP_50',
                           'attack/share_pooled', PIXELS, (102, 204, 409), (10, 100)),
    'semantic_fpn': Subject('Segmenter: Semantic FPN, mIoU', 'mIoU', 'attack/share_pooled',
                            PIXELS, (204, 409, 819), (10, 100)),
}


def run(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('models', nargs='*', metavar='MODEL',
                        help=f'of {", ".join(SUBJECTS)}; default: all')
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
    screen.show(f'written: {args.out}, {args.out.with_suffix(".png")}')


def measure(name: str, training: str, args: argparse.Namespace) -> dict:
    """The metrics of every attack on a model trained in this way, and the training's seconds."""
    weights, seconds = trained(name, training, args.work_dirs)
    images = args.objects if name == 'resnet18' else args.images
    results: dict[str, dict] = {}
    measured: dict[Attack, dict] = {}  # some attacks answer two questions
    for attack_name, attack in SUBJECTS[name].attacks(args.queries).items():
        if attack not in measured:
            part = f'{name}/{training}/{attack_name.replace(" ", "_")}'
            folder = args.work_dirs / 'robustness' / part
            measured[attack] = attacked(f'configs/spgd_{name}.py', attack, weights, folder, images)
        results[attack_name] = measured[attack]
    return dict(attacks=results, seconds=seconds)


def attacked(config: str, attack: Attack, weights: Path, folder: Path, images: int) -> dict:
    """The metrics of a run; one that was begun goes on, one that was finished is read."""
    begun = same_run(folder, attack, weights)
    if begun and (folder / 'metrics.json').is_file():
        metrics = json.loads((folder / 'metrics.json').read_text())
        if metrics.get('attack/images') == images:
            return metrics
    return prepare([
        config, '--checkpoint', str(weights), '--work-dir', str(folder), '--limit', str(images),
        *(['--resume'] if begun else []), '--cfg-options', 'attack._delete_=True', 'pictures=1',
        f'attack.type={type(attack).__name__}',
        *(f'attack.{key}={value}' for key, value in settings(attack).items()),
    ]).test()


def settings(attack: Attack) -> dict:
    """The budget of an attack, and what differs from its class's defaults."""
    values = {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}
    defaults = {field.name: field.default for field in dataclasses.fields(attack)}
    return {name: value for name, value in values.items()
            if name == 'k' or value != defaults[name]}


def same_run(folder: Path, attack: Attack, weights: Path) -> bool:
    """Whether the folder holds a run of this attack on these weights, finished or not."""
    if not (folder / 'run.json').is_file():
        return False
    identity = json.loads((folder / 'run.json').read_text())['identity']
    described = json.loads(json.dumps(describe(attack)))
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
    head = HEAD.format(images=args.images, objects=args.objects, queries=args.queries)
    return head + '\n'.join(section(name, trainings) for name, trainings in found.items())


def section(name: str, trainings: dict) -> str:
    """What is left of the metric, and whether gradients are masked."""
    subject = SUBJECTS[name]
    budgets = (f'{k} pixels ({k / subject.pixels:.2%})' for k in subject.budgets)
    left = markdown_table(['training', 'clean', *budgets, 'training time'],
                          [[training, *metric_cells(subject, result)]
                           for training, result in trainings.items()])
    checks = markdown_table(['training', *(f'{steps} iterations' for steps in subject.steps),
                             'Sparse-RS', 'every pixel', 'gradients'],
                            [[training, *check_cells(subject, result)]
                             for training, result in trainings.items()])
    parts = 'objects or pixels' if subject.in_parts else 'images'
    return (f'## {subject.title}\n\n{left}\nAre gradients masked? Share of the {parts} that are '
            f'broken with {subject.budgets[1]} pixels:\n\n{checks}')


def metric_cells(subject: Subject, result: dict) -> list[str]:
    """Clean, at every budget (the evaluation budget in bold), and the training time."""
    cells = [subject.show(clean(subject, result))]
    for k, value in robust(subject, result).items():
        shown = subject.show(value)
        cells.append(f'**{shown}**' if k == subject.budgets[1] else shown)
    return [*cells, f'{result["seconds"] / 60:.0f} min' if result['seconds'] else '-']


def check_cells(subject: Subject, result: dict) -> list[str]:
    shares = broken(subject, result)
    return [*(f'{share:.3f}' for share in shares), verdict(*shares)]


HEAD = """# Robust demo models

Made by `python tools/analysis_tools/robustness.py` from
`configs/training/<model>_demo_{{sat,strades}}.py`; all figures on 8-bit images, of {objects}
objects for the classifier and of {images} scenes for the others. *Plain* are the weights in the
package, from which the others started; theirs are those of the last epoch. Bold is the evaluation
budget.

- Classifier: accuracy under Sparse-AutoAttack (100 iterations of each Sparse-PGD, {queries} queries
  of Sparse-RS), at the evaluation budget also under either Sparse-PGD with other draws, whichever
  leaves less.
- Detector and segmenter: the metric under Sparse-PGD with 100 iterations, all of them spent, along
  projected or unprojected gradients, whichever leaves less.
- Training time is by the clock, whatever else the machine did; the configs name the processor time.

Gradients count as sound if more iterations break more, if Sparse-RS ({queries} queries, no
gradients) breaks at most 0.05 more than Sparse-PGD, and if every image is broken when every pixel
may change (in at most 1000 iterations; last column, share of images).

![metric against budget](robustness.png)

"""


def clean(subject: Subject, result: dict) -> float:
    return result['attacks']['long projected'][f'clean/{subject.metric}']


def robust(subject: Subject, result: dict) -> dict[int, float]:
    """Budget -> what is left of the metric under the strongest attack."""
    left = {}
    for k in subject.budgets:
        long = k == subject.budgets[1]
        names = [name for name in result['attacks'] if name.split()[:2] == ['budget', str(k)]
                 or (long and name.startswith('long'))]
        left[k] = min(result['attacks'][name][f'adv/{subject.metric}'] for name in names)
    return left


def broken(subject: Subject, result: dict) -> tuple[float, float, float, float]:
    """Shares that are broken by few iterations, by many, by Sparse-RS, and with every pixel.

    The last is the share of the images.
    """
    def share(*names: str) -> float:
        return max(result['attacks'][name][subject.broken] for name in names)

    short, long = (share(f'{name} projected', f'{name} unprojected') for name in ('short', 'long'))
    everything = result['attacks']['every pixel']['attack/success_rate']
    return short, long, share('Sparse-RS'), everything


def verdict(short: float, long: float, black_box: float, unlimited: float) -> str:
    """What speaks against sound gradients."""
    doubts = {'more iterations break less': long < short,
              'Sparse-RS breaks more': black_box > long + 0.05,
              'every pixel does not break all': unlimited < 1}
    return ', '.join(text for text, doubt in doubts.items() if doubt) or 'sound'


def draw(found: dict, path: Path) -> None:
    """The metric against the budget, a panel for every model."""
    figure = Figure(figsize=(4.6 * len(found), 3.8), layout='constrained')
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (name, trainings) in zip(panels, found.items(), strict=True):
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
