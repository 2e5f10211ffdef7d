"""`fcos eval`: evaluate one or two detectors on a split and print tables, or write the JSON document and report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.atomic import check_writable
from fcos_cli.console import emit_json, progress, say, warn
from fcos_cli.data.doctor import examine, print_findings
from fcos_cli.data.samples import Dataset, Finding
from fcos_cli.data.tiling import Tiling
from fcos_cli.distributed.world import World
from fcos_cli.errors import DataError, UsageError
from fcos_cli.evaluate.coco import CocoResult, Evaluator, match_classes, score
from fcos_cli.evaluate.coco_format import write_results
from fcos_cli.evaluate.compare import Comparison
from fcos_cli.evaluate.demands import Answers, Demands, Judge, absent_images, check_demands
from fcos_cli.evaluate.sharded import check_alike, detect_together, wait_for_main, while_others_wait
from fcos_cli.evaluate.tables import print_comparison, print_result
from fcos_cli.predict import mark
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.run import hint_at_tiles
from fcos_cli.predict.writers import check_replaceable
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.results import Detections


@dataclass(frozen=True)
class ModelResult:
    """The detections of one detector on a split, and their COCO metrics."""

    detector: Detector
    result: CocoResult
    detections: list[Detections]


def check_evaluator(name: str) -> None:
    """Raise UsageError if there is no such evaluator, or if it is not installed."""
    if name not in ("hotcoco", "pycocotools"):
        raise UsageError(f"unknown evaluator {name!r}", where="--evaluator", remedy="use hotcoco or pycocotools")
    if find_spec(name) is None:
        raise UsageError(f"{name} is not installed", where="--evaluator", remedy=f"pip install {name}")


def run_eval(
    detectors: Sequence[Detector],
    dataset: Dataset,
    *,
    evaluator: Evaluator,
    batch: int,
    limit: int | None,
    as_json: bool,
    report: Path | None = None,
    save: Path | None = None,
    tiling: Tiling | None = None,
    demands: Demands = Demands(),  # noqa: B008 (frozen)
    world: World = World(),  # noqa: B008 (frozen)
) -> list[ModelResult]:
    """Evaluate one detector, or compare two; print tables, or the JSON document to stdout. Return the results.

    batch: images, or tiles with `tiling`, per network call. limit: evaluate the first N images only. report: HTML file
    to write as well. save: file for the detections of a single detector, as COCO results. tiling: also run on these
    tiles of each image. demands: what is required of the last detector; GateError is raised at the end if it is not
    met. Without demands, images that cannot be read are left out, which is noted; with any, their error is raised.
    world: the processes that share the images; all but the main one return nothing.
    """
    for detector in detectors:
        match_classes(detector.facts.classes, dataset.classes, where=detector.name)
    check_demands(demands, dataset, detectors[-1])
    findings = findings_for_metrics(dataset)
    if limit is not None:
        dataset = replace(dataset, samples=dataset.samples[:limit])
    if not dataset.samples:
        raise DataError("no images to evaluate", where=dataset.source)
    say(f"{dataset.split}: {len(dataset)} image{'s' * (len(dataset) != 1)} ({dataset.origin})")
    print_findings(findings)
    for detector in detectors:
        hint_at_tiles(detector, tiling)
    if world.size > 1:
        check_alike(detectors, dataset, batch=batch, lowest=demands.lowest, tiling=tiling)
    found = []
    unreadable: list[Failure] = []
    for detector in detectors:
        task = f"evaluating {detector.name}" if len(detectors) > 1 else "evaluating"
        with progress(task, total=len(dataset)) as update:
            found.append(
                detect_together(
                    detector,
                    dataset,
                    batch=batch,
                    tiling=tiling,
                    world=world,
                    on_progress=update,
                    on_unreadable=None if demands else unreadable.append,
                )
            )
    if not world.main:
        wait_for_main()
        return []
    with while_others_wait(world):
        absent = [f"{finding.message} ({finding.place})" for finding in absent_images(dataset)]
        if unreadable:
            dataset, found, note = _without(unreadable, dataset, found)
            absent.append(note)
        results = [
            _score(detector, detections, notes, dataset, evaluator=evaluator, show_name=len(detectors) > 1)
            for detector, (detections, notes) in zip(detectors, found, strict=True)
        ]
        results = [replace(r, result=replace(r.result, notes=(*r.result.notes, *absent))) for r in results]
        _conclude(results, dataset, as_json=as_json, report=report, save=save, tiling=tiling, demands=demands)
        return results


def _without(
    unreadable: Sequence[Failure], dataset: Dataset, found: list[tuple[list[Detections], list[str]]]
) -> tuple[Dataset, list[tuple[list[Detections], list[str]]], str]:
    """Leave out the images that cannot be read, so that no metric covers them. Raises the error of one if none is left.

    Returns the data set, what was `found` in it, and a note, which is printed.
    """
    paths = {failure.source for failure in unreadable}
    kept = [number for number, sample in enumerate(dataset.samples) if sample.image not in paths]
    error = unreadable[0].error
    if not kept:
        raise error
    note = f"images that cannot be read, left out: {len(dataset) - len(kept)} ({error.brief})"
    warn(note)
    found = [([detections[number] for number in kept], notes) for detections, notes in found]
    return replace(dataset, samples=[dataset.samples[number] for number in kept]), found, note


def _conclude(
    results: list[ModelResult],
    dataset: Dataset,
    *,
    as_json: bool,
    report: Path | None,
    save: Path | None,
    tiling: Tiling | None,
    demands: Demands,
) -> None:
    """Print and write everything that follows from the results. Raises GateError at the end.

    What is printed does not depend on files that cannot be written.
    """
    source: dict[str, Any] = {"data": str(dataset.source), "split": dataset.split}
    if tiling is not None:
        source["tiles"] = {"side": tiling.side, "overlap": tiling.overlap_pixels}
    comparison = _compare(results, dataset) if len(results) == 2 else None
    judge = Judge(demands, dataset, results[-1].detector, results[-1].result, results[-1].detections, tiling)
    answers = judge.answer(comparison)
    if not as_json:
        place = str(dataset.source) if tiling is None else f"{dataset.source}, with {tiling}"
        if comparison is None:
            print_result(results[0].result, title=f"{results[0].detector.name} on {place}")
        else:
            print_comparison(comparison, [r.detector.name for r in results], place=place)
    answers.show()
    try:
        if save is not None:
            write_results(save, results[0].detections, dataset.samples, dataset.classes)
            say(f"detections: {save}")
        if report is not None:
            thresholds = judge.thresholds(answers.outcomes)
            _write_report(report, results, dataset, comparison, tiling, answers, thresholds=thresholds)
    finally:
        if as_json:
            with suppress(BrokenPipeError):  # the reader has left; the exit code and --out do not depend on it
                emit_json({**_document(results, comparison, source), **answers.to_json()})
    judge.finish(answers)


def _document(results: Sequence[ModelResult], comparison: Comparison | None, source: dict[str, Any]) -> dict[str, Any]:
    """The `fcos eval --json` document, without the demands."""
    documents: list[dict[str, Any]] = [{"model": r.detector.name, **r.result.to_json()} for r in results]
    if comparison is None:
        return {**documents[0], **source}
    return {"models": documents, **source, "comparison": comparison.to_json()}


def _compare(results: Sequence[ModelResult], dataset: Dataset) -> Comparison:
    from fcos_cli.evaluate.compare import compare

    a, b = results
    with progress("comparing", total=len(dataset.classes) + 1) as update:
        return compare(
            (a.result, b.result),
            (a.detections, b.detections),
            dataset.samples,
            dataset.classes,
            on_progress=update,
        )


def findings_for_metrics(dataset: Dataset) -> list[Finding]:
    """The findings that `fcos train` prints for this split, without notes that are about training only."""
    found = examine(dataset)
    return [finding for finding in found if finding.severity != "info" or finding in dataset.findings]


def check_outputs(report: Path | None, save: Path | None, *, models: int) -> None:
    """Raise UsageError before the evaluation, which takes minutes, if its results could not be written, or would
    replace somebody's file.
    """
    if report is not None and save is not None and report.resolve() == save.resolve():
        raise UsageError("--report and --save are the same file", where=save, remedy="give each a name of its own")
    if report is not None:
        check_writable(report)
        mark.check_marked(report, mark=mark.REPORT_MARK, kind="report of fcos eval")
    if save is not None:
        if save.suffix.lower() != ".json" and (save.is_file() or not save.exists()):  # a pipe may have any name
            what = "--save writes COCO results, which are JSON"
            raise UsageError(what, where=save, remedy="use a name that ends with .json")
        if models > 1:
            raise UsageError("--save writes the detections of one model", where=save, remedy="evaluate them in turn")
        check_writable(save)
        check_replaceable(save, "coco")


def _score(
    detector: Detector,
    detections: list[Detections],
    notes: list[str],
    dataset: Dataset,
    *,
    evaluator: Evaluator,
    show_name: bool,
) -> ModelResult:
    notes = [f"{detector.name}: {text}" if show_name else text for text in notes]
    result = score(detections, dataset.samples, dataset.classes, evaluator=evaluator, notes=notes)
    for text in result.notes:
        warn(text)
    return ModelResult(detector, result, detections)


def _write_report(
    report: Path,
    results: Sequence[ModelResult],
    dataset: Dataset,
    comparison: Comparison | None,
    tiling: Tiling | None,
    answers: Answers,
    *,
    thresholds: npt.NDArray[np.float32],
) -> None:
    """thresholds: of the last model, which the answers are about, for each class of the data set."""
    from fcos_cli.evaluate.report.comparison import comparison_section
    from fcos_cli.evaluate.report.demands import demands_section
    from fcos_cli.evaluate.report.write import EvaluatedModel, short_names, write_report

    models = [EvaluatedModel.of(r.detector, r.result, r.detections, dataset, tiling=tiling) for r in results]
    models[-1] = replace(models[-1], thresholds=thresholds)
    names = short_names([model.name for model in models])
    extra = [demands_section(answers, names[-1])] if answers else []
    if comparison is not None:
        extra.append(comparison_section(comparison, (names[0], names[1])))
    write_report(report, dataset, models, extra=extra)
    say(f"report: {report}")
