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
from ..evaluation.transfer import Answer, Found
from ..objectives.expected import expected
from ..objectives.on_files import OnFiles
from ..types import AttackResult
from ..victims import TorchDetector, plain_victim
from ..victims.base import Geometry, Victim
from ..victims.outputs import logits_in, says_boxes
from ..victims.surroundings import surrounded
from ..victims.torch_detector import of_torchvision
from .attacker import Attacker, Task

__all__ = ['Plain', 'PlainMember', 'answer_of', 'bare', 'device_of', 'load_pixels', 'ready',
           'tensor_of', 'victim_of', 'weights_digest']

Plain = nn.Module | TorchDetector  # a detector whose boxes are not known comes with its decoder
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


def answer_of(found: Plain, x: Tensor) -> Answer:
    """What a plain model says of an image (1, 3, H, W): its class, its label map, or what it detects.

    Raises:
        InputError: the module gives neither logits (1, K) nor (1, K, height, width) nor boxes that
            are known.
    """
    if isinstance(found, nn.Module) and of_torchvision(found):
        found = TorchDetector(found)
    if isinstance(found, TorchDetector):
        reported, = found.predict(x)
        boxes, labels, scores = (reported[name].cpu().numpy() for name in ('boxes', 'labels', 'scores'))
        return Found(boxes, labels, scores)
    output = found(x)
    logits = logits_in(output)
    if says_boxes(output):
        raise InputError(f'{type(found).__name__} is a detector whose boxes are not known: name a '
                         'function that returns TorchDetector(model, decode=...)')
    if not isinstance(logits, Tensor) or logits.ndim not in (2, 4):
        raise InputError('the module gives neither logits (B, K) nor (B, K, height, width)')
    said = logits.argmax(1)[0].cpu()
    return int(said) if said.ndim == 0 else said.numpy()


def device_of(name: str | None) -> torch.device:
    """The device of a command's argument; by default the GPU if there is one."""
    return torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))


def ready(found: Plain, device: torch.device) -> Plain:
    """A plain model in evaluation mode on a device."""
    bare(found).eval().to(device)
    return found


def bare(found: Plain) -> nn.Module:
    """The module alone."""
    return found if isinstance(found, nn.Module) else found.model


def weights_digest(module: nn.Module) -> str:
    """First 16 hex digits of the SHA-256 of names and values of a module's state."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def victim_of(found: Plain, path: str, device: torch.device, defence: Any = None) -> Victim:
    """A module as a victim, a classifier, a segmenter or a detector by what it says of an image.

    What is right is what the module itself says of the clean images. A detector whose boxes are not
    known is given as a victim, a :class:`TorchDetector` with its ``decode``.
    """
    found = ready(found, device)
    if isinstance(found, TorchDetector):
        return replace(found, reference='prediction', defence=defence)
    pixels = tensor_of([load_pixels(path)], device)
    return plain_victim(found, pixels, reference='prediction', defence=defence)


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
        outer = OnFiles(inner, scene.images.flip(1), scene.region, maps)
        return None, Task(surrounded(outer, self.attacker.attack, scene, 'bgr'), inner, None, scene)

    def judged(self, batch: Any, task: Task,
               result: AttackResult) -> tuple[AttackResult, Sequence[Tensor]]:
        """The result as the module sees what a PNG keeps, and the pictures (3, H, W) uint8 BGR."""
        images = result.images.to(task.inner.images.device)
        said = judge(task.inner, images.flip(1), rechecks=self.attacker.threat.rechecks)
        pictures = [(image * 255).round().to('cpu', torch.uint8) for image in result.images]
        success = said.success & ~result.failed.to(said.success.device)
        result = replace(result, success=success, share=said.share,
                         queries=result.queries + said.queries)
        sizes = [(image.shape[1], image.shape[2]) for image in pictures]
        return self.attacker.limited(task, result, sizes)[0], pictures
