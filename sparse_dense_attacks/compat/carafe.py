"""Content-aware reassembly of features (CARAFE): upsampling with a kernel of its own for every output pixel."""
import torch
import torch.nn.functional as F
from torch import Tensor

from .gradients import gradients


def carafe_forward(
    features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor,
    output: Tensor, kernel_size: int, group_size: int, scale_factor: int,
) -> None:  # fmt: skip
    """features (N, C, H, W), masks (N, group_size * kernel_size ** 2, S * H, S * W), output (N, C, S * H, S * W).

    ``rfeatures`` is what the backward function gets to see of the features; ``routput`` and ``rmasks`` are the compiled
    operator's working memory and not needed here.
    """
    rfeatures.copy_(features)
    output.copy_(_reassemble(features, masks, kernel_size, group_size, scale_factor))


def carafe_backward(
    grad_output: Tensor, rfeatures: Tensor, masks: Tensor, rgrad_output: Tensor,
    rgrad_input_hs: Tensor, rgrad_input: Tensor, rgrad_masks: Tensor, grad_input: Tensor,
    grad_masks: Tensor, kernel_size: int, group_size: int, scale_factor: int,
) -> None:  # fmt: skip
    def reassemble(features, masks):
        return _reassemble(features, masks, kernel_size, group_size, scale_factor)

    found = gradients(reassemble, (rfeatures, masks), grad_output)
    grad_input.copy_(found[0]), grad_masks.copy_(found[1])


def _reassemble(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    height, width = features.shape[2:]
    # what lies around every input pixel: (N, groups, channels, kernel ** 2, H, W)
    around = F.unfold(features, kernel, padding=kernel // 2)
    around = around.unflatten(2, (height, width)).unflatten(1, (groups, -1, kernel * kernel))
    # the kernels of the S x S output pixels over every input pixel: (N, groups, kernel ** 2, H, S, W, S)
    masks = (
        masks.unflatten(3, (width, scale))
        .unflatten(2, (height, scale))
        .unflatten(1, (groups, kernel * kernel))
    )
    output = torch.einsum('ngckhw, ngkhiwj -> ngchiwj', around, masks)
    return output.flatten(5, 6).flatten(3, 4).flatten(1, 2)
