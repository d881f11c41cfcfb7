"""Adversarial training beside what training runs use: EMA, mixed precision, accumulation, several processes, the recipe."""
import copy
import functools
import os
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain', reason='the hook is tested in runs of mmpretrain and mmdet', exc_type=ImportError)

from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmpretrain.registry import MODELS
from PIL import Image

from sparse_dense_attacks import ATTACKS, SigmaZero, SparsePGD, SparseRS, StructuredSparsePGD
from sparse_dense_attacks.cli.train import prepare_training
from sparse_dense_attacks.engine.attacker import Attacker
from sparse_dense_attacks.objectives.divergence import DIVERGENCES
from sparse_dense_attacks.types import Boxes
from tests import forks
from tests.engine import test_training
from tests.engine.test_training import ROOT, changed, equal, state

pytestmark = pytest.mark.openmmlab

# Nothing that depends on how images are divided into batches: no statistics of a batch, no draws of the pipeline, no Adam.
PLAIN = {'train_dataloader.sampler.shuffle': False, 'optim_wrapper.clip_grad': None,
         'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=1e-2)}
CLASSIFIER = {**PLAIN, 'model.backbone.norm_eval': True, 'train_dataloader.dataset.pipeline.1.prob': 0.0}
DETECTOR = {**PLAIN, 'train_dataloader.dataset.pipeline.2.prob': 0.0}


def train(work_dir, name='resnet18', change=None, **options):
    """A run within one epoch: mmengine sleeps for two seconds before the next."""
    return test_training.train(work_dir, name, change={'train_dataloader.dataset.indices': 32} | (change or {}), **options)


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def weights(model) -> dict:
    return {name.removeprefix('module.'): parameter.detach().clone() for name, parameter in model.named_parameters()}


def start(name='resnet18') -> dict:
    return torch.load(ROOT / f'sparse_dense_attacks/demo/weights/{name}.pth', weights_only=False)['state_dict']


# State of the run

def test_averaged_weights_follow_the_model_and_the_attack_leaves_them_alone(tmp_path, monkeypatch):
    ema, shares = EMAHook(momentum=0.1, update_buffers=True), []

    class Check(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            now, model = averages(), runner.model.state_dict()
            if batch_idx:
                for name, value in model.items():
                    if value.is_floating_point():
                        assert torch.allclose(now[name], self.last[name].lerp(value, 0.1), atol=1e-7), name
                shares.append(max((now[name] - self.last[name]).abs().max().item() for name in now))
            self.last = now

    def averages() -> dict:
        return {name: value.clone() for name, value in ema.ema_model.module.state_dict().items()}

    monkeypatch.setattr(test_training, 'state', lambda *args: state(*args) | dict(
        averages=averages(), steps=int(ema.ema_model.steps), watched=[m.training for m in ema.ema_model.modules()]))
    runner, spy = train(tmp_path / 'run', iterations=3, hooks=[ema, Check()], attack=SparsePGD(k=5, steps=2, early_stop=False))
    assert min(map(max, map(changed, spy.clean, spy.trained))) > 0, 'the attack did something'
    assert len(shares) == 2 and min(shares) > 0, 'and the averages went on'
    assert int(ema.ema_model.steps) == 3


@pytest.fixture
def half_precision(monkeypatch):
    """mmengine's mixed precision as it is, with torch's own gradient scaler and bfloat16 of the processor.

    AmpOptimWrapper asks for a GPU in one assertion only, and its ``GradScaler`` is torch's bound to a device.
    """
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', functools.partial(torch.amp.GradScaler, device='cpu'))


@pytest.mark.skipif(torch.__version__ < '2.3', reason='that torch has no GradScaler for processors')
@pytest.mark.parametrize(('name', 'loss'), [('resnet18', 'sAT'), ('resnet18', 'sTRADES'), ('yolox', 'sTRADES')])
def test_mixed_precision(name, loss, tmp_path, half_precision):
    """Scale and growth tracker are part of the optimiser's state, which the spies compare before and after the attack."""
    kinds = set()

    class Precision(Hook):
        priority = 'VERY_HIGH'

        def before_train(self, runner):
            layer = next(m for m in runner.model.modules() if isinstance(m, torch.nn.Conv2d))
            layer.register_forward_hook(lambda module, args, out: kinds.add((module.weight.requires_grad, out.dtype)))

    amp = dict(optim_wrapper=dict(type='AmpOptimWrapper', loss_scale=dict(init_scale=1024., growth_interval=2)))
    runner, spy = train(tmp_path / 'run', name, iterations=3, loss=loss, hooks=[Precision()], change=amp,
                        attack=SparsePGD(k=30, steps=2, early_stop=False))
    assert (True, torch.bfloat16) in kinds, 'training in half precision'
    assert (False, torch.bfloat16) not in kinds, 'the attack in full'
    assert all(np.isfinite(value) for losses in spy.losses for value in losses.values())
    scaler = runner.optim_wrapper.loss_scaler.state_dict()
    assert (scaler['scale'], scaler['_growth_tracker']) == (2048, 1), 'three steps, none of them skipped'
    before = start(name)
    assert any((value != before[key]).any() for key, value in weights(runner.model).items())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float32])
def test_divergence_of_sure_detections_in_low_precision(dtype):
    """Scores that round to 1, as autocast's sigmoid gives them, against ones that are lost; the gradient reaches both."""
    boxes = torch.tensor([[[0., 0., 4., 4.]]])
    truth = Boxes(boxes, torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1))
    logits = dict(clean=torch.full((1, 1), 9., requires_grad=True), attacked=torch.full((1, 1), -3., requires_grad=True))
    found = (Boxes(boxes, truth.labels, logits[name].to(dtype).sigmoid()) for name in ('clean', 'attacked'))
    scene = SimpleNamespace(images=boxes, truth=truth, candidates=lambda x, rows: next(found))
    divergence = DIVERGENCES['detection'](scene, boxes)
    divergence.backward()
    assert divergence.item() == pytest.approx(3.05, abs=0.02)
    assert logits['attacked'].grad.item() == pytest.approx(-0.95, abs=0.02) and logits['clean'].grad.isfinite().all()


def test_accumulated_gradients_are_those_of_one_large_batch(tmp_path):
    """The spies compare pending gradients before and after the attack; sigma-zero, because it draws nothing per iteration."""
    pending, attack = [], SigmaZero(steps=5)

    class Pending(Hook):
        priority = 'LOWEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            pending.append(any(p.grad is not None and p.grad.any() for p in runner.model.parameters()))

    found = []
    for count, size in ((2, 4), (1, 8)):
        change = {**CLASSIFIER, 'optim_wrapper.accumulative_counts': count, 'train_dataloader.batch_size': size}
        runner, spy = train(tmp_path / str(count), iterations=2 * count, change=change, attack=attack, hooks=[Pending()],
                            loss='sTRADES')
        found.append(weights(runner.model))
        assert 'loss' not in vars(runner.model), 'the divergence is taken off again'
    assert pending == [False, True, False, True, False, False]
    before = start()
    for name, value in found[0].items():
        moved = found[1][name] - before[name]
        assert torch.allclose(value - before[name], moved, rtol=1e-2, atol=1e-3 * moved.abs().max().item() + 1e-9), name
    assert max((found[0][name] - before[name]).abs().max() for name in before.keys() & found[0].keys()) > 1e-5


# Budgets

def test_budget_as_a_share(tmp_path):
    _, spy = train(tmp_path / 'run', 'semantic_fpn', attack=SparsePGD(k=0.01, steps=3, early_stop=False))
    for clean, trained in zip(spy.clean[0], spy.trained[0], strict=True):
        assert 0 < (clean != trained).any(0).sum() <= 0.01 * clean[0].numel()


def test_groups(tmp_path):
    for name, kernel in (('rows', 'row'), ('patches', dict(type='Patch', height=4, width=4))):
        attack = StructuredSparsePGD(k=1, steps=3, kernel=kernel, early_stop=False)
        _, spy = train(tmp_path / name, attack=attack)
        for clean, trained in zip(spy.clean[0], spy.trained[0], strict=True):
            ys, xs = (clean != trained).any(0).nonzero(as_tuple=True)
            assert len(ys) > 5
            high, wide = (int(side.max() - side.min()) + 1 for side in (ys, xs))
            assert (high == 1 and wide > 4) if name == 'rows' else max(high, wide) <= 4


def test_attacks_of_different_kinds_are_drawn_per_batch(tmp_path):
    attacks = [dict(type='SparsePGD', k=60, steps=2, early_stop=False),
               dict(type='StructuredSparsePGD', k=1, steps=2, kernel='row', early_stop=False), SparseRS(k=2, steps=4)]
    _, spy = train(tmp_path / 'run', iterations=8, attack=attacks)
    kinds = []
    for clean, trained in zip(spy.clean, spy.trained, strict=True):
        places = [(a != b).any(0) for a, b in zip(clean, trained, strict=True)]
        pixels, rows = ([int(p.sum()) for p in places], [int(p.any(1).sum()) for p in places])
        assert max(pixels) <= 64
        kinds.append('RS' if max(pixels) <= 2 else 'row' if set(rows) == {1} else 'pixels')
    assert set(kinds) == {'RS', 'row', 'pixels'}


# Several processes

CASES = dict(
    sAT=('resnet18', CLASSIFIER, dict(loss='sAT', iterations=3)),
    sTRADES=('resnet18', CLASSIFIER, dict(loss='sTRADES', iterations=3)),
    yolox=('yolox', DETECTOR, dict(loss='sAT', iterations=2, goal=dict(type='DetectorLoss'))),
)


class Meter(Hook):
    """Counts the forwards of the attacks of every batch."""
    priority = 'LOWEST'

    def before_train(self, runner):
        self.forwards, self.perturb = [], Attacker.perturb
        Attacker.perturb = lambda attacker, batch: self.read(self.perturb(attacker, batch))

    def after_train(self, runner):
        Attacker.perturb = self.perturb

    def read(self, perturbed):
        self.forwards.append(perturbed.result.forwards.tolist())
        return perturbed


def run_cases(folder: Path, cases, rank: int = 0, ranks: int = 1) -> None:
    """Train in one of the processes and leave what it saw in ``folder``."""
    change: dict = {'train_dataloader.batch_size': 4 // ranks}
    if ranks > 1:
        torch.set_num_threads(1)
        torch.distributed.init_process_group('gloo')  # mmengine would choose a GPU first
        change |= dict(launcher='pytorch', model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None))
    for case in cases:
        name, plain, options = CASES[case]
        meter, steps = Meter(), 4 + rank * (case == 'yolox')  # the attacks of classifiers end at different times by themselves
        runner, spy = train(folder / f'{case}_{ranks}', name, change=copy.deepcopy(plain | change), hooks=[meter],
                            attack=SparsePGD(k=200, steps=steps), **options)
        torch.save(dict(losses=spy.losses, forwards=meter.forwards, weights=weights(runner.model),
                        keys=[sample.img_path for batch in spy.batches for sample in batch['data_samples']]),
                   folder / f'{case}_{rank}_of_{ranks}.pt')


@pytest.fixture(scope='module')
def finished(tmp_path_factory) -> Path:
    """Folder with what one process saw, and each of two."""
    folder = tmp_path_factory.mktemp('ranks')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    jobs = []
    for rank in '01':
        env = os.environ | dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port),
                                OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / 'tests')]))
        jobs.append(forks.start([__file__, folder, rank], folder / f'{rank}.log', environment=env))
    try:
        run_cases(folder, ('sAT', 'sTRADES'))
        until = time.monotonic() + 180
        for rank, job in enumerate(jobs):
            job.join(until - time.monotonic())
            assert job.exitcode is not None, 'dead-lock: after three minutes the processes still wait for each other'
            assert job.exitcode == 0, (folder / f'{rank}.log').read_text()[-2000:]
    finally:
        for job in jobs:
            job.kill()
            job.join()
    return folder


def outcome(folder: Path, case: str, ranks: int) -> list[dict]:
    return [torch.load(folder / f'{case}_{rank}_of_{ranks}.pt', weights_only=False) for rank in range(ranks)]


@pytest.mark.parametrize('case', CASES)
def test_processes_that_attack_for_different_times_stay_in_step(case, finished):
    first, second = outcome(finished, case, 2)
    assert len(first['losses']) == len(second['losses']) == CASES[case][2]['iterations']
    assert not set(first['keys']) & set(second['keys']), 'other images in each process'
    assert list(map(max, first['forwards'])) != list(map(max, second['forwards'])), 'one attack was finished earlier'
    assert equal(first['weights'], second['weights'])
    before = start(CASES[case][0])
    assert any((value != before[key]).any() for key, value in first['weights'].items())


@pytest.mark.parametrize('case', ['sAT', 'sTRADES'])
def test_two_processes_train_as_one_does(case, finished):
    (alone,), ranks = outcome(finished, case, 1), outcome(finished, case, 2)
    assert set(alone['keys']) == set(ranks[0]['keys'] + ranks[1]['keys'])
    for step, tolerance in ((0, 1e-5), (1, 1e-2)):
        for name, value in alone['losses'][step].items():
            mean = sum(rank['losses'][step][name] for rank in ranks) / 2
            assert mean == pytest.approx(value, rel=tolerance), (step, name)
            assert ranks[0]['losses'][step][name] != ranks[1]['losses'][step][name]


# The published recipe

RECIPES = [ROOT / f'configs/training/preactresnet18_cifar10_{loss}.py' for loss in ('strades', 'sat')]


@pytest.mark.parametrize('recipe', RECIPES, ids=lambda path: path.stem)
def test_settings_are_the_published_ones(recipe):
    cfg = Config.fromfile(recipe)
    assert cfg.optim_wrapper == dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4))
    assert cfg.train_dataloader.batch_size == 128 and cfg.train_cfg.max_epochs == 100
    schedule = cfg.param_scheduler
    assert (schedule.type, schedule.gamma, schedule.by_epoch) == ('MultiStepLR', 0.1, True)
    assert [milestone / cfg.train_cfg.max_epochs for milestone in schedule.milestones] == [1 / 4, 3 / 4]
    (hook,) = [hook for hook in cfg.custom_hooks if hook.type == 'AdversarialTrainingHook']
    assert hook.loss == ('sTRADES' if 'strades' in recipe.stem else 'sAT') and hook.goal == dict(type='Untargeted')
    assert hook.get('weight', 3.0) == 3.0 and hook.get('ratio', 1.0) == 1.0 and hook.get('warmup', 0) == 0
    assert [ATTACKS.build(attack) for attack in hook.attack] == [
        SparsePGD(k=120, steps=20, patience=10, alpha=0.25, beta=0.25, eps_inf=1.0, early_stop=True, gradient=gradient)
        for gradient in ('projected', 'unprojected')]
    assert cfg.val_cfg.attack.k * 6 == 120 and cfg.default_hooks.checkpoint.save_best == 'adv/accuracy/top1'
    assert cfg.model.data_preprocessor.mean == [0.0] * 3 and cfg.model.data_preprocessor.std == [255.0] * 3
    assert [t.type for t in cfg.train_dataloader.dataset.pipeline] == ['RandomCrop', 'RandomFlip', 'PackInputs']
    assert [t.type for t in cfg.test_dataloader.dataset.pipeline] == ['PackInputs']
    crop, flip, _ = cfg.train_dataloader.dataset.pipeline
    assert (crop.crop_size, crop.padding, flip.prob, flip.direction) == (32, 4, 0.5, 'horizontal')


def test_preactresnet18():
    """The layers of the CIFAR ResNet-18, with a normalisation before each of 16 convolutions and at the end."""
    model = MODELS.build(Config.fromfile(RECIPES[0]).model).eval()
    stages = [(64, 64), (64, 128), (128, 256), (256, 512)]
    convolutions = 27 * 64 + sum(9 * (a * b + 3 * b * b) + (a * b if a != b else 0) for a, b in stages)
    norms = 2 * sum(a + 3 * b for a, b in stages) + 2 * 512
    assert sum(p.numel() for p in model.parameters()) == convolutions + norms + 5130 == 11_172_170
    images = torch.rand(2, 3, 32, 32)
    (features,) = model.backbone(images)
    assert features.shape == (2, 512, 4, 4) and (features > 0).all(), 'the last activation is softplus, too'
    assert model(images, mode='tensor').shape == (2, 10)
    activations = [m for m in model.modules() if type(m).__module__ == 'torch.nn.modules.activation']
    assert activations and all(type(m) is torch.nn.Softplus and m.beta == 1 for m in activations)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Two random images for each of ten classes."""
    rng = np.random.default_rng(0)
    for label in range(10):
        (tmp_path / f'pictures/{label}').mkdir(parents=True)
        for number in range(2):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / f'pictures/{label}/{number}.png')
    return tmp_path / 'pictures'


@pytest.mark.parametrize('recipe', RECIPES, ids=lambda path: path.stem)
def test_the_recipe_trains_and_validates(recipe, pictures, tmp_path):
    """On few images and with a slim backbone; everything else is the recipe's own."""
    cfg = Config.fromfile(recipe)
    cfg.model.backbone.base_channels, cfg.model.head.in_channels = 8, 64
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.update(batch_size=8, num_workers=0, persistent_workers=False)
        loader.dataset = dict(type='CustomDataset', data_root=str(pictures), test_mode=name != 'train',
                              indices=None if name == 'train' else 8,
                              pipeline=[dict(type='LoadImageFromFile'), *loader.dataset.pipeline])
    cfg.dump(child := tmp_path / 'child.py')
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'val_cfg.attack.steps=2']
    for attack in ('custom_hooks.0.attack.0', 'custom_hooks.0.attack.1'):  # the untrained model is wrong on most images
        options += [f'{attack}.steps=2', f'{attack}.early_stop=False']
    runner = prepare_training([str(child), '--work-dir', str(tmp_path / 'run'), '--device', 'cpu', '--cfg-options', *options])
    before = weights(runner.model)
    runner.train()
    assert runner.iter == 3 and any((value != before[name]).any() for name, value in weights(runner.model).items())
    shown = runner.message_hub.log_scalars
    assert {f'val/{kind}/accuracy/top1' for kind in ('clean', 'adv')} <= set(shown)
    divergences = shown['train/loss_divergence'].data[0] if 'strades' in recipe.stem else []
    assert ('train/loss_divergence' in shown) == ('strades' in recipe.stem)
    assert len(divergences) in (0, 3) and all(value > 0 for value in divergences)
    assert list((tmp_path / 'run').glob('best_adv_accuracy_top1_epoch_*.pth'))


if __name__ == '__main__':
    run_cases(Path(sys.argv[1]), CASES, int(sys.argv[2]), ranks=2)
