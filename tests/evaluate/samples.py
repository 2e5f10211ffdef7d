"""Shorthand for building samples and detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcos_cli.data.samples import Sample
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.results import Detections

ONE = ClassTable(("cat",), (7,))
TWO = ClassTable(("cat", "dog"), (7, 3))


def sample(boxes, classes=None, *, ignore=None, areas=None, image_id=1, size=(640, 480), image="a.png") -> Sample:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    return Sample(
        image=Path(image),
        image_id=image_id,
        width=size[0],
        height=size[1],
        boxes=boxes,
        classes=np.zeros(count, np.int64) if classes is None else np.asarray(classes, np.int64),
        ignore=np.zeros(count, bool) if ignore is None else np.asarray(ignore, bool),
        areas=sides.prod(1) if areas is None else np.asarray(areas, np.float64),
    )


def found(boxes, scores=None, classes=None) -> Detections:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    return Detections(
        boxes,
        np.full(count, 0.5, np.float32) if scores is None else np.asarray(scores, np.float32),
        np.zeros(count, np.int64) if classes is None else np.asarray(classes, np.int64),
    )
