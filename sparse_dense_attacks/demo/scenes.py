"""Synthetic scenes: shaded solids on textured, cluttered backgrounds, drawn with numpy and Pillow only.

Scene `(seed, index)` is a pure function of these two integers. Colour, surface pattern and size are drawn
independently of the class, so only the shape gives it away. The same scenes serve detection, segmentation and
classification.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ('ball', 'cube', 'cone', 'ring', 'star', 'heart')
PALETTE = [(230, 57, 70), (29, 120, 220), (255, 159, 28), (46, 196, 132), (241, 213, 33), (214, 80, 190)]
SIZE = (128, 160)  # height, width: multiples of 32, so the detector pads nothing
VERSION = 1  # written into every annotation file; raise it when the drawing changes, and old files are redrawn

_SUPERSAMPLING = 3
_MIN_VISIBLE = 0.4
_LIGHT = np.array([-0.45, -0.6, 0.66])  # x right, y down, z towards the viewer: from the upper left


@dataclass(frozen=True)
class Scene:
    """One picture and its truth.

    image:  uint8 (H, W, 3), RGB
    boxes:  float32 (n, 4), x1 y1 x2 y2 of the visible part in pixels, x2 and y2 exclusive
    labels: int64 (n,), indices into CLASSES
    areas:  int64 (n,), visible pixels of each object
    mask:   uint8 (H, W), 0 is background and 1 + label an object
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class _Sprite:
    """An object on its own square patch, rgb (s, s, 3) and alpha (s, s) in [0, 1], and where the patch goes."""

    label: int
    rgb: np.ndarray
    alpha: np.ndarray
    left: int
    top: int


def make_scene(seed: int, index: int, size: tuple[int, int] = SIZE) -> Scene:
    """Draw scene `index` of the series `seed` as `size` = (height, width) pixels, with 2 to 6 objects."""
    rng = np.random.default_rng((seed, index))
    canvas = _clutter(rng, _background(rng, size))
    sprites, owner = _arrange(rng, size)
    for sprite in sprites:
        canvas = _paint(canvas, sprite)
    canvas += rng.normal(0, rng.uniform(0.004, 0.02), canvas.shape)
    labels = np.array([sprite.label for sprite in sprites], np.int64)
    return Scene(
        image=np.rint(canvas.clip(0, 1) * 255).astype(np.uint8),
        boxes=np.array([_extent(owner == i) for i in range(len(sprites))], np.float32),
        labels=labels,
        areas=np.array([(owner == i).sum() for i in range(len(sprites))], np.int64),
        mask=np.append(labels + 1, 0)[owner].astype(np.uint8),  # owner is -1, the last entry, on the background
    )


# ---- shapes: which points of the square [-1, 1]^2 belong to the object, and the unit surface normal (x, y, z) there.
# Each takes the points' coordinates u (right) and v (down), and a generator for its proportions.


def _dome(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Complete a planar slope (u, v) to a unit normal that faces the viewer."""
    return np.stack([u, v, np.sqrt((1 - u**2 - v**2).clip(0))], -1)


def _ball(u, v, rng):
    return u**2 + v**2 <= 0.81, _dome(u / 0.9, v / 0.9)


def _cube(u, v, rng):
    yaw, pitch = rng.uniform(0.35, 1.22), rng.uniform(0.45, 0.7)
    turn = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
    rotation = tilt @ turn  # cube to picture
    origin = np.stack([u, v, np.zeros_like(u)], -1) @ rotation
    view = rotation[2]  # the viewer's direction, seen from the cube
    # Slabs: the ray origin + t * view enters the cube through the face it meets last.
    faces = (np.sign(view) * 0.58 - origin) / view
    leave = (-np.sign(view) * 0.58 - origin) / view
    face = faces.argmin(-1)
    return faces.min(-1) >= leave.max(-1), (np.sign(view)[:, None] * rotation.T)[face]


def _cone(u, v, rng):
    base, width = 0.62, 0.75
    half = (v + 1).clip(1e-3) / (1 + base) * width
    body = (np.abs(u) <= half) & (v >= -1) & (v <= base)
    bottom = (u / width) ** 2 + ((v - base) / 0.22) ** 2 <= 1
    x = (u / np.where(v <= base, half, width)).clip(-0.98, 0.98)
    return body | bottom, _dome(x * 0.95, np.full_like(v, -0.25))


def _ring(u, v, rng):
    v = v / rng.uniform(0.6, 1)
    radius = np.hypot(u, v).clip(1e-6)
    tube = (radius - 0.66) / rng.uniform(0.22, 0.3)
    return np.abs(tube) <= 1, _dome(tube * u / radius, tube * v / radius)


def _star(u, v, rng):
    inner, sector = rng.uniform(0.4, 0.5), 2 * math.pi / 5
    angle, radius = np.arctan2(u, -v), np.hypot(u, v)
    folded = (angle + sector / 2) % sector - sector / 2
    # The outline runs from the tip (1, 0) to the notch; each half of an arm is one flat facet leaning outwards.
    notch = inner * np.array([math.cos(sector / 2), math.sin(sector / 2)])
    outward = np.array([notch[1], 1 - notch[0]]) / math.hypot(notch[1], 1 - notch[0])
    inside = radius * (np.cos(folded) * outward[0] + np.abs(np.sin(folded)) * outward[1]) <= outward[0]
    facing = angle - folded + np.sign(folded) * math.atan2(outward[1], outward[0])
    return inside, _dome(0.6 * np.sin(facing), -0.6 * np.cos(facing))


def _heart(u, v, rng):
    x, y = 1.28 * u, 0.12 - 1.28 * v
    lift = y - 0.6 * np.sqrt(np.abs(x))  # shears the two halves of a ball upwards
    return x**2 + lift**2 <= 1, _dome(0.9 * x, -0.9 * lift)


_SHAPES: tuple[Callable, ...] = (_ball, _cube, _cone, _ring, _star, _heart)
_FREE_ROTATION = {'ball', 'ring', 'star'}  # the others stand upright, give or take


# ---- objects


def _colour(rng, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    """A random hue within the given saturation and value, as rgb in [0, 1]."""
    hue = (rng.uniform() * 6 + np.array([0, 4, 2])) % 6
    pure = (np.abs(hue - 3) - 1).clip(0, 1)
    return rng.uniform(*value) * (1 - rng.uniform(*saturation) * (1 - pure))


def _surface(u: np.ndarray, v: np.ndarray, rng) -> np.ndarray:
    """Plain, striped or dotted paint over the object's own coordinates, (s, s, 3)."""
    paint, second = _colour(rng, (0.5, 0.95), (0.6, 1.0)), _colour(rng, (0.1, 0.9), (0.5, 1.0))
    frequency, style = rng.uniform(4, 9), rng.choice(['plain', 'plain', 'stripes', 'dots'])
    waves = {
        'plain': np.full_like(u, -1.0),
        'stripes': np.sin(frequency * (u + 0.5 * v)),
        'dots': np.sin(frequency * u) * np.sin(frequency * v) - 0.35,
    }
    return np.where(waves[style][..., None] > 0, second, paint)


def _draw(rng, label: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Render one object of `radius` pixels; rgb (s, s, 3) and alpha (s, s) in [0, 1] with antialiased edges."""
    side = 2 * math.ceil(radius) + 2
    steps = (np.arange(side * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - side / 2
    x, y = np.meshgrid(steps / radius, steps / radius)
    reach = math.pi if CLASSES[label] in _FREE_ROTATION else 0.4
    turn = rng.uniform(-reach, reach)
    cos, sin = math.cos(turn), math.sin(turn)
    u, v = cos * x + sin * y, cos * y - sin * x
    inside, normal = _SHAPES[label](u, v, rng)
    light = np.array([cos * _LIGHT[0] + sin * _LIGHT[1], cos * _LIGHT[1] - sin * _LIGHT[0], _LIGHT[2]])
    gloss = light + [0, 0, 1]
    diffuse, specular = (normal @ light).clip(0), (normal @ gloss / np.linalg.norm(gloss)).clip(0) ** 24
    rgb = _surface(u, v, rng) * (0.38 + 0.7 * diffuse)[..., None] + 0.4 * specular[..., None]
    cells = (side, _SUPERSAMPLING, side, _SUPERSAMPLING)
    alpha = inside.reshape(cells).mean((1, 3))
    weighted = (rgb.clip(0, 1) * inside[..., None]).reshape(*cells, 3).mean((1, 3))
    return weighted / alpha.clip(1e-6)[..., None], alpha


def _arrange(rng, size: tuple[int, int]) -> tuple[list[_Sprite], np.ndarray]:
    """Place objects back to front so that each stays recognisable.

    Returns the sprites and the owner of each pixel, int (H, W): the index of its sprite, -1 on the background. A
    placement that would leave any object with less than `_MIN_VISIBLE` of its pixels in sight, be it hidden or
    outside the picture, is drawn anew.
    """
    height, width = size
    wanted = rng.integers(2, 7)
    sprites: list[_Sprite] = []
    totals: list[int] = []
    owner = np.full(size, -1)
    while len(sprites) < wanted:
        label = int(rng.integers(len(CLASSES)))
        radius = min(size) * math.exp(rng.uniform(math.log(0.085), math.log(0.25)))
        rgb, alpha = _draw(rng, label, radius)
        half = len(alpha) // 2
        margin = int(0.7 * radius)
        left, top = rng.integers(margin, width - margin) - half, rng.integers(margin, height - margin) - half
        sprite = _Sprite(label, rgb, alpha, int(left), int(top))
        trial = np.where(_on_canvas(sprite, alpha, size) > 0.5, len(sprites), owner)
        pixels = [*totals, int((alpha > 0.5).sum())]
        if all((trial == i).sum() >= _MIN_VISIBLE * total for i, total in enumerate(pixels)):
            sprites, totals, owner = [*sprites, sprite], pixels, trial
    return sprites, owner


def _on_canvas(sprite: _Sprite, patch: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The sprite's patch (s, s, ...) on an empty picture (H, W, ...), cut at the borders."""
    side, (height, width) = len(patch), size
    full = np.zeros((height + 2 * side, width + 2 * side, *patch.shape[2:]), patch.dtype)
    top, left = sprite.top + side, sprite.left + side
    full[top : top + side, left : left + side] = patch
    return full[side : side + height, side : side + width]


def _paint(canvas: np.ndarray, sprite: _Sprite) -> np.ndarray:
    """Lay the sprite and its soft shadow over the canvas (H, W, 3)."""
    size = canvas.shape[:2]
    alpha = _on_canvas(sprite, sprite.alpha, size)
    reach = max(2, len(sprite.alpha) // 12)
    dropped = _on_canvas(replace(sprite, left=sprite.left + reach, top=sprite.top + reach), sprite.alpha, size)
    shadow = np.asarray(Image.fromarray(np.uint8(dropped * 255)).filter(ImageFilter.GaussianBlur(reach))) / 255
    lit = canvas * (1 - 0.55 * shadow[..., None])
    return lit + alpha[..., None] * (_on_canvas(sprite, sprite.rgb, size) - lit)


def _extent(visible: np.ndarray) -> tuple[int, int, int, int]:
    """Tight x1 y1 x2 y2 of a boolean (H, W) mask with at least one pixel."""
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


# ---- backgrounds


def _noise(rng, size: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise in about [-1, 1], (H, W), with `cells` bumps along the shorter side."""
    height, width = (max(2, cells * edge // min(size)) for edge in size)
    grid = Image.fromarray(rng.uniform(-1, 1, (height, width)).astype(np.float32))
    return np.asarray(grid.resize(size[::-1], Image.Resampling.BICUBIC), np.float64)


def _background(rng, size: tuple[int, int]) -> np.ndarray:
    """A muted two-colour texture, float (H, W, 3): clouds, planks, tiles, weave or dots, unevenly lit."""
    y, x = np.mgrid[: size[0], : size[1]] * (128 / min(size))
    angle, period = rng.uniform(0, math.pi), rng.uniform(7, 22)
    across = x * math.cos(angle) + y * math.sin(angle) + 3 * _noise(rng, size, 4)
    along = y * math.cos(angle) - x * math.sin(angle) + 3 * _noise(rng, size, 4)
    wave = 2 * math.pi / period
    patterns = {
        'clouds': _noise(rng, size, 5) + 0.5 * _noise(rng, size, 11),
        'planks': np.tanh(4 * np.sin(wave * across)) + 0.4 * _noise(rng, size, 9),
        'tiles': np.tanh(4 * np.sin(wave * across / 2) * np.sin(wave * along / 2)),
        'weave': np.sin(2 * wave * across) * np.sin(2 * wave * along),
        'dots': np.tanh(6 * (np.sin(wave * across) * np.sin(wave * along) - 0.5)),
    }
    pattern = patterns[rng.choice(list(patterns))]
    blend = 0.5 + rng.uniform(0.1, 0.32) * pattern + 0.12 * _noise(rng, size, 3) + 0.06 * _noise(rng, size, 40)
    first, second = _colour(rng, (0.05, 0.4), (0.35, 0.95)), _colour(rng, (0.05, 0.4), (0.35, 0.95))
    light = 1 + rng.uniform(0.05, 0.2) * _noise(rng, size, 2)
    return (first + blend.clip(0, 1)[..., None] * (second - first)) * light[..., None]


def _clutter(rng, canvas: np.ndarray) -> np.ndarray:
    """Scatter flat marks that are no objects: lines, scribbles, blobs, triangles and specks."""
    height, width = canvas.shape[:2]
    scale = _SUPERSAMPLING
    sheet = Image.new('RGBA', (width * scale, height * scale))
    pen = ImageDraw.Draw(sheet)
    for _ in range(rng.integers(3, 10)):
        ink = (*(int(255 * c) for c in _colour(rng, (0.05, 0.6), (0.15, 0.95))), int(rng.integers(90, 220)))
        centre, reach = rng.uniform(0, 1, 2) * (width, height) * scale, rng.uniform(3, 16) * scale
        points = [tuple(centre + rng.uniform(-reach, reach, 2)) for _ in range(4)]
        thick = int(rng.integers(1, 3)) * scale
        mark = rng.choice(['line', 'scribble', 'blob', 'triangle', 'specks'])
        if mark == 'line':
            pen.line([tuple(centre), tuple(centre + rng.uniform(-6 * reach, 6 * reach, 2))], ink, thick)
        elif mark == 'scribble':
            pen.line(points, ink, thick, joint='curve')
        elif mark == 'blob':
            pen.ellipse([*(centre - reach / 2), *(centre + (reach / 2, reach / 5))], ink)
        elif mark == 'triangle':
            pen.polygon(points[:3], ink)
        else:
            for x, y in centre + rng.normal(0, reach, (12, 2)):
                pen.ellipse([x - scale, y - scale, x + scale, y + scale], ink)
    layer = np.asarray(sheet.resize((width, height), Image.Resampling.BOX), np.float64) / 255
    return canvas + layer[..., 3:] * (layer[..., :3] - canvas)


# ---- files


def write_coco(root: str | Path, split: str, count: int, seed: int) -> Path:
    """Write scenes 0 .. count - 1 of series `seed` below `root` and return the path of their annotation file.

    `<split>/*.png` are the images, `masks/<split>/*.png` the semantic masks, `annotations/instances_<split>.json` the
    boxes in COCO format. Nothing is done where this very set is already complete. Every file appears whole or not at
    all and the annotation file comes last, so a killed run is simply repeated, and processes that write the same set
    at once write the same bytes.
    """
    root = Path(root)
    annotation_file = root / 'annotations' / f'instances_{split}.json'
    info = dict(description='demo scenes', version=VERSION, seed=seed, count=count, size=list(SIZE))
    names = [f'{index:06d}.png' for index in range(count)]
    folders = (root / split, root / 'masks' / split)
    if annotation_file.exists():
        if is_complete(annotation_file, info, [folder / name for folder in folders for name in names]):
            return annotation_file
        annotation_file.unlink(missing_ok=True)  # a set that is being replaced must not look complete
    for folder in (*folders, annotation_file.parent):
        folder.mkdir(parents=True, exist_ok=True)
    images: list[dict] = []
    annotations: list[dict] = []
    for index, name in enumerate(names):
        scene = make_scene(seed, index)
        for folder, array in zip(folders, (scene.image, scene.mask), strict=True):
            write_whole(folder / name, Image.fromarray(array).save, format='PNG')
        images.append(dict(id=index, file_name=name, height=SIZE[0], width=SIZE[1]))
        annotations += _coco_objects(scene, index, len(annotations))
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)]
    document = dict(info=info, images=images, annotations=annotations, categories=categories)
    write_whole(annotation_file, lambda path: path.write_text(json.dumps(document)))
    return annotation_file


def _coco_objects(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    """The scene's objects as COCO annotations; ids start at 1 because pycocotools takes a match with id 0 for none."""
    return [
        dict(
            id=first_id + i + 1,
            image_id=image_id,
            category_id=int(label) + 1,
            bbox=[float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            area=int(area),
            iscrowd=0,
        )
        for i, ((x1, y1, x2, y2), label, area) in enumerate(zip(scene.boxes, scene.labels, scene.areas, strict=True))
    ]


def is_complete(annotation_file: Path, info: dict, files: list[Path]) -> bool:
    """Whether the annotation file describes exactly this set and all its files are there."""
    return json.loads(annotation_file.read_text()).get('info') == info and all(file.exists() for file in files)


def write_whole(path: Path, write: Callable, **options) -> None:
    """Let `write` fill a file next to `path`, then put it in place in one step."""
    draft = path.with_name(f'.{path.name}.{os.getpid()}')
    write(draft, **options)
    os.replace(draft, path)
