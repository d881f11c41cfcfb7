"""Features of regions: input (N, C, H, W), rois (R, 5) as image index, x1, y1, x2, y2; output (R, C, height, width)."""
import torch
from torch import Tensor

from ..errors import InputError


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
    aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
    pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    """Means of bilinear samples in each bin."""
    import torchvision
    if pool_mode == 0:
        raise InputError(
            "mmcv's RoIAlign with pool_mode='max' is not in sparse_dense_attacks.compat; "
            'a compiled mmcv has it'
        )
    size = aligned_height, aligned_width
    align, wide = torchvision.ops.roi_align, _wide(input)
    output.copy_(align(input.to(wide), rois.to(wide), size, spatial_scale, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
    aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
    pool_mode: int, aligned: bool,
) -> None:  # fmt: skip
    import torchvision  # noqa: F401  registers the operator
    wide = _wide(grad_output)
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(
        grad_output.to(wide), rois.to(wide), spatial_scale, aligned_height, aligned_width, *grad_input.shape,
        sampling_ratio, aligned))


def _wide(x: Tensor) -> torch.dtype:
    """The type to compute in: torchvision has nothing for bfloat16."""
    return torch.promote_types(x.dtype, torch.float32)


def roi_pool_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int,
    pooled_width: int, spatial_scale: float,
) -> None:  # fmt: skip
    """Greatest values in each bin, and in ``argmax`` their places y * W + x; 0 and -1 where the bin is empty.

    Not torchvision's operator, which rounds the corners of a region before it divides it into bins; mmcv does not.
    """
    height, width = input.shape[2:]
    top, bottom = _bins(rois[:, 2], rois[:, 4], spatial_scale, pooled_height, height)
    left, right = _bins(rois[:, 1], rois[:, 3], spatial_scale, pooled_width, width)
    images = input[rois[:, 0].long()]
    for i in range(pooled_height):
        y, in_rows = _steps(top[:, i], bottom[:, i])
        for j in range(pooled_width):
            x, in_columns = _steps(left[:, j], right[:, j])
            inside = in_rows[:, :, None] & in_columns[:, None]  # (R, rows, columns)
            places = y[:, :, None] * width + x[:, None]
            places = places.masked_fill(~inside, 0).flatten(1)  # (R, rows * columns)
            if places.shape[1]:
                everywhere = places[:, None].expand(-1, images.shape[1], -1)  # in all channels
                values = images.flatten(2).gather(2, everywhere)
                best, at = values.masked_fill(~inside.flatten(1)[:, None], -torch.inf).max(2)
                filled = inside.flatten(1).any(1)[:, None]
                output[:, :, i, j] = best.where(filled, 0.0)
                argmax[:, :, i, j] = places.gather(1, at).where(filled, -1).int()
            else:
                output[:, :, i, j], argmax[:, :, i, j] = 0, -1


def roi_pool_backward(
    grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int,
    pooled_width: int, spatial_scale: float,
) -> None:  # fmt: skip
    places = argmax.flatten(2).long()
    grads = grad_output.flatten(2) * (places >= 0)
    images = rois[:, 0].long()[:, None, None].expand_as(places)
    channels = torch.arange(places.shape[1], device=places.device)[None, :, None].expand_as(places)
    indices = images, channels, places.clamp(min=0)
    grad_input.flatten(2).index_put_(indices, grads, accumulate=True)


def _bins(
    start: Tensor, end: Tensor, spatial_scale: float, count: int, size: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """First row (or column) of each bin of each region, and the one behind its last: two tensors (R, count)."""
    start, end = start * spatial_scale, (end + 1) * spatial_scale
    step = ((end - start) / count)[:, None]
    numbers = torch.arange(count + 1, device=start.device)
    edges = numbers * step + start[:, None]
    first = edges[:, :-1].floor().clamp(0, size).long()
    behind = edges[:, 1:].ceil().clamp(0, size).long()
    return first, behind.where(step > 0, first)


def _steps(first: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
    """``first``, ``first + 1``, ... of each region, padded to equal length, and which of them lie before ``behind``."""
    length = int((behind - first).amax().clamp(min=0)) if len(first) else 0
    steps = first[:, None] + torch.arange(length, device=first.device)
    return steps, steps < behind[:, None]
