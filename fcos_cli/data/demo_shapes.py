"""Synthetic demo data set of circles, squares and triangles, for training without a download.

It can be learned in minutes but is not trivial: colors do not depend on the class, backgrounds are gradients with noise
and clutter lines, shapes are rotated, overlap slightly, range from an eighth to half of the image side, and some images
are empty. An image depends only on seed, split and number, so a longer set starts with the images of a shorter one.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import DataError, UsageError

CLASSES = ("circle", "square", "triangle")


@dataclass(frozen=True)
class Drawing:
    """How an image is drawn. smallest, largest: widths of its shapes, as fractions of its side. most: their number."""

    smallest: float = 0.12
    largest: float = 0.5
    most: int = 4


_MAKER = "fcos drawn shapes"
_SUPERSAMPLING = 4  # shapes are drawn this much larger and downsampled, for antialiasing
_EMPTY = 0.08  # fraction of images without a shape
_OVERLAP = 0.15  # maximum overlap as a fraction of the smaller box
_CONTRAST = 70.0  # minimum RGB distance between a shape and the mean background color
_CORNERS = {"square": (45, 135, 225, 315), "triangle": (90, 210, 330)}


def write_shapes(
    folder: Path, *, train: int, val: int, size: int = 160, seed: int = 0, drawing: Drawing | None = None
) -> Path:
    """Draw `train` + `val` images of size × size pixels; return `folder`.

    Writes `images/*.jpg` and the COCO files `train.json` and `val.json`; the same arguments give the same files.
    Replaces an earlier demo data set; raises DataError if the folder contains anything else.
    """
    if train < 1 or val < 1 or size < 32:
        raise UsageError(
            f"cannot draw {train} + {val} images of {size} px",
            remedy="use at least 1 + 1 images of 32 px",
        )
    if folder.exists() and any(folder.iterdir()) and not _is_ours(folder):
        raise DataError("the folder is not empty", where=folder, remedy="choose a new folder for the data set")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    first = 1
    for stream, (split, count) in enumerate((("train", train), ("val", val))):
        content = _draw_split(
            folder, split, count, size=size, seed=[seed, stream], first=first, drawing=drawing or Drawing()
        )
        with atomic_write(folder / f"{split}.json") as file:
            json.dump(content, file)
        first += count
    return folder


def _is_ours(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "train.json").read_text())["info"]["description"] == _MAKER)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _draw_split(
    folder: Path, split: str, count: int, *, size: int, seed: list[int], first: int, drawing: Drawing
) -> dict[str, Any]:
    """Draw and save the images of one split; return the content of its COCO file."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        image, shapes = draw_image(size, np.random.default_rng([*seed, number]), drawing)
        name = f"{split}_{number:05d}.jpg"
        image.save(folder / "images" / name, quality=92)
        images.append({"id": first + number, "file_name": name, "width": size, "height": size})
        for label, (x1, y1, x2, y2) in shapes:
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


def draw_image(
    size: int, rng: np.random.Generator, drawing: Drawing
) -> tuple[Image.Image, list[tuple[int, tuple[int, int, int, int]]]]:
    """Draw one RGB image; return it and its shapes in drawing order.

    Each shape is (class 0…2, box xyxy in whole pixels with exclusive ends).
    """
    image, mean = _background(size, rng)
    shapes: list[tuple[int, tuple[int, int, int, int]]] = []
    count = 0 if rng.random() < _EMPTY else int(rng.integers(1, drawing.most + 1))
    for _ in range(count * 6):  # a few attempts per shape; a crowded image may end up with fewer
        if len(shapes) == count:
            break
        label = int(rng.integers(len(CLASSES)))
        mask = _mask(CLASSES[label], size, rng, drawing)
        box = mask.point(lambda value: 255 if value >= 128 else 0).getbbox()
        if box is None or any(_overlap(box, other) > _OVERLAP for _, other in shapes):
            continue
        image.paste(_fill(size, mean, rng), mask=mask)
        shapes.append((label, box))
    noise = rng.normal(0, rng.uniform(2, 10), (size, size, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)), shapes


def _background(size: int, rng: np.random.Generator) -> tuple[Image.Image, npt.NDArray[np.float64]]:
    """Draw a gradient in a random direction with a few thin lines; return it and its mean color."""
    start = rng.uniform(20, 235, 3)
    end = np.clip(start + rng.uniform(-70, 70, 3), 0, 255)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = np.linspace(-0.5, 0.5, size)
    share = np.clip(0.5 + ramp[None, :] * math.cos(angle) + ramp[:, None] * math.sin(angle), 0, 1)[..., None]
    image = Image.fromarray((start * (1 - share) + end * share).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 4))):
        line = [tuple(rng.uniform(0, size, 2)) for _ in range(2)]
        pen.line(line, fill=tuple(int(value) for value in rng.integers(0, 256, 3)), width=max(1, size // 100))
    return image, (start + end) / 2


def _fill(size: int, background: npt.NDArray[np.float64], rng: np.random.Generator) -> Image.Image:
    """Return a color that contrasts with the background, with a slight vertical gradient."""
    color = rng.uniform(0, 255, 3)
    while np.linalg.norm(color - background) < _CONTRAST:
        color = rng.uniform(0, 255, 3)
    shade = np.linspace(1, rng.uniform(0.75, 1.25), size)[:, None, None]
    rows = np.clip(color * shade, 0, 255).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(rows, (size, size, 3)).copy())


def _mask(name: str, size: int, rng: np.random.Generator, drawing: Drawing) -> Image.Image:
    """Draw a mask of the shape, 0…255 with antialiased edges, completely inside the image."""
    radius = size * rng.uniform(drawing.smallest, drawing.largest) / 2
    x, y = rng.uniform(radius, size - radius, 2)
    turn = rng.uniform(0, 360)
    large = Image.new("L", (size * _SUPERSAMPLING, size * _SUPERSAMPLING))
    pen = ImageDraw.Draw(large)
    if name == "circle":
        pen.ellipse([value * _SUPERSAMPLING for value in (x - radius, y - radius, x + radius, y + radius)], fill=255)
    else:
        turns = [math.radians(corner + turn) for corner in _CORNERS[name]]
        corners = [(x + radius * math.cos(angle), y - radius * math.sin(angle)) for angle in turns]
        pen.polygon([(px * _SUPERSAMPLING, py * _SUPERSAMPLING) for px, py in corners], fill=255)
    return large.reduce(_SUPERSAMPLING)


def _overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    """Intersection as a fraction of the smaller box."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return max(width, 0) * max(height, 0) / smaller
