"""Seconds of an attack, and of the passes within it as a bare model would take them."""
import time

import torch
from torch import Tensor, nn

from sparse_dense_attacks import Attack, AttackResult, attack


def now() -> float:
    """Seconds; without a GPU those of the processor, which other jobs do not lengthen."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def clock(run):
    """What ``run()`` returns, and its seconds."""
    started = now()
    return run(), now() - started


def bare_pass(model: nn.Module, x: Tensor, wants_grad: bool) -> list[float]:
    """One forward, a backward to the images if wanted, and nothing else; the seconds of each."""
    with torch.set_grad_enabled(wants_grad):
        x = x.clone().requires_grad_(wants_grad)
        logits, forward = clock(lambda: model(x))
        if not wants_grad:
            return [forward]
        _, backward = clock(lambda: torch.autograd.grad(logits.sum(), x))
        return [forward, backward]


class Watched(nn.Module):
    """A model that repeats every eighth call on its own, for the time of bare passes meanwhile.

    Attributes:
        lost: seconds spent on these repetitions.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.lost = 0.0
        self.calls = 0
        passes = ('look', 'forward', 'backward')  # without a graph, with one, and through it
        self.images = dict.fromkeys(passes, 0)
        self.sampled = dict.fromkeys(passes, 0)
        self.seconds = dict.fromkeys(passes, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        name = 'forward' if x.requires_grad else 'look'
        self.calls += 1
        self.images[name] += len(x)
        if not self.sampled[name] or self.calls % 8 == 0:
            _, spent = clock(lambda: self._sample(name, x.detach()))
            self.lost += spent
        if not x.requires_grad:
            return self.model(x)
        x = x.view_as(x)
        x.register_hook(self._count_backward)  # attacks do not go back through every graph
        return self.model(x)

    def bare(self) -> float:
        """Seconds that all passes would have taken without an attack around them."""
        return sum(self.seconds[name] * count / self.sampled[name]
                   for name, count in self.images.items() if count)

    def _count_backward(self, grad: Tensor) -> None:
        self.images['backward'] += len(grad)

    def _sample(self, name: str, x: Tensor) -> None:
        wants_grad = name == 'forward'
        if not self.sampled[name]:
            bare_pass(self.model, x, wants_grad)  # the first of its kind has memory to fetch
        spent = bare_pass(self.model, x, wants_grad)
        for part, seconds in zip((name, 'backward'), spent, strict=False):
            self.sampled[part] += len(x)
            self.seconds[part] += seconds


def over_bare(model: nn.Module, images: Tensor, labels: Tensor, chosen: Attack,
              **options) -> tuple[AttackResult, float]:
    """What an attack finds, and its time over that of the passes it makes.

    ``options`` are those of ``attack()``.
    """
    watched = Watched(model)
    result, spent = clock(lambda: attack(watched, images, labels, chosen, **options))
    return result, (spent - watched.lost) / watched.bare()
