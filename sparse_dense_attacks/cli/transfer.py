"""Show what breaks one model to others, also of other tasks, beside four controls.

    sda transfer sparse_dense_attacks::transfer/demo.py
    sda transfer my_table.py --work-dir work_dirs/mine --resume

A config names models, sources and victims:

    models = dict(yolox=dict(config='mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', checkpoint='...'),
                  mine=dict(module='my_package.nets:resnet'))
    attack = dict(type='SparsePGD', k=0.01, early_stop=False)
    sources = dict(yolox=dict(model='yolox'), theirs=dict(clean='photos', adversarial='attacked'))
    victims = ['yolox', 'mine']
    images = 'photos'  # a folder; without it each model looks at its own test set
"""
import argparse
import contextlib
import copy
import gc
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from .. import screen
from ..checks import is_count, shown
from ..errors import InputError
from ..registry import nearest
from . import common
from .common import say
from .launch import join

if TYPE_CHECKING:
    from mmengine.config import Config

    from ..engine.ranks import Ranks
    from ..results import PairSet
    from ..results.cell import Cell

__all__ = ['Plan', 'main', 'run']

OWN = {'models', 'sources', 'victims', 'images', 'limit', 'attack', 'goals', 'threat', 'seeds',
       'allow_unequal', 'gallery', 'work_dir', 'custom_imports'}
MODEL = {'config', 'checkpoint', 'options', 'own_images', 'module', 'defence'}
SOURCE = {'model', 'members', 'attack', 'goal', 'goals', 'threat', 'combine', 'weights', 'clean',
          'adversarial'}
MEMBER = {'model', 'goal'}
# Of an entry that has the field, those that are read beside it.
BESIDE = dict(config=MODEL - {'module'}, module={'defence'}, model={'attack', 'goal', 'goals', 'threat'},
              members={'attack', 'goals', 'threat', 'combine', 'weights'}, adversarial={'clean'})
DICTS = {'threat', 'goals', 'options'}
TEXTS = {'images', 'gallery', 'config', 'checkpoint', 'module', 'clean', 'adversarial'}
RUN = 'attack', 'goal', 'threat', 'victim', 'defence', 'pictures'  # top-level keys of a run's config


def main(argv: list[str] | None = None) -> int:
    return common.main(run, argv, kept='all finished images and cells are safe')


def run(argv: list[str] | None = None) -> list['Cell']:
    """Fill the table that the arguments name, and write it; returns its cells."""
    args = _parser().parse_args(argv)

    from ..engine.ranks import Ranks
    from ..results.lock import Lock
    from .checkpoints import guard_loading
    from .configs import load_config

    join(args.launcher, args.device)
    guard_loading(args.trust_weights)
    cfg = load_config(args.config, args.cfg_options, tuple(OWN))
    plan = Plan.read(cfg, args)
    common.check_device(args.device)
    common.check_writable(str(plan.folder))
    ranks = Ranks()
    with contextlib.ExitStack() as stack:
        if ranks.rank == 0:
            stack.callback(Lock(plan.folder).release)
        return _fill(plan, ranks)


def _parser() -> argparse.ArgumentParser:
    parser = common.common_arguments('transfer', __doc__.splitlines()[0], 'a table of models')
    parser.add_argument('--limit', type=int, metavar='N', help='only the first N images')
    return parser


@dataclass(frozen=True)
class Plan:
    """What a config asks for.

    Attributes:
        folder: of the table.
        models, sources: entries by name.
        victims: names of models.
        images: folder of photos, None for each model's own test set.
        limit: how many images at most.
        attack, threat: of sources that bring none.
        goals: for sources that bring none, by the library of a task ('mmpretrain' for classifiers,
            'mmdet', 'mmseg'), of plain modules, too.
        seeds: how many of each control.
        allow_unequal: budgets may differ.
        gallery: name of the image to draw, None for the first.
        args: of the command.
    """
    folder: Path
    models: Mapping[str, Mapping]
    sources: Mapping[str, Mapping]
    victims: Sequence[str]
    images: str | None
    limit: int | None
    attack: Any
    threat: Mapping
    goals: Mapping[str, Any]
    seeds: int
    allow_unequal: bool
    gallery: str | None
    args: argparse.Namespace

    @classmethod
    def read(cls, cfg: 'Config', args: argparse.Namespace) -> 'Plan':
        """From a config.

        Raises:
            InputError: something is missing, misspelt or does not fit.
        """
        given = cfg.to_dict()
        for key in given:
            if key not in OWN:
                raise InputError(f"{args.config}: nothing reads '{key}': {nearest(key, OWN)}")
        _check_kinds('', given)
        models, sources = (_entries(given, key, known)
                           for key, known in (('models', MODEL), ('sources', SOURCE)))
        victims = given.get('victims') or list(models)
        if not isinstance(victims, list | tuple):
            raise InputError(f'victims = {shown(victims)}, expected a list of names of models')
        for name in victims:
            _known(name, models, 'victims')
        for name, source in sources.items():
            _check_source(name, source, models)
        seeds = given.get('seeds', 3)
        if not is_count(seeds):
            raise InputError(f'seeds = {shown(seeds)}, expected an int >= 1')
        limit = args.limit if args.limit is not None else given.get('limit')
        if limit is not None and not is_count(limit):
            raise InputError(f'limit = {shown(limit)}, expected an int >= 1')
        folder = Path(args.work_dir or given.get('work_dir')
                      or f'work_dirs/transfer_{Path(cfg.filename).stem}')
        threat = dict(given.get('threat') or {})
        threat.setdefault('grid', 'original')
        for one in (threat, *(source.get('threat') or {} for source in sources.values())):
            if one.get('grid', 'original') != 'original':
                raise InputError(f"threat.grid = {shown(one['grid'])}, expected 'original': other pictures "
                                 'fit one model only')
        return cls(folder, models, sources, list(victims), given.get('images'), limit,
                   given.get('attack'), threat, given.get('goals') or {}, seeds,
                   bool(given.get('allow_unequal', False)), given.get('gallery'), args)

    def used(self) -> list[str]:
        """Names of the models that are a source, a member of one, or a victim."""
        found = dict.fromkeys(self.victims)
        for source in self.sources.values():
            for entry in [source] if 'model' in source else source.get('members', []):
                found[_member(entry)['model']] = None
        return list(found)

    @property
    def shown_photos(self) -> int | None:
        """How many of a folder's images are attacked; all where models have images of their own."""
        own = any(model.get('own_images') for model in self.models.values())
        return None if own else self.limit

    def config(self, name: str) -> tuple['Config', argparse.Namespace]:
        """The config of a model with the plan's images, and arguments for its run."""
        from .attack import arguments
        from .configs import load_config
        model = self.models[name]
        cfg = load_config(model['config'], model.get('options'), RUN)
        _set(cfg, 'defence', model.get('defence'))
        args = arguments([model['config']])
        args.checkpoint = model.get('checkpoint')
        args.images = None if model.get('own_images') else self.images
        args.limit = self.shown_photos if args.images else self.limit
        for field in ('device', 'trust_weights', 'resume', 'verbose'):
            setattr(args, field, getattr(self.args, field))
        return cfg, args


def _entries(given: Mapping, key: str, known: set[str]) -> dict[str, Mapping]:
    entries = given.get(key)
    if not isinstance(entries, Mapping) or not entries:
        raise InputError(f"{key} = {shown(entries)}, expected a dict from name to entry, such as "
                         "dict(yolox=dict(config='...'))")
    for name, entry in entries.items():
        if not isinstance(entry, Mapping):
            raise InputError(f'{key}.{name} = {shown(entry)}, expected a dict')
        if '__' in name or '/' in name:
            raise InputError(f"{key}: the name '{name}' holds '__' or '/', which files of cells use")
        for field in entry:
            if field not in known:
                raise InputError(f"{key}.{name}: nothing reads '{field}': {nearest(field, known)}")
    if key == 'models':
        for name, entry in entries.items():
            if ('config' in entry) == ('module' in entry):
                raise InputError(f"models.{name}: expected either 'config' (of a library's model) "
                                 "or 'module' (import path of a torch module)")
            _check_fields(f'models.{name}', entry, 'config' if 'config' in entry else 'module')
    return dict(entries)


def _check_fields(who: str, entry: Mapping, kind: str) -> None:
    """Refuse what nothing reads in an entry of a kind, and values of another kind than is read."""
    for field in entry:
        if field not in {kind} | BESIDE[kind]:
            raise InputError(f"{who}: nothing reads '{field}' beside '{kind}': leave it out")
    _check_kinds(f'{who}: ', entry)


def _check_kinds(who: str, given: Mapping) -> None:
    for field, value in given.items():
        for fields, kind, expected in ((DICTS, Mapping, 'a dict'), (TEXTS, str | Path, 'a text')):
            if field in fields and not isinstance(value, kind | None):
                raise InputError(f'{who}{field} = {shown(value)}, expected {expected}')


def _known(name: Any, models: Mapping, who: str) -> None:
    if not isinstance(name, str) or name not in models:
        raise InputError(f'{who}: no model {shown(name)}: {nearest(str(name), models)}')


def _check_source(name: str, source: Mapping, models: Mapping) -> None:
    kinds = [kind for kind in ('model', 'members', 'adversarial') if kind in source]
    if len(kinds) != 1:
        raise InputError(f"sources.{name}: expected one of 'model' (a name), 'members' (a list of "
                         "names) or 'clean' and 'adversarial' (folders)")
    entries = [source] if kinds == ['model'] else source.get('members', [])
    if not isinstance(entries, list | tuple) or (kinds == ['members'] and not entries):
        raise InputError(f"sources.{name}: members = {shown(entries)}, expected a list such as "
                         "['yolox', dict(model='fcn', goal=dict(type='UntargetedPixels'))]")
    for entry in entries:
        if not isinstance(entry, str | Mapping):
            raise InputError(f'sources.{name}: {shown(entry)} is no name of a model and no dict')
        for field in () if kinds == ['model'] else _member(entry):
            if field not in MEMBER:
                raise InputError(f"sources.{name}: nothing reads '{field}' of a member: "
                                 f'{nearest(field, MEMBER)}')
        model = _member(entry).get('model')
        _known(model, models, f'sources.{name}')
    twice = [one for one in entries if [_member(each).get('model') for each in entries].count(
        _member(one).get('model')) > 1]
    if twice:
        raise InputError(f"sources.{name}: the model '{_member(twice[0])['model']}' is a member "
                         'twice, expected different models')
    _check_fields(f'sources.{name}', source, kinds[0])
    if kinds == ['adversarial'] and 'clean' not in source:
        raise InputError(f"sources.{name}: 'adversarial' needs the folder of its 'clean' images")


def _fill(plan: Plan, ranks: 'Ranks') -> list['Cell']:
    """The cells, in the order of the victims; none on processes that are not the first."""
    from ..engine.ranks import alone
    files = {name: _files(plan, name) for name in plan.used()}
    sources = [_source(plan, name, files, ranks) for name in plan.sources]
    notes = _check_budgets(plan, sources)
    images = _common(plan, sources, {name: files[name] for name in plan.victims})
    own: dict[str, list[Cell]] = {}
    for name in ranks.claimed(plan.victims):
        with alone():
            own[name] = _victim(plan, name, sources, images)
        gc.collect()
    found = {name: cells for one in ranks.gathered(own) for name, cells in one.items()}
    cells = [cell for name in plan.victims for cell in found.get(name, ())]
    if ranks.rank == 0:
        _write(plan, cells, sources, images, notes)
    return cells


# Sources

def _source(plan: Plan, name: str, files: Mapping[str, Sequence[str] | None],
            ranks: 'Ranks') -> 'PairSet':
    """Run a source, or go on with it, or read what others have made.

    Processes share the images of a single model; what is attacked otherwise is so by the first.
    """
    from ..engine.ranks import alone
    from ..results import pairs_of_folders
    source = plan.sources[name]
    if 'adversarial' in source:
        return pairs_of_folders(name, Path(source['clean']), Path(source['adversarial']))
    if 'members' in source or 'module' in plan.models[source['model']]:
        found: list[PairSet] = []

        def attack() -> None:
            with alone():
                found.append(_attacked_as_files(plan, name, source, files))

        ranks.first_does(attack)
        [pairs] = ranks.told(found)
        return pairs
    return _attacked(plan, name, source, ranks)


def _runner(plan: Plan, source: Mapping, entry: Mapping, folder: Path):
    """The runner of the attack of a source on one model; ``entry`` names it and its goal."""
    from .attack import attack_runner
    cfg, args = plan.config(entry['model'])
    _set(cfg, 'attack', source.get('attack') or plan.attack)
    goals = {**plan.goals, **(source.get('goals') or {})}
    _set(cfg, 'goal', entry.get('goal') or goals.get(cfg.get('default_scope')))
    cfg.threat = {**plan.threat, **(source.get('threat') or {})}
    args.work_dir = str(folder)
    return attack_runner(cfg, args)


def _attacked_as_files(plan: Plan, name: str, source: Mapping,
                       files: Mapping[str, Sequence[str] | None]) -> 'PairSet':
    """Run an ensemble or a plain module, or go on with it."""
    from ..engine.ensemble_run import attack_together, library_member, shared_files
    from ..results import Run, pairs_of_run, versions
    from ..results.run import is_finished
    folder = plan.folder / 'sources' / name
    entries = [_member(one) for one in source.get('members', [source])]
    members, identities = [], []
    for entry in entries:
        model = entry['model']
        if 'module' in plan.models[model]:
            member, identity = _plain(plan, source, entry, _images(plan, files))
        else:
            runner = _runner(plan, source, entry, folder / 'members' / model)
            identity = runner.test_loop.run_info['identity']
            member = library_member(model, runner)
        members.append(member)
        identities.append(identity)
    combine, weights, identity = None, None, identities[0]
    if 'members' in source:
        combine, weights = source.get('combine', 'mean'), source.get('weights')
        models = [entry['model'] for entry in entries]
        goal = dict(type='Ensemble', combine=combine, weights=weights,
                    members={one: own['goal'] for one, own in zip(models, identities, strict=True)})
        common = {key: identity[key] for key in ('attack', 'threat')}
        identity = dict(common, goal=goal, members=dict(zip(models, identities, strict=True)))
    shared = shared_files(members)
    if not (plan.args.resume and is_finished(folder, identity, shared)):
        say(f'source {name}')
        run_info = dict(identity=identity, command=shlex.join(sys.argv), versions=versions())
        attack_together(members, shared, folder, run_info, plan.args.resume, combine, weights)
    return pairs_of_run(name, Run.load(folder), shared)


def _plain(plan: Plan, source: Mapping, entry: Mapping, images: Sequence[str]):
    """A plain module as a member of a run, and what identifies it."""
    from ..engine.plain import PlainMember, device_of, victim_of, weights_digest
    from ..results import describe
    from ..threat_model import ThreatModel
    from ..victims.base import sample_key
    from .attack import DEFAULTS
    name = entry['model']
    path = plan.models[name]['module']
    victim = victim_of(_module(name, path), images[0], device_of(plan.args.device),
                       plan.models[name].get('defence'))
    library, (_, attack, goal) = next((library, one) for library, one in DEFAULTS.items()
                                      if one[0] == victim.task)
    goals = {**plan.goals, **(source.get('goals') or {})}
    attack = source.get('attack') or plan.attack or attack
    goal = entry.get('goal') or goals.get(library) or goal
    threat = ThreatModel.build({**plan.threat, **(source.get('threat') or {})})
    keys = {image: sample_key(dict(img_path=image)) for image in images}
    if len({*keys.values()}) < len(keys):
        twice = next(key for key in keys.values() if [*keys.values()].count(key) > 1)
        raise InputError(f"models.{name}: two images end in '{twice}': rename a folder of theirs")
    member = PlainMember.of(name, victim, attack, goal, threat, keys)
    identity = dict(attack=describe(member.attacker.attack), goal=describe(member.attacker.goal),
                    threat=describe(threat), model=dict(module=path),
                    victim=dict(type=type(victim).__name__, reference=victim.reference),
                    weights=weights_digest(victim.model))
    if victim.defence is not None:
        identity['defence'] = describe(victim.defence)
    return member, identity


def _images(plan: Plan, files: Mapping[str, Sequence[str] | None]) -> list[str]:
    """What a plain module is attacked on, which has no test set of its own."""
    if plan.images is not None:
        from ..engine.photos import find_photos
        found, _ = find_photos(Path(plan.images))
        return [str(path.resolve()) for path in found][:plan.shown_photos]
    known = [one for one in files.values() if one is not None]
    if not known:
        raise InputError("plain modules have no test set: name a folder of images = 'photos'")
    others = [set(one) for one in known[1:]]
    images = [path for path in known[0] if all(path in one for one in others)]
    if not images:
        raise InputError('the models of configs have no image in common, which plain modules could '
                         "be attacked on: name a folder of images = 'photos'")
    return images[:plan.limit]


def _member(entry: Any) -> Mapping:
    return dict(model=entry) if isinstance(entry, str) else entry


def _attacked(plan: Plan, name: str, source: Mapping, ranks: 'Ranks') -> 'PairSet':
    from ..results import Run, pairs_of_run
    from ..results.run import is_finished
    from ..victims.base import sample_key
    folder = plan.folder / 'sources' / name
    runner = _runner(plan, source, source, folder)
    loop = runner.test_loop
    dataset = loop.dataloader.dataset
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    files = {sample_key(info): info['img_path'] for info in infos}
    if not (plan.args.resume and is_finished(folder, loop.run_info['identity'], files)):
        say(f'source {name}')
        runner.test()
    ranks.wait()
    return pairs_of_run(name, Run.load(folder), files)


def _set(cfg: 'Config', key: str, value: Any) -> None:
    """Put a whole entry in the place of what a config has."""
    if value is not None:
        cfg.pop(key, None)
        cfg[key] = copy.deepcopy(value)


def _check_budgets(plan: Plan, sources: Sequence['PairSet']) -> list[str]:
    """Refuse sources of different budgets; what has to be said of them otherwise."""
    notes = []
    budgets = {one.name: _budget(one.facts) for one in sources if one.facts.get('budget')}
    if len({*budgets.values()}) > 1:
        text = ', '.join(f'{name} {budget}' for name, budget in budgets.items())
        if not plan.allow_unequal:
            raise InputError(f'sources of different budgets cannot be compared ({text}): make them '
                             'equal, or set allow_unequal = True')
        notes.append(f'**Budgets are not equal**: {text}.')
    for one in sources:
        if one.facts.get('early_stop'):
            text = (f'source {one.name} stops at its first success (early_stop), which makes '
                    'fragile examples: set early_stop=False')
        elif one.facts.get('until_broken'):
            text = (f'source {one.name} stops at an image once it is broken within the budget, '
                    'which makes fragile examples')
        else:
            continue
        say(f'warning: {text}')
        notes.append(f'**{text[0].upper()}{text[1:]}.**')
    return notes


def _budget(facts: Mapping) -> str:
    """So many pixels, or groups of which kind."""
    return f"{facts['budget']}" + (f" x {facts['groups']}" if facts.get('groups') else '')


# Victims

def _files(plan: Plan, name: str) -> list[str] | None:
    """Resolved paths of the images that a model can be shown; None for any."""
    if 'module' in plan.models[name]:
        return None
    from ..engine.transfer import files_of
    from .attack import settle
    cfg, args = plan.config(name)
    args.work_dir = str(plan.folder)
    settle(cfg, args, '')
    return files_of(cfg)


def _common(plan: Plan, sources: Sequence['PairSet'],
            files: Mapping[str, Sequence[str] | None]) -> list[str]:
    """The images that all have, in the order of the first source."""
    sets: dict[str, set[str]] = {f'source {one.name}': set(one.pairs) for one in sources}
    sets |= {f'victim {name}': set(found) for name, found in files.items() if found is not None}
    images = [name for name in sources[0].pairs if all(name in one for one in sets.values())]
    if not images:
        held = '; '.join(f'{who}: {len(found)} ({min(found)}, ...)' for who, found in sets.items())
        raise InputError(f'sources and victims have no image in common: {held}')
    least = min(len(one) for one in sets.values())
    if len(images) < least:
        say(f'{len(images)} images that all sources and victims have; the smallest set has {least}')
    return images[:plan.limit]


def _victim(plan: Plan, name: str, sources: Sequence['PairSet'],
            images: Sequence[str]) -> list['Cell']:
    from ..engine.defend import defence_of_inputs
    from ..engine.plain import bare, device_of, weights_digest
    from ..engine.transfer import Job, PlainViewer, score, settled
    from ..results import describe, file_digest, model_of
    model = plan.models[name]
    job = Job(plan.folder, name, sources, images, {}, plan.seeds, plan.args.resume,
              _drawn(plan, images))
    if 'module' in model:
        say(f'victim {name}')
        module = _module(name, model['module'])
        identity = dict(module=model['module'], weights=weights_digest(bare(module)))
        defence = None
        if model.get('defence') is not None:
            defence = defence_of_inputs(model['defence'], f'models.{name}')
            identity['defence'] = describe(defence)
        viewer = PlainViewer(module, device_of(plan.args.device), defence)
        return score(viewer, job.of(identity))
    from .attack import build, settle, take_defence
    cfg, args = plan.config(name)
    args.work_dir = str(plan.folder / 'victims' / name)
    weights = settle(cfg, args, '')
    defence = take_defence(cfg, cfg.get('victim'))
    identity = dict(model=model_of(cfg), dataset=cfg.test_dataloader.dataset.to_dict(),
                    weights=file_digest(weights) if weights else 'random weights')
    if defence is not None:
        identity['defence'] = describe(defence)
    job = job.of(identity)
    known = settled(job)
    cells = [cell for cell in known if cell is not None]
    if len(cells) == len(known):
        return cells
    say(f'victim {name}')
    for key in ('attack', 'goal', 'threat', 'victim', 'pictures', 'seed', 'where'):
        cfg.pop(key, None)
    shown = None if defence is None or defence.space == 'original' else defence
    cfg.test_cfg = dict(type='TransferLoop', job=job, defence=shown)
    runner = build(cfg, args, weights, '')
    runner.test()
    return runner.test_loop.cells


def _drawn(plan: Plan, images: Sequence[str]) -> str:
    """The image of the gallery."""
    if plan.gallery is None:
        return images[0]
    found = [one for one in images if Path(one).name == plan.gallery]
    if not found:
        raise InputError(f'gallery = {shown(plan.gallery)}, expected the name of an image such as '
                         f'{shown(Path(images[0]).name)}')
    return found[0]


def _module(name: str, path: str):
    """A torch module or a TorchDetector by its import path, or what a function there returns."""
    from torch import nn

    from ..victims import TorchDetector
    here = str(Path.cwd())
    if here not in sys.path:  # where a script of the user's would find it
        sys.path.append(here)
    try:
        found = resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f'models.{name}: no module {path}: {error}') from error
    kinds = nn.Module | TorchDetector
    module = found if isinstance(found, kinds) else found()
    if not isinstance(module, kinds):
        raise InputError(f'models.{name}: {path} gives a {type(module).__name__}, expected a '
                         'torch.nn.Module')
    return module


# Output

def _write(plan: Plan, cells: Sequence['Cell'], sources: Sequence['PairSet'],
           images: Sequence[str], notes: Sequence[str]) -> None:
    from rich.table import Table

    from ..evaluation.gallery import join_seen
    from ..evaluation.transfer_report import CHANGE, draw_heat_maps, lines_of, write_csv, write_page
    lines = lines_of(cells)
    names = [one.name for one in sources]
    write_csv(lines, plan.folder / 'transfer.csv')
    backbones = {name: _backbone(plan, name) for name in plan.models}
    same = {(name, victim): mark for name in names for victim in plan.victims
            if (mark := _mark(plan, backbones, name, victim))}
    text = [*notes, *_notes(plan, cells, sources, images)]
    write_page(lines, plan.folder / 'transfer.md', text, names, plan.victims, same)
    draw_heat_maps(lines, plan.folder, names, plan.victims)
    join_seen(plan.folder, names, plan.victims)
    table = Table('source', 'victim', 'change', 'best control', 'more than it')
    for cell in cells:
        found = {one.kind: one for one in lines if one.measure == CHANGE
                 and (one.source, one.victim) == (cell.source, cell.victim)}
        if not found:
            screen.add_row(table, cell.source, cell.victim, 'refused', '', '')
            continue
        best = max((one for kind, one in found.items() if kind != 'attack'),
                   key=lambda one: one.value)
        lead = next(one for one in lines if one.measure == f'{CHANGE}_excess'
                    and (one.source, one.victim) == (cell.source, cell.victim))
        attack = found['attack']
        screen.add_row(table, cell.source, cell.victim + same.get((cell.source, cell.victim), ''),
                       f'{attack.value:.3f} [{attack.low:.3f}, {attack.high:.3f}]',
                       f'{best.value:.3f} {best.kind}',
                       f'{lead.value:.3f} [{lead.low:.3f}, {lead.high:.3f}]')
    screen.show(table)
    for cell in cells:
        if cell.refused:
            say(f'refused: {cell.source} -> {cell.victim}: {cell.refused}')
    screen.show(f'results in {plan.folder}')


def _notes(plan: Plan, cells: Sequence['Cell'], sources: Sequence['PairSet'],
           images: Sequence[str]) -> list[str]:
    """What has to be said beside the numbers."""
    notes = [f'{len(images)} images, {plan.seeds} draws of each control; a control changes exactly '
             'as many pixels of each image as the attack.']
    for one in sources:
        facts = ', '.join(f'{key} {value:.4g}' if isinstance(value, float) else f'{key} {value}'
                          for key, value in one.facts.items() if value is not None)
        notes.append(f'source {one.name}: {facts}')
    notes += [f'cell {cell.source} -> {cell.victim} is refused: {cell.refused}'
              for cell in cells if cell.refused]
    notes += [f'{cell.victim} fails on {len(cell.failed)} images of {cell.source}, which count '
              f'nowhere: {", ".join(cell.failed)}' for cell in cells if cell.failed]
    notes.append('(d): the victim is the source, or a member of it: white box, no transfer. '
                 '(b): they share the architecture of the backbone.')
    return notes


def _mark(plan: Plan, backbones: Mapping[str, str | None], source: str, victim: str) -> str:
    entry = plan.sources[source]
    members = ([entry['model']] if 'model' in entry else
               [_member(one)['model'] for one in entry.get('members', [])])
    if victim in members:
        return ' (d)'
    own = backbones[victim]
    return ' (b)' if own and own in [backbones[one] for one in members] else ''


def _backbone(plan: Plan, name: str) -> str | None:
    """Type and size of a model's backbone."""
    if 'config' not in plan.models[name]:
        return None
    cfg, _ = plan.config(name)
    backbone = cfg.model.get('backbone') or {}
    family = str(backbone.get('type', '')).rpartition('.')[2].partition('V1')[0]
    size = [str(backbone[key]) for key in ('depth', 'arch', 'embed_dims', 'deepen_factor',
                                           'widen_factor') if key in backbone]
    return ' '.join([family, *size]) if family else None
