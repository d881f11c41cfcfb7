"""Shows the stored images of sources to a victim, through the victim's own stock pipeline."""
import copy
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS, LOOPS
from mmengine.runner import TestLoop
from PIL import Image
from torch import Tensor

from .. import screen
from ..defences import Defence, defend_batch
from ..defences.base import JUDGED
from ..errors import InputError
from ..evaluation import CONTROLS, Found, bootstrap, change, control, donor_of
from ..evaluation.controls import changed
from ..evaluation.gallery import draw_seen, seen_file
from ..evaluation.statistics import Statistic
from ..evaluation.transfer import Answer
from ..results import Pair, PairSet
from ..results.cell import Cell
from ..victims.base import sample_key
from ..victims.pipeline import DEFENDED_AS
from .data import members, tolerant
from .hooks.class_names_hook import ClassNamesHook
from .native import statistics_of
from .pictures import channel_order, preprocessing
from .plain import Plain, answer_of, load_pixels, ready, tensor_of
from .scores import spared
from .truth import check_files
from .warn import warn

__all__ = ['Job', 'PlainViewer', 'TransferLoop', 'files_of', 'score', 'settled']

FAST = 0  # compression of files that are read once
Version = tuple[str, int]  # 'attack' or the name of a control, and the number of its draw
Measured = tuple[dict[str, float], dict[str, Statistic]]


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


Kept = tuple[list[list], dict[str, str]]  # by metric what it keeps of an image; which failed, why


@dataclass(frozen=True)
class Seen:
    """What a victim says of a file.

    Attributes:
        answer: without labels.
        kept: for the victim's own metrics; None where it has none.
    """
    answer: Answer
    kept: Kept | None = None


class Viewer:
    """A victim that looks at image files.

    Attributes:
        classes: names of what it knows, None if unknown.
        clean: what it has said of clean images, by their names; the same for all sources.
        whole: values and statistics of sets of clean images.
    """
    classes: Sequence[str] | None = None

    def __init__(self) -> None:
        self.clean: dict[str, Seen] = {}
        self.whole: dict[tuple[str, ...], Measured] = {}

    def pixels(self, name: str) -> np.ndarray:
        """The clean file as the victim loads it, (H, W, 3) uint8 RGB."""
        raise NotImplementedError

    def look(self, name: str, files: Sequence[Path]) -> list[Seen]:
        """What it says of files of one size in place of the image ``name``."""
        raise NotImplementedError

    def scores(self) -> 'Scored | None':
        """A new evaluation by its own metrics; None where it has none."""
        return None

    def look_clean(self, name: str, file: Path) -> Seen:
        """What it says of the clean image; asked once."""
        if name not in self.clean:
            [self.clean[name]] = self.look(name, [file])
        return self.clean[name]


class Scored:
    """The victim's own metrics over one version of all images."""

    def __init__(self, evaluator):
        self.evaluator = evaluator
        self.failures = spared(evaluator)

    def keep(self, batch: dict, outputs: Sequence[dict]) -> Kept:
        """What the metrics keep of images; it is taken out again."""
        self.evaluator.process(data_samples=outputs, data_batch=batch)
        kept = [list(metric.results) for metric in self.evaluator.metrics], dict(self.failures)
        for metric in self.evaluator.metrics:
            metric.results.clear()
        self.failures.clear()
        return kept

    def take(self, kept: Kept) -> None:
        """Count what was kept of an image."""
        results, failures = kept
        for metric, own in zip(self.evaluator.metrics, results, strict=True):
            metric.results += own
        self.failures.update(failures)

    def evaluate(self, images: int) -> Measured:
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
        # every drop looks at the same resamples
        return values, {name: _once(one) for name, one in statistics.items()}


def score(viewer: Viewer, job: Job) -> list[Cell]:
    """Fill the cells of one victim; those that are settled already are taken."""
    cells = []
    for source, cell in zip(job.sources, settled(job), strict=True):
        if cell is None:
            cell = _cell(viewer, job, source)
            cell.write(job.folder)
        cells.append(cell)
    return cells


def settled(job: Job) -> list[Cell | None]:
    """Of each source the cell that needs no look of the victim, None where it has to be filled.

    That is one that was finished before, with the images as they are still; or one that is refused,
    because an image is gone or was altered since it was stored.
    """
    cells: list[Cell | None] = []
    for source in job.sources:
        identity = job.identity_of(source)
        try:
            for name in job.images:
                source.pairs[name].check()
        except InputError as error:
            cell = _refused(job, source, error)
            cell.write(job.folder)
            cells.append(cell)
            continue
        known = Cell.load(job.folder, source.name, job.victim) if job.resume else None
        cells.append(known if known is not None and known.fits(identity) else None)
    return cells


def _refused(job: Job, source: PairSet, error: InputError) -> Cell:
    return Cell(source.name, job.victim, job.identity_of(source), refused=str(error))


def _cell(viewer: Viewer, job: Job, source: PairSet) -> Cell:
    empty = Cell(source.name, job.victim, job.identity_of(source))
    try:
        return _scored(viewer, job, empty, {name: source.pairs[name] for name in job.images})
    except InputError as error:
        warn(f'cell {source.name} -> {job.victim} is refused: {error}')
        return _refused(job, source, error)


def _scored(viewer: Viewer, job: Job, empty: Cell, pairs: Mapping[str, Pair]) -> Cell:
    donors = donor_of(list(pairs))
    sides: dict[Version, list[Kept | None]] = defaultdict(list)
    changes: dict[str, dict[str, list[float]]] = {}
    pixels: dict[str, int] = {}
    failed: dict[str, str] = {}
    title = f'{empty.source} -> {job.victim}'
    with screen.progress(len(pairs), what=title) as advance:
        for name, pair in pairs.items():
            clean, adversarial = _both(viewer, name, pair)
            count = int(changed(clean, adversarial).sum())
            donor = _both(viewer, donors[name], pairs[donors[name]]) if name in donors else None
            versions = _versions(name, clean, adversarial, donor, job.seeds)
            try:
                before = viewer.look_clean(name, pair.clean)
                said = _looked(viewer, name, before, clean, versions, pair.adversarial)
            except InputError:
                raise
            except Exception as error:  # a pipeline and a model are other people's code
                failed[name] = f'{type(error).__name__}: {error}'.splitlines()[0]
                warn(f'{title}: fails on {name}: {failed[name]}')
                continue
            if name == job.gallery:
                draw_seen(seen_file(job.folder, empty.source, job.victim), title,
                          [('clean', clean, before.answer),
                           ('attacked', adversarial, said['attack', 0].answer)], viewer.classes)
            here = defaultdict(list)
            for (kind, seed), seen in said.items():
                here[kind].append(change(before.answer, seen.answer))
                sides[kind, seed].append(seen.kept)
            changes[name], pixels[name] = dict(here), count
            advance(1)
    native = _native(viewer, tuple(changes), sides) if changes else {}
    return Cell(empty.source, empty.victim, empty.identity, changes, pixels, native, failed)


def _versions(name: str, clean: np.ndarray, adversarial: np.ndarray,
              donor: tuple[np.ndarray, np.ndarray] | None,
              seeds: int) -> dict[Version, np.ndarray]:
    """The attacked image and every control by kind and seed."""
    found = {('attack', 0): adversarial}
    for kind in CONTROLS:
        for seed in range(seeds):
            if kind != 'swapped' or donor is not None:
                found[kind, seed] = control(kind, clean, adversarial, name, seed, donor)
    return found


def _looked(viewer: Viewer, name: str, before: Seen, clean: np.ndarray,
            versions: Mapping[Version, np.ndarray], adversarial: Path) -> dict[Version, Seen]:
    """What a victim says of every version; of one that is the clean image what it said of that."""
    said = {key: before for key in versions}
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for key, made in versions.items():
            if np.array_equal(made, clean):
                continue
            if key == ('attack', 0):
                files[key] = adversarial
                continue
            files[key] = Path(folder, '{}_{}.png'.format(*key))
            Image.fromarray(made).save(files[key], compress_level=FAST)
        found = viewer.look(name, list(files.values())) if files else []
        return said | dict(zip(files, found, strict=True))


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


def _native(viewer: Viewer, names: tuple[str, ...],
            sides: Mapping[Version, Sequence[Kept | None]]) -> dict[str, dict[str, dict[str, float]]]:
    """Values, relative drops and their intervals by measure and kind."""
    images = len(names)
    if names not in viewer.whole:
        measured = _measured(viewer, [viewer.clean[name].kept for name in names])
        if measured is None:
            return {}
        viewer.whole[names] = measured
    values, statistics = viewer.whole[names]
    said = {key: measured for key, kept in sides.items()
            if (measured := _measured(viewer, kept)) is not None}
    measures = list(statistics) or list(values)
    native: dict[str, dict[str, dict[str, float]]] = {}
    for measure in measures:
        clean = values[measure]
        found = {'clean': dict(value=clean)}
        drops: dict[str, Statistic] = {}
        for kind in ('attack', *CONTROLS):
            known = [one for (name, _), one in said.items() if name == kind and measure in one[0]]
            if not known:
                continue
            value = float(np.mean([one[0][measure] for one in known]))
            drop = (clean - value) / clean if clean > 0 else np.nan
            found[kind] = dict(value=value, drop=drop, low=np.nan, high=np.nan)
            if measure in statistics and all(measure in one[1] for one in known):
                drops[kind] = _drop(statistics[measure], [one[1][measure] for one in known])
                interval = bootstrap(drops[kind], images)
                found[kind] |= dict(low=interval.low, high=interval.high)
        others = [one for kind, one in drops.items() if kind != 'attack']
        if 'attack' in drops and others:
            lead = bootstrap(_lead(drops['attack'], others), images)
            found['excess'] = dict(value=lead.value, drop=lead.value, low=lead.low, high=lead.high)
        native[measure] = found
    return native


def _measured(viewer: Viewer, kept: Sequence[Kept | None]) -> Measured | None:
    """The victim's own metrics over images of which this was kept; None where it has none."""
    side = viewer.scores()
    if side is None:
        return None
    for one in kept:
        assert one is not None
        side.take(one)
    return side.evaluate(len(kept))


def _once(statistic: Statistic) -> Statistic:
    """The same, but computed once for each set of counts."""
    known: dict[bytes, np.ndarray] = {}

    def remembered(counts: np.ndarray) -> np.ndarray:
        key = counts.tobytes()
        if key not in known:
            known[key] = statistic(counts)
        return known[key]

    return remembered


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
        most: how many images of one size it is shown at once.
        defend: what becomes of batches before the model sees them; nothing by default.
    """

    def __init__(self, model, dataset, collate: Callable | None = None,
                 evaluate: Callable | None = None, most: int = 1,
                 defend: Callable[[dict], dict] = lambda batch: batch):
        super().__init__()
        self.defend = defend
        self.model, self.collate, self.evaluate, self.most = model, collate, evaluate, most
        self._keeper = self.scores()
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

    def look(self, name: str, files: Sequence[Path]) -> list[Seen]:
        found = []
        for start in range(0, len(files), self.most):
            part, index = self.places[name]
            items = [self._item(part, index, file) for file in files[start:start + self.most]]
            outputs = self._said(items)
            for item, output in zip(items, outputs, strict=True):
                kept = None
                if self._keeper is not None:
                    kept = self._keeper.keep(self._collated([item]), [output.to_dict()])
                found.append(Seen(plain(output), kept))
        return found

    def _item(self, part, index: int, file: Path) -> dict:
        """What the pipeline makes of a file in place of one of a data set's own."""
        info = part.get_data_info(index)
        own = info['img_path']
        item = part.pipeline(dict(info, img_path=str(file), **{DEFENDED_AS: info}))
        if item is None:
            raise InputError(f'the test pipeline of the victim drops {own}: take out what filters '
                             'images')
        item['data_samples'].set_metainfo(dict(img_path=own))
        return item

    def _collated(self, items: list[dict]) -> dict:
        assert self.collate is not None
        batch = self.collate(copy.deepcopy(items))  # libraries write predictions into samples
        batch.pop('unreadable', None)
        return batch

    @torch.no_grad()
    def _said(self, items: list[dict]) -> list:
        """Predictions of the model; together where inputs are of one size."""
        together = len({item['inputs'].shape for item in items}) == 1
        batches = [items] if together else [[item] for item in items]
        return [output for batch in batches
                for output in self.model.test_step(self.defend(self._collated(batch)))]

    def scores(self) -> Scored | None:
        if self.evaluate is None:
            return None
        evaluator = self.evaluate()
        return Scored(evaluator) if evaluator.metrics else None


class PlainViewer(Viewer):
    """A plain torch module from (1, 3, H, W) RGB in [0, 1] to logits (1, K) or (1, K, h, w), or a detector.

    Args:
        model: the module.
        device: where it computes.
        defence: before it, None for none.
    """

    def __init__(self, model: Plain, device: torch.device | str = 'cpu',
                 defence: Defence | None = None):
        super().__init__()
        self.defence = defence
        self.device = torch.device(device)
        self.model = ready(model, self.device)

    def pixels(self, name: str) -> np.ndarray:
        return load_pixels(name)

    @torch.no_grad()
    def look(self, name: str, files: Sequence[Path]) -> list[Seen]:
        found = []
        for file in files:
            x = tensor_of([load_pixels(str(file))], self.device)
            if self.defence is not None:
                x = self.defence(x, [sample_key(dict(img_path=name))], [JUDGED])
            found.append(Seen(answer_of(self.model, x)))
        return found


def files_of(cfg) -> list[str]:
    """Resolved paths of the images of a config's test data set."""
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        dataset = registry.build(cfg.test_dataloader.dataset)
    return list(LibraryViewer(None, dataset).places)


@LOOPS.register_module()
class TransferLoop(TestLoop):
    """Shows the images of sources to the runner's model and fills the cells of a table.

    Args:
        runner, dataloader, evaluator: as for mmengine's TestLoop.
        job: what to do.
        defence: of the network inputs, before the model; None for none.
    """

    def __init__(self, runner, dataloader, evaluator, job: Job, defence: Defence | None = None):
        self.defence = defence
        check_files(dataloader, evaluator)
        self.evaluator_config = copy.deepcopy(evaluator)
        dataloader = tolerant(dataloader) if isinstance(dataloader, dict) else dataloader
        super().__init__(runner, dataloader, evaluator)
        runner.register_hook(ClassNamesHook(self.dataloader.dataset))
        self.job = job
        self.cells: list[Cell] = []

    def _defended(self, dataset) -> Callable[[dict], dict]:
        """What becomes of a batch before the model sees it."""
        defence = self.defence
        if defence is None:
            return lambda batch: batch
        order = channel_order(dataset, preprocessing(self.runner.cfg))
        return lambda batch: defend_batch(
            defence, batch, [sample_key(sample) for sample in batch['data_samples']], order)

    def run(self) -> dict:
        self.runner.model.eval()
        dataset = self.dataloader.dataset

        def evaluate():
            evaluator = self.runner.build_evaluator(copy.deepcopy(self.evaluator_config))
            evaluator.dataset_meta = self.evaluator.dataset_meta
            return evaluator

        viewer = LibraryViewer(self.runner.model, dataset, self.dataloader.collate_fn, evaluate,
                               self.dataloader.batch_size or 1, self._defended(dataset))
        self.cells = score(viewer, self.job)
        return {}
