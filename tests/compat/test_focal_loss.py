import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('gamma, alpha', [(2.0, 0.25), (1.5, 0.6)])
def test_against_torchvision(mmcv_file, gamma, alpha, weighted):
    logits = (torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) * 3).requires_grad_()
    target = torch.tensor([0, 3, 1, 2, 2, 0] if weighted else [0, 3, 4, 2, 4, 1])  # 4: the background
    weight = torch.tensor([1.0, 0.5, 2.0, 3.0]) if weighted else None
    found = mmcv_file('focal_loss').sigmoid_focal_loss(logits, target, gamma, alpha, weight, 'none')
    expected = sigmoid_focal_loss(logits, F.one_hot(target, 5)[:, :4].float(), alpha, gamma)
    if weighted:
        expected = expected * weight[target][:, None]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    grads = torch.rand(6, 4, generator=torch.Generator().manual_seed(1))
    found, expected = (torch.autograd.grad(y, logits, grads)[0] for y in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_is_finite_for_certain_wrong_and_certain_right_logits(mmcv_file):
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    loss = mmcv_file('focal_loss').sigmoid_focal_loss(logits, torch.tensor([0]), 2.0, 0.25, None, 'sum')
    gradient, = torch.autograd.grad(loss, logits)
    assert loss.isfinite() and gradient.isfinite().all() and gradient[0, 0] < 0 < gradient[0, 1]
