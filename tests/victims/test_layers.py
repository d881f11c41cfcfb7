"""Features of inner layers through the three libraries' victims: what the models themselves compute, with a gradient."""
import copy
from pathlib import Path

import pytest
import torch

for library in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(f'{library}.models', reason='models of all three libraries', exc_type=ImportError)

from mmengine.config import Config  # noqa: E402
from mmengine.dataset import pseudo_collate  # noqa: E402
from mmengine.registry import DATASETS, MODELS, DefaultScope  # noqa: E402
from mmengine.runner import load_state_dict  # noqa: E402

import sparse_dense_attacks.demo.dataset  # noqa: E402, F401
from sparse_dense_attacks import (  # noqa: E402
    FeatureDispersion,
    FeatureDistance,
    InputError,
    attack,
)
from sparse_dense_attacks.engine.attacker import Attacker  # noqa: E402
from sparse_dense_attacks.victims import wrap  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {'faster_rcnn': ('backbone', 'neck', 'backbone.layer2.0'), 'yolox': ('backbone', 'neck'),
          'semantic_fpn': ('backbone', 'neck'), 'resnet18': ('backbone', 'backbone.layer3')}


@pytest.fixture(scope='module', params=LAYERS)
def demo(request, tmp_path_factory):
    """A demo model's name, the model with its weights, and a batch of two scenes."""
    name = request.param
    cfg = Config.fromfile(ROOT / f'configs/training/{name}_demo.py')
    dataset = cfg.test_dataloader.dataset.to_dict()
    dataset |= dict(data_root=str(tmp_path_factory.mktemp('demo')), count=2)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model, dataset = MODELS.build(cfg.model).eval(), DATASETS.build(dataset)
    weights = ROOT / f'sparse_dense_attacks/demo/weights/{name}.pth'
    load_state_dict(model, torch.load(weights, weights_only=True)['state_dict'], strict=True)
    return name, model, pseudo_collate([dataset[i] for i in range(2)])


def opened(model, batch):
    return wrap(model, boxes_follow_resize=True, reference='prediction').open(batch)


def test_features_are_those_of_the_model(demo):
    name, model, batch = demo
    rows = torch.tensor([1, 0])
    with torch.no_grad():
        scene = opened(model, copy.deepcopy(batch))
        for layer in LAYERS[name]:
            said = []
            module = model.get_submodule(layer)
            handle = module.register_forward_hook(lambda *args, said=said: said.append(args[2]))
            model.test_step(copy.deepcopy(batch))
            handle.remove()
            expected = said[0] if isinstance(said[0], torch.Tensor) else said[0][-1]
            found = scene.features(scene.images[rows], rows, layer)
            torch.testing.assert_close(torch.stack(tuple(found)), expected[rows])
            assert not module._forward_hooks


@pytest.mark.parametrize('kind', [FeatureDispersion, FeatureDistance])
def test_the_loss_has_the_slope_it_says(demo, kind):
    """Along the gradient: rising by as much as the gradient promises, away from ties of flat areas."""
    name, model, batch = demo
    layer, rows = LAYERS[name][-1], torch.arange(2)
    model = model.double()
    victim = wrap(model, boxes_follow_resize=True, reference='prediction')
    with victim.session():
        objective = kind(layer).objective(victim.open(batch))
        noise = torch.rand(objective.images.shape, generator=torch.Generator().manual_seed(0))
        x = (0.8 * objective.images + 0.2 * noise).double().requires_grad_()
        slope, = torch.autograd.grad(objective(x, rows).loss.sum(), x)
        step = 1e-6 * slope / slope.flatten(1).norm(dim=1)[:, None, None, None]
        with torch.no_grad():
            rise = (objective(x + step, rows).loss - objective(x - step, rows).loss) / 2
    model.float()
    torch.testing.assert_close(rise, (step * slope).flatten(1).sum(1), rtol=1e-2, atol=0)


def test_attacks_ascend_them_without_labels(demo):
    name, model, batch = demo
    bare = copy.deepcopy(batch)
    for sample in bare['data_samples']:
        for truth in ('gt_instances', 'gt_sem_seg', 'gt_label'):
            if truth in sample:
                delattr(sample, truth)
    attacker = Attacker.of_model(model, dict(type='SparsePGD', k=0.02, steps=5, early_stop=False),
                                 FeatureDispersion(LAYERS[name][-1]), reference='prediction')
    result = attacker.perturb(bare).result
    assert (result.l0_pixels > 0).all() and not result.failed.any() and result.defined.all()
    with torch.no_grad():
        objective = attacker.goal.objective(attacker.victim.open(bare))
        after = objective(result.images, torch.arange(2)).loss
    assert (after > objective.clean.loss + 1e-3).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_misspelt_layer_is_named(demo):
    _, model, batch = demo
    with pytest.raises(InputError, match="no layer 'backbnoe': did you mean 'backbone'?"):
        attack(model, batch, attack='pgd0', goal=FeatureDispersion('backbnoe'))
