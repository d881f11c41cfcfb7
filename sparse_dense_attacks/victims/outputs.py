"""What plain torch models answer with, of whatever library: known by its shape, not by its maker.

- A classifier gives logits (B, K), a segmenter logits (B, K, h, w): the tensor itself (timm), or
  the entry ``logits`` (transformers) or ``out`` (torchvision) of a mapping.
- A detector gives a list with one mapping for each image that has ``boxes`` (torchvision), or a
  mapping with ``pred_boxes`` (transformers).
"""
from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ['kind_of', 'logits_in', 'says_boxes']

ENTRIES = ('logits', 'out')


def logits_in(output: Any) -> Any:
    """The logits in what a model answers with; an answer of another form as it is."""
    if isinstance(output, Mapping):
        return next((output[name] for name in ENTRIES if name in output), output)
    return output


def says_boxes(output: Any) -> bool:
    """Whether an answer is that of a detector."""
    entries = output if isinstance(output, list | tuple) else [output]
    return any(isinstance(entry, Mapping) and ('boxes' in entry or 'pred_boxes' in entry)
               for entry in entries)


def kind_of(value: Any) -> str:
    """An answer in a few words, for errors."""
    if isinstance(value, Tensor):
        return f'a tensor {tuple(value.shape)}'
    return type(value).__name__
