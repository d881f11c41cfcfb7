"""sda train: validation clean and under attack, the best checkpoint, resuming, curves, and what is said about bad input."""
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmpretrain', reason='the tool is tested with the demo classifier', exc_type=ImportError)

from matplotlib.axes import Axes
from PIL import Image

from sparse_dense_attacks import InputError
from sparse_dense_attacks.cli.attack import prepare
from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.cli.train import prepare_training, train_from_command_line
from sparse_dense_attacks.evaluation import draw_validations
from tests.ranks import start

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
# mmengine cannot save the best checkpoint in a run without training
NO_BEST = ['default_hooks.checkpoint.save_best=None']
CONFIG = 'configs/training/resnet18_demo_strades.py'


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def short(work_dir, *flags, config=CONFIG, epochs=1, options=()) -> list[str]:
    """Arguments for epochs of two iterations on the validation scenes, which other tests have drawn already."""
    loaders = [f'{name}.{option}' for name in ('train_dataloader', 'val_dataloader')
               for option in ('num_workers=0', 'persistent_workers=False', 'batch_size=4', 'dataset.indices=8')]
    scenes = [f'train_dataloader.dataset.{option}' for option in ('split=val', 'count=64', 'seed=1')]
    lengths = [f'train_cfg.max_epochs={epochs}', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1',
               'custom_hooks.0.attack.0.steps=1', 'custom_hooks.0.attack.1.steps=1', 'val_cfg.attack.steps=3']
    return [config, '--work-dir', str(work_dir), *flags, '--cfg-options', *loaders, *scenes, *lengths, *options]


def test_a_run_validates_keeps_the_best_and_goes_on(tmp_path):
    train_from_command_line(short(tmp_path))
    # torch before 2.6 cannot be told that the history in mmengine's checkpoints is harmless
    trust = ['--trust-weights'] if torch.__version__ < '2.6' else []
    train_from_command_line(short(tmp_path, '--resume', *trust, epochs=3))
    history = json.loads((tmp_path / 'validations.json').read_text())
    assert [(one['epoch'], one['iter']) for one in history] == [(1, 2), (2, 4), (3, 6)]
    robust = [one['adv/accuracy/top1'] for one in history]
    best, = tmp_path.glob('best_adv_accuracy_top1_epoch_*.pth')
    assert best.stem.endswith(str(robust.index(max(robust)) + 1))
    assert [path.name for path in tmp_path.glob('epoch_*.pth')] == ['epoch_3.pth']
    with Image.open(tmp_path / 'curves.png') as picture:
        assert picture.width > 200
    scalars = next(path for path in tmp_path.rglob('scalars.json') if 'clean/accuracy/top1' in path.read_text())
    assert 'adv/accuracy/top1' in scalars.read_text()


def test_two_processes_share_the_batches(tmp_path):
    words = ['-m', 'sparse_dense_attacks.cli', 'train', *short(tmp_path / 'run', '--device', 'cpu')]
    said = start([words] * 2, tmp_path)
    assert [status for status, _ in said] == [0, 0], said
    history = json.loads((tmp_path / 'run/validations.json').read_text())
    assert [(one['epoch'], one['iter']) for one in history] == [(1, 1)], 'each has half of the batches'
    assert not any('Traceback' in printed for _, printed in said)


@pytest.mark.parametrize('path', [path for path in sorted((ROOT / 'configs/training').glob('*_demo_s*.py'))
                                  if path.stem != 'resnet18_demo_strades'], ids=lambda path: path.stem)
def test_demo_configs(path, tmp_path):
    """The header has the command; an iteration from the plain weights, validated on four images."""
    name = f'configs/training/{path.name}'
    assert path.read_text().splitlines()[2] == f'#     sda train {name}'
    options = [f'{loader}.dataset.indices=4' for loader in ('train_dataloader', 'val_dataloader')] + ['val_cfg.attack.k=0.05']
    train_from_command_line(short(tmp_path, config=name, options=options))
    scores = json.loads((tmp_path / 'validations.json').read_text())[0]
    assert scores['iter'] == 1
    metric = next(name for name in ('coco/bbox_mAP_50', 'mIoU', 'accuracy/top1') if f'adv/{name}' in scores)
    assert scores[f'adv/{metric}'] < scores[f'clean/{metric}']
    assert len(list(tmp_path.glob('best_adv_*_epoch_1.pth'))) == 1


@pytest.mark.parametrize(('config', 'test_config', 'metric'), [
    (CONFIG, 'configs/spgd_resnet18.py', 'accuracy/top1'),
    ('configs/training/faster_rcnn_demo_sat.py', 'configs/spgd_faster_rcnn.py', 'coco/bbox_mAP')])
def test_validation_finds_what_the_attack_tool_finds(config, test_config, metric, tmp_path):
    runner = prepare_training(short(tmp_path / 'val', config=config, options=NO_BEST))
    found = runner.val()
    k, early_stop = runner.cfg.val_cfg.attack.k, runner.cfg.val_cfg.attack.get('early_stop', True)
    expected = prepare([test_config, '--work-dir', str(tmp_path / 'test'), '--limit', '8', '--cfg-options', f'attack.k={k}',
                        'attack.steps=3', f'attack.early_stop={early_stop}', 'test_dataloader.batch_size=4', 'pictures=0']).test()
    for name in (f'clean/{metric}', f'adv/{metric}'):
        assert found[name] == expected[name], name
    assert found[f'adv/{metric}'] < found[f'clean/{metric}']


def test_validation_leaves_the_model_as_it_was(tmp_path):
    runner = prepare_training(short(tmp_path, options=NO_BEST))
    runner.load_or_resume()
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.val()
    assert all(torch.equal(value, before[name]) for name, value in runner.model.state_dict().items())
    assert all(parameter.requires_grad for parameter in runner.model.parameters())


@pytest.mark.parametrize(('argv', 'message'), [
    (['no_such.py'], 'no config file no_such.py'),
    (['configs/spgd_resnet18.py'], "has no 'train_dataloader': is it a training config?"),
    ([CONFIG, '--checkpoint', 'no_such.pth'], 'no checkpoint file no_such.pth'),
    ([CONFIG, '--cfg-options', 'val_cfg.goal.type=Vanish'], 'Vanish is a goal of detection, but the model does classification'),
    pytest.param([CONFIG, '--amp'], 'mixed precision needs a GPU',
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')),
    ([CONFIG, '--cfg-options', 'model.type=Classifer'], 'cannot build the run'),
    ([CONFIG, '--cfg-options', 'train_dataloader.dataset.pipeline.0.type=LoadImage'], f'of {CONFIG}: KeyError'),
    ([CONFIG, '--cfg-options', 'val_dataloader.dataset.pipeline.0.type=LoadImage'], f'of {CONFIG}: KeyError')])
def test_bad_input_is_one_line_and_status_2(argv, message, tmp_path, capfd):
    assert main(train_from_command_line, [argv[0], '--work-dir', str(tmp_path), *argv[1:]]) == 2
    assert message in capfd.readouterr().err


def test_options_of_an_attack_mean_nothing_to_a_training(tmp_path):
    with pytest.raises(InputError, match="nothing reads a top-level 'where'"):
        prepare_training([CONFIG, '--work-dir', str(tmp_path), '--cfg-options', 'where=inside'])


def test_a_defence_is_refused_and_not_passed_over(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f"_base_ = {str(ROOT / 'configs/training/resnet18_demo.py')!r}\ndefence = dict(type='JPEG')\n")
    with pytest.raises(InputError, match="'defence' means nothing to a training"):
        prepare_training([str(path), '--work-dir', str(tmp_path / 'run')])


def test_nothing_to_resume(tmp_path):
    with pytest.raises(InputError, match='nothing to resume'):
        prepare_training([CONFIG, '--work-dir', str(tmp_path), '--resume'])


def test_an_interrupted_training_says_how_to_go_on(capfd):
    def interrupted(argv):
        raise KeyboardInterrupt

    assert main(interrupted, [], 'the last checkpoint is safe') == 130
    assert 'stopped; the last checkpoint is safe: add --resume to go on' in capfd.readouterr().err


def test_curves_of_metrics_without_a_value_are_left_out(tmp_path):
    scores = {'clean/a': 1.0, 'adv/a': 0.5, 'clean/small': -1.0, 'adv/small': -1.0}
    for name, history in (('two', [dict(iter=i, **scores) for i in (1, 2)]), ('none', [dict(iter=1)])):
        draw_validations(history, tmp_path / f'{name}.png')
    with Image.open(tmp_path / 'two.png') as two:
        assert two.width < 600


def test_curves_of_metrics_that_not_every_validation_has(tmp_path, monkeypatch):
    drawn, plot = [], Axes.plot
    monkeypatch.setattr(Axes, 'plot', lambda *args, **options: drawn.append(args[1:]) or plot(*args, **options))
    draw_validations([{'iter': 1, 'clean/old': 3., 'adv/old': 2., 'clean/a': 1., 'adv/a': 0.5},
                      {'iter': 2, 'clean/a': 0.9, 'adv/a': 0.6, 'clean/new': 0.1, 'adv/new': 0.}], tmp_path / 'curves.png')
    assert drawn == [((1,), (3.,)), ((1,), (2.,)), ((1, 2), (1., 0.9)), ((1, 2), (0.5, 0.6)), ((2,), (0.1,)), ((2,), (0.,))]
