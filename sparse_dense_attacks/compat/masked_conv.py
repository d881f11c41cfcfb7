"""Convolution at some places only: features (1, C, H, W), zeros where the mask (1, H, W) is not positive."""
import torch.nn.functional as F
from torch import Tensor


def masked_im2col_forward(
    features: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, data_col: Tensor, kernel_h: int,
    kernel_w: int, pad_h: int, pad_w: int,
) -> None:  # fmt: skip
    """Into ``data_col`` (C * kernel_h * kernel_w, P): what the kernel sees at each of the P places (y, x)."""
    width = features.shape[3] + 2 * pad_w - kernel_w + 1
    seen = F.unfold(features, (kernel_h, kernel_w), padding=(pad_h, pad_w))[0]
    data_col.copy_(seen[:, mask_h_idx * width + mask_w_idx])


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int,
    channels: int,
) -> None:  # fmt: skip
    """Write ``col`` (C, P) to the P places of ``im`` (1, C, height, width)."""
    im[0, :, mask_h_idx, mask_w_idx] = col
