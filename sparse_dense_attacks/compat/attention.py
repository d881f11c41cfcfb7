"""Multi-scale deformable attention, and the attention masks of PSANet."""
import torch
import torch.nn.functional as F
from torch import Tensor

from .gradients import gradients


def ms_deform_attn_forward(
    value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
    sampling_locations: Tensor, attention_weights: Tensor, im2col_step: int,
) -> Tensor:  # fmt: skip
    """Weighted sums of bilinear samples from the L levels of a feature pyramid, outside of which there are zeros.

    Args:
        value: (N, K, M, D), D channels for each of M heads at the K places of all levels together.
        value_spatial_shapes: (L, 2), height and width of each level.
        value_level_start_index: (L,), not needed here.
        sampling_locations: (N, Q, M, L, P, 2), x and y in [0, 1] of P points for each query, head and level.
        attention_weights: (N, Q, M, L, P).
        im2col_step: images at a time, not needed here.

    Returns:
        (N, Q, M * D)
    """
    batch = len(value)
    heads, channels = value.shape[2:]
    shapes = value_spatial_shapes.tolist()
    levels = value.split([height * width for height, width in shapes], dim=1)
    output = value.new_zeros(())
    for level, (height, width) in enumerate(shapes):
        image = levels[level].permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        places = sampling_locations[:, :, :, level].transpose(1, 2).flatten(0, 1)
        grid = 2 * places - 1  # (N * M, Q, P, 2)
        samples = F.grid_sample(image, grid, align_corners=False)  # (N * M, D, Q, P)
        weights = attention_weights[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (N * M, Q, P)
        output = output + (samples * weights[:, None]).sum(-1)
    return output.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2)


def ms_deform_attn_backward(
    value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
    sampling_locations: Tensor, attention_weights: Tensor, grad_output: Tensor, grad_value: Tensor,
    grad_sampling_loc: Tensor, grad_attn_weight: Tensor, im2col_step: int,
) -> None:  # fmt: skip
    def attend(value, locations, weights):
        return ms_deform_attn_forward(value, value_spatial_shapes, value_level_start_index,
                                      locations, weights, im2col_step)

    found = gradients(attend, (value, sampling_locations, attention_weights), grad_output)
    grad_value.copy_(found[0]), grad_sampling_loc.copy_(found[1]), grad_attn_weight.copy_(found[2])


def psamask_forward(
    input: Tensor, output: Tensor, psa_type: int, num_: int, h_feature: int, w_feature: int,
    h_mask: int, w_mask: int, half_h_mask: int, half_w_mask: int,
) -> None:  # fmt: skip
    """Attention between all H * W places from what each place says about its surroundings.

    Args:
        input: (N, h_mask * w_mask, H, W), at each place one value for each place of a window around it.
        output: (N, H * W, H, W). With ``psa_type`` 0 (collect) ``output[:, t, s]`` is what place s says about place t, with 1
            (distribute) what t says about s; 0 where one is outside the other's window.
    """
    index, inside = _window(input, h_mask, w_mask, half_h_mask, half_w_mask)
    said = input.gather(1, index) * inside
    output.copy_(_swap_places(said) if psa_type == 1 else said)


def psamask_backward(
    grad_output: Tensor, grad_input: Tensor, psa_type: int, num_: int, h_feature: int,
    w_feature: int, h_mask: int, w_mask: int, half_h_mask: int, half_w_mask: int,
) -> None:  # fmt: skip
    index, inside = _window(grad_input, h_mask, w_mask, half_h_mask, half_w_mask)
    grads = _swap_places(grad_output) if psa_type == 1 else grad_output
    grad_input.zero_().scatter_add_(1, index, grads * inside)


def _window(
    input: Tensor, h_mask: int, w_mask: int, half_h: int, half_w: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """For target place t and source place s: the channel in which s speaks about t, and whether there is one.

    Returns two tensors (N, H * W, H, W).
    """
    height, width = input.shape[2:]
    y, x = torch.arange(height, device=input.device), torch.arange(width, device=input.device)
    rows = (y[:, None] - y + half_h)[:, None, :, None]  # (target y, 1, source y, 1)
    columns = (x[:, None] - x + half_w)[None, :, None]  # (1, target x, 1, source x)
    inside = (rows >= 0) & (rows < h_mask) & (columns >= 0) & (columns < w_mask)
    index = (rows * w_mask + columns).where(inside, 0)
    each = len(input), -1, -1, -1
    return index.flatten(0, 1).expand(each), inside.flatten(0, 1).expand(each)


def _swap_places(attention: Tensor) -> Tensor:
    """(N, H * W, H, W) with the two places exchanged."""
    return attention.flatten(2).transpose(1, 2).unflatten(2, attention.shape[2:])
