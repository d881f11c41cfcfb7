"""The module that stands in for ``mmcv._ext``: its names are those that the files of ``mmcv.ops`` ask for.

An operator that is not here gives a function that raises when it is called, as ``mmcv.ops`` asks for all of them on import.
"""
from collections.abc import Callable

from ..errors import InputError
from .attention import (
    ms_deform_attn_backward,
    ms_deform_attn_forward,
    psamask_backward,
    psamask_forward,
)
from .carafe import carafe_backward, carafe_forward
from .deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from .focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from .masked_conv import masked_col2im_forward, masked_im2col_forward
from .nms import nms, nms_match, softnms
from .roi import roi_align_backward, roi_align_forward, roi_pool_backward, roi_pool_forward

__all__ = [
    'carafe_backward', 'carafe_forward', 'deform_conv_backward_input',
    'deform_conv_backward_parameters', 'deform_conv_forward', 'get_compiler_version',
    'get_compiling_cuda_version', 'masked_col2im_forward', 'masked_im2col_forward',
    'modulated_deform_conv_backward', 'modulated_deform_conv_forward', 'ms_deform_attn_backward',
    'ms_deform_attn_forward', 'nms', 'nms_match', 'psamask_backward', 'psamask_forward',
    'roi_align_backward', 'roi_align_forward', 'roi_pool_backward', 'roi_pool_forward',
    'sigmoid_focal_loss_backward', 'sigmoid_focal_loss_forward', 'softnms',
]  # fmt: skip


def get_compiler_version() -> str:
    return 'none: operators of sparse_dense_attacks.compat'


def get_compiling_cuda_version() -> str:
    return 'not available'


def __getattr__(name: str) -> Callable:
    if name.startswith('__'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args, **kwargs):
        raise InputError(f"mmcv's operator '{name}' is not in sparse_dense_attacks.compat; a "
                         'compiled mmcv has it')

    return missing
