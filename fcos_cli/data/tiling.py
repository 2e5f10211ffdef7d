"""Overlapping square tiles of large images, on which small objects are large enough for the network. No torch.

Prediction and training use the same tiles: `predict.tiles` runs a detector on them, and `cut` makes them the images of
a training set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from fcos_cli.data.boxes import box_area, box_intersection
from fcos_cli.data.images import open_image
from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.errors import UsageError

MIN_VISIBLE = 0.25
"""Boxes with a smaller share in a training tile are ignored there."""

EMPTY_SHARE = 0.25
"""Tiles without objects in a training set, relative to those with objects. Most tiles of large images are empty, but
those with objects already show much background."""


@dataclass(frozen=True)
class Tiling:
    """Square tiles. side: pixels of the source image. overlap: of neighbouring tiles, a fraction of `side` if below 1,
    else pixels.

    Raises UsageError if side is below 32 or the overlap is negative or more than 0.8 of it.
    """

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.side < 32:
            raise UsageError(f"tiles must be at least 32 pixels wide, not {self.side}", where="--tile")
        if not 0 <= self.overlap_pixels <= 0.8 * self.side:
            raise UsageError(
                f"an overlap of {self.overlap:g} is not possible for tiles of {self.side} pixels",
                where="--overlap",
                remedy=f"use a fraction up to 0.8, or pixels up to {int(0.8 * self.side)}",
            )

    def __str__(self) -> str:
        return f"tiles of {self.side} px that overlap by {self.overlap_pixels:g} px"

    @property
    def overlap_pixels(self) -> float:
        return self.overlap * self.side if self.overlap < 1 else self.overlap

    def tiles(self, width: int, height: int) -> npt.NDArray[np.int64]:
        """Return the tiles as xyxy [T, 4], row by row.

        They are evenly spaced and cover the image. An image no larger than a tile is a single tile.
        """
        x_starts, y_starts = self._starts(width), self._starts(height)
        corners = np.array([(x, y) for y in y_starts for x in x_starts], np.int64)
        return np.hstack([corners, np.minimum(corners + self.side, (width, height))])

    def _starts(self, length: int) -> list[int]:
        if length <= self.side:
            return [0]
        count = math.ceil((length - self.overlap_pixels) / (self.side - self.overlap_pixels))
        return [round(n * (length - self.side) / (count - 1)) for n in range(count)]


def cut(dataset: Dataset, tiling: Tiling, *, seed: int) -> Dataset:
    """Return the tiles of a data set as samples, in the order of its images.

    These are the tiles with objects, and a random choice (by `seed`) of EMPTY_SHARE times as many without; images no
    larger than a tile, unchanged; and, as prediction runs on them too, whole images with an object that no tile shows
    completely. In such an image the objects that a tile shows completely are ignored.
    """
    samples = list(chain.from_iterable(_parts(sample, tiling) for sample in dataset.samples))
    tiles = [number for number, sample in enumerate(samples) if sample.part is not None]
    empty = [number for number in tiles if samples[number].ignore.all()]
    order = np.random.default_rng(seed).permutation(empty)
    dropped = set(order[round(EMPTY_SHARE * (len(tiles) - len(empty))) :].tolist())
    kept = [sample for number, sample in enumerate(samples) if number not in dropped]
    count, background = len(tiles) - len(dropped), len(empty) - len(dropped)
    origin = f"{dataset.origin}; {count} {tiling}, {background} of them without objects"
    if whole := len(kept) - count:
        origin += f", and {whole} whole images"
    return replace(dataset, samples=kept, origin=origin)


def _parts(sample: Sample, tiling: Tiling) -> list[Sample]:
    """All tiles of an image, and the image itself if it has an object that no tile shows completely."""
    tiles = tiling.tiles(sample.width, sample.height)
    if len(tiles) == 1:
        return [sample]
    inside = box_intersection(sample.boxes, tiles[:, None])  # [T, N, 4]
    visible = box_area(inside) / box_area(sample.boxes)
    parts = [_part(sample, *row) for row in zip(tiles, inside, visible, strict=True)]
    only_whole = ~sample.ignore & (visible.max(axis=0) < 1)
    return [*parts, replace(sample, ignore=~only_whole)] if only_whole.any() else parts


def _part(
    sample: Sample, tile: npt.NDArray[np.int64], boxes: npt.NDArray[np.float64], visible: npt.NDArray[np.float64]
) -> Sample:
    """The tile xyxy of an image. boxes [N, 4]: clipped to the tile; visible [N]: the share of each, 0…1."""
    x1, y1, x2, y2 = tile.tolist()
    moved = (boxes - (x1, y1, x1, y1)).astype(np.float32)
    shown = (moved[:, 2:] > moved[:, :2]).all(axis=1)
    return replace(
        sample,
        width=x2 - x1,
        height=y2 - y1,
        boxes=moved[shown],
        classes=sample.classes[shown],
        ignore=(sample.ignore | (visible < MIN_VISIBLE))[shown],
        areas=(sample.areas * visible)[shown],
        part=(x1, y1, x2, y2),
        full_size=(sample.width, sample.height),
    )


def open_sample(sample: Sample) -> npt.NDArray[np.uint8]:
    """The pixels of a sample, uint8 [H, W, 3]. Raises DataError if the file cannot be read.

    If the image is not as large as its annotations say, boxes are scaled with it; so are tiles.
    """
    image = open_image(sample.image)
    if sample.part is None or sample.full_size is None:
        return image
    scale = np.divide(image.shape[1::-1], sample.full_size)
    (x1, y1), (x2, y2) = np.rint(np.reshape(sample.part, (2, 2)) * scale).astype(int)
    return image[y1:y2, x1:x2]
