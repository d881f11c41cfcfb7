"""What was learned on one set of images and is put into others: a picture and a page about it."""
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..checks import check_value
from ..errors import InputError
from ..registry import PLACEMENTS
from .placement import Placement

__all__ = ['Artefact', 'read_picture']

FORMAT = 1
PICTURE = 'patch.png'


@dataclass(frozen=True, eq=False)
class Artefact:
    """A pattern with its placement.

    On disk ``patch.json`` and, beside it, ``patch.png``: the colours, opaque where the mask is.

    Attributes:
        pattern: (3, h, w) float in [0, 1], RGB, multiples of 1/255.
        mask: (h, w) bool, pixels that are there.
        placement: where it goes.
        story: how it was learned: model, goal, training split and the like.
    """
    pattern: Tensor
    mask: Tensor
    placement: Placement
    story: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """16 hex digits of what it looks like and where it goes."""
        found = hashlib.sha256(self._picture().tobytes())
        found.update(json.dumps([*self.mask.shape, _described(self.placement)]).encode())
        return found.hexdigest()[:16]

    def write(self, folder: Path) -> Path:
        """Write both files into a folder; returns the path of ``patch.json``, which is written last."""
        folder.mkdir(parents=True, exist_ok=True)
        self._picture().save(folder / PICTURE)
        page = dict(format=FORMAT, picture=PICTURE, digest=self.digest,
                    placement=_described(self.placement), **self.story)
        path = folder / 'patch.json'
        path.write_text(json.dumps(page, indent=2, default=str) + '\n')
        return path

    @classmethod
    def load(cls, path: str | Path) -> 'Artefact':
        """Read ``patch.json`` and its picture.

        Raises:
            InputError: they are missing, damaged, or do not belong together.
        """
        path = Path(path)
        try:
            page = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"artefact '{path}': {error}; expected the patch.json that sda fit "
                             'writes') from error
        if not isinstance(page, dict) or page.get('format') != FORMAT:
            raise InputError(f"artefact '{path}': no page of format {FORMAT}; expected the "
                             'patch.json that sda fit writes')
        for key in ('picture', 'digest', 'placement'):
            if key not in page:
                raise InputError(f"artefact '{path}': it has no '{key}'; expected the patch.json "
                                 'that sda fit writes')
        check_value('placement', page['placement'], f"artefact '{path}'")
        pixels = _pixels(path.parent / str(page.pop('picture')), 'RGBA')
        digest, placement = page.pop('digest'), PLACEMENTS.build(page.pop('placement'))
        page.pop('format')
        found = cls(pixels[:3] / 255, pixels[3] > 127, placement, page)
        if found.digest != digest:
            raise InputError(f"artefact '{path}': its picture or its placement is another than "
                             f'was learned (digest {found.digest}, expected {digest})')
        return found

    def _picture(self) -> Image.Image:
        alpha = self.mask[None].to(self.pattern) * 255
        pixels = torch.cat([self.pattern * 255, alpha]).round().to('cpu', torch.uint8)
        height, width = pixels.shape[1:]
        data = bytes(pixels.permute(1, 2, 0).reshape(-1).tolist())
        return Image.frombytes('RGBA', (width, height), data)


def read_picture(path: str | Path, height: int, width: int) -> Tensor:
    """The colours of an image file at another size, (3, height, width) in [0, 1], RGB.

    Raises:
        InputError: no such file, or no image.
    """
    return _pixels(Path(path), 'RGB', (width, height)) / 255


def _pixels(path: Path, mode: str, size: tuple[int, int] | None = None) -> Tensor:
    try:
        with Image.open(path) as opened:
            image = opened.convert(mode)
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"'{path}': no such file, or no image; expected a PNG") from error
    if size is not None and image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, len(mode)).permute(2, 0, 1).float()


def _described(placement: Placement) -> dict[str, Any]:
    fields = json.loads(json.dumps(asdict(placement)))  # type: ignore[call-overload]  # a dataclass
    return dict(type=type(placement).__name__, **fields)
