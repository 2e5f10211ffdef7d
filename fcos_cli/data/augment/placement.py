"""Where a part of an image lands on the training canvas: one linear map for its pixels and its boxes. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Boxes = npt.NDArray[np.float32]

MIN_SIDE, MAX_STRETCH, TRIALS = 0.4, 2.0, 20
"""Crops: smallest side relative to the whole, largest change of the aspect ratio, and attempts to include a box."""

MIN_VISIBLE = 0.5
"""Boxes with a smaller visible share are ignored: neither an object nor background."""

SLACK = 1e-6
"""Pixels by which rounding errors may exceed a whole number."""


@dataclass(frozen=True)
class Region:
    """A rectangle in pixels of an image; it may reach beyond the image."""

    x: float
    y: float
    width: float
    height: float


def zoom_out(region: Region, *, largest: float, random: np.random.Generator) -> Region:
    """A region of the same shape, up to `largest` times as wide, with the given one at a random place in it."""
    factor = 1 + (largest - 1) * random.random()
    width, height = region.width * factor, region.height * factor
    right, down = random.random(2)
    return Region(region.x - right * (width - region.width), region.y - down * (height - region.height), width, height)


def crop(region: Region, boxes: Boxes, *, random: np.random.Generator) -> Region:
    """A random part of the region that holds the center of a box. Without one, or after TRIALS attempts: all of it.

    The idea is SSD's (§2.2), without its minimum overlaps, which small boxes cannot reach.
    """
    whole = np.array([region.width, region.height])
    sides: Floats = whole * (MIN_SIDE + (1 - MIN_SIDE) * random.random((TRIALS, 2)))
    starts: Floats = np.array([region.x, region.y]) + random.random((TRIALS, 2)) * (whole - sides)
    stretch = (sides / whole)[:, 0] / (sides / whole)[:, 1]
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    holds = ((centers > starts[:, None]) & (centers < (starts + sides)[:, None])).all(-1).any(-1)
    usable = holds & (stretch < MAX_STRETCH) & (stretch > 1 / MAX_STRETCH)
    if not usable.any():
        return region
    first = int(usable.argmax())
    return Region(*starts[first].tolist(), *sides[first].tolist())


@dataclass(frozen=True)
class Placement:
    """The pixels source = (x1, y1, x2, y2) of an image are resized to the pixels target of the canvas."""

    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]

    @property
    def is_empty(self) -> bool:
        """Whether no pixel of the image is on the canvas."""
        return min(b - a for x in (self.source, self.target) for a, b in ((x[0], x[2]), (x[1], x[3]))) <= 0

    def boxes(self, boxes: Boxes) -> tuple[Boxes, Floats]:
        """Boxes float32 [N, 4] xyxy on the canvas, clipped to the image's part of it, and the visible share of each."""
        if self.is_empty:
            return np.zeros_like(boxes), np.zeros(len(boxes))
        a, t = np.array(self.source, np.float64), np.array(self.target, np.float64)
        scale = (t[2:] - t[:2]) / (a[2:] - a[:2])
        moved = (boxes.reshape(-1, 2, 2) - a[:2]) * scale + t[:2]
        clipped = np.clip(moved, t[:2], t[2:])
        areas = [np.prod(part[:, 1] - part[:, 0], axis=1) for part in (clipped, moved)]
        return clipped.reshape(-1, 4).astype(np.float32), areas[0] / np.maximum(areas[1], 1e-9)


def place(
    region: Region,
    *,
    image: tuple[int, int],
    canvas: tuple[int, int],
    scale: tuple[float, float],
    random: np.random.Generator,
) -> Placement:
    """Fit the region into the canvas times a random factor from `scale`, at a random position.

    image, canvas: (height, width). What is larger than the canvas is cut off; where there is room, the image's pixels
    beside the region are shown.
    """
    factor = min(canvas[0] / region.height, canvas[1] / region.width)
    factor *= scale[0] + (scale[1] - scale[0]) * random.random()
    across = _fit(region.x, region.width, factor, image=image[1], canvas=canvas[1], at=random.random())
    down = _fit(region.y, region.height, factor, image=image[0], canvas=canvas[0], at=random.random())
    (x1, x2, u1, u2), (y1, y2, v1, v2) = across, down
    return Placement((x1, y1, x2, y2), (u1, v1, u2, v2))


def _fit(start: float, side: float, factor: float, *, image: int, canvas: int, at: float) -> tuple[int, int, int, int]:
    """Along one axis: first and last pixel of the image and of the canvas, in whole pixels, ends exclusive."""
    offset = at * (canvas - side * factor) - start * factor  # the image's 0 on the canvas
    first = min(max(math.floor(-offset / factor + SLACK), 0), image)
    last = min(max(math.ceil((canvas - offset) / factor - SLACK), 0), image)
    begin = round(first * factor + offset)
    end = begin + max(1, round((last - first) * factor))  # a side of less than a pixel is shown as one
    return first, last, min(max(begin, 0), canvas), min(max(end, 0), canvas)
