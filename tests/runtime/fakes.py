"""A detector that reads its answer off the picture, so that tests can say beforehand what is found where."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import RawDetections

AB = ClassTable(("a", "b"), (10, 20))


@dataclass
class CornerDetector:
    """Two boxes over the whole input: score 0.75 for class 0, and (red of the first pixel) / 256 for class 1."""

    facts: Facts = field(default_factory=lambda: Facts(AB, ResizeRule("letterbox", (32, 32))))
    name: str = "corner"
    backend: str = "numpy"
    precision: str = "fp32"
    device: str = "cpu"
    sizes: list[int] = field(default_factory=list)

    def __call__(self, images):
        count = len(images)
        self.sizes.append(count)
        boxes = np.tile(np.array([0, 0, *images.shape[:1:-1]], np.float32), (count, 2, 1))
        red = images[:, 0, 0, 0] / np.float32(256)
        scores = np.stack([np.full(count, 0.75, np.float32), red.astype(np.float32)], 1)
        return RawDetections(boxes, scores, np.tile([0, 1], (count, 1)), np.full(count, 2))
