"""What the proof shows to both sides: which sizes and batches, and the pictures that fill them."""

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
"""(height, width) of network input in pixels."""

STEP = 32
BATCHES = (1, 2, 5)


class Photo(NamedTuple):
    """A picture to prove with: uint8 [H, W, 3] RGB, and its file's name (reports are for showing: no folders)."""

    name: str
    pixels: npt.NDArray[np.uint8]


class Input(NamedTuple):
    """A batch as both sides see it: images [B, 3, H, W] of the rule's type; names [B]; shown: the part of each that is
    picture, not padding, uint8 [h, w, 3]; inside: int64 [B, 2], height and width of that part.
    """

    images: Pixels
    names: tuple[str, ...]
    shown: tuple[npt.NDArray[np.uint8], ...]
    inside: npt.NDArray[np.int64]

    @property
    def size(self) -> Size:
        return (int(self.images.shape[2]), int(self.images.shape[3]))


def load_photos(paths: Sequence[Path]) -> list[Photo]:
    """Raises DataError for a picture that cannot be read, and UsageError for none at all."""
    if not paths:
        raise UsageError("the proof needs at least one picture", remedy="name pictures of the kind the model is for")
    return [Photo(path.name, open_image(path)) for path in paths]


def choose_sizes(shape: FixedShape, rule: ResizeRule, *, span: SizeRange | None = None) -> list[Size]:
    """Sizes to prove at, the one of the resize rule first.

    Where the file takes any size: also another aspect, a wide and a tall one, none of them a multiple of 128 (where
    the maps of the higher levels do not divide evenly), and the smallest one; all within `span`.
    """
    _, fixed_height, fixed_width = shape
    first = (fixed_height or _whole(rule.size[0]), fixed_width or _whole(rule.size[1]))
    if fixed_height and fixed_width:
        return [first]
    side = min(first)
    wanted = [
        (_uneven(side * 0.75), _uneven(side)),
        (_uneven(side * 0.5), _uneven(side * 1.25)),
        (_uneven(side * 1.25), _uneven(side * 0.5)),
        (SMALLEST, SMALLEST),
    ]
    sizes = [first, *((fixed_height or height, fixed_width or width) for height, width in wanted)]
    low, high = span or ((1, 1), (1 << 16, 1 << 16))
    return list(dict.fromkeys((_within(h, low[0], high[0]), _within(w, low[1], high[1])) for h, w in sizes))


def choose_batches(shape: FixedShape) -> list[int]:
    return [shape[0]] if shape[0] else list(BATCHES)


def _within(side: int, low: int, high: int) -> int:
    return min(max(side, low), high)


def _whole(side: float) -> int:
    return max(SMALLEST, -(-round(side) // STEP) * STEP)


def _uneven(side: float) -> int:
    """A multiple of 32, not of 128, near `side` and not below the smallest."""
    whole = _whole(side)
    return whole + STEP if whole % 128 == 0 else whole


def batch_at_size(photos: Sequence[Photo], size: Size, batch: int, rule: ResizeRule) -> Input:
    """`batch` different pictures letterboxed to `size`: the photos, and when they run out, the photos turned."""
    letterbox = replace(rule, mode="letterbox", size=size)
    return _input([_turned(photos[i % len(photos)], i // len(photos)) for i in range(batch)], letterbox)


def batches_by_rule(photos: Sequence[Photo], batch: int, rule: ResizeRule) -> list[Input]:
    """All photos as `predict` and `eval` show them: by the model's own resize rule, `batch` at a time.

    The last batch is filled up with the first photos again.
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


def _turned(photo: Photo, turn: int) -> Photo:
    """The same photo (0), mirrored, upside down, turned by 180°, then the same again a little darker, and so on."""
    dark, way = divmod(turn, 4)
    pixels: npt.NDArray[np.uint8] = photo.pixels
    pixels = pixels[:, ::-1] if way in (1, 3) else pixels
    pixels = pixels[::-1] if way in (2, 3) else pixels
    pixels = (pixels * 0.8**dark).astype(np.uint8) if dark else np.ascontiguousarray(pixels)
    name = photo.name + ("", ", mirrored", ", upside down", ", turned")[way] + (f", darker {dark}" if dark else "")
    return Photo(name, pixels)
