"""Mosaic: four images side by side in place of one (YOLOv4, §3.3). More objects, smaller, in more surroundings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Corners = tuple[int, int, int, int]

CENTER = (0.35, 0.65)
"""Where the four images meet, relative to the canvas, along each axis."""

CLOSER = 1.6
"""Factor of the largest `scale` within a quarter, so that some objects stay as large as they would be alone."""


def quarters(size: tuple[int, int], *, random: np.random.Generator) -> list[Corners]:
    """Cut a canvas of size (height, width) at a random place into four (x1, y1, x2, y2), in whole pixels."""
    y, x = (min(max(round(side * random.uniform(*CENTER)), 1), side - 1) for side in size)
    return [(0, 0, x, y), (x, 0, size[1], y), (0, y, x, size[0]), (x, y, size[1], size[0])]


def join(parts: Sequence[tuple[Tensor, ...]], corners: Sequence[Corners]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Put four examples together: image, boxes, classes and ignore, as `Augmentation` returns them, each as large as
    its corners say.
    """
    width, height = corners[-1][2:]
    canvas = torch.empty(3, height, width, dtype=torch.uint8)
    moved = []
    for (image, boxes, *_), (x1, y1, x2, y2) in zip(parts, corners, strict=True):
        canvas[:, y1:y2, x1:x2] = image
        moved.append(boxes + torch.tensor([x1, y1, x1, y1]))
    classes, ignore = (torch.cat([part[index] for part in parts]) for index in (2, 3))
    return canvas, torch.cat(moved), classes, ignore
