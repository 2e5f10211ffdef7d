"""Box operations on numpy arrays, named as in torchvision.ops, so prediction, metrics and parity need no torch.

Boxes are xyxy with exclusive ends; everything is computed in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def box_area(boxes: Boxes) -> Floats:
    """Areas [...] of boxes [..., 4]; 0 if an end lies before its start."""
    sides = np.clip(np.subtract(boxes[..., 2:], boxes[..., :2], dtype=np.float64), 0, None)
    return np.asarray(sides[..., 0] * sides[..., 1])


def box_intersection(first: Boxes, second: Boxes) -> Floats:
    """Intersection [..., 4] of two boxes, with broadcasting. Disjoint boxes give a box of area 0."""
    starts = np.maximum(first[..., :2], second[..., :2])
    ends = np.minimum(first[..., 2:], second[..., 2:])
    return np.concatenate([starts, ends], axis=-1, dtype=np.float64)


def scale_boxes(boxes: Boxes, *, size: tuple[int, int], to: tuple[int, int]) -> Boxes:
    """Boxes [..., 4] of an image of one size (width, height) in the pixels of another; unchanged if both are equal."""
    return boxes if size == to else (boxes * np.tile(np.divide(to, size), 2)).astype(np.float32)


def box_iou(first: Boxes, second: Boxes) -> Floats:
    """Pairwise IoU, [N, 4] and [M, 4] → [N, M], 0…1; 0 if both boxes are empty."""
    intersection = box_area(box_intersection(first[:, None], second[None]))
    return intersection / np.maximum(box_area(first)[:, None] + box_area(second)[None] - intersection, 1e-12)


def box_ioa(first: Boxes, second: Boxes) -> Floats:
    """Intersection over the area of the first box, [N, 4] and [M, 4] → [N, M], 0…1."""
    return box_area(box_intersection(first[:, None], second[None])) / np.maximum(box_area(first)[:, None], 1e-12)
