"""Accuracy for `fcos bench --data`: the AP of each measured model, computed as in `fcos eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from fcos_cli.console import progress, say
from fcos_cli.data.doctor import print_findings
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import DataError, FcosError
from fcos_cli.evaluate.coco import evaluate, match_classes
from fcos_cli.evaluate.split import read_split
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.open import find_artifact


def accuracy_on(
    data: Path, *, models: Sequence[str] = (), split: str | None = None, limit: int | None = None
) -> Callable[[Detector], float]:
    """Return a function detector → AP (0…1) on the data set, which is read now.

    models: those to be measured; data without a val split is divided as for their training, or else used as a whole
    (see `read_split`). limit: use the first N images only. Raises DataError if the data set cannot be read, has no
    boxes, or has no class of any of the models; the returned function raises it if no AP can be computed.
    """
    facts = list(_facts(models))
    dataset = read_split(data, facts, split=split)
    if limit is not None:
        dataset = replace(dataset, samples=dataset.samples[:limit])
    if not dataset.samples:
        raise DataError("the data set has no images", where=dataset.source)
    if not dataset.has_boxes:
        raise DataError("no image has a box to measure the AP with", where=dataset.source)
    _check_classes(facts, dataset.classes)
    say(f"AP on {dataset.split}: {len(dataset)} images ({dataset.origin})")
    print_findings(dataset.findings)

    def accuracy(detector: Detector) -> float:
        side = detector.facts.tile
        if side:
            say(f"{detector.name} was trained on tiles of {side} px: AP is measured with tiles, time without")
        with progress("evaluating", total=len(dataset)) as update:
            result = evaluate(detector, dataset, tiling=Tiling(side) if side else None, on_progress=update)
        if result.metrics["AP"] < 0:
            raise DataError("the data set has no boxes of the model's classes", where=dataset.source)
        return result.metrics["AP"]

    return accuracy


def _check_classes(facts: Sequence[Facts], classes: ClassTable) -> None:
    """Raise DataError if none of the models has a class of the data set, so that nothing is measured in vain."""
    for number, model in enumerate(facts, start=1):
        try:
            match_classes(model.classes, classes)
        except DataError:
            if number == len(facts):
                raise
        else:
            return


def _facts(models: Sequence[str]) -> Iterator[Facts]:
    for model in models:
        with suppress(FcosError):  # a model that cannot be opened becomes a row that says so
            yield read_header(find_artifact(model)).facts
