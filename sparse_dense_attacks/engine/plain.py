"""Plain torch modules that look at image files as they are: no pipeline, no annotations."""
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mmcv
import numpy as np
import torch
from torch import Tensor, nn

from ..attacks.base import judge
from ..errors import InputError
from ..objectives.expected import expected
from ..objectives.on_files import OnFiles
from ..types import AttackResult
from ..victims import TorchClassifier, TorchSegmenter
from ..victims.base import Geometry, Victim
from .attacker import Attacker, Task

__all__ = ['PlainMember', 'device_of', 'load_pixels', 'logits_of', 'plain_victim', 'tensor_of',
           'weights_digest']

BATCH = 8  # images of equal size that are attacked together


def load_pixels(path: str) -> np.ndarray:
    """The pixels of an image file as the libraries decode it, (H, W, 3) uint8 RGB.

    Raises:
        InputError: it cannot be read.
    """
    image = mmcv.imread(path)
    if image is None:
        raise InputError(f'{path} cannot be read as an image')
    return np.ascontiguousarray(image[..., ::-1])


def tensor_of(pixels: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Images (H, W, 3) uint8 of one size as (B, 3, H, W) float in [0, 1]."""
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return images.to(device)  # divided before: a GPU rounds quotients another way


def logits_of(module: nn.Module, x: Tensor) -> Tensor:
    """What a module says of images (B, 3, H, W), or a clear refusal."""
    logits = module(x)
    logits = logits['out'] if isinstance(logits, dict) else logits
    if not isinstance(logits, Tensor) or logits.ndim not in (2, 4):
        raise InputError('the module gives neither logits (B, K) nor (B, K, height, width)')
    return logits


def device_of(name: str | None) -> torch.device:
    """The device of a command's argument; by default the GPU if there is one."""
    return torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))


def weights_digest(module: nn.Module) -> str:
    """First 16 hex digits of the SHA-256 of names and values of a module's state."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def plain_victim(module: nn.Module, path: str, device: torch.device,
                 defence: Any = None) -> Victim:
    """A module as a victim, a classifier or a segmenter by what it says of an image.

    What is right is what the module itself says of the clean images.
    """
    module = module.eval().to(device)
    with torch.no_grad():
        logits = logits_of(module, tensor_of([load_pixels(path)], device))
    kind = TorchClassifier if logits.ndim == 2 else TorchSegmenter
    return kind(module, reference='prediction', defence=defence)


def _place(module: nn.Module) -> torch.device:
    """Where a module computes."""
    return next((one.device for one in (*module.parameters(), *module.buffers())),
                torch.device('cpu'))


@dataclass(frozen=True)
class ChannelsTurned:
    """The way from files as mmcv loads them, BGR, to a module's RGB; no pixel moves.

    Attributes:
        source: height and width.
    """
    source: tuple[int, int]

    @property
    def target(self) -> tuple[int, int]:
        return self.source

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(0)

    def adjoint(self, grad: Tensor) -> Tensor:
        return grad.flip(0)


@dataclass(frozen=True)
class PlainMember:
    """A plain module, ready to be attacked on image files.

    Attributes:
        name: of the model.
        attacker: of its victim, on the grid of its inputs, which is that of the files.
        keys: of each image by the resolved path of its file.
        batch_size: images that it is shown together.
    """
    name: str
    attacker: Attacker
    keys: Mapping[str, str]
    batch_size: int = BATCH

    @classmethod
    def of(cls, name: str, victim: Victim, attack: Any, goal: Any, threat: Any,
           keys: Mapping[str, str]) -> 'PlainMember':
        """With an attack and a goal under a threat model on the original grid."""
        return cls(name, Attacker(victim, attack, goal, replace(threat, grid='input')), keys)

    def open(self, paths: Sequence[str]) -> tuple[Any, Task]:
        """Image files of one size as a batch, and what is to be attacked about them."""
        victim, threat = self.attacker.victim, self.attacker.threat
        images = tensor_of([load_pixels(path) for path in paths], _place(victim.model))
        scene = victim.open(images, keys=[self.keys[path] for path in paths])
        size = images.shape[2], images.shape[3]
        places = tuple(Geometry(path, size, size, size, True) for path in paths)
        scene = replace(scene, geometry=places)  # type: ignore[type-var]  # is a dataclass
        scene = scene.restricted(threat.where(scene))
        inner = expected(self.attacker.goal.objective(scene), victim.draws)
        maps = [ChannelsTurned(size)] * len(paths)
        return None, Task(OnFiles(inner, scene.images.flip(1), scene.region, maps), inner, None)

    def judged(self, batch: Any, task: Task,
               result: AttackResult) -> tuple[AttackResult, Sequence[Tensor]]:
        """The result as the module sees what a PNG keeps, and the pictures (3, H, W) uint8 BGR."""
        images = result.images.to(task.inner.images.device)
        said = judge(task.inner, images.flip(1), rechecks=self.attacker.threat.rechecks)
        pictures = [(image * 255).round().to('cpu', torch.uint8) for image in result.images]
        success = said.success & ~result.failed.to(said.success.device)
        result = replace(result, success=success, share=said.share)
        sizes = [(image.shape[1], image.shape[2]) for image in pictures]
        return self.attacker.limited(task, result, sizes)[0], pictures
