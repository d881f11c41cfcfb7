"""Puts a pattern into images, differentiable with respect to the pattern."""
import torch
import torch.nn.functional as F
from torch import Tensor

from .placement import Places
from .transforms import Looks

__all__ = ['paint', 'room_of']


def room_of(region: Tensor) -> Tensor:
    """The least rectangle that holds all pixels of ``region`` (B, 1, H, W) bool: (B, 4) float ``x1 y1 x2 y2``.

    All 0 where there is none.

    Example:
        >>> region = torch.zeros(1, 1, 4, 5, dtype=torch.bool)
        >>> region[0, 0, 1:3, 2] = True
        >>> room_of(region)
        tensor([[2., 1., 3., 3.]])
    """
    def ends(used: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(used.shape[1], device=used.device)
        first = torch.where(used, places, used.shape[1]).amin(1)
        last = torch.where(used, places + 1, 0).amax(1)
        return torch.where(last > 0, first, 0), last

    (top, bottom), (left, right) = ends(region.any(3)[:, 0]), ends(region.any(2)[:, 0])
    return torch.stack([left, top, right, bottom], 1).float()


def paint(images: Tensor, region: Tensor, pattern: Tensor, mask: Tensor, places: Places,
          looks: Looks) -> tuple[Tensor, Tensor]:
    """Images with the pattern at all its places.

    Each place is filled by bilinear interpolation of the pattern at the centres of the image's
    pixels; a pattern that is shrunk is averaged to half its size, again and again, before. A pixel
    is painted where its centre lies in the place and nearest to a pixel of the mask. A place of the
    pattern's own size at whole pixels gets the pattern's very pixels.

    Args:
        images: (B, C, H, W) float in [0, 1].
        region: (B, 1, H, W) bool, pixels that may change.
        pattern: (C, h, w) float in [0, 1].
        mask: (h, w) bool, its pixels that are there.
        places: of the B images; where they overlap, the last one is seen.
        looks: of each place.

    Returns:
        The images (B, C, H, W), and which pixels are painted (B, 1, H, W) bool.
    """
    b, p = places.valid.nonzero(as_tuple=True)
    nothing = torch.zeros_like(region)
    if not len(b):
        return images, nothing
    height, width = images.shape[2:]
    size = places.size[b, p] * looks.zoom[b, p, None]
    rows, columns = _windows(places.centre[b, p], size, looks.angle[b, p], looks.tilt[b, p])
    down = rows[:, :, None] + 0.5 - places.centre[b, p, 0][:, None, None]
    across = columns[:, None] + 0.5 - places.centre[b, p, 1][:, None, None]
    v, u = _on_pattern(down, across, size, looks.angle[b, p], looks.tilt[b, p])
    inside = (u >= -1) & (u < 1) & (v >= -1) & (v < 1)
    if places.border is not None:
        edge = torch.minimum((1 - v.abs()) * size[:, :1, None], (1 - u.abs()) * size[:, 1:, None]) / 2
        inside = inside & (edge < places.border[b, p, None, None])

    # which pixels: in the image, in the region, and of overlapping patches the last one's
    grid = torch.stack([u, v], -1).to(pattern.dtype)
    shape = mask.to(pattern.dtype).expand(len(b), 1, *mask.shape)
    inside = inside & (F.grid_sample(shape, grid, 'nearest', align_corners=False)[:, 0] > 0.5)
    inside = inside & ((rows >= 0) & (rows < height))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[:, None]
    pixel = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    pixel = pixel + b[:, None, None] * (height * width)
    inside = inside & region.flatten()[pixel]
    number = torch.arange(len(b), device=b.device)[:, None, None].expand_as(pixel)
    owner = torch.full_like(region, -1, dtype=torch.int64).flatten()
    owner = owner.scatter_reduce(0, pixel[inside], number[inside], 'amax')
    inside = inside & (owner[pixel] == number)

    colours = F.grid_sample(_patterns(pattern, size, looks, b, p), grid, 'bilinear', 'border', False)
    contrast, brightness = (one[b, p, None, None, None] for one in (looks.contrast, looks.brightness))
    colours = (colours * contrast + brightness).clamp(0, 1)
    which = pixel[inside]
    image, place = which // (height * width), which % (height * width)
    painted = images.flatten(2).transpose(1, 2).index_put(
        (image, place), colours.permute(0, 2, 3, 1)[inside])
    return (painted.transpose(1, 2).unflatten(2, (height, width)),
            nothing.flatten(1).index_put((image, place), inside.new_ones(())).view_as(region))


def _windows(centre: Tensor, size: Tensor, angle: Tensor, tilt: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (N, S) and columns (N, T) of windows that hold the N patches; one size for all of them."""
    half = size / 2 / (1 - tilt.abs().sum(1, keepdim=True))
    cos, sin = angle.cos().abs(), angle.sin().abs()
    reach = torch.stack([half[:, 0] * cos + half[:, 1] * sin, half[:, 0] * sin + half[:, 1] * cos], 1)
    first = (centre - reach).floor().long()
    count = ((centre + reach).ceil().long() - first).amax(0).tolist()  # waits for the device, once
    rows, columns = (first[:, axis, None] + torch.arange(count[axis], device=centre.device)
                     for axis in (0, 1))
    return rows, columns


def _on_pattern(down: Tensor, across: Tensor, size: Tensor, angle: Tensor,
                tilt: Tensor) -> tuple[Tensor, Tensor]:
    """Where pixels lie on a pattern that reaches from -1 to 1, down and across.

    Args:
        down, across: (N, S, 1) and (N, 1, T), from the centre of the patch, in pixels.
    """
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    v = (down * cos + across * sin) * 2 / size[:, :1, None]
    u = (across * cos - down * sin) * 2 / size[:, 1:, None]
    away = 1 + v * tilt[:, :1, None] + u * tilt[:, 1:, None]
    behind = away <= 0
    away = away.masked_fill(behind, 1)
    return (v / away).masked_fill(behind, 2), (u / away).masked_fill(behind, 2)


def _patterns(pattern: Tensor, size: Tensor, looks: Looks, b: Tensor, p: Tensor) -> Tensor:
    """(N, C, h, w), the pattern for each of N patches: averaged where it is shrunk, with its noise."""
    levels, small = [pattern], pattern[None]
    while min(small.shape[2:]) > 1:
        small = F.interpolate(small, [max(side // 2, 1) for side in small.shape[2:]], mode='area')
        levels.append(F.interpolate(small, pattern.shape[1:], mode='bilinear', align_corners=False)[0])
    shrunk = (size.new_tensor(pattern.shape[1:]) / size).amin(1)
    level = shrunk.log2().floor().clamp(0, len(levels) - 1).long()
    found = torch.stack(levels)[level]
    return found if looks.noise is None else found + looks.noise[b, p]
