"""Render maps of one value per point: in colour for people, as mosaics of plain values for the page."""

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
"""Colours of 0, 0.2 … 1, from dark to light, so that they also work in grey and for colour-blind readers."""


def colours(values: Floats) -> Bytes:
    """Map values 0…1 [h, w] to colours of RAMP, uint8 [h, w, 3] RGB."""
    stops = np.linspace(0, 1, len(RAMP))
    channels = [np.interp(values, stops, [colour[channel] for colour in RAMP]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def to_grey(values: Floats) -> Bytes:
    """Map values 0…1 to 0…255."""
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


def mosaic(maps: Floats) -> dict[str, Any]:
    """Tile maps [N, h, w] of values 0…1 in one grey PNG, one pixel per point: `{"uri", "columns", "count"}`.

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
    """Blend a field [H, W] of values 0…1 over an image of the same size, uint8 [H, W, 3], as in the page.

    Low values are nearly transparent.
    """
    grey = image.astype(np.float32).mean(-1, keepdims=True) * 0.62
    share = np.minimum(1, 0.12 + 2.2 * field)[..., None] * 0.9
    blended: Floats = grey * (1 - share) + colours(field) * share
    return np.rint(blended).astype(np.uint8)


def normalize(values: Floats, grid: Grid, *, size: tuple[int, int], shape: tuple[int, int]) -> Floats:
    """Resample values [h, w], one per point of `grid`, to pixels [H, W]; each point fills the cell centred on it.

    size: (width, height) of the image in px of network input. shape: (H, W).
    """
    rows = _cells(shape[0], size[1] / shape[0], grid.spacing[0], grid.offset, values.shape[0])
    columns = _cells(shape[1], size[0] / shape[1], grid.spacing[1], grid.offset, values.shape[1])
    return values[rows[:, None], columns]


def _cells(length: int, scale: float, spacing: int, offset: float, count: int) -> npt.NDArray[np.int64]:
    """Index of the cell of each of `length` pixels."""
    centres = (np.arange(length) + 0.5) * scale
    return np.clip(np.floor(centres / spacing - offset + 0.5).astype(np.int64), 0, count - 1)


def data_uri(image: Bytes, kind: str) -> str:
    """Encode a grey [H, W] or RGB [H, W, 3] image as a `data:` URI; kind: `PNG` or `JPEG`."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, optimize=True, quality=88)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def resized(image: Bytes, *, longest: int) -> Bytes:
    """Resize an image so that its longer side is `longest` px."""
    scale = longest / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
