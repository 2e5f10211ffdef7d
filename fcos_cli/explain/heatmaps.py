"""Maps of one value per point → pictures: colours for people, mosaics of plain values for the page."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcos_cli.model.points import Grid

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

RAMP = ((13, 8, 60), (84, 15, 109), (187, 55, 84), (237, 105, 37), (251, 180, 26), (252, 255, 164))
"""Colours of 0, 0.2 … 1: dark to light at an even pace, so that grey prints and colour-blind readers keep the order."""


def colours(values: Floats) -> Bytes:
    """Values 0…1 [h, w] → uint8 [h, w, 3] RGB on the RAMP."""
    stops = np.linspace(0, 1, len(RAMP))
    channels = [np.interp(values, stops, [colour[channel] for colour in RAMP]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def to_grey(values: Floats) -> Bytes:
    """Values 0…1 → 0…255."""
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


def mosaic(maps: Floats) -> dict[str, Any]:
    """Maps [N, h, w] of values 0…1 side by side in one grey PNG, a pixel per point: `{"uri", "columns", "count"}`.

    Roughly square, since browsers limit the height of an image.
    """
    count, height, width = maps.shape
    columns = max(1, min(count, round(math.sqrt(count * height / width))))
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width), np.uint8)
    sheet[:count] = to_grey(maps)
    tiled = sheet.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    return {"uri": data_uri(tiled, "PNG"), "columns": columns, "count": count}


def over(image: Bytes, field: Floats) -> Bytes:
    """A field [H, W] of values 0…1 laid over the picture of that size, uint8 [H, W, 3], blended as in the page.

    One sees through it where it is low.
    """
    grey = image.astype(np.float32).mean(-1, keepdims=True) * 0.62
    share = np.minimum(1, 0.12 + 2.2 * field)[..., None] * 0.9
    blended: Floats = grey * (1 - share) + colours(field) * share
    return np.rint(blended).astype(np.uint8)


def normalize(values: Floats, grid: Grid, *, size: tuple[int, int], shape: tuple[int, int]) -> Floats:
    """Values [h, w], one per point of `grid`, as a field of pixels [H, W]: each cell filled evenly around its point.

    size: (width, height) in px of network input that the picture takes up there. shape: (H, W).
    """
    rows = _cells(shape[0], size[1] / shape[0], grid.spacing[0], grid.offset, values.shape[0])
    columns = _cells(shape[1], size[0] / shape[1], grid.spacing[1], grid.offset, values.shape[1])
    return values[rows[:, None], columns]


def _cells(length: int, scale: float, spacing: int, offset: float, count: int) -> npt.NDArray[np.int64]:
    """Index of the cell that each of `length` pixels falls into."""
    at = (np.arange(length) + 0.5) * scale
    return np.clip(np.floor(at / spacing - offset + 0.5).astype(np.int64), 0, count - 1)


def data_uri(image: Bytes, kind: str) -> str:
    """A grey [H, W] or RGB [H, W, 3] picture as a `data:` address; kind: `PNG` or `JPEG`."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, optimize=True, quality=88)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def resized(image: Bytes, *, longest: int) -> Bytes:
    """The picture with its longer side of `longest` px."""
    scale = longest / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
