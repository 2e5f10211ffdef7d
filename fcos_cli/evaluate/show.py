"""`fcos eval`: run a detector over a split, print COCO's numbers."""

from __future__ import annotations

from dataclasses import replace

from fcos_cli.console import emit_json, progress, say, table, warn
from fcos_cli.data.samples import Dataset
from fcos_cli.errors import DataError
from fcos_cli.evaluate.coco import CocoResult, Evaluator, evaluate
from fcos_cli.runtime.detector import Detector


def show(
    detector: Detector, dataset: Dataset, *, evaluator: Evaluator, batch: int, limit: int | None, as_json: bool
) -> CocoResult:
    """Evaluate and print: tables for people on stderr, or the `eval` document on stdout. limit: first N pictures."""
    if limit is not None:
        dataset = replace(dataset, samples=dataset.samples[:limit])
    if not dataset.samples:
        raise DataError("there is no picture to evaluate on", where=dataset.source)
    say(f"{dataset.split}: {len(dataset)} pictures ({dataset.origin})")
    for finding in dataset.findings:
        warn(f"{finding.id}: {finding.message} ({finding.place})")
    with progress("evaluating", total=len(dataset)) as update:
        result = evaluate(detector, dataset, batch=batch, evaluator=evaluator, on_progress=update)
    for note in result.notes:
        warn(note)
    if as_json:
        emit_json({"model": detector.name, "data": str(dataset.source), "split": dataset.split, **result.to_json()})
        return result
    table(tuple(result.metrics), [tuple(result.metrics.values())], title=f"{detector.name} on {dataset.source}")
    rows = [(r.name, r.category_id, r.AP, r.AP50, r.best_threshold, r.truths) for r in result.per_class]
    table(("class", "id", "AP", "AP50", "best threshold", "truths"), rows)
    return result
