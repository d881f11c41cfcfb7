"""What a core keeps of each image that it still works on."""
from types import SimpleNamespace

import torch
from torch import Tensor

__all__ = ['Active']


class Active(SimpleNamespace):
    """Tensors under names, with one entry for each image that is still under attack.

    A core holds all it carries from one iteration to the next here, so that an image that is finished leaves all of it at once:

        >>> s = Active(x=torch.rand(3, 1, 2, 2), delta=torch.zeros(3, 1, 2, 2))
        >>> s.keep(torch.tensor([True, False, True]))
        >>> s.rows, s.delta.shape
        (tensor([0, 2]), torch.Size([2, 1, 2, 2]))

    Args:
        kept: tensors (B, ...), all with the same B. More may be set as attributes at any time, (b, ...) for the b images left.

    Attributes:
        rows: (b,) int64 on the CPU, which of the B images are left; what an objective and an ``ImageRNG`` are asked with.
    """
    rows: Tensor

    def __init__(self, **kept: Tensor):
        count = len(next(iter(kept.values())))
        super().__init__(rows=torch.arange(count), **kept)

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, stay: Tensor) -> None:
        """Drop the images that are not in ``stay``, (b,) bool on the CPU; nothing is copied where all of them stay."""
        if stay.all():
            return
        index = stay.nonzero()[:, 0]
        for name, kept in list(vars(self).items()):
            setattr(self, name, kept.index_select(0, index.to(kept.device)))
