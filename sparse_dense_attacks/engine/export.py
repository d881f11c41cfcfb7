"""A run's images as a data set that the model library's own, unmodified test script scores."""
import inspect
import math
import os
import pprint
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .. import __version__
from ..errors import InputError
from ..results import Entry, Manifest, Record, describe, file_digest, readme, replacing_folder
from ..victims import library_of, unwrapped
from ..victims.base import sample_key
from .annotations import IMAGES, TRUTH, Part, names_for, plain
from .data import leaves, members
from .metric_files import Here, MetricFiles
from .predictions import EVALUATORS, annotated
from .truth import coco_content

if TYPE_CHECKING:
    from .loops import AttackLoop

__all__ = ['check_exportable', 'write_dataset']

PACKAGE = __name__.partition('.')[0]
_TRUTHS = ('instances', 'seg_map_path', 'gt_label')
# What of a run's config decides about its metrics, beside data and evaluator.
_KEPT = ('default_scope', 'custom_imports', 'data_preprocessor', 'model', 'model_wrapper_cfg',
         'env_cfg', 'randomness', 'default_hooks', 'custom_hooks', 'vis_backends', 'visualizer',
         'log_processor', 'tta_model', 'tta_pipeline')
HEAD = '''"""Adversarial images and how to score them; see README.md beside this file."""
root = r"""{{ fileDirname }}/"""
'''


class _Float(float):
    """A number that Python has no literal for."""

    def __repr__(self) -> str:
        return f"float('{float(self)}')"


def check_exportable(dataset) -> None:
    """Ask before the first image whether a data set can be written around other images.

    Args:
        dataset: as the run built it.

    Raises:
        InputError: its images are no files on this machine.
    """
    for member in members(dataset):
        for index in range(len(member)):
            path = member.get_data_info(index)['img_path']
            if '://' in path:
                raise InputError(f"{type(member).__name__}'s images are elsewhere ({path}), but "
                                 'the grid of the image files needs files on this machine: fetch '
                                 "them, or take threat.grid='input'")


def write_dataset(loop: 'AttackLoop', records: Sequence[Record], metrics: Mapping) -> Path:
    """Write ``dataset/`` into the work dir of a finished run; replaces an earlier one.

    It holds the images that were attacked, failed ones too, as the run's metrics do; images that
    could not be read are in neither.

    Args:
        loop: the run.
        records: of its images.
        metrics: what it reached.

    Returns:
        The folder.

    Raises:
        InputError: data set or config have no form that stock classes read; the line says why.
    """
    target = loop.store.work_dir / 'dataset'
    with replacing_folder(target) as folder:
        _Export(loop, records, folder).write(metrics)
    return target


class _Export:
    """Writes one data set.

    Args:
        loop, records: as for :func:`write_dataset`.
        folder: where to, empty.
    """

    def __init__(self, loop: 'AttackLoop', records: Sequence[Record], folder: Path):
        self.loop, self.folder, self.cfg = loop, folder, loop.runner.cfg
        self.records = {record.key: record for record in records if not record.skipped}
        self.model = unwrapped(loop.runner.model)
        self.library = library_of(self.model) or ''
        self.parts = self._parts()
        self.licences = [f"{one.get('name')} {one.get('url', '')}".strip() for part in self.parts
                         for one in (part.content or {}).get('licenses') or ()]
        self.outside: list[str] = []

    def write(self, metrics: Mapping) -> None:
        images = self._images()
        predicted = not any(info.get(key) is not None for part in self.parts
                            for info in part.infos[:1] for key in _TRUTHS)
        parts = self._predicted() if predicted else self.parts
        datasets = [part.write() for part in parts]
        for place in {part.folder for part in parts}:
            shutil.rmtree(place / TRUTH / 'predicted', ignore_errors=True)
        self._write_config(parts, datasets, predicted)
        adversarial = self._scored() if predicted else {
            name.removeprefix('adv/'): value for name, value in metrics.items()
            if name.startswith('adv/')}
        for name, value in adversarial.items():
            if isinstance(value, float) and math.isnan(value):
                adversarial[name] = None  # JSON knows no NaN
        manifest = self._manifest(images, datasets, adversarial, predicted)
        ours = self.defended or any(_of_us(type(module)) for module in self.model.modules())
        text = readme(manifest, self.licences, self.outside, ours)
        (self.folder / 'README.md').write_text(text, encoding='utf-8')
        names = {path.relative_to(self.folder).as_posix()
                 for path in self.folder.rglob('*') if path.is_file()}
        for name in sorted(names - {entry.file for entry in images}):
            manifest.files[name] = file_digest(str(self.folder / name))
        manifest.write(self.folder)

    @property
    def defended(self) -> bool:
        """Whether the images are defended before the model sees them, which is done by this package."""
        attacker = self.loop.attacker
        of_files = attacker.files is not None and attacker.files.defence is not None
        return of_files or attacker.victim.defence is not None

    def _parts(self) -> list[Part]:
        """The data sets of the run, of each the images that were attacked."""
        cfg = self.cfg.test_dataloader.get('dataset')
        if not isinstance(cfg, Mapping):
            raise InputError('the data set of the run was given as an object, and a config is '
                             'needed to write it: test_dataloader.dataset=dict(type=...)')
        sources = members(getattr(self.loop.dataloader.dataset, 'dataset', None))
        configs, found = list(leaves(cfg)), []
        for number, (source, leaf) in enumerate(zip(sources, configs, strict=True)):
            infos = [source.get_data_info(index) for index in range(len(source))]
            infos = [info for info in infos if sample_key(info) in self.records]
            if infos:
                folder = self.folder / (str(number) if len(sources) > 1 else '')
                prefix = getattr(source, 'data_prefix', {})
                names = names_for([info['img_path'] for info in infos],
                                  prefix.get('img') or prefix.get('img_path'))
                content = coco_content(getattr(source, 'ann_file', None))
                found.append(Part(source, leaf, self.library, infos, names, folder, content))
        return found

    def _images(self) -> list[Entry]:
        """Copy the PNGs."""
        found, paths = [], [path for part in self.parts for path in part.sources]
        self.clean_root = os.path.commonpath([os.path.dirname(os.path.abspath(path))
                                              for path in paths])
        for number, part in enumerate(self.parts):
            for info, name in zip(part.infos, part.names, strict=True):
                record, clean = self.records[sample_key(info)], os.path.abspath(info['img_path'])
                goal = part.folder / IMAGES / name
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.loop.store.work_dir / record.file, goal)
                found.append(Entry(
                    record.key, goal.relative_to(self.folder).as_posix(), record.digest,
                    Path(clean).relative_to(self.clean_root).as_posix(), file_digest(clean),
                    record.l0_pixels, record.l0_elements, record.linf, number))
        return found

    def _predicted(self) -> list[Part]:
        """The parts with what the model finds in the clean images."""
        least = getattr(self.loop.attacker.victim, 'reference_thr', 0)  # of detectors only
        return [annotated(part, self.loop.clean_predictions(), least) for part in self.parts]

    def _write_config(self, parts: list[Part], datasets: list[dict], predicted: bool) -> None:
        for cfg in datasets:
            place = Path(cfg['data_root']).relative_to(self.folder).as_posix()
            cfg['data_root'] = Here('' if place == '.' else f'{place}/')
        evaluator = self._evaluator(parts, datasets, predicted)
        loader = {key: value for key, value in self.cfg.test_dataloader.items() if key != 'dataset'}
        wrapper = self.cfg.test_dataloader.dataset
        whole = dict(wrapper if 'datasets' in wrapper else dict(type='ConcatDataset'),
                     datasets=datasets)
        loader['dataset'] = datasets[0] if len(datasets) == 1 else whole
        content = {key: self.cfg[key] for key in _KEPT if self.cfg.get(key) is not None}
        content |= dict(test_dataloader=loader, test_evaluator=evaluator, test_cfg=dict(),
                        log_level='INFO', load_from=None, resume=False)
        content = _without_us(content, self.model, self.defended)
        defence = self.loop.attacker.victim.defence
        if defence is not None:
            hook = dict(type='DefenceHook', defence=describe(defence))
            content['custom_hooks'] = [*content.get('custom_hooks', ()), hook]
        lines = [f'{key} = {pprint.pformat(_literal(value), width=100, sort_dicts=False)}\n'
                 for key, value in content.items()]
        (self.folder / 'config.py').write_text(HEAD + ''.join(lines), encoding='utf-8')

    def _evaluator(self, parts: list[Part], datasets: list[dict], predicted: bool) -> Any:
        if predicted:
            evaluator = dict(EVALUATORS[self.library])
            if self.library == 'mmdet':
                place, file = datasets[0]['data_root'], datasets[0]['ann_file']
                evaluator['ann_file'] = Here(place + file)
            return evaluator
        files = MetricFiles(self.folder, parts, datasets)
        self.outside = files.outside
        return files.moved(self.cfg.test_evaluator)

    def _manifest(self, images: list[Entry], datasets: list[dict], metrics: dict,
                  predicted: bool) -> Manifest:
        attacker = self.loop.attacker
        checkpoint = self.loop.run_info.get('checkpoint', self.cfg.get('load_from'))
        return Manifest(
            version=__version__, threat=describe(attacker.threat), attack=describe(attacker.attack),
            goal=describe(attacker.goal), library=self.library, model=type(self.model).__name__,
            checkpoint=checkpoint and _absolute(checkpoint),
            weights=file_digest(checkpoint) if checkpoint else 'random weights',
            truth='predictions' if predicted else 'annotations', clean_root=self.clean_root,
            loaders=tuple(_loader(cfg) for cfg in datasets), images=tuple(images), files={},
            metrics=metrics)

    @torch.no_grad()
    def _scored(self) -> dict:
        """What the evaluator of the data set says of it, by the model as it is."""
        cfg, runner = Config.fromfile(self.folder / 'config.py'), self.loop.runner
        loader = Runner.build_dataloader(cfg.test_dataloader)
        evaluator = runner.build_evaluator(cfg.test_evaluator)
        evaluator.dataset_meta = loader.dataset.metainfo
        runner.model.eval()
        for batch in loader:
            seen = self.loop.attacker.victim.defended(batch)
            evaluator.process(data_samples=runner.model.test_step(seen), data_batch=batch)
        return plain(evaluator.evaluate(len(loader.dataset)))


def _absolute(path: str) -> str:
    return path if '://' in path else os.path.abspath(path)


def _loader(cfg: Mapping) -> dict:
    """The step of a data set's pipeline that reads the image file."""
    for step in cfg['pipeline']:
        if 'LoadImage' in str(step['type']):
            return plain(_literal(step))
    raise InputError('the test pipeline has no step LoadImageFromFile, so nothing would read the '
                     'files')


def _without_us(content: dict, model, defended: bool = False) -> dict:
    """A config's content without the hooks and imports of this package, unless model or defence need it."""
    named = content.pop('custom_imports', None) or {}
    imports = named.get('imports') or []
    imports = [imports] if isinstance(imports, str) else imports
    imports = [name for name in imports if name.partition('.')[0] != PACKAGE]
    if defended or any(_of_us(type(module)) for module in model.modules()):
        imports.append(PACKAGE)
    if imports:
        content = dict(custom_imports=dict(named, imports=imports), **content)
    if 'custom_hooks' in content:
        hooks = [hook for hook in content['custom_hooks'] if not _is_our_hook(hook)]
        content['custom_hooks'] = hooks
    if 'default_hooks' in content:
        content['default_hooks'] = {name: hook for name, hook in content['default_hooks'].items()
                                    if not _is_our_hook(hook)}
    return content


def _is_our_hook(hook: Any) -> bool:
    kind = hook.get('type') if isinstance(hook, Mapping) else type(hook)
    return _of_us(HOOKS.get(kind) if isinstance(kind, str) else kind)


def _of_us(kind: type | None) -> bool:
    return kind is not None and kind.__module__.partition('.')[0] == PACKAGE


def _literal(value: Any) -> Any:
    """A config's value as one that can be written down.

    Raises:
        InputError: it is an object.
    """
    if isinstance(value, Mapping):
        return {key: _literal(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_literal(one) for one in value)
    if inspect.isclass(value) or inspect.isroutine(value):
        return f'{value.__module__}.{value.__qualname__}'
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return _Float(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise InputError(f'the config holds a {type(value).__name__}, which cannot be written into '
                     'another one')
