"""Run a detector on images and videos, and write annotated images, crops, JSON, files and progress lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fcos_cli.atomic import check_writable
from fcos_cli.console import say
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import DataError
from fcos_cli.predict.outputs import OutputNames
from fcos_cli.predict.pipeline import Failure, Input, predict
from fcos_cli.predict.prefetch import prefetch
from fcos_cli.predict.progress import ProgressReporter
from fcos_cli.predict.writers import Format, check_replaceable, format_of, open_writer
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts


def run_predict(
    detector: Detector,
    inputs: Iterable[Input],
    *,
    score: float | None,
    viz_dir: Path | None,
    stdout: Literal["json", "jsonl"] | None,
    save: list[Path],
    batch: int,
    crops_dir: Path | None = None,
    names: OutputNames | None = None,
    tiling: Tiling | None = None,
) -> int:
    """Predict all inputs and write results as they come. Returns the number of sources, images and parts of videos that
    could not be read.

    score: lowest score to report; None uses the model's thresholds per class. viz_dir: folder for annotated images and
    videos. stdout: format printed on stdout. save: files to write, format by suffix. batch: images (tiles) per network
    call. crops_dir: folder for crops. names: free names for images, videos and crops. tiling: also run on tiles. Raises
    DataError if there are no inputs.
    """
    hint_at_tiles(detector, tiling)
    classes = detector.facts.classes
    threshold = display_thresholds(detector.facts) if score is None else score
    with ExitStack() as stack:
        writers = [
            stack.enter_context(open_writer(file, classes=classes, model=detector.name, format=_format(file)))
            for file in save
        ]
        if stdout is not None:
            writers.append(
                stack.enter_context(open_writer(sys.stdout, classes=classes, model=detector.name, format=stdout))
            )
        reporter = stack.enter_context(ProgressReporter(classes))
        annotated = None
        if viz_dir is not None or crops_dir is not None:
            from fcos_cli.predict.annotated import AnnotatedWriter  # loads fonts and encoders

            annotated = stack.enter_context(
                AnnotatedWriter(classes, viz_dir=viz_dir, crops_dir=crops_dir, names=names or OutputNames())
            )
        keep = annotated is not None
        results = predict(detector, inputs, batch=batch, keep_images=keep, threshold=threshold, tiling=tiling)
        if annotated is not None:  # the network keeps running while images are drawn and written
            results = prefetch(results, count=2)
        for result in results:
            for writer in writers:
                writer.write(result)
            if isinstance(result, Failure):
                reporter.on_failure(result)
            else:
                reporter.on_prediction(result, None if annotated is None else annotated.write(result))
    if reporter.total == 0:
        raise DataError("no images to process", remedy="name images, folders of images, or a .txt list")
    return reporter.failed


def check_outputs(save: Sequence[Path], *, folder: Path | None) -> None:
    """Raise UsageError before anything runs if a file of `save`, or files in `folder`, could not be written."""
    for file in save:
        check_writable(file)
        check_replaceable(file, _format(file))
    if folder is not None:
        check_writable(folder, folder=True)
        check_writable(folder / "crops", folder=True)


def hint_at_tiles(detector: Detector, tiling: Tiling | None) -> None:
    """Print a hint if a model that was trained on tiles is used without."""
    if tiling is None and (side := detector.facts.tile):
        say(f"{detector.name} was trained on tiles of {side} px: add --tile {side} to find objects of the same size")


def display_thresholds(facts: Facts) -> float | npt.NDArray[np.float32]:
    """Return the model's score thresholds for display: one per class [C], or a single value."""
    if facts.class_thresholds is None:
        return facts.threshold
    return np.asarray(facts.class_thresholds, np.float32)


def _format(file: Path) -> Format:
    return "coco" if file.name.endswith(".coco.json") else format_of(file)
