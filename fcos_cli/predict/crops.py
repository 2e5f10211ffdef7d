"""Crops: each detection as an image, in one folder per class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.draw import JPEG_LIMIT, save_image
from fcos_cli.predict.outputs import shorten
from fcos_cli.predict.pipeline import Prediction

LONGEST_CLASS = 80
"""Bytes of a class in the name of a crop, which also holds a stem (`outputs.LONGEST`), two numbers and a suffix."""


class Crop(NamedTuple):
    """A detection to be cut out.

    box: (x1, y1, x2, y2), whole pixels inside the image. name: its class, as a file name.
    """

    box: tuple[int, int, int, int]
    score: float
    name: str


def crops_of(prediction: Prediction, classes: ClassTable) -> list[Crop]:
    """A crop for each detection, best first. Boxes are rounded outwards to whole pixels."""
    detections = prediction.detections
    size = np.array((prediction.width, prediction.height))
    lower = np.clip(np.floor(detections.boxes[:, :2]), 0, size - 1)
    upper = np.clip(np.ceil(detections.boxes[:, 2:]), lower + 1, size)
    boxes = np.hstack([lower, upper]).astype(int)
    rows = zip(boxes.tolist(), detections.scores.tolist(), detections.classes.tolist(), strict=True)
    return [Crop(tuple(box), score, safe_name(classes.names[index])) for box, score, index in rows]


def crop_paths(folder: Path, stem: str, crops: Sequence[Crop]) -> list[Path]:
    """`folder/class/stem-000-class-0.87.jpg` for each crop, .png if it is too large for JPEG."""
    return [
        folder / crop.name / f"{stem}-{number:03}-{crop.name}-{crop.score:.2f}{_suffix(crop)}"
        for number, crop in enumerate(crops)
    ]


def _suffix(crop: Crop) -> str:
    x1, y1, x2, y2 = crop.box
    return ".png" if max(x2 - x1, y2 - y1) > JPEG_LIMIT else ".jpg"


def write_crops(image: npt.NDArray[np.uint8], crops: Sequence[Crop], paths: Sequence[Path]) -> None:
    """Write the crops of an image, uint8 [H, W, 3], at its own resolution."""
    for (x1, y1, x2, y2), path in zip((crop.box for crop in crops), paths, strict=True):
        save_image(path, image[y1:y2, x1:x2])


def safe_name(text: str) -> str:
    """Make `text` a valid file name on any system: letters, digits, `_`, `.` and `-`; never empty, hidden or long."""
    return shorten(re.sub(r"[^\w.-]+", "-", text).strip(".-"), most=LONGEST_CLASS) or "unnamed"
