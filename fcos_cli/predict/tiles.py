"""Tiled inference: run on overlapping tiles of a large image, so that small objects are large enough for the network.

Notable choices:
- The network also runs on the whole image, which finds objects larger than a tile.
- A box that touches an inner border of its tile is *cut off*. If another tile contains the whole box, that tile decides
  and the cut-off box is dropped. Otherwise boxes of two tiles are the same object if they match in the overlap of the
  tiles: a cut-off box that matches a complete one is dropped, and matching cut-off boxes are joined.
- Finally, greedy NMS per class runs over all boxes, in numpy, with the model's IoU threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fcos_cli.data.boxes import box_area, box_intersection, box_iou
from fcos_cli.data.geometry import Geometry, Pixels
from fcos_cli.data.tiling import Tiling
from fcos_cli.predict.sources.prefetch import prefetch
from fcos_cli.runtime.detector import Detector, detect_batch
from fcos_cli.runtime.results import Detections

Boxes = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

BORDER_MARGIN = 0.02
"""A box this close to a border of its tile touches it; a fraction of the tile's side."""
MIN_OVERLAP_IOU = 0.5
"""Boxes of two tiles are the same object if their IoU inside the overlap of the tiles is at least this."""


class InTiles(NamedTuple):
    """Detections in an image and its tiles. whole: in the image alone, above no threshold; None if it is one tile."""

    merged: Detections
    whole: Detections | None


def detect_in_tiles(
    detector: Detector,
    image: npt.NDArray[np.uint8],
    tiling: Tiling,
    *,
    batch: int = 1,
    threshold: float | npt.NDArray[np.float32] | None = None,
) -> InTiles:
    """Detect objects in a uint8 [H, W, 3] image and its tiles. Boxes are in image pixels, best first.

    batch: tiles per network call; only a few batches are in memory. threshold: as in `predict`, applied before boxes
    are merged. There can be more detections than the model's limit per image.
    """
    height, width = image.shape[:2]
    tiles = tiling.tiles(width, height)
    if len(tiles) > 1:
        tiles = np.vstack([[0, 0, width, height], tiles])
    batches = (tiles[n : n + batch] for n in range(0, len(tiles), batch))
    per_tile: list[Detections] = []
    for pixels, geometries in prefetch(_network_inputs(detector, image, batches), count=2):
        per_tile += detect_batch(detector, pixels, geometries)
    whole = per_tile[0] if len(tiles) > 1 else None
    if threshold is not None:
        per_tile = [detections.above(threshold) for detections in per_tile]
    tile_index = np.concatenate([np.full(len(detections), n) for n, detections in enumerate(per_tile)])
    boxes, scores, classes = (
        np.concatenate([getattr(detections, name) for detections in per_tile])
        for name in ("boxes", "scores", "classes")
    )
    boxes = boxes + np.tile(tiles[tile_index, :2], 2).astype(np.float32)
    found, margin = Detections(boxes, scores, classes), BORDER_MARGIN * tiling.side
    merged = merge_tiles(found, tiles[tile_index], tiles, margin=margin, iou=detector.facts.nms_iou)
    return InTiles(merged, whole)


def merge_tiles(
    detections: Detections,
    own_tile: npt.NDArray[np.int64],
    tiles: npt.NDArray[np.int64],
    *,
    margin: float,
    iou: float,
) -> Detections:
    """Merge the detections of all tiles of an image, best first. See the notable choices of this module.

    detections: in image pixels. own_tile: the tile each was found in, xyxy [N, 4]. tiles: all tiles [T, 4]. margin:
    distance in pixels at which a box touches a border. iou: threshold of NMS.
    """
    cut_off = is_cut_off(detections.boxes, own_tile, tiles, margin=margin)
    complete = ~cut_off
    remaining = cut_off & ~_is_inside_a_tile(detections.boxes, tiles, margin=margin)
    remaining[remaining] = ~(_same_object(detections, own_tile, remaining, complete).any(axis=1))
    pieces = np.flatnonzero(remaining)
    groups = [
        pieces[group] for group in _connected_components(_same_object(detections, own_tile, remaining, remaining))
    ]

    boxes = np.concatenate([detections.boxes[complete]] + [_enclosing_box(detections.boxes[g])[None] for g in groups])
    scores = np.concatenate([detections.scores[complete]] + [detections.scores[g].max(keepdims=True) for g in groups])
    classes = np.concatenate([detections.classes[complete]] + [detections.classes[g[:1]] for g in groups])
    keep = nms(boxes, scores, classes, iou=iou)
    return Detections(boxes[keep], scores[keep], classes[keep])


def nms(
    boxes: Boxes, scores: npt.NDArray[np.float32], classes: npt.NDArray[np.int64], *, iou: float
) -> npt.NDArray[np.int64]:
    """Greedy NMS per class. Returns the indices to keep, best first; ties are broken by index.

    Same rule as `model.nms.keep_mask`: a box is dropped if its IoU with a kept box of a higher score exceeds `iou`.
    """
    remaining = np.argsort(-scores, kind="stable")
    kept = []
    while len(remaining):
        best, remaining = remaining[0], remaining[1:]
        kept.append(best)
        rivals = np.flatnonzero(_touched(boxes[best], boxes[remaining]) & (classes[remaining] == classes[best]))
        worse = box_iou(boxes[best][None], boxes[remaining[rivals]])[0] > iou
        remaining = np.delete(remaining, rivals[worse])
    return np.array(kept, np.int64)


def is_cut_off(
    boxes: Boxes, own_tile: npt.NDArray[np.int64], tiles: npt.NDArray[np.int64], *, margin: float
) -> npt.NDArray[np.bool_]:
    """Return bool [N]: is the box within `margin` pixels of a border of its tile that is not the image's border?"""
    if not len(tiles):
        return np.zeros(len(boxes), bool)
    touches = np.hstack([boxes[:, :2] <= own_tile[:, :2] + margin, boxes[:, 2:] >= own_tile[:, 2:] - margin])
    cut_off: Mask = (touches & (own_tile != _enclosing_box(tiles))).any(axis=1)
    return cut_off


def _network_inputs(
    detector: Detector, image: npt.NDArray[np.uint8], batches: Iterator[npt.NDArray[np.int64]]
) -> Iterator[tuple[Pixels, list[Geometry]]]:
    for tiles in batches:
        yield detector.facts.resize.batch([image[y1:y2, x1:x2] for x1, y1, x2, y2 in tiles.tolist()])


def _is_inside_a_tile(boxes: Boxes, tiles: npt.NDArray[np.int64], *, margin: float) -> Mask:
    """Return bool [N]: does any tile, except the whole image, contain the box without cutting it off?"""
    inside = np.zeros(len(boxes), bool)
    image = _enclosing_box(tiles)
    for tile in tiles:
        if (tile == image).all():
            continue
        clear = np.hstack([boxes[:, :2] > tile[:2] + margin, boxes[:, 2:] < tile[2:] - margin])
        inside |= (clear | (tile == image)).all(axis=1)
    return inside


def _same_object(detections: Detections, own_tile: npt.NDArray[np.int64], first: Mask, second: Mask) -> Mask:
    """Compare the boxes selected by two masks. Returns bool [first, second]: do they have the same class, come from
    different tiles, and match inside the overlap of these tiles?"""
    result = np.zeros((first.sum(), second.sum()), bool)
    boxes, tiles, classes = detections.boxes[second], own_tile[second], detections.classes[second]
    for row, i in zip(result, np.flatnonzero(first), strict=True):  # row by row: intermediate arrays stay of size N
        near = np.flatnonzero(_touched(detections.boxes[i], boxes) & (classes == detections.classes[i]))
        overlaps = box_intersection(own_tile[i], tiles[near])
        a, b = box_intersection(detections.boxes[i], overlaps), box_intersection(boxes[near], overlaps)
        shared = box_area(box_intersection(a, b))
        match = (shared > 0) & (shared >= MIN_OVERLAP_IOU * (box_area(a) + box_area(b) - shared))
        row[near] = match & (tiles[near] != own_tile[i]).any(axis=1)
    return result


def _touched(box: Boxes, boxes: Boxes) -> Mask:
    """Return bool [N]: does a box [4] share a part with each of `boxes` [N, 4]?

    Few do, and finding them first is several times as fast as computing every intersection.
    """
    across = (boxes[:, 0] < box[2]) & (boxes[:, 2] > box[0])
    return np.asarray(across & (boxes[:, 1] < box[3]) & (boxes[:, 3] > box[1]))


def _connected_components(adjacency: Mask) -> list[list[int]]:
    """Return the connected components of a symmetric bool [N, N] matrix, each sorted."""
    remaining, components = set(range(len(adjacency))), []
    while remaining:
        component, frontier = set(), {min(remaining)}
        while frontier:
            component |= frontier
            frontier = {int(n) for node in frontier for n in np.flatnonzero(adjacency[node])} - component
        remaining -= component
        components.append(sorted(component))
    return components


def _enclosing_box(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
