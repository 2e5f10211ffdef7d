"""Predictions to wherever the user wants them: pictures with boxes, stdout, files, lines for people."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fcos_cli.console import print_error, say
from fcos_cli.errors import DataError
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.detector import Detections, Detector
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.predict import Failure, Prediction, predict
from fcos_cli.runtime.writers import Format, open_writer

TOLD = 20
"""Pictures that get a line of their own for people; the rest is counted."""


def deliver(
    detector: Detector,
    paths: Iterable[Path],
    *,
    score: float | None,
    pictures: Path | None,
    stdout: Literal["json", "jsonl"] | None,
    files: list[Path],
    batch: int,
) -> int:
    """Predict every picture and deliver the answers as they come; returns how many pictures could not be read.

    score: lowest score delivered; None = the model's own per class. pictures: folder for drawn pictures. files: more
    outputs, by suffix. Raises DataError where there was not one picture.
    """
    classes = detector.facts.classes
    names = _Names(pictures)
    seen = failed = 0
    with ExitStack() as stack:
        writers = [
            stack.enter_context(open_writer(file, classes=classes, model=detector.name, format=_format(file)))
            for file in files
        ]
        if stdout is not None:
            writers.append(
                stack.enter_context(open_writer(sys.stdout, classes=classes, model=detector.name, format=stdout))
            )
        threshold = thresholds(detector.facts) if score is None else score
        for answer in predict(detector, paths, batch=batch, keep_images=pictures is not None, threshold=threshold):
            seen += 1
            for writer in writers:
                writer.write(answer)
            if isinstance(answer, Failure):
                failed += 1
                print_error(answer.error)
                continue
            drawn = _draw(answer, classes, names)
            if seen <= TOLD:
                say(f"{answer.source}: {summary(answer.detections, classes)}{f' → {drawn}' if drawn else ''}")
    if seen == 0:
        raise DataError("there was no picture to look at", remedy="name pictures, folders with pictures, or a list")
    if seen > TOLD or failed:
        say(f"{seen - failed} pictures done, {failed} could not be read")
    return failed


def thresholds(facts: Facts) -> float | npt.NDArray[np.float32]:
    """The scores from which the model's makers found detections worth showing: one per class [C], or one for all."""
    if facts.class_thresholds is None:
        return facts.threshold
    return np.asarray(facts.class_thresholds, np.float32)


def summary(detections: Detections, classes: ClassTable) -> str:
    """`2 cat (0.91, 0.64), 1 person (0.88)`, most frequent first."""
    counts = Counter(detections.classes.tolist())
    if not counts:
        return "nothing found"
    parts = []
    for index, count in counts.most_common():
        best = sorted(detections.scores[detections.classes == index].tolist(), reverse=True)
        listed = ", ".join(f"{score:.2f}" for score in best[:5]) + (", …" if count > 5 else "")
        parts.append(f"{count} {classes.names[index]} ({listed})")
    return ", ".join(parts)


def _draw(answer: Prediction, classes: ClassTable, names: _Names) -> Path | None:
    if answer.image is None:
        return None
    from fcos_cli.runtime.draw import draw, write_picture

    path = names.of(answer.source)
    write_picture(path, draw(answer.image, answer.detections, classes))
    return path


class _Names:
    """Names for drawn pictures: the source's own, numbered where two sources share one."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder or Path()
        self.used: Counter[str] = Counter()

    def of(self, source: Path) -> Path:
        suffix = ".png" if source.suffix.lower() == ".png" else ".jpg"
        self.used[source.stem] += 1
        number = self.used[source.stem]
        return self.folder / f"{source.stem}{'' if number == 1 else f'-{number}'}{suffix}"


def _format(file: Path) -> Format | None:
    return "coco" if file.name.endswith(".coco.json") else None
