"""Accuracy for `fcos bench --data`: the AP of each measured model, computed as in `fcos eval`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fcos_cli.console import progress, say
from fcos_cli.data.doctor import print_findings
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.errors import DataError
from fcos_cli.evaluate.coco import evaluate
from fcos_cli.runtime.detector import Detector


def accuracy_on(data: Path, *, split: str | None = None, limit: int | None = None) -> Callable[[Detector], float]:
    """Return a function detector → AP (0…1) on the data set, which is read now.

    limit: use the first N images only. Raises DataError if the data set cannot be read; the returned function raises it
    if no AP can be computed.
    """
    dataset = read_dataset(data, split=split)
    if limit is not None:
        dataset = replace(dataset, samples=dataset.samples[:limit])
    if not dataset.samples:
        raise DataError("the data set has no images", where=dataset.source)
    say(f"AP on {dataset.split}: {len(dataset)} images ({dataset.origin})")
    print_findings(dataset.findings)

    def accuracy(detector: Detector) -> float:
        with progress("evaluating", total=len(dataset)) as update:
            ap = evaluate(detector, dataset, on_progress=update).metrics["AP"]
        if ap < 0:
            raise DataError("the data set has no boxes of the model's classes", where=dataset.source)
        return ap

    return accuracy
