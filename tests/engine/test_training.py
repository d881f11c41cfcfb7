"""Adversarial training with the demo models: what the model is trained on, what the loss is, and what is left as it was."""
import copy
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmpretrain', reason='the hook is tested in runs of mmpretrain, mmseg and mmdet', exc_type=ImportError)

import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from sparse_dense_attacks import PGD0, InputError, SparsePGD
from sparse_dense_attacks.engine.hooks.adversarial_training_hook import AdversarialTrainingHook, as_test_batch, grown

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
GOALS = dict(resnet18='Untargeted', semantic_fpn='UntargetedPixels', yolox='Vanish')
K = 5


class Spy(Hook):
    """Keeps what went into the training step and came out, and the state of everything before and after the attack."""
    priority = 'HIGHEST'

    def __init__(self):
        self.clean, self.trained, self.losses, self.batches = [], [], [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.clean.append(copy.deepcopy(data_batch['inputs']))
        self.batches.append(data_batch)
        self.before = state(runner, data_batch)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.trained.append(data_batch['inputs'])
        self.losses.append({name: float(torch.as_tensor(value).detach()) for name, value in outputs.items()})


class Late(Hook):
    """After the attack, before the training step."""
    priority = 'LOWEST'

    def __init__(self, spy):
        self.spy = spy

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        after = state(runner, data_batch)
        assert self.spy.before.keys() == after.keys()
        for name, value in after.items():
            assert equal(self.spy.before[name], value), name


def state(runner, data_batch) -> dict:
    model = runner.model
    return copy.deepcopy(dict(
        state_dict=model.state_dict(), training=[m.training for m in model.modules()],
        requires_grad=[p.requires_grad for p in model.parameters()], gradients=[p.grad for p in model.parameters()],
        rng=torch.get_rng_state(), optimiser=runner.optim_wrapper.state_dict(),
        samples=[dict(sample.metainfo_items()) | dict(sample.items()) for sample in data_batch['data_samples']]))


def equal(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if hasattr(a, 'to_dict'):
        return equal(a.to_dict(), b.to_dict())
    if hasattr(a, 'tensor'):
        return equal(a.tensor, b.tensor)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def train(work_dir, name='resnet18', iterations=1, hooks=(), change=None, **options):
    """A run of few iterations on the validation scenes, which other tests have drawn already; the runner and the spy."""
    cfg = Config.fromfile(ROOT / f'configs/training/{name}_demo.py')
    cfg.merge_from_dict(dict(
        work_dir=str(work_dir), load_from=str(ROOT / f'sparse_dense_attacks/demo/weights/{name}.pth'),
        train_dataloader=dict(batch_size=4, num_workers=0, persistent_workers=False,
                              dataset=dict(split='val', count=64, seed=1, indices=8)),
        val_dataloader=None, val_evaluator=None, val_cfg=None, param_scheduler=None,
        optim_wrapper=dict(optimizer=dict(lr=1e-5))))
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1, by_epoch=False)
    cfg.experiment_name = f'{Path(work_dir).parent.name}_{Path(work_dir).name}'
    cfg.merge_from_dict(change or {})
    spy = Spy()
    options = dict(attack=SparsePGD(k=K, steps=3), goal=dict(type=GOALS[name])) | options
    cfg.custom_hooks = []
    runner = Runner.from_cfg(cfg)
    for hook in (spy, AdversarialTrainingHook(**options), Late(spy), *hooks):
        runner.register_hook(hook)
    runner.train()
    return runner, spy


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def changed(before, after) -> list[int]:
    """Pixels in which each image differs."""
    return [int((a != b).any(0).sum()) for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize('name', GOALS)
def test_the_model_is_trained_on_what_the_attack_made_and_nothing_else_changes(name, tmp_path):
    """The spies around the hook compare model, optimiser, generator and data samples before and after the attack."""
    _, spy = train(tmp_path / 'run', name, attack=SparsePGD(k=K, steps=3, early_stop=False))
    assert all(0 < count <= K for count in changed(spy.clean[0], spy.trained[0]))
    assert type(spy.clean[0]) is type(spy.trained[0]) and spy.clean[0][0].dtype == spy.trained[0][0].dtype


def test_a_share_of_the_batch_is_attacked(tmp_path):
    _, spy = train(tmp_path / 'run', attack=SparsePGD(k=K, steps=2, early_stop=False), ratio=0.3)
    counts = changed(spy.clean[0], spy.trained[0])
    assert min(counts[:2]) > 0 and counts[2:] == [0, 0]


@pytest.mark.parametrize('name', GOALS)
def test_trades_adds_the_divergence_to_the_loss_of_the_clean_batch(name, tmp_path):
    attack = SparsePGD(k=30, steps=5, early_stop=False)
    _, plain = train(tmp_path / 'plain', name, attack=attack, loss='sTRADES', weight=1e-9)
    _, spy = train(tmp_path / 'run', name, attack=attack, loss='sTRADES', weight=3.0)
    assert changed(spy.clean[0], spy.trained[0]) == [0] * 4
    losses = spy.losses[0]
    assert losses['loss_divergence'] > 0
    total = losses.pop('loss') if name != 'resnet18' else losses['loss'] + losses['loss_divergence']  # mmpretrain logs its part
    assert total == pytest.approx(sum(value for key, value in losses.items() if 'loss' in key), rel=1e-5)
    for key in losses.keys() - {'loss_divergence'}:
        assert losses[key] == pytest.approx(plain.losses[0][key], rel=1e-3), key
    assert losses['loss_divergence'] == pytest.approx(3e9 * plain.losses[0]['loss_divergence'], rel=1e-2)


def test_divergence_of_a_classifier_is_the_mean_kl_in_training_mode(tmp_path):
    seen = {}

    class Judge(Hook):
        priority = 'LOWEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            twin, attack = copy.deepcopy(runner.model), SparsePGD(k=30, steps=5, early_stop=False)
            hook = next(hook for hook in runner.hooks if isinstance(hook, AdversarialTrainingHook))
            vars(twin).pop('loss')
            attacker = hook.attackers[0]
            assert attacker.attack == attack
            part = as_test_batch(data_batch)
            adversarial = attacker.perturb(part).batch['inputs']
            twin.train()
            with torch.no_grad():
                inputs = [twin.data_preprocessor(dict(inputs=x))['inputs'] for x in (data_batch['inputs'], adversarial)]
                twin(inputs[0], data_batch['data_samples'], mode='loss')
                p, q = (F.log_softmax(twin(x, mode='tensor'), 1) if twin.head is None else
                        F.log_softmax(twin.head(twin.extract_feat(x)), 1) for x in inputs)
                seen['kl'] = (p.exp() * (p - q)).sum(1).mean().item()

    _, spy = train(tmp_path / 'run', attack=SparsePGD(k=30, steps=5, early_stop=False), loss='sTRADES', weight=2.0,
                   hooks=[Judge()])
    assert spy.losses[0]['loss_divergence'] == pytest.approx(2 * seen['kl'], rel=1e-3)


def test_attacks_are_drawn_per_batch_and_repeatably(tmp_path):
    attacks = [SparsePGD(k=1, steps=1, early_stop=False), SparsePGD(k=40, steps=1, early_stop=False)]
    runs = [train(tmp_path / str(i), iterations=6, attack=attacks)[1] for i in range(2)]
    counts = [[max(changed(a, b)) for a, b in zip(spy.clean, spy.trained, strict=True)] for spy in runs]
    assert counts[0] == counts[1] and {count > 1 for count in counts[0]} == {True, False}
    assert all(torch.equal(a, b) for a, b in zip(runs[0].trained[0], runs[1].trained[0], strict=True))


def test_budgets_grow():
    assert [grown(SparsePGD(k=10), p).k for p in (0.01, 0.5, 1.0, 2.0)] == [1, 5, 10, 10]
    assert grown(PGD0(k=0.2), 0.5).k == pytest.approx(0.1)


def test_warmup(tmp_path):
    _, spy = train(tmp_path / 'run', iterations=3, attack=SparsePGD(k=20, steps=1, early_stop=False), warmup=2)
    assert [max(changed(a, b)) for a, b in zip(spy.clean, spy.trained, strict=True)] == [10, 20, 20]


# Checkpoints

@pytest.mark.skipif(torch.__version__ < '2.6', reason='that torch reads no history of mmengine as data')
def test_a_checkpoint_of_another_attack_is_told(tmp_path):
    train(tmp_path / 'run', iterations=1)
    last = str(tmp_path / 'run/iter_1.pth')
    assert torch.load(last, weights_only=False)['adversarial_training']['attack'][0]['k'] == K
    for k, told in ((K, False), (K + 1, True)):
        train(tmp_path / f'again{k}', iterations=2, attack=SparsePGD(k=k, steps=3), change=dict(resume=True, load_from=last))
        log = next((tmp_path / f'again{k}').rglob('*.log')).read_text()
        assert ('this checkpoint was trained otherwise (attack:' in log) == told


# Bad input

@pytest.mark.parametrize(('options', 'message'), [
    (dict(loss='TRADES'), "did you mean 'sTRADES'"), (dict(ratio=0), 'ratio = 0'), (dict(weight=-1), 'weight = -1'),
    (dict(attack=dict(type='SparsePDG')), "did you mean 'SparsePGD'")])
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        AdversarialTrainingHook(**dict(dict(attack='sparse_pgd', goal='untargeted'), **options))


def test_goal_of_another_task(tmp_path):
    with pytest.raises(InputError, match='Vanish is a goal of detection, but the model does classification'):
        train(tmp_path / 'run', goal=dict(type='Vanish'))


def test_normalised_images(tmp_path):
    class Normalise(Hook):
        priority = 'HIGHEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            data_batch['inputs'] = [image / 255 - 0.5 for image in data_batch['inputs']]

    with pytest.raises(InputError, match='expected raw pixels'):
        train(tmp_path / 'run', hooks=[Normalise()])


def test_budget_beyond_the_crop(tmp_path):
    with pytest.warns(RuntimeWarning, match='4096 of'):
        train(tmp_path / 'run', attack=SparsePGD(k=5000, steps=1))


@pytest.mark.skipif(torch.__version__ < '2.6', reason='that torch reads no history of mmengine as data')
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    class Break(Hook):
        priority = 'LOWEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if batch_idx == 1:
                next(runner.model.head.parameters()).data.fill_(float('nan'))

    with pytest.raises(InputError, match='loss is nan at iteration 2: training stops; the checkpoints saved before'):
        train(tmp_path / 'run', iterations=3, hooks=[Break()])
    state_dict = torch.load(tmp_path / 'run/iter_1.pth', weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in state_dict.values())


def test_a_frozen_model():
    class Frozen:
        model = torch.nn.Linear(1, 1).requires_grad_(False)

    with pytest.raises(InputError, match='no parameter to train'):
        AdversarialTrainingHook('sparse_pgd', 'untargeted').before_train(Frozen())
