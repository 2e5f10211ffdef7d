"""Box arithmetic on numpy arrays, named as in torchvision.ops. Prediction, metrics and parity need no torch for it.

Boxes are xyxy with exclusive ends; everything is computed in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def box_area(boxes: Boxes) -> Floats:
    """Areas [...] of boxes [..., 4]; 0 for a box whose ends lie before its starts."""
    sides = np.clip(np.subtract(boxes[..., 2:], boxes[..., :2], dtype=np.float64), 0, None)
    return np.asarray(sides[..., 0] * sides[..., 1])


def box_intersection(first: Boxes, second: Boxes) -> Floats:
    """The rectangles [..., 4] that both boxes cover; broadcasts. Disjoint boxes give one of negative size, area 0."""
    starts = np.maximum(first[..., :2], second[..., :2])
    ends = np.minimum(first[..., 2:], second[..., 2:])
    return np.concatenate([starts, ends], axis=-1, dtype=np.float64)


def box_iou(first: Boxes, second: Boxes) -> Floats:
    """IoU of every pair, [N, 4] and [M, 4] → [N, M], 0…1; 0 where both boxes are empty."""
    shared = box_area(box_intersection(first[:, None], second[None]))
    return shared / np.maximum(box_area(first)[:, None] + box_area(second)[None] - shared, 1e-12)


def box_ioa(first: Boxes, second: Boxes) -> Floats:
    """The share of each first box's own area that lies in each second box, [N, 4] and [M, 4] → [N, M], 0…1."""
    return box_area(box_intersection(first[:, None], second[None])) / np.maximum(box_area(first)[:, None], 1e-12)
