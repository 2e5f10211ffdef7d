"""The drawn demo data set: circles, squares and triangles, for a training that needs no download.

Learnable in minutes but not trivial: colours say nothing about the class, backgrounds are gradients with noise and
clutter lines, shapes are turned, overlap a little, range from an eighth to half of the side, and some pictures are
empty. A picture depends on seed, split and number only, so a longer set begins with the shorter one.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fcos_cli.errors import DataError, UsageError

CLASSES = ("circle", "square", "triangle")

_MAKER = "fcos drawn shapes"
_FINER = 4  # shapes are drawn this much larger and shrunk, which smooths their edges
_EMPTY = 0.08  # share of pictures without a shape
_SMALLEST, _LARGEST = 0.12, 0.50  # width of a shape as a share of the side
_OVERLAP = 0.15  # of the smaller box; more is drawn again elsewhere
_CONTRAST = 70.0  # least distance in RGB between a shape and the background's mean
_CORNERS = {"square": (45, 135, 225, 315), "triangle": (90, 210, 330)}


def write_shapes(folder: Path, *, train: int, val: int, size: int = 160, seed: int = 0) -> Path:
    """Draws `train` + `val` pictures of size × size pixels; returns `folder`.

    Writes `images/*.jpg` and COCO files `train.json` and `val.json`; the same arguments give the same files. A folder
    with other things in it raises DataError, an earlier drawn set is replaced.
    """
    if train < 1 or val < 1 or size < 32:
        raise UsageError(
            f"cannot draw {train} + {val} pictures of {size} px", remedy="at least one of each, and at least 32 px"
        )
    if folder.exists() and any(folder.iterdir()) and not _is_ours(folder):
        raise DataError("the folder is not empty", where=folder, remedy="name a new folder for the drawn data set")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    first = 1
    for stream, (split, count) in enumerate((("train", train), ("val", val))):
        content = _draw_split(folder, split, count, size=size, seed=[seed, stream], first=first)
        unfinished = folder / f"{split}.json.part"
        unfinished.write_text(json.dumps(content))
        unfinished.replace(folder / f"{split}.json")
        first += count
    return folder


def _is_ours(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "train.json").read_text())["info"]["description"] == _MAKER)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _draw_split(folder: Path, split: str, count: int, *, size: int, seed: list[int], first: int) -> dict[str, Any]:
    """The pictures of one split, saved; returns the content of its COCO file."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        picture, things = draw_picture(size, np.random.default_rng([*seed, number]))
        name = f"{split}_{number:05d}.jpg"
        picture.save(folder / "images" / name, quality=92)
        images.append({"id": first + number, "file_name": name, "width": size, "height": size})
        for label, (x1, y1, x2, y2) in things:
            width, height = x2 - x1, y2 - y1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": first + number,
                    "category_id": label + 1,
                    "bbox": [x1, y1, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES, start=1)]
    info = {"description": _MAKER, "seed": seed[0]}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def draw_picture(
    size: int, rng: np.random.Generator
) -> tuple[Image.Image, list[tuple[int, tuple[int, int, int, int]]]]:
    """One RGB picture and its shapes: (class 0…2, box xyxy in whole pixels, exclusive ends), in drawing order."""
    picture, mean = _background(size, rng)
    things: list[tuple[int, tuple[int, int, int, int]]] = []
    wanted = 0 if rng.random() < _EMPTY else int(rng.integers(1, 5))
    for _ in range(wanted * 6):  # a few tries each: a crowded picture may end up with fewer
        if len(things) == wanted:
            break
        label = int(rng.integers(len(CLASSES)))
        mask = _mask(CLASSES[label], size, rng)
        box = mask.point(lambda value: 255 if value >= 128 else 0).getbbox()
        if box is None or any(_overlap(box, other) > _OVERLAP for _, other in things):
            continue
        picture.paste(_fill(size, mean, rng), mask=mask)
        things.append((label, box))
    noise = rng.normal(0, rng.uniform(2, 10), (size, size, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)), things


def _background(size: int, rng: np.random.Generator) -> tuple[Image.Image, npt.NDArray[np.float64]]:
    """A gradient in any direction with a few thin lines, and its mean colour."""
    start = rng.uniform(20, 235, 3)
    end = np.clip(start + rng.uniform(-70, 70, 3), 0, 255)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = np.linspace(-0.5, 0.5, size)
    share = np.clip(0.5 + ramp[None, :] * math.cos(angle) + ramp[:, None] * math.sin(angle), 0, 1)[..., None]
    picture = Image.fromarray((start * (1 - share) + end * share).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(0, 4))):
        line = [tuple(rng.uniform(0, size, 2)) for _ in range(2)]
        pen.line(line, fill=tuple(int(value) for value in rng.integers(0, 256, 3)), width=max(1, size // 100))
    return picture, (start + end) / 2


def _fill(size: int, background: npt.NDArray[np.float64], rng: np.random.Generator) -> Image.Image:
    """A colour that stands out, a little brighter at the top or at the bottom."""
    colour = rng.uniform(0, 255, 3)
    while np.linalg.norm(colour - background) < _CONTRAST:
        colour = rng.uniform(0, 255, 3)
    shade = np.linspace(1, rng.uniform(0.75, 1.25), size)[:, None, None]
    rows = np.clip(colour * shade, 0, 255).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(rows, (size, size, 3)).copy())


def _mask(name: str, size: int, rng: np.random.Generator) -> Image.Image:
    """Where the shape is, 0…255 with smooth edges, wholly inside the picture."""
    radius = size * rng.uniform(_SMALLEST, _LARGEST) / 2
    x, y = rng.uniform(radius, size - radius, 2)
    turn = rng.uniform(0, 360)
    large = Image.new("L", (size * _FINER, size * _FINER))
    pen = ImageDraw.Draw(large)
    if name == "circle":
        pen.ellipse([value * _FINER for value in (x - radius, y - radius, x + radius, y + radius)], fill=255)
    else:
        turns = [math.radians(corner + turn) for corner in _CORNERS[name]]
        corners = [(x + radius * math.cos(angle), y - radius * math.sin(angle)) for angle in turns]
        pen.polygon([(px * _FINER, py * _FINER) for px, py in corners], fill=255)
    return large.reduce(_FINER)


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Shared area as a share of the smaller box."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(wide, 0) * max(high, 0) / smaller
