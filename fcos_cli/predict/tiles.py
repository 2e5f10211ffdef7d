"""Large pictures in overlapping tiles, so that small objects reach the network at a size it knows.

Notable choices:
- The whole picture is looked at too: what is larger than a tile is found there.
- A box that ends at an inner border of its tile is *cut*. Where another tile holds all of it, that tile decides and
  the cut box goes. Otherwise two tiles that agree on the strip that both see have seen one object: a cut box that
  agrees with a whole one goes, cut boxes that agree become one box.
- Then one greedy NMS per class over everything, in numpy, with the model's own IoU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcos_cli.data.boxes import box_area, box_intersection, box_iou
from fcos_cli.data.geometry import Geometry, Pixels
from fcos_cli.errors import UsageError
from fcos_cli.predict.prefetch import prefetch
from fcos_cli.runtime.detector import Detector, detect_batch
from fcos_cli.runtime.results import Detections

Boxes = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_MARGIN = 0.02
"""Of a tile's side: boxes that come this near to a border are taken to touch it."""
_AGREE = 0.5
"""IoU, inside what two tiles both see, from which two boxes are of one object."""


@dataclass(frozen=True)
class Tiling:
    """Tiles of `side` pixels of the source; neighbours share `overlap`: less than 1 is a fraction of `side`, else px.

    Raises UsageError for a side under 32 and for an overlap of more than 0.8 of it.
    """

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.side < 32:
            raise UsageError(f"a tile has at least 32 pixels a side, not {self.side}", where="--tile")
        if not 0 <= self.shared <= 0.8 * self.side:
            raise UsageError(
                f"tiles of {self.side} cannot overlap by {self.overlap:g}",
                where="--overlap",
                remedy=f"use a fraction up to 0.8, or pixels up to {int(0.8 * self.side)}",
            )

    @property
    def shared(self) -> float:
        """The overlap in pixels."""
        return self.overlap * self.side if self.overlap < 1 else self.overlap

    def tiles(self, width: int, height: int) -> npt.NDArray[np.int64]:
        """xyxy [T, 4] row by row: evenly spread, together the whole picture; one where it is no larger than a tile."""
        across, down = self._starts(width), self._starts(height)
        corners = np.array([(x, y) for y in down for x in across], np.int64)
        return np.hstack([corners, np.minimum(corners + self.side, (width, height))])

    def _starts(self, length: int) -> list[int]:
        if length <= self.side:
            return [0]
        count = math.ceil((length - self.shared) / (self.side - self.shared))
        return [round(n * (length - self.side) / (count - 1)) for n in range(count)]


def detect_in_tiles(
    detector: Detector,
    image: npt.NDArray[np.uint8],
    tiling: Tiling,
    *,
    batch: int = 1,
    threshold: float | npt.NDArray[np.float32] | None = None,
) -> Detections:
    """What is found in uint8 [H, W, 3] and in its tiles, best first, in pixels of the picture.

    batch: tiles per call of the network; no more than a few batches are in memory. threshold: as in `predict`, applied
    before boxes are merged. There may be more than the model's own limit per picture.
    """
    height, width = image.shape[:2]
    tiles = tiling.tiles(width, height)
    if len(tiles) > 1:
        tiles = np.vstack([[0, 0, width, height], tiles])
    groups = (tiles[n : n + batch] for n in range(0, len(tiles), batch))
    parts: list[Detections] = []
    for pixels, geometries in prefetch(_inputs(detector, image, groups), count=2):
        parts += detect_batch(detector, pixels, geometries)
    if threshold is not None:
        parts = [part.above(threshold) for part in parts]
    origin = np.concatenate([np.full(len(part), n) for n, part in enumerate(parts)])
    boxes = np.concatenate([part.boxes for part in parts])
    boxes = boxes + np.tile(tiles[origin, :2], 2).astype(np.float32)
    found = Detections(boxes, *(np.concatenate([getattr(p, name) for p in parts]) for name in ("scores", "classes")))
    return merge(found, tiles[origin], tiles, margin=_MARGIN * tiling.side, iou=detector.facts.nms_iou)


def merge(
    found: Detections,
    seen: npt.NDArray[np.int64],
    tiles: npt.NDArray[np.int64],
    *,
    margin: float,
    iou: float,
) -> Detections:
    """One picture's detections out of those of its tiles, best first. See the module's notable choices.

    found: in pixels of the picture. seen: the tile of each, xyxy [N, 4]. tiles: all of them [T, 4].
    """
    cut = touches(found.boxes, seen, tiles, margin=margin)
    whole = ~cut
    left = cut & ~_held(found.boxes, tiles, margin=margin)
    left[left] = ~(_agree(found, seen, left, whole).any(axis=1))
    pieces, groups = np.flatnonzero(left), _groups(_agree(found, seen, left, left))

    kept = [np.flatnonzero(whole)] + [pieces[group] for group in groups]
    boxes = np.concatenate([found.boxes[whole]] + [_union(found.boxes[i])[None] for i in kept[1:]])
    scores = np.concatenate([found.scores[whole]] + [found.scores[i].max(keepdims=True) for i in kept[1:]])
    classes = np.concatenate([found.classes[whole]] + [found.classes[i[:1]] for i in kept[1:]])
    keep = nms(boxes, scores, classes, iou=iou)
    return Detections(boxes[keep], scores[keep], classes[keep])


def nms(
    boxes: Boxes, scores: npt.NDArray[np.float32], classes: npt.NDArray[np.int64], *, iou: float
) -> npt.NDArray[np.int64]:
    """Indices of what greedy NMS per class leaves, best first; of equal scores the earlier is better.

    The semantic of `model.nms.keep_mask`: a box goes where it overlaps a better kept one by more than `iou`.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        rivals = (box_iou(boxes[best][None], boxes[waiting])[0] > iou) & (classes[waiting] == classes[best])
        waiting = waiting[~rivals]
    return np.array(kept, np.int64)


def touches(
    boxes: Boxes, seen: npt.NDArray[np.int64], tiles: npt.NDArray[np.int64], *, margin: float
) -> npt.NDArray[np.bool_]:
    """bool [N]: does the box come within `margin` of a border of its tile that is not the picture's own?"""
    if not len(tiles):
        return np.zeros(len(boxes), bool)
    edge = np.concatenate([tiles[:, :2].min(0), tiles[:, 2:].max(0)])
    near = np.hstack([boxes[:, :2] <= seen[:, :2] + margin, boxes[:, 2:] >= seen[:, 2:] - margin])
    answer: Mask = (near & (seen != edge)).any(axis=1)
    return answer


def _inputs(
    detector: Detector, image: npt.NDArray[np.uint8], groups: Iterator[npt.NDArray[np.int64]]
) -> Iterator[tuple[Pixels, list[Geometry]]]:
    for group in groups:
        yield detector.facts.resize.batch([image[y1:y2, x1:x2] for x1, y1, x2, y2 in group.tolist()])


def _held(boxes: Boxes, tiles: npt.NDArray[np.int64], *, margin: float) -> Mask:
    """bool [N]: is there a tile, the whole picture apart, that holds the box without touching it?"""
    held = np.zeros(len(boxes), bool)
    edge = np.concatenate([tiles[:, :2].min(0), tiles[:, 2:].max(0)])
    for tile in tiles:
        if (tile == edge).all():
            continue
        inside = np.hstack([boxes[:, :2] > tile[:2] + margin, boxes[:, 2:] < tile[2:] - margin])
        held |= (inside | (tile == edge)).all(axis=1)
    return held


def _agree(found: Detections, seen: npt.NDArray[np.int64], some: Mask, others: Mask) -> Mask:
    """bool [some, others]: of one class, from two tiles, and the same box inside what both tiles see?"""
    answer = np.zeros((some.sum(), others.sum()), bool)
    boxes, views, classes = found.boxes[others], seen[others], found.classes[others]
    for row, i in zip(
        answer, np.flatnonzero(some), strict=True
    ):  # row by row: memory grows with N, not with its square
        strips = box_intersection(seen[i], views)
        one, two = box_intersection(found.boxes[i], strips), box_intersection(boxes, strips)
        both = box_area(box_intersection(one, two))
        same = (both > 0) & (both >= _AGREE * (box_area(one) + box_area(two) - both))
        row[:] = same & (classes == found.classes[i]) & (views != seen[i]).any(axis=1)
    return answer


def _groups(linked: Mask) -> list[list[int]]:
    """Connected parts of a symmetric bool [N, N], each sorted."""
    left, parts = set(range(len(linked))), []
    while left:
        part, front = set(), {min(left)}
        while front:
            part |= front
            front = {int(n) for one in front for n in np.flatnonzero(linked[one])} - part
        left -= part
        parts.append(sorted(part))
    return parts


def _union(boxes: Boxes) -> Boxes:
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
