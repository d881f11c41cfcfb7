"""Sparse-PGD on groups of pixels (Zhong & Liu, arXiv 2405.05075)."""
from dataclasses import dataclass

from ..checks import check_config
from ..groups import Kernel, Row
from ..registry import ATTACKS, KERNELS, Config
from .sparse_pgd import SparsePGD

__all__ = ['StructuredSparsePGD']


@ATTACKS.register_module()
@dataclass(frozen=True)
class StructuredSparsePGD(SparsePGD):
    r"""Sparse-PGD with a budget of groups: ``delta = p * E(M(v))``, rows, columns, patches, letters or any other pattern.

    The mask ``M`` picks the k groups with the largest logits; the kernel expands it to pixels, ``E``, a transposed convolution
    clipped to 1. Backward, a group's gradient is the mean of ``grad * p`` over its pixels, summed over the channels. All else is
    :class:`SparsePGD`, and with single pixels as groups it is the same attack bit for bit.

    Args:
        k: group budget, a count or a share of the groups that fit into the region. Exactly that many are chosen. What is reported
            as ``groups`` is a cover of the changed pixels (:meth:`Kernel.cover`), at most k and smaller where chosen groups
            overlap; as ``l0_pixels`` the pixels they touch.
        kernel: a kernel, its name, or a dict such as ``dict(type='Patch', height=5, width=5)`` or
            ``dict(type='Shape', name='F')``. A patch or pattern is used only where it lies wholly inside the region; a row or
            column as far as it does. An image without room for any group comes back as it was.
        steps, early_stop, gradient, alpha, beta, eps_inf, patience, gamma, stagnation, published: as in
            :class:`SparsePGD`; ``beta`` counts in square roots of the number of groups.

    Reference: arXiv 2405.05075, structured sparsity. The published settings for it are not public; the defaults are those of the
    unstructured attack.
    """
    k: int | float = 1
    kernel: Kernel | Config = Row()

    def __post_init__(self):
        super().__post_init__()
        check_config(self, 'kernel')
        object.__setattr__(self, 'kernel', KERNELS.build(self.kernel))
