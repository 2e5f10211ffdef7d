"""Inputs of the parity check: input sizes, batch sizes, and the images that fill them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Pixels, ResizeRule
from fcos_cli.data.images import open_image
from fcos_cli.errors import UsageError
from fcos_cli.parity.subgraphs import FixedShape, SizeRange
from fcos_cli.runtime.graph_io import SMALLEST

Size = tuple[int, int]
"""(height, width) of the network input in pixels."""

STEP = 32
BATCHES = (1, 2, 5)

LARGEST_BATCH = 8 << 20
"""Pixels of a batch of several images. Five of 800 × 1344 have fewer; those of a larger input need many gigabytes."""


class Photo(NamedTuple):
    """An image for the parity check: uint8 [H, W, 3] RGB, and its file name without folders."""

    name: str
    pixels: npt.NDArray[np.uint8]


class Input(NamedTuple):
    """A batch for both sides.

    images: [B, 3, H, W], of the dtype of the resize rule. names: [B]. shown: the part of each input that is image
    rather than padding, uint8 [h, w, 3]. inside: int64 [B, 2], (height, width) of that part.
    """

    images: Pixels
    names: tuple[str, ...]
    shown: tuple[npt.NDArray[np.uint8], ...]
    inside: npt.NDArray[np.int64]

    @property
    def size(self) -> Size:
        return (int(self.images.shape[2]), int(self.images.shape[3]))


def load_photos(paths: Sequence[Path]) -> list[Photo]:
    """Read the images. Raises DataError for an unreadable image, and UsageError if there are none."""
    if not paths:
        raise UsageError("the parity check needs at least one image", remedy="give images like those the model is for")
    return [Photo(path.name, open_image(path)) for path in paths]


def choose_sizes(shape: FixedShape, rule: ResizeRule, *, span: SizeRange | None = None) -> list[Size]:
    """Return the input sizes to check, the size of the resize rule first.

    If the file accepts any size, the others are a different aspect ratio, a wide one, a tall one and the smallest, all
    within `span`. No side of these is a multiple of 128, unless the file fixes it or `span` limits it, so the maps of
    higher levels do not divide evenly.
    """
    _, fixed_height, fixed_width = shape
    first = (fixed_height or _round_up(rule.size[0]), fixed_width or _round_up(rule.size[1]))
    if fixed_height and fixed_width:
        return [first]
    side = min(first)
    others = [
        (_uneven(side * 0.75), _uneven(side)),
        (_uneven(side * 0.5), _uneven(side * 1.25)),
        (_uneven(side * 1.25), _uneven(side * 0.5)),
        (SMALLEST, SMALLEST),
    ]
    sizes = [first, *((fixed_height or height, fixed_width or width) for height, width in others)]
    low, high = span or ((1, 1), (1 << 16, 1 << 16))
    return list(dict.fromkeys((_clamp(h, low[0], high[0]), _clamp(w, low[1], high[1])) for h, w in sizes))


def choose_batches(shape: FixedShape) -> list[int]:
    return [shape[0]] if shape[0] else list(BATCHES)


def fitting(batches: Sequence[int], size: Size) -> list[int]:
    """The first of the batch sizes, and those of the others whose images together are not too large."""
    first, *others = batches
    return [first, *(batch for batch in others if batch * size[0] * size[1] <= LARGEST_BATCH)]


def choose_runs(sizes: Sequence[Size], batches: Sequence[int]) -> dict[Size, list[int]]:
    """The batch sizes to run at each input size: the first at every one, the others at the first that they fit."""
    runs = {size: [batches[0]] for size in sizes}
    for batch in batches[1:]:
        fit = [size for size in sizes if batch in fitting(batches, size)]
        if fit:
            runs[fit[0]].append(batch)
    return runs


def _clamp(side: int, low: int, high: int) -> int:
    return min(max(side, low), high)


def _round_up(side: float) -> int:
    return max(SMALLEST, -(-round(side) // STEP) * STEP)


def _uneven(side: float) -> int:
    """A multiple of 32 near `side`, not a multiple of 128 and not below the smallest size."""
    rounded = _round_up(side)
    return rounded + STEP if rounded % 128 == 0 else rounded


def batch_at_size(photos: Sequence[Photo], size: Size, batch: int, rule: ResizeRule) -> Input:
    """Letterbox `batch` different images to `size`: the photos, then transformed copies of them."""
    letterbox = replace(rule, mode="letterbox", size=size)
    return _input([_transformed(photos[i % len(photos)], i // len(photos)) for i in range(batch)], letterbox)


def batches_by_rule(photos: Sequence[Photo], batch: int, rule: ResizeRule) -> list[Input]:
    """Resize all photos by the model's own rule, as `predict` and `eval` do, in batches of `batch`.

    The last batch is filled up with the first photos.
    """
    starts = range(0, len(photos), batch)
    return [_input([photos[(start + i) % len(photos)] for i in range(batch)], rule) for start in starts]


def _input(photos: Sequence[Photo], rule: ResizeRule) -> Input:
    images, geometries = rule.batch([photo.pixels for photo in photos])
    shown = [
        np.ascontiguousarray(image.transpose(1, 2, 0)[: geometry.resized[1], : geometry.resized[0]]).astype(np.uint8)
        for image, geometry in zip(images, geometries, strict=True)
    ]
    inside = np.array([geometry.resized[::-1] for geometry in geometries], np.int64)
    return Input(images, tuple(photo.name for photo in photos), tuple(shown), inside)


def _transformed(photo: Photo, step: int) -> Photo:
    """The photo itself (step 0), mirrored, upside down, rotated by 180°, then the same again but darker, and so on."""
    dark, kind = divmod(step, 4)
    pixels: npt.NDArray[np.uint8] = photo.pixels
    pixels = pixels[:, ::-1] if kind in (1, 3) else pixels
    pixels = pixels[::-1] if kind in (2, 3) else pixels
    pixels = (pixels * 0.8**dark).astype(np.uint8) if dark else np.ascontiguousarray(pixels)
    name = photo.name + ("", ", mirrored", ", upside down", ", turned")[kind] + (f", darker {dark}" if dark else "")
    return Photo(name, pixels)
