"""Each detection as a picture of its own, sorted into folders by class."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.draw import save_image
from fcos_cli.predict.pipeline import Prediction


def write_crops(folder: Path, stem: str, answer: Prediction, classes: ClassTable) -> int:
    """Write what was found as `folder/class/stem-000-class-0.87.jpg`, best first; returns how many there are.

    The pixels are the source's, the box widened to whole ones. answer: with its image.
    """
    if answer.image is None:
        return 0
    found = answer.detections
    limit = np.array((answer.width, answer.height))
    lower = np.clip(np.floor(found.boxes[:, :2]), 0, limit - 1)
    upper = np.clip(np.ceil(found.boxes[:, 2:]), lower + 1, limit)
    boxes = np.hstack([lower, upper]).astype(int)
    rows = zip(boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True)
    for number, ((x1, y1, x2, y2), score, index) in enumerate(rows):
        name = safe_name(classes.names[index])
        path = folder / name / f"{stem}-{number:03}-{name}-{score:.2f}.jpg"
        save_image(path, answer.image[y1:y2, x1:x2])
    return len(boxes)


def safe_name(text: str) -> str:
    """`text` as part of a file's name on any system: letters, digits, dots and dashes; never empty, never hidden."""
    return re.sub(r"[^\w.-]+", "-", text).strip(".-")[:80] or "unnamed"
