"""Boxes that are small in the network's input, and what would make them larger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.samples import Dataset, Finding
from fcos_cli.data.tiling import Tiling

TINY_SHARE = 0.1
LARGER = (1.5, 2, 3, 4)  # input sizes to try, relative to the present one
TILES = (4, 3, 2, 1.5, 1, 0.75, 0.5)  # tiles to try: source pixels per pixel of network input
FINER_COST = 3.0  # of a first stride of 4, relative to 8: the head and the pyramid have four times as many points


class BoxSizes(NamedTuple):
    """Sizes (width, height) in source pixels. sides: of the boxes [M, 2]. images: the different ones [U, 2]. owner: the
    image size of each box [M], an index into `images`. counts: how many images have each size [U].
    """

    sides: npt.NDArray[np.float64]
    images: npt.NDArray[np.int64]
    owner: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    def tiny(self, resize: ResizeRule | None, *, stride: int, tile: float = np.inf) -> float:
        """Return the share of the boxes, 0…1, that are less than `stride` px wide or high in the network input.

        tile: side of the tiles that become the input, in source pixels.
        """
        return float((self._in_input(resize, tile=tile).min(axis=1) < stride).mean())

    def invisible(self, resize: ResizeRule) -> float:
        """Return the share of the boxes, 0…1, that are less than 1 px wide and high in the network input."""
        return float((self._in_input(resize).max(axis=1) < 1).mean())

    def _in_input(self, resize: ResizeRule | None, *, tile: float = np.inf) -> npt.NDArray[np.float64]:
        """`sides` in pixels of the network input."""
        shown = np.minimum(self.images, tile).astype(np.int64)
        resized = [resize.geometry(*size).resized if resize else size for size in shown.tolist()]
        scale = np.reshape(resized, (-1, 2)) / shown
        return self.sides * scale[self.owner]


def box_sizes(dataset: Dataset) -> BoxSizes:
    """Sizes of the boxes of a split that are not ignored, and of its images."""
    boxes = [sample.boxes[~sample.ignore] for sample in dataset.samples]
    sizes = np.array([(sample.width, sample.height) for sample in dataset.samples], np.int64).reshape(-1, 2)
    images, owner, counts = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
    corners = np.concatenate([*boxes, np.zeros((0, 4))])
    return BoxSizes(
        corners[:, 2:] - corners[:, :2], images, np.repeat(owner.reshape(-1), [len(rows) for rows in boxes]), counts
    )


class _Remedy(NamedTuple):
    """A way to make boxes larger. left: share of the boxes that stay tiny, 0…1. cost: computation, relative to now."""

    name: str
    option: str
    left: float
    cost: float


def find_tiny(dataset: Dataset, *, resize: ResizeRule | None, stride: int) -> Iterator[Finding]:
    """Find boxes smaller than a cell of the finest level, and what would make them larger; see `doctor.examine`."""
    sizes = box_sizes(dataset)
    total = len(sizes.sides)
    share = sizes.tiny(resize, stride=stride) if total else 0.0
    if share <= TINY_SHARE:
        return
    message = f"{share:.0%} of {total:,} boxes are less than {stride} px wide or high"
    if resize is None:
        advice = "train with a larger --size, or on tiles (--tile)"
        yield Finding("tiny-boxes", "warning", dataset.split, f"{message} in source pixels", advice)
        return
    remedies = _remedies(sizes, resize, stride=stride)
    first, *others = remedies
    effects = [f"{first.name} leaves {first.left:.0%}", *(f"{remedy.name} {remedy.left:.0%}" for remedy in others)]
    message += f" at input size {resize.size[0]} x {resize.size[1]} ({resize.mode}): {', '.join(effects)}"
    cheapest = _cheapest(remedies)
    yield Finding("tiny-boxes", "warning", dataset.split, message, cheapest or "combine two of these")


def enlarge(sizes: BoxSizes, resize: ResizeRule, *, stride: int) -> str:
    """Return advice for boxes that are too small to be learned at all; arguments as in `find_tiny`."""
    remedies = _remedies(sizes, resize, stride=stride)
    return _cheapest(remedies) or f"check that the boxes are in pixels, or use {remedies[-1].option}"


def _cheapest(remedies: Iterable[_Remedy]) -> str:
    """Advice to use the cheapest of the remedies that are enough; empty if none is."""
    enough = [remedy for remedy in remedies if remedy.left < TINY_SHARE]
    return f"use {min(enough, key=lambda remedy: remedy.cost).option}" if enough else ""


def _remedies(sizes: BoxSizes, resize: ResizeRule, *, stride: int) -> list[_Remedy]:
    """Return the smallest larger input, a finer first level, and the largest tiles that suffice.

    Where no input or no tiles suffice, it is the largest input or the smallest tiles tried.
    """

    def size(factor: float) -> _Remedy:
        height, width = (32 * max(1, round(side * factor / 32)) for side in resize.size)
        option = _size_option(height, width)
        left = sizes.tiny(replace(resize, size=(height, width)), stride=stride)
        return _Remedy(option, option, left, factor**2)

    def tile(side: int) -> _Remedy:
        counts = np.array([len(Tiling(side).tiles(*image)) for image in sizes.images.tolist()])
        runs = np.average(counts + (counts > 1), weights=sizes.counts)  # also on the whole image
        left = sizes.tiny(resize, stride=stride, tile=side)
        # the automatic input is never larger than the images, which would be these tiles
        option = f"--tile {side}" + (f" {_size_option(*resize.size)}" if side < max(resize.size) else "")
        return _Remedy(option, option, left, float(runs))

    remedies = [_first_enough(size(factor) for factor in LARGER)]
    if stride == 8:
        option = '--set "model.strides=[4,8,16,32,64]"'
        remedies.append(_Remedy("model.strides 4…64", option, sizes.tiny(resize, stride=4), FINER_COST))
    usual = np.median(np.repeat(sizes.images.max(axis=1), sizes.counts))
    sides = [32 * round(min(resize.size) * factor / 32) for factor in TILES]
    if sides := [side for side in sides if 32 <= side < usual]:
        remedies.append(_first_enough(tile(side) for side in sides))
    return remedies


def _size_option(height: int, width: int) -> str:
    return f"--size {height}" if height == width else f"--size {height}x{width}"


def _first_enough(remedies: Iterable[_Remedy]) -> _Remedy:
    """Return the first after which few boxes are tiny, or else the last. Each must leave no more than those before."""
    for remedy in remedies:
        if remedy.left < TINY_SHARE:
            break
    return remedy
