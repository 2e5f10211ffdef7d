"""Predictions made by hand, and data sets written from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.images import open_image
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.labels.plan import plan_labels
from fcos_cli.predict.labels.writer import LabelWriter
from fcos_cli.predict.pipeline import Prediction
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections

CLASSES = ClassTable(("dog", "cat"), (17, 3))
FORMATS = ("yolo", "coco", "voc", "labelme")
LIMIT = 0.5


def detections(*rows: tuple[float, ...]) -> Detections:
    """One (x1, y1, x2, y2, score, class) per detection."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def prediction(file: Path, *rows: tuple[float, ...]) -> Prediction:
    """These detections in a picture that exists."""
    image = open_image(file)
    return Prediction(file, image.shape[1], image.shape[0], detections(*rows), image)


def write(
    format: str,
    folder: Path,
    *predictions: Prediction,
    classes: ClassTable = CLASSES,
    merge: bool = False,
    link: bool = False,
) -> list[Path | None]:
    """Write a data set, and return the path of each picture."""
    plan = plan_labels(format, folder, merge=merge, link=link)
    assert plan is not None
    with LabelWriter(plan, facts(classes), limits=LIMIT) as writer:
        return [writer.write(item) for item in predictions]


def facts(classes: ClassTable) -> Facts:
    return Facts(classes, ResizeRule("letterbox", (32, 32)))
