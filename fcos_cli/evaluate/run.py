"""`fcos eval`: run one or two detectors over a split; tables, the JSON document, the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fcos_cli.console import emit_json, progress, say, table, warn
from fcos_cli.data.samples import Dataset
from fcos_cli.errors import DataError, UsageError
from fcos_cli.evaluate.coco import CocoResult, Evaluator, collect_detections, score
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.results import Detections


@dataclass(frozen=True)
class Answer:
    """What one detector found in a split, and how good that is."""

    detector: Detector
    result: CocoResult
    detections: list[Detections]


def run_eval(
    detectors: Sequence[Detector],
    dataset: Dataset,
    *,
    evaluator: Evaluator,
    batch: int,
    limit: int | None,
    as_json: bool,
    report: Path | None = None,
) -> None:
    """Evaluate one detector, or two and compare them; print tables for people on stderr, or the document on stdout.

    limit: first N pictures. report: HTML file to write as well.
    """
    if report is not None and report.is_dir():  # not after minutes of evaluation
        raise UsageError("this is a folder, not a file to write", where=report, remedy="--report report.html")
    if limit is not None:
        dataset = replace(dataset, samples=dataset.samples[:limit])
    if not dataset.samples:
        raise DataError("there is no picture to evaluate on", where=dataset.source)
    say(f"{dataset.split}: {len(dataset)} pictures ({dataset.origin})")
    for finding in dataset.findings:
        warn(f"{finding.id}: {finding.message} ({finding.place})")
    answers = [
        _ask(detector, dataset, evaluator=evaluator, batch=batch, named=len(detectors) > 1) for detector in detectors
    ]
    about = {"data": str(dataset.source), "split": dataset.split}
    documents: list[dict[str, Any]] = [{"model": a.detector.name, **a.result.to_json()} for a in answers]
    if len(answers) == 1:
        _finish(answers, dataset, report, [])
        if as_json:
            emit_json({**documents[0], **about})
        else:
            _print_result(answers[0], dataset)
        return
    from fcos_cli.evaluate.compare import compare
    from fcos_cli.evaluate.report.comparison import comparison_section, summarize
    from fcos_cli.evaluate.report.write import short_names

    a, b = answers
    with progress("comparing", total=len(dataset.classes) + 1) as update:
        comparison = compare(
            (a.result, b.result),
            (a.detections, b.detections),
            dataset.samples,
            dataset.classes,
            on_progress=update,
        )
    short = short_names([a.detector.name, b.detector.name])
    names = short[0], short[1]
    _finish(answers, dataset, report, [comparison_section(comparison, names)])
    if as_json:
        emit_json({"models": documents, **about, "comparison": comparison.to_json()})
        return
    columns = ("A", "B", "B - A", "from", "to")
    title = f"A: {names[0]}, B: {names[1]} on {dataset.source}; {comparison.confidence:.0%} intervals"
    rows = [(name, d.a, d.b, d.difference, d.low, d.high) for name, d in comparison.metrics.items()]
    table(("", *columns), rows, title=title)
    rows = [
        (row.name, *(getattr(row.AP, k) for k in ("a", "b", "difference", "low", "high")))
        for row in comparison.per_class
    ]
    table(("AP of class", *columns), rows)
    say(summarize(comparison, names))


def _ask(detector: Detector, dataset: Dataset, *, evaluator: Evaluator, batch: int, named: bool) -> Answer:
    with progress(f"evaluating {detector.name}" if named else "evaluating", total=len(dataset)) as update:
        detections, notes = collect_detections(detector, dataset, batch=batch, on_progress=update)
    notes = [f"{detector.name}: {said}" if named else said for said in notes]
    result = score(detections, dataset.samples, dataset.classes, evaluator=evaluator, notes=notes)
    for said in result.notes:
        warn(said)
    return Answer(detector, result, detections)


def _finish(answers: Sequence[Answer], dataset: Dataset, report: Path | None, extra: list[Any]) -> None:
    """Write the report, where one is asked for."""
    if report is None:
        return
    from fcos_cli.evaluate.report.write import EvaluatedModel, write_report

    subjects = [EvaluatedModel.of(a.detector, a.result, a.detections, dataset) for a in answers]
    write_report(report, dataset, subjects, extra=extra)
    say(f"report: {report}")


def _print_result(answer: Answer, dataset: Dataset) -> None:
    result = answer.result
    title = f"{answer.detector.name} on {dataset.source}"
    table(tuple(result.metrics), [tuple(result.metrics.values())], title=title)
    rows = [(r.name, r.category_id, r.AP, r.AP50, r.best_threshold, r.truths) for r in result.per_class]
    table(("class", "id", "AP", "AP50", "best threshold", "truths"), rows)
