"""The configs of the real zoos: headers, weights and data, and a step of each on a small random model, without the data set."""
import dataclasses
import importlib
import importlib.util
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmengine', reason='configs are read by mmengine: make setup')

from mmengine.registry import MODELS, DefaultScope

from sparse_dense_attacks import ATTACKS
from sparse_dense_attacks.cli.configs import load_config
from sparse_dense_attacks.cli.weights import find_weights
from sparse_dense_attacks.engine.attacker import Attacker

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = dict(coco='mmdet', cityscapes='mmseg', ade20k='mmseg', camvid='mmseg', imagenet='mmpretrain')
CONFIGS = [path.relative_to(ROOT) for folder in LIBRARIES for path in sorted((ROOT / 'configs' / folder).glob('*.py'))]
SHORT = dict(steps=1, iters=1, search_steps=1, dense_steps=1)  # of each attack those that it has


@pytest.fixture(scope='module')
def zoo_check():
    spec = importlib.util.spec_from_file_location('zoo_check', ROOT / 'sparse_dense_attacks/cli/zoo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(path):
    pytest.importorskip(LIBRARIES[path.parts[1]], exc_type=ImportError)
    return load_config(str(ROOT / path))


def test_every_zoo_has_its_models():
    names = ' '.join(path.stem for path in CONFIGS)
    for model in ('faster-rcnn', 'retinanet', 'yolox', 'rtmdet', 'dino', 'mask-rcnn', 'pspnet', 'deeplabv3plus', 'segformer',
                  'resnet', 'vit', 'swin'):
        assert f'_{model}' in names


@pytest.mark.parametrize('path', CONFIGS, ids=str)
def test_header_has_the_command_that_runs_this_very_file(path):
    header = re.match(r'(#.*\n)+', (ROOT / path).read_text()).group().splitlines()
    command = next(line for line in header if 'sda attack' in line)
    assert re.fullmatch(rf'#     sda attack {re.escape(path.as_posix())}( --limit \d+)?', command)


@pytest.mark.parametrize('path', CONFIGS, ids=str)
def test_weights_and_data_are_those_of_the_model(path):
    """Weights of the zoo are found by the name of the config; goals need annotations, and the header says where they lie."""
    cfg, library = load(path), LIBRARIES[path.parts[1]]
    dataset = cfg.test_dataloader.dataset
    assert cfg.test_evaluator and ('LoadAnnotations' in str(dataset.pipeline) or library == 'mmpretrain')
    if '::' not in cfg.load_from:
        assert Path(cfg.load_from).parent.name == 'checkpoints'
        return
    package, name = cfg.load_from.split('::')
    assert package == library and find_weights(cfg.load_from).startswith('https://')
    assert f'{name}.py' in (ROOT / path).read_text() and dataset.data_root.rstrip('/') in (ROOT / path).read_text()


@pytest.mark.slow
@pytest.mark.parametrize('path', CONFIGS, ids=str)
def test_a_step_on_a_small_random_model(path, zoo_check):
    """Model, victim, goal and attack fit each other; the truth is the model's own prediction, for want of data."""
    cfg, library = load(path), LIBRARIES[path.parts[1]]
    importlib.import_module(f'{library}.models'), importlib.import_module(f'{library}.datasets')
    datasets = importlib.import_module(f'{library}.registry').DATASETS
    zoo_check.make_small(cfg.model, library, zoo_check.SIZE)
    if library == 'mmpretrain':
        cfg.model.data_preprocessor = cfg.data_preprocessor
    with DefaultScope.overwrite_default_scope(library):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model).eval()
        dataset = cfg.test_dataloader.dataset
        names = dataset.get('metainfo') or datasets.get(dataset.type).METAINFO
        make_batch, _ = zoo_check.TASKS[library]
        batch = make_batch(model, cfg, zoo_check.SIZE)
    attack = ATTACKS.build(cfg.attack.to_dict())
    attack = dataclasses.replace(attack, **{name: value for name, value in SHORT.items() if hasattr(attack, name)})
    options = dict(cfg.get('victim', {}), reference='prediction', classes=names.get('classes'))
    if library == 'mmpretrain':
        options.pop('classes')
    threat = dict(cfg.to_dict().get('threat', {}), grid='input')  # the small image comes from no file
    found = Attacker.of_model(model, attack, cfg.goal.to_dict(), threat, **options).perturb(batch)
    assert found.batch['inputs'][0].shape == batch['inputs'][0].shape and not found.result.failed.any()
    assert found.result.forwards.item() >= 1
