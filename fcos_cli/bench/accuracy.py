"""Accuracy for `fcos bench --data`: the AP of whatever is being measured, as `fcos eval` takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fcos_cli.console import progress, say
from fcos_cli.data.formats import read_dataset
from fcos_cli.errors import DataError
from fcos_cli.evaluate.coco import evaluate
from fcos_cli.runtime.detector import Detector


def accuracy_on(data: Path, *, split: str | None = None, limit: int | None = None) -> Callable[[Detector], float]:
    """A function detector → AP (0…1) on `data`, read now. limit: first N pictures. Raises DataError, as does
    the function where nothing can be measured."""
    dataset = read_dataset(data, split=split)
    if limit is not None:
        dataset = replace(dataset, samples=dataset.samples[:limit])
    if not dataset.samples:
        raise DataError("there is no picture to evaluate on", where=dataset.source)
    say(f"AP on {dataset.split}: {len(dataset)} pictures ({dataset.origin})")

    def accuracy(detector: Detector) -> float:
        with progress("evaluating", total=len(dataset)) as update:
            found = evaluate(detector, dataset, on_progress=update).metrics["AP"]
        if found < 0:
            raise DataError("the data hold no box of a class that the model knows", where=dataset.source)
        return found

    return accuracy
