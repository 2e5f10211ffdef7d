"""Crops: each detection as an image, in one folder per class."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.draw import save_image
from fcos_cli.predict.pipeline import Prediction


def write_crops(folder: Path, stem: str, prediction: Prediction, classes: ClassTable) -> int:
    """Write each detection to `folder/class/stem-000-class-0.87.jpg`, best first. Returns the number of crops.

    Crops have the resolution of the source; boxes are rounded outwards to whole pixels. prediction: must carry its
    image.
    """
    if prediction.image is None:
        return 0
    detections = prediction.detections
    size = np.array((prediction.width, prediction.height))
    lower = np.clip(np.floor(detections.boxes[:, :2]), 0, size - 1)
    upper = np.clip(np.ceil(detections.boxes[:, 2:]), lower + 1, size)
    boxes = np.hstack([lower, upper]).astype(int)
    rows = zip(boxes.tolist(), detections.scores.tolist(), detections.classes.tolist(), strict=True)
    for number, ((x1, y1, x2, y2), score, index) in enumerate(rows):
        name = safe_name(classes.names[index])
        path = folder / name / f"{stem}-{number:03}-{name}-{score:.2f}.jpg"
        save_image(path, prediction.image[y1:y2, x1:x2])
    return len(boxes)


def safe_name(text: str) -> str:
    """Make `text` a valid file name on any system: letters, digits, `_`, `.` and `-`; never empty or hidden."""
    return re.sub(r"[^\w.-]+", "-", text).strip(".-")[:80] or "unnamed"
