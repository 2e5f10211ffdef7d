"""Predictions to wherever the user wants them: pictures with boxes, crops, stdout, files, lines for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fcos_cli.errors import DataError
from fcos_cli.predict.pipeline import Failure, Input, predict
from fcos_cli.predict.prefetch import prefetch
from fcos_cli.predict.progress import ProgressReporter
from fcos_cli.predict.tiles import Tiling
from fcos_cli.predict.writers import Format, open_writer
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts


def run_predict(
    detector: Detector,
    inputs: Iterable[Input],
    *,
    score: float | None,
    pictures: Path | None,
    stdout: Literal["json", "jsonl"] | None,
    files: list[Path],
    batch: int,
    crops: Path | None = None,
    tiling: Tiling | None = None,
) -> int:
    """Predict every picture and deliver the answers as they come; returns how many sources, pictures or parts of videos
    could not be read.

    score: lowest score delivered; None = the model's own per class. pictures: folder for drawn pictures and videos.
    files: more outputs, by suffix. crops: folder for what was found, cut out. tiling: look at large pictures in tiles.
    Raises DataError where there was not one picture.
    """
    classes = detector.facts.classes
    threshold = display_thresholds(detector.facts) if score is None else score
    with ExitStack() as stack:
        writers = [
            stack.enter_context(open_writer(file, classes=classes, model=detector.name, format=_format(file)))
            for file in files
        ]
        if stdout is not None:
            writers.append(
                stack.enter_context(open_writer(sys.stdout, classes=classes, model=detector.name, format=stdout))
            )
        reporter = stack.enter_context(ProgressReporter(classes))
        drawn = None
        if pictures is not None or crops is not None:
            from fcos_cli.predict.annotated import (
                AnnotatedWriter,  # fonts and encoders are not worth loading for nothing
            )

            drawn = stack.enter_context(AnnotatedWriter(classes, pictures=pictures, crops=crops))
        keep = drawn is not None
        answers = predict(detector, inputs, batch=batch, keep_images=keep, threshold=threshold, tiling=tiling)
        if drawn is not None:  # the network goes on while pictures are drawn and written
            answers = prefetch(answers, count=2)
        for answer in answers:
            for writer in writers:
                writer.write(answer)
            if isinstance(answer, Failure):
                reporter.on_failure(answer)
            else:
                reporter.on_prediction(answer, None if drawn is None else drawn.write(answer))
    if reporter.seen == 0:
        raise DataError("there was no picture to look at", remedy="name pictures, folders with pictures, or a list")
    return reporter.failed


def display_thresholds(facts: Facts) -> float | npt.NDArray[np.float32]:
    """The scores from which the model's makers found detections worth showing: one per class [C], or one for all."""
    if facts.class_thresholds is None:
        return facts.threshold
    return np.asarray(facts.class_thresholds, np.float32)


def _format(file: Path) -> Format | None:
    return "coco" if file.name.endswith(".coco.json") else None
