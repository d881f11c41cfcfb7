"""Shows the stored images of sources to a victim, through the victim's own stock pipeline."""
import copy
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS, LOOPS
from mmengine.runner import TestLoop
from PIL import Image
from torch import Tensor, nn

from .. import screen
from ..errors import InputError
from ..evaluation import CONTROLS, Found, bootstrap, change, control, donor_of
from ..evaluation.controls import changed
from ..evaluation.gallery import draw_seen, seen_file
from ..evaluation.statistics import Statistic
from ..evaluation.transfer import Answer
from ..results import Pair, PairSet
from ..results.cell import Cell
from .data import members, tolerant
from .hooks.class_names_hook import ClassNamesHook
from .native import statistics_of
from .scores import spared
from .truth import check_files
from .warn import warn

__all__ = ['Job', 'PlainViewer', 'TransferLoop', 'files_of', 'score']

FAST = 1  # compression of files that are read once


@dataclass(frozen=True)
class Job:
    """Cells that one victim has to fill.

    Attributes:
        folder: of the table.
        victim: its name.
        sources: whose images it is shown.
        images: resolved paths of the clean images, all of which every source has.
        identity: of the victim and the settings, kept in each cell.
        seeds: how many of each control.
        resume: take over cells that are there already.
        gallery: the image of ``images`` that is drawn as the victim sees it.
    """
    folder: Path
    victim: str
    sources: Sequence[PairSet]
    images: Sequence[str]
    identity: Mapping[str, Any]
    seeds: int = 3
    resume: bool = False
    gallery: str = ''

    def of(self, identity: Mapping[str, Any]) -> 'Job':
        """The same with an identity."""
        return replace(self, identity=identity)

    def identity_of(self, source: PairSet) -> dict[str, Any]:
        """What the numbers of a cell depend on."""
        images = {name: source.pairs[name].digest for name in self.images}
        return dict(self.identity, seeds=self.seeds, images=images)


class Viewer:
    """A victim that looks at image files.

    Attributes:
        classes: names of what it knows, None if unknown.
    """
    classes: Sequence[str] | None = None

    def pixels(self, name: str) -> np.ndarray:
        """The clean file as the victim loads it, (H, W, 3) uint8 RGB."""
        raise NotImplementedError

    def look(self, name: str, file: Path) -> tuple[Answer, Any]:
        """What it says of a file in place of the image ``name``, and what its metrics want."""
        raise NotImplementedError

    def scores(self) -> 'Scored | None':
        """A new evaluation by its own metrics; None where it has none."""
        return None


class Scored:
    """The victim's own metrics over one version of all images."""

    def __init__(self, evaluator):
        self.evaluator = evaluator
        self.failures = spared(evaluator)

    def process(self, shown: Any) -> None:
        batch, outputs = shown
        self.evaluator.process(data_samples=outputs, data_batch=batch)

    def evaluate(self, images: int) -> tuple[dict[str, float], dict[str, Statistic]]:
        """Values over so many images by name, and those of them that can be resampled."""
        kept = [(metric, list(metric.results)) for metric in self.evaluator.metrics]
        for metric, results in kept:
            if getattr(metric, '_coco_api', None) is not None and results:
                metric.img_ids = [truth['img_id'] for truth, _ in results]
        said = self.evaluator.evaluate(images) or {}
        values = {name: float(value) for name, value in said.items()
                  if isinstance(value, int | float | np.floating)}
        statistics: dict[str, Statistic] = {}
        for metric, results in kept:
            if results and type(metric).__name__ not in self.failures:
                statistics |= statistics_of(metric, results, values)
        return values, statistics


@dataclass
class Versions:
    """Clean, attacked and control images of one cell, evaluated side by side."""
    viewer: Viewer
    seeds: int
    sides: dict[tuple[str, int], Scored | None] = field(default_factory=dict)

    def __post_init__(self):
        for kind in ('clean', 'attack', *CONTROLS):
            for seed in range(self.seeds if kind in CONTROLS else 1):
                self.sides[kind, seed] = self.viewer.scores()


def score(viewer: Viewer, job: Job) -> list[Cell]:
    """Fill the cells of one victim; those that are there already are read."""
    cells = []
    for source in job.sources:
        pairs = {name: source.pairs[name] for name in job.images}
        identity = job.identity_of(source)
        cell = Cell.load(job.folder, source.name, job.victim) if job.resume else None
        if cell is None or not cell.fits(identity):
            cell = _cell(viewer, job, source.name, pairs, identity)
            cell.write(job.folder)
        cells.append(cell)
    return cells


def _cell(viewer: Viewer, job: Job, source: str, pairs: Mapping[str, Pair],
          identity: Mapping[str, Any]) -> Cell:
    empty = Cell(source, job.victim, identity)
    try:
        for pair in pairs.values():
            pair.check()
        return _scored(viewer, job, empty, pairs)
    except InputError as error:
        warn(f'cell {source} -> {job.victim} is refused: {error}')
        return Cell(source, job.victim, identity, refused=str(error))


def _scored(viewer: Viewer, job: Job, empty: Cell, pairs: Mapping[str, Pair]) -> Cell:
    donors = donor_of(list(pairs))
    versions = Versions(viewer, job.seeds)
    changes: dict[str, dict[str, list[float]]] = {}
    pixels: dict[str, int] = {}
    failed: dict[str, str] = {}
    title = f'{empty.source} -> {job.victim}'
    with screen.progress(len(pairs)) as advance, tempfile.TemporaryDirectory() as folder:
        for name, pair in pairs.items():
            clean, adversarial = _both(viewer, name, pair)
            count = int(changed(clean, adversarial).sum())
            donor = _both(viewer, donors[name], pairs[donors[name]]) if name in donors else None
            try:
                said = {}
                for key, file in _files(Path(folder), name, pair, clean, adversarial, donor,
                                        job.seeds):
                    said[key] = viewer.look(name, file)
            except InputError:
                raise
            except Exception as error:  # a pipeline and a model are other people's code
                failed[name] = f'{type(error).__name__}: {error}'.splitlines()[0]
                warn(f'{title}: fails on {name}: {failed[name]}')
                continue
            before = said['clean', 0][0]
            if name == job.gallery:
                draw_seen(seen_file(job.folder, empty.source, job.victim), title,
                          [('clean', clean, before),
                           ('attacked', adversarial, said['attack', 0][0])], viewer.classes)
            here = defaultdict(list)
            for (kind, seed), (answer, shown) in said.items():
                if kind != 'clean':
                    here[kind].append(change(before, answer))
                side = versions.sides[kind, seed]
                if side is not None:
                    side.process(shown)
            changes[name], pixels[name] = dict(here), count
            advance(1)
    native = _native(versions, len(changes)) if changes else {}
    return Cell(empty.source, empty.victim, empty.identity, changes, pixels, native, failed)


def _both(viewer: Viewer, name: str, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The clean and the adversarial pixels, (H, W, 3) uint8 RGB.

    Raises:
        InputError: they are not on one grid, or differ in other pixels than the record says.
    """
    clean = viewer.pixels(name)
    with Image.open(pair.adversarial) as image:
        adversarial = np.array(image.convert('RGB'))
    if clean.shape != adversarial.shape:
        raise InputError(f'{pair.adversarial} is {adversarial.shape[:2]}, but its clean image '
                         f'{clean.shape[:2]}: it is on another grid')
    count = int(changed(clean, adversarial).sum())
    if pair.pixels is not None and pair.pixels != count:
        raise InputError(f'{pair.adversarial} differs from {pair.clean} in {count} pixels, its '
                         f'record says {pair.pixels}: the clean image is another one now')
    return clean, adversarial


def _files(folder: Path, name: str, pair: Pair, clean: np.ndarray, adversarial: np.ndarray,
           donor: tuple[np.ndarray, np.ndarray] | None,
           seeds: int) -> Iterator[tuple[tuple[str, int], Path]]:
    """Every version of an image by kind and seed; those of controls are overwritten by the next."""
    yield ('clean', 0), pair.clean
    yield ('attack', 0), pair.adversarial
    path = folder / 'control.png'
    for kind in CONTROLS:
        for seed in range(seeds):
            if kind != 'swapped' or donor is not None:
                made = control(kind, clean, adversarial, name, seed, donor)
                Image.fromarray(made).save(path, compress_level=FAST)
                yield (kind, seed), path


def _native(versions: Versions, images: int) -> dict[str, dict[str, dict[str, float]]]:
    """Values, relative drops and their intervals by measure and kind."""
    said = {key: side.evaluate(images) for key, side in versions.sides.items() if side is not None}
    if not said:
        return {}
    values, statistics = said['clean', 0]
    measures = list(statistics) or list(values)
    native: dict[str, dict[str, dict[str, float]]] = {}
    for measure in measures:
        clean = values[measure]
        found = {'clean': dict(value=clean)}
        drops: dict[str, Statistic] = {}
        for kind in ('attack', *CONTROLS):
            sides = [one for (name, _), one in said.items() if name == kind]
            known = [one for one in sides if measure in one[0]]
            if not known:
                continue
            value = float(np.mean([one[0][measure] for one in known]))
            drop = (clean - value) / clean if clean > 0 else np.nan
            found[kind] = dict(value=value, drop=drop, low=np.nan, high=np.nan)
            if all(measure in one[1] for one in (said['clean', 0], *known)):
                drops[kind] = _drop(statistics[measure], [one[1][measure] for one in known])
                interval = bootstrap(drops[kind], images)
                found[kind] |= dict(low=interval.low, high=interval.high)
        others = [one for kind, one in drops.items() if kind != 'attack']
        if 'attack' in drops and others:
            lead = bootstrap(_lead(drops['attack'], others), images)
            found['excess'] = dict(value=lead.value, drop=lead.value, low=lead.low, high=lead.high)
        native[measure] = found
    return native


def _lead(attack: Statistic, others: Sequence[Statistic]) -> Statistic:
    """What the attack has over the best of the others."""
    def statistic(counts: np.ndarray) -> np.ndarray:
        return attack(counts) - np.max([other(counts) for other in others], axis=0)

    return statistic


def _drop(clean: Statistic, after: Sequence[Statistic]) -> Statistic:
    """(clean - mean of after) / clean; NaN where there is nothing to lose."""
    def statistic(counts: np.ndarray) -> np.ndarray:
        before = clean(counts)
        later = np.mean([one(counts) for one in after], axis=0)
        known = before > 0
        return np.where(known, (before - later) / np.where(known, before, 1), np.nan)

    return statistic


# Victims

def plain(output) -> Answer:
    """The answer in a data sample with predictions.

    Raises:
        InputError: it has none that is known.
    """
    if 'pred_label' in output:
        return int(output.pred_label.reshape(-1)[0])
    if 'pred_sem_seg' in output:
        return output.pred_sem_seg.data[0].cpu().numpy()
    if 'pred_instances' in output and 'bboxes' in output.pred_instances:
        found = output.pred_instances
        boxes = found.bboxes if isinstance(found.bboxes, Tensor) else found.bboxes.tensor
        return Found(boxes.float().cpu().numpy(), found.labels.cpu().numpy(),
                     found.scores.float().cpu().numpy())
    raise InputError('the victim predicts neither a class nor a label map nor boxes')


class LibraryViewer(Viewer):
    """A model of a library behind the stock pipeline of its data set.

    Args:
        model: takes ``test_step``.
        dataset: with images of files.
        collate: makes a batch of items.
        evaluate: builds a new evaluator; None for none.
    """

    def __init__(self, model, dataset, collate: Callable | None, evaluate: Callable | None):
        self.model, self.collate, self.evaluate = model, collate, evaluate
        self.classes = dataset.metainfo.get('classes')
        self.places = {}
        for part in members(dataset):
            for index in range(len(part)):
                path = part.get_data_info(index).get('img_path')
                if path is None:
                    raise InputError(f'{type(part).__name__} holds its images in memory, expected '
                                     'image files')
                self.places[str(Path(path).resolve())] = part, index

    def pixels(self, name: str) -> np.ndarray:
        part, index = self.places[name]
        loader = part.pipeline.transforms[0]
        image = loader(part.get_data_info(index))['img']
        return np.ascontiguousarray(image[..., ::-1]).astype(np.uint8)

    @torch.no_grad()
    def look(self, name: str, file: Path) -> tuple[Answer, Any]:
        part, index = self.places[name]
        info = part.get_data_info(index)
        own = info['img_path']
        item = part.pipeline(dict(info, img_path=str(file)))
        if item is None:
            raise InputError(f'the test pipeline of the victim drops {own}: take out what filters '
                             'images')
        item['data_samples'].set_metainfo(dict(img_path=own))
        assert self.collate is not None
        batch = self.collate([item])
        batch.pop('unreadable', None)
        outputs = self.model.test_step(copy.deepcopy(batch))
        return plain(outputs[0]), (batch, [one.to_dict() for one in outputs])

    def scores(self) -> Scored | None:
        if self.evaluate is None:
            return None
        evaluator = self.evaluate()
        return Scored(evaluator) if evaluator.metrics else None


class PlainViewer(Viewer):
    """A plain torch module from (1, 3, H, W) RGB in [0, 1] to logits (1, K) or (1, K, h, w)."""

    def __init__(self, model: nn.Module):
        self.model = model.eval()

    def pixels(self, name: str) -> np.ndarray:
        import mmcv  # JPEG files are decoded as the libraries do
        return np.ascontiguousarray(mmcv.imread(name)[..., ::-1])

    @torch.no_grad()
    def look(self, name: str, file: Path) -> tuple[Answer, Any]:
        x = torch.from_numpy(self.pixels(str(file))).permute(2, 0, 1)[None].float() / 255
        logits = self.model(x)
        logits = logits['out'] if isinstance(logits, dict) else logits
        if not isinstance(logits, Tensor) or logits.ndim not in (2, 4):
            raise InputError('the module gives neither logits (1, K) nor (1, K, height, width)')
        said = logits.argmax(1)[0]
        return (int(said) if said.ndim == 0 else said.numpy()), None


def files_of(cfg) -> list[str]:
    """Resolved paths of the images of a config's test data set."""
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        dataset = registry.build(cfg.test_dataloader.dataset)
    return list(LibraryViewer(None, dataset, None, None).places)


@LOOPS.register_module()
class TransferLoop(TestLoop):
    """Shows the images of sources to the runner's model and fills the cells of a table.

    Args:
        runner, dataloader, evaluator: as for mmengine's TestLoop.
        job: what to do.
    """

    def __init__(self, runner, dataloader, evaluator, job: Job):
        check_files(dataloader, evaluator)
        self.evaluator_config = copy.deepcopy(evaluator)
        dataloader = tolerant(dataloader) if isinstance(dataloader, dict) else dataloader
        super().__init__(runner, dataloader, evaluator)
        runner.register_hook(ClassNamesHook(self.dataloader.dataset))
        self.job = job
        self.cells: list[Cell] = []

    def run(self) -> dict:
        self.runner.model.eval()
        dataset = self.dataloader.dataset

        def evaluate():
            evaluator = self.runner.build_evaluator(copy.deepcopy(self.evaluator_config))
            evaluator.dataset_meta = self.evaluator.dataset_meta
            return evaluator

        viewer = LibraryViewer(self.runner.model, dataset, self.dataloader.collate_fn, evaluate)
        self.cells = score(viewer, self.job)
        return {}
