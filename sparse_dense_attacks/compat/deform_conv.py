"""Deformable convolutions, without (v1) and with (v2) a mask, through torchvision's operator.

input (N, C, H, W), weight (O, C / groups, kH, kW), offset (N, 2 * G * kH * kW, oH, oW) as y and x of every tap, mask half as
many channels. The arguments ``columns`` and ``ones`` are the compiled operators' working memory and not needed here.
"""
from collections.abc import Sequence

from torch import Tensor

from .gradients import gradients


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor,
    kW: int, kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int, dilationH: int,
    group: int, deformable_group: int, im2col_step: int,
) -> None:  # fmt: skip
    places = dict(stride=(dH, dW), padding=(padH, padW), dilation=(dilationH, dilationW))
    output.copy_(_convolve(input, weight, offset, **places))


def deform_conv_backward_input(
    input: Tensor, offset: Tensor, grad_output: Tensor, grad_input: Tensor, grad_offset: Tensor,
    weight: Tensor, columns: Tensor, kW: int, kH: int, dW: int, dH: int, padW: int, padH: int,
    dilationW: int, dilationH: int, group: int, deformable_group: int, im2col_step: int,
) -> None:  # fmt: skip
    places = dict(stride=(dH, dW), padding=(padH, padW), dilation=(dilationH, dilationW))

    def convolve(input, offset):
        return _convolve(input, weight, offset, **places)

    found = gradients(convolve, (input, offset), grad_output)
    grad_input.copy_(found[0]), grad_offset.copy_(found[1])


def deform_conv_backward_parameters(
    input: Tensor, offset: Tensor, grad_output: Tensor, grad_weight: Tensor, columns: Tensor,
    ones: Tensor, kW: int, kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int,
    dilationH: int, group: int, deformable_group: int, scale: float, im2col_step: int,
) -> None:  # fmt: skip
    places = dict(stride=(dH, dW), padding=(padH, padW), dilation=(dilationH, dilationW))

    def convolve(weight):
        return _convolve(input, weight, offset, **places)

    # grad_weight comes with the shape of the weight, and zero
    grad_weight.copy_(scale * gradients(convolve, (grad_weight,), grad_output)[0])


def modulated_deform_conv_forward(
    input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor,
    output: Tensor, columns: Tensor, kernel_h: int, kernel_w: int, stride_h: int, stride_w: int,
    pad_h: int, pad_w: int, dilation_h: int, dilation_w: int, group: int, deformable_group: int,
    with_bias: bool,
) -> None:  # fmt: skip
    size = output.shape[2:]
    output.copy_(_convolve(
        input, weight, _fit(offset, size), _fit(mask, size), bias if with_bias else None,
        (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w)))


def modulated_deform_conv_backward(
    input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor,
    columns: Tensor, grad_input: Tensor, grad_weight: Tensor, grad_bias: Tensor,
    grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor, kernel_h: int, kernel_w: int,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    group: int, deformable_group: int, with_bias: bool,
) -> None:  # fmt: skip
    size = grad_output.shape[2:]

    def convolve(input, weight, offset, mask, bias=None):
        return _convolve(input, weight, _fit(offset, size), _fit(mask, size), bias,
                         (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))

    inputs = [input, weight, offset, mask]
    grads = [grad_input, grad_weight, grad_offset, grad_mask]
    if with_bias:
        inputs, grads = [*inputs, bias], [*grads, grad_bias]
    for grad, found in zip(grads, gradients(convolve, inputs, grad_output), strict=True):
        grad.copy_(found)


def _convolve(
    input, weight, offset, mask=None, bias=None, stride=1, padding=0, dilation=1,
) -> Tensor:  # fmt: skip
    from torchvision.ops import deform_conv2d
    return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)


def _fit(values: Tensor, size: Sequence[int]) -> Tensor:
    """Offsets (or a mask) with as many places as the output has.

    DyHead gives one level's offsets to the convolution of another level, where there are about four times as many as
    needed. mmcv then reads those that come first in memory, whatever place they were made for, and weights that
    were trained with mmcv expect that. torchvision refuses.
    """
    if values.shape[2:] == size:
        return values
    channels, needed = values.shape[1], values.shape[1] * size[0] * size[1]
    return values.flatten(1)[:, :needed].unflatten(1, (channels, *size))
