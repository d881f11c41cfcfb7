"""The contract of victims and scenes, and what they share; imports no model library."""
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import PurePath
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from ..checks import check_choice, check_config, check_names, shown
from ..defences import Defence, Shield, defend_batch
from ..errors import InputError
from ..registry import DEFENCES, Config, nearest
from .context import evaluating
from .geometry import Geometry, geometry_of
from .layers import layer_output
from .pipeline import FileGeometry

__all__ = ['Geometry', 'Scene', 'Victim', 'by_size', 'check_pixels', 'chosen_losses', 'geometry_of', 'padded_boxes',
           'sample_key', 'stack_inputs']

SceneType = TypeVar('SceneType', bound='Scene')


class Scene(Protocol):
    """One batch opened for attack; nobody writes into it.

    Beside the attributes, a scene has its task's truth and its task's one question:

    - classification: ``labels`` (B,), ``targets`` (B,) or None, ``logits(x, rows)`` (b, K);
    - segmentation: ``labels`` and ``valid`` (B, H', W'), ``shapes``, ``logits(x, rows)``
      (b, K, H', W');
    - detection: ``truth``, ``unjudged``, ``candidates(x, rows, rivals)`` and ``losses(x, rows, components)``.

    Of every task it shows the ``features(x, rows, layer)`` of an inner layer.

    Attributes:
        model: the victim's.
        images: (B, C, H, W) float in [0, 1], the loader's channel order, padded right and bottom.
        region: (B, 1, H, W) bool, pixels that may change; False at padding and letterbox.
        keys: sample ids.
        geometry: how each image became network input.
        num_classes: how many classes the model knows, None if unknown.
        classes: their names, None if unknown.
        shield: the defence before the model, None for none.
        clean_logits: (B, K), what a classifier said of ``images`` when they were opened, so that
            nobody has to look again; None where it was not asked.
    """
    model: nn.Module
    images: Tensor
    region: Tensor
    keys: Sequence
    geometry: Sequence[Geometry]
    num_classes: int | None = None
    classes: Sequence[str] | None = None
    shield: Shield | None = None
    clean_logits: Tensor | None = None

    def seen(self, x: Tensor, rows: Tensor) -> Tensor:
        """What the model is shown of candidates ``x`` (b, C, h, w) of ``rows``, of one size."""
        if self.shield is None:
            return x
        with torch.autocast(x.device.type, enabled=False):  # only the model computes in less
            return self.shield(x, rows)

    def restricted(self: SceneType, region: Tensor | None) -> SceneType:
        """A scene in which only pixels of ``region`` (B, 1, H, W) bool may change; None for all."""
        if region is None:
            return self
        if region.shape != self.region.shape or region.dtype != torch.bool:
            raise InputError(f'region: expected a bool tensor {tuple(self.region.shape)}, found '
                             f'{region.dtype} {tuple(region.shape)}')
        region = self.region & region.to(self.region.device)
        return dataclasses.replace(self, region=region)  # type: ignore[type-var]  # is a dataclass

    def on_files(self: SceneType, files: Sequence[FileGeometry]) -> SceneType:
        """A scene in which places are those of the image files, and only that.

        Its ``region``, ``geometry``, ``objects()`` and ``ignored()`` are in pixels of the files;
        what the model is asked about are network inputs as before.

        Args:
            files: how each image file became network input.
        """
        h, w = (max(file.source[axis] for file in files) for axis in (0, 1))
        region = self.region.new_zeros(len(files), 1, h, w)
        for inside, file in zip(region[:, 0], files, strict=True):
            inside[file.window()] = True
        geometry = tuple(file.of_file(one.file)
                         for file, one in zip(files, self.geometry, strict=True))
        return dataclasses.replace(  # type: ignore[type-var]  # is a dataclass
            self, region=region, geometry=geometry)

    def objects(self, classes: Sequence[int] | None = None) -> Tensor:
        """(B, 1, H, W) bool, pixels of what is right about the images.

        Args:
            classes: objects of these classes only.

        Raises:
            InputError: the task has no outlined objects.
        """
        raise InputError("images of this task have no outlined objects, so where cannot be "
                         "'inside' or 'outside'; give a folder of masks")

    def boxes(self, classes: Sequence[int] | None = None) -> Tensor:
        """(B, N, 4) float ``x1 y1 x2 y2``, boxes of what is right about the images, NaN at padding.

        In pixels of the network input, or of the files after :meth:`on_files`. Where outlines are
        pixels, each connected area of :meth:`objects` is an object.

        Args:
            classes: objects of these classes only.

        Raises:
            InputError: as :meth:`objects`.
        """
        masks = self.objects(classes)[:, 0].cpu().numpy()
        return padded_boxes([_boxes_of(mask) for mask in masks]).to(self.region.device)

    def features(self, x: Tensor, rows: Tensor, layer: str) -> Sequence[Tensor]:
        """What an inner layer of the model makes of candidates ``x`` (b, C, H, W) of ``rows``.

        Args:
            layer: dotted name of the module, see
                :func:`~sparse_dense_attacks.victims.layers.layer_output`.

        Returns:
            One map for each candidate: (b, ...), or a list of b where the images differ in size.

        Raises:
            InputError: no such layer, one that is not reached, or whose output is no features.
        """
        def look(part: Tensor, which: Tensor) -> Tensor:
            return layer_output(self.model, layer, lambda: self.show(part, which), len(part))

        return by_size(self.geometry, x, rows, look)

    def show(self, x: Tensor, rows: Tensor) -> Any:
        """Let the model look at candidates of one size, at least as far as its features."""
        raise InputError(f'{type(self).__name__} has no inner layers to look at')

    def ignored(self) -> Tensor:
        """(B, 1, H, W) bool, pixels that are neither object nor background.

        Crowds, difficult and ignored objects, pixels without a class; none by default.
        """
        return torch.zeros_like(self.region)


def chosen_losses(losses: Mapping[str, Any], components: Sequence[str] | None,
                  model: nn.Module) -> dict[str, Any]:
    """The parts of a training loss by their names, all where ``components`` is None.

    Raises:
        InputError: a name of no part.
    """
    if components is None:
        return dict(losses)
    for name in components:
        if name not in losses:
            close = nearest(name, losses)
            hint = f'{close} ' if close.startswith('did') else ''
            raise InputError(f'DetectorLoss: components: {type(model).__name__} has no loss '
                             f"'{name}': {hint}it has {', '.join(losses)}")
    return {name: losses[name] for name in components}


@runtime_checkable
class Victim(Protocol):
    """A model made attackable.

    Attributes:
        task: 'classification', 'detection' or 'segmentation'.
        takes: what :meth:`open` takes beside the batch, of 'labels', 'region', 'keys' and
            'targets'; nothing where the batch is a dict that holds them.
        model: the module.
        reference: what is right: 'truth', the annotations, or 'prediction', what the model says
            about the clean image, so that images without annotations can be attacked.
        num_classes: how many classes the model knows, None if unknown.
        defence: what happens to images before the model sees them, a
            :class:`~sparse_dense_attacks.defences.Defence`, its name or config; None for nothing.
            Attacks look through it, and what is judged is the model behind it.
        channel_order: of the images, 'rgb' or 'bgr', which a defence has to know.
    """
    task: ClassVar[str]
    takes: ClassVar[tuple[str, ...]] = ()
    model: nn.Module
    reference: str
    defence: Defence | Config | None = None
    channel_order: str = 'rgb'

    @property
    def num_classes(self) -> int | None:
        return None

    def check(self) -> None:
        """Build the defence; refuse a ``model`` that is no module, and words that are none."""
        if not isinstance(self.model, nn.Module):
            raise InputError(f'{type(self).__name__}: model = {shown(self.model)}, expected a '
                             'torch.nn.Module')
        check_choice(self, 'reference', ('truth', 'prediction'))
        check_choice(self, 'channel_order', ('rgb', 'bgr'))
        if self.defence is None:
            return
        check_config(self, 'defence')
        defence = DEFENCES.build(self.defence)
        if not isinstance(defence, Defence):
            raise InputError(f'{type(self).__name__}: defence = {shown(defence)}, expected one of '
                             f'{", ".join(DEFENCES)}')
        if defence.space != 'input':
            raise InputError(f"{type(self).__name__}: defence.space = 'original', but a victim sees "
                             "network inputs: put Defend into the test pipeline, as a config's "
                             "'defence' does")
        object.__setattr__(self, 'defence', defence)

    def shield(self, keys: Sequence) -> Shield | None:
        """The defence in front of images of these keys; None for none."""
        if self.defence is None:
            return None
        return Shield(self.defence, keys, self.channel_order)

    @property
    def draws(self) -> int:
        """Over how many answers an attack takes the mean; 1 where they are the same each time."""
        return 1 if self.defence is None else self.defence.draws

    def defended(self, batch: dict) -> dict:
        """What the stock model is shown in place of a batch of its test dataloader."""
        if self.defence is None:
            return batch
        keys = [sample_key(sample) for sample in batch['data_samples']]
        return defend_batch(self.defence, batch, keys, self.channel_order)

    def check_classes(self, classes) -> None:
        """Refuse names of classes that are none; nothing or an empty list leaves them unknown."""
        if classes is not None and classes not in ([], ()):
            check_names(self, 'classes')

    def session(self) -> AbstractContextManager:
        """Context in which the model is in evaluation mode and frozen; all is put back on exit."""
        return evaluating(self.model)

    def open(self, batch: Any, **given: Any) -> Scene:
        """Check a batch and make it attackable; call within :meth:`session`. It is not changed."""
        ...


def sample_key(sample) -> str:
    """A stable id for a data sample or a data set's info about one.

    The image id, else folder and name of its file, else its index. Only the last two parts of a
    path, so that neither draws nor records depend on where the data lie.
    """
    info = getattr(sample, 'metainfo', sample)
    if info.get('img_id') is not None:
        return str(info['img_id'])
    if info.get('img_path') is not None:
        return '/'.join(PurePath(info['img_path']).parts[-2:])
    if info.get('sample_idx') is not None:
        return str(info['sample_idx'])
    raise InputError("a data sample has none of the meta keys 'img_id', 'img_path', 'sample_idx': "
                     'add one to the meta_keys of the packing transform')


def check_pixels(image: Tensor, sample) -> None:
    """Refuse an input that is no raw image."""
    low, high = float(image.min()), float(image.max())
    scaled = image.is_floating_point() and high <= 1 and not torch.equal(image, image.round())
    if low < 0 or high > 255 or scaled:
        raise InputError(f"input of sample '{sample_key(sample)}' reaches from {low:.3g} to "
                         f'{high:.3g}, expected raw pixels in [0, 255]: normalisation belongs to '
                         "the model's data_preprocessor, not to the test pipeline")


def stack_inputs(inputs: Sequence[Tensor], samples: Sequence,
                 device) -> tuple[Tensor, Tensor, tuple[Geometry, ...]]:
    """Raw images (C, h, w) in [0, 255] as a batch.

    Returns:
        Images (B, C, H, W) float in [0, 1], padded right and bottom; the region (B, 1, H, W) bool,
        False at padding and letterbox; and each image's geometry.

    Raises:
        InputError: an input is no raw image.
    """
    h, w = (max(image.shape[axis] for image in inputs) for axis in (-2, -1))
    images = torch.zeros(len(inputs), inputs[0].shape[0], h, w)
    region = torch.zeros(len(inputs), 1, h, w, dtype=torch.bool)
    geometry = tuple(map(geometry_of, samples, inputs))
    for b, (image, sample) in enumerate(zip(inputs, samples, strict=True)):
        check_pixels(image, sample)
        images[b, :, :image.shape[-2], :image.shape[-1]] = image
        rows, columns = geometry[b].window
        region[b, :, rows, columns] = True
    return images.div_(255).to(device), region.to(device), geometry


def padded_boxes(boxes: Sequence[Tensor]) -> Tensor:
    """Boxes (n, 4) of each image as one tensor (B, N, 4), NaN at padding."""
    return torch.nn.utils.rnn.pad_sequence([one.float() for one in boxes], True, torch.nan)


def _boxes_of(mask: np.ndarray) -> Tensor:
    """(n, 4) float, the boxes of the connected areas of a mask (H, W)."""
    areas, _ = ndimage.label(mask)
    found = [[across.start, down.start, across.stop, down.stop]
             for down, across in ndimage.find_objects(areas)]
    return torch.tensor(found, dtype=torch.float32).reshape(-1, 4)


def by_size(geometry: Sequence[Geometry], x: Tensor, rows: Tensor,
            look: Callable[[Tensor, Tensor], Any]) -> Any:
    """Show images of equal size to the model together, others apart.

    None sees its neighbours' padding.

    Args:
        geometry: of all images of the scene.
        x: (b, C, H, W), candidates of the images ``rows``.
        look: takes candidates (n, C, h, w) without padding and their rows (n,), and says one thing
            of each.

    Returns:
        What was said of each of the b candidates.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for position, row in enumerate(rows.tolist()):
        groups.setdefault(geometry[row].input, []).append(position)
    if len(groups) == 1:
        (h, w), = groups
        return look(x[..., :h, :w], rows)
    found: list = [None] * len(rows)
    for (h, w), positions in groups.items():
        group = torch.tensor(positions)
        for position, said in zip(positions, look(x[group][..., :h, :w], rows[group]), strict=True):
            found[position] = said
    return found
