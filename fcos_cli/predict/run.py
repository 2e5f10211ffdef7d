"""Run a detector on images and videos, and write annotated images, crops, labels, JSON, files and progress lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

import numpy as np
import numpy.typing as npt

from fcos_cli.atomic import check_writable
from fcos_cli.console import say
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import DataError, UsageError
from fcos_cli.predict.pipeline import Failure, Input, Prediction, predict
from fcos_cli.predict.plan import Outputs, PredictOptions
from fcos_cli.predict.progress import ProgressReporter
from fcos_cli.predict.resume import open_targets, settings_of
from fcos_cli.predict.selection import report_thresholds
from fcos_cli.predict.sources.prefetch import prefetch
from fcos_cli.predict.tracking.track import is_mot, low_thresholds, track
from fcos_cli.predict.writers import Format, Writer, check_replaceable, format_of, open_writer
from fcos_cli.runtime.detector import Detector

if TYPE_CHECKING:
    from fcos_cli.predict.labels.writer import LabelWriter

Thresholds = npt.NDArray[np.float32]


def run_predict(
    detector: Detector,
    inputs: Iterable[Input],
    options: PredictOptions,
    outputs: Outputs,
    *,
    resumable: bool = False,
    resume: bool = False,
    is_ready: Callable[[], bool] = lambda: True,
) -> int:
    """Predict all inputs and write results as they come. Returns the number of sources, images and parts of videos that
    could not be read.

    resumable: whether an interrupted run can go on, see `is_resumable`; it keeps what was done. resume: go on with what
    such a run wrote; what it could not read counts too. is_ready: as in `predict`. Raises DataError if there are no
    inputs, or if none can be read where there are earlier results; these stay.
    """
    hint_at_tiles(detector, options.tiling)
    facts, labels = detector.facts, outputs.labels
    thresholds = report_thresholds(facts, score=options.score, chosen=options.chosen)
    limits = report_thresholds(facts, score=labels.score, chosen=options.chosen) if labels else None
    with ExitStack() as stack:
        settings = settings_of(detector, **options.to_json())
        batch = 1 if options.tiling else options.batch
        targets, done = stack.enter_context(
            open_targets(outputs.save, settings, batch=batch, resumable=resumable, resume=resume)
        )
        writers = _open_writers(stack, detector, outputs, targets, tracked=options.tracked)
        reporter = stack.enter_context(ProgressReporter(facts.classes))
        labeller = annotated = None
        if labels is not None and limits is not None:
            from fcos_cli.predict.labels.writer import LabelWriter

            labeller = stack.enter_context(
                LabelWriter(labels, facts, limits=limits, most=options.limit, every=options.every)
            )
        if outputs.draws:
            from fcos_cli.predict.annotated import AnnotatedWriter  # loads fonts and encoders

            annotated = stack.enter_context(
                AnnotatedWriter(
                    facts.classes, viz_dir=outputs.viz_dir, crops_dir=outputs.crops_dir, names=outputs.names
                )
            )
        results = predict(
            detector,
            done.remaining(inputs),
            batch=options.batch,
            keep_images=outputs.draws or labels is not None,
            threshold=_least(thresholds, limits, tiling=options.tiling, tracked=options.tracked),
            tiling=options.tiling,
            limit=None if options.tracked or labels is not None else options.limit,  # they need more than is reported
            is_ready=is_ready,
        )
        if options.tracked:
            results = track(results, thresholds=thresholds, limit=options.limit)
        if annotated is not None:  # the network keeps running while images are drawn and written
            results = prefetch(results, count=2)
        for result in results if labeller is None else _labelled(results, labeller, thresholds, options.limit):
            for writer in writers:
                writer.write(result)
            if isinstance(result, Failure):
                reporter.on_failure(result)
            else:
                reporter.on_prediction(result, None if annotated is None else annotated.write(result))
        # inside: no output is replaced by an empty one
        _check_any(reporter.total + done.rows, reporter.failed + done.failed, outputs.save)
    return reporter.failed + done.failed


def _check_any(total: int, failed: int, save: Sequence[Path]) -> None:
    """Raise DataError if nothing was processed, or if everything failed and there are earlier results."""
    if total == 0:
        remedy = "name images, folders of images, or a .txt list; with a camera or a stream, wait for the first frame"
        raise DataError("no images to process", remedy=remedy)
    earlier = [str(file) for file in save if file.is_file()]
    if total == failed and earlier:
        what = "none of the sources can be read, so the earlier results are not replaced"
        raise DataError(what, where=", ".join(earlier), remedy="see the errors above")


def _open_writers(
    stack: ExitStack, detector: Detector, outputs: Outputs, targets: Sequence[Path | TextIO], *, tracked: bool
) -> list[Writer]:
    """Open the writers of `outputs.save`, which write to `targets`, and that of stdout."""
    opened: list[tuple[Path | TextIO, Format]] = [
        (target, _format(file)) for target, file in zip(targets, outputs.save, strict=True)
    ]
    if outputs.stdout is not None:
        others = outputs.save or outputs.draws or outputs.labels
        opened.append((cast(TextIO, _SpareStdout()) if others else sys.stdout, outputs.stdout))
    shared: dict[str, Any] = {"classes": detector.facts.classes, "model": detector.name, "tracked": tracked}
    return [stack.enter_context(open_writer(target, **shared, format=form)) for target, form in opened]


class _SpareStdout:
    """stdout beside other outputs: if nobody reads it any more, as after `| head`, those are still written."""

    def __init__(self) -> None:
        self._has_reader = True

    def write(self, text: str) -> None:
        self._do(lambda: sys.stdout.write(text))

    def flush(self) -> None:
        self._do(sys.stdout.flush)

    def _do(self, action: Callable[[], object]) -> None:
        if not self._has_reader:
            return
        try:
            action()
        except BrokenPipeError:
            self._has_reader = False
            with suppress(OSError, ValueError):  # discard what is left in its buffer
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            say("stdout was closed; the other outputs are still written")


def _least(
    thresholds: Thresholds, limits: Thresholds | None, *, tiling: Tiling | None, tracked: bool
) -> Thresholds | None:
    """The threshold to predict with, if `thresholds` are those to report. limits: of labels; None = no labels.

    The review of labels wants all detections, but with tiles, pieces of objects are merged as without labels.
    """
    if tracked:
        return low_thresholds(thresholds)
    if limits is None:
        return thresholds
    return None if tiling is None else np.minimum(thresholds, limits, dtype=np.float32)


def _labelled(
    results: Iterable[Prediction | Failure], labeller: LabelWriter, threshold: Thresholds, limit: int | None
) -> Iterator[Prediction | Failure]:
    """Write each prediction as labels, and yield it with the detections to report."""
    for result in results:
        if isinstance(result, Prediction):
            labeller.write(result)
            result = replace(result, detections=result.detections.above(threshold).best(limit), image=None)
        yield result


def check_outputs(save: Sequence[Path], *, folder: Path | None) -> None:
    """Raise UsageError before anything runs if a file of `save`, or files in `folder`, could not be written."""
    for file in save:
        check_writable(file)
        check_replaceable(file, _format(file))
    if folder is not None:
        check_writable(folder, folder=True)


def stdout_format(*, as_json: bool, jsonl: bool) -> Literal["json", "jsonl"] | None:
    """What is printed on stdout, if anything. Raises UsageError if both are asked for."""
    if as_json and jsonl:
        raise UsageError(
            "--json and --jsonl cannot be combined: both write to stdout",
            remedy="use one of them, and --save for the other",
        )
    return "json" if as_json else "jsonl" if jsonl else None


def hint_at_tiles(detector: Detector, tiling: Tiling | None) -> None:
    """Print a hint if a model that was trained on tiles is used without them."""
    if tiling is None and (side := detector.facts.tile):
        say(f"{detector.name} was trained on tiles of {side} px: add --tile {side} to find objects of the same size")


def _format(file: Path) -> Format:
    if is_mot(file):
        return "mot"
    return "coco" if file.name.lower().endswith(".coco.json") else format_of(file)
