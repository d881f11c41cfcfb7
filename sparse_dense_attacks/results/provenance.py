"""What a result came from: settings, versions, digests."""
import ast
import dataclasses
import hashlib
import inspect
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

__all__ = ['describe', 'file_digest', 'literal', 'model_of', 'versions']

_PACKAGES = ('torch', 'torchvision', 'numpy', 'mmengine', 'onedl-mmengine', 'mmcv', 'onedl-mmcv',
             'mmdet', 'onedl-mmdetection', 'mmsegmentation', 'onedl-mmsegmentation', 'mmpretrain',
             'onedl-mmpretrain', 'sparse-dense-attacks')


def describe(component):
    """Class name and hyper-parameters of an attack or goal, and of what is within them."""
    if dataclasses.is_dataclass(component):
        fields = {field.name: describe(getattr(component, field.name))
                  for field in dataclasses.fields(component)}
        return {'type': type(component).__name__, **fields}
    if isinstance(component, Mapping):
        return {str(key): describe(value) for key, value in component.items()}
    if inspect.isroutine(component):
        return f'{component.__module__}.{component.__qualname__}'
    return component


def literal(config: Mapping) -> str | None:
    """A config as Python text that :func:`ast.literal_eval` reads back as it is; JSON knows no tuples.

    None if there is more in it than plain values.

    Example:
        >>> literal(dict(scale=(160, 128)))
        "{'scale': (160, 128)}"
        >>> literal(dict(kind=int)) is None
        True
    """
    text = repr(dict(config))
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return text


def model_of(cfg: Any) -> dict[str, Any]:
    """The model of a config as mmengine's Runner builds it: a ``data_preprocessor`` that stands beside
    it, as in mmpretrain's configs, is its own where it has none."""
    given = cfg.to_dict()
    model, beside = given['model'], given.get('data_preprocessor')
    return model if beside is None else {'data_preprocessor': beside, **model}


def file_digest(path: str) -> str:
    """First 16 hex digits of a file's SHA-256; a URL stands for itself."""
    if '://' in path:
        return path
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(2 ** 20):  # Python 3.10 has no hashlib.file_digest
            digest.update(block)
    return digest.hexdigest()[:16]


def versions() -> dict:
    """Installed versions of all that can change a result."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {'python': sys.version.split()[0], **found}
