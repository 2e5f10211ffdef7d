"""`fcos eval --promise`: score thresholds that keep a recall or a precision on new images, and their model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from fcos_cli.console import warn
from fcos_cli.data.samples import Dataset, fingerprint
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import GateError, UsageError
from fcos_cli.evaluate.gates import Gate, parse_gate
from fcos_cli.evaluate.matches import Matches
from fcos_cli.evaluate.promise.choose import choose, highest_level
from fcos_cli.evaluate.promise.counts import Kind, count, threshold_grid
from fcos_cli.evaluate.split import may_be_training_images
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.promises import Promise
from fcos_cli.runtime.rewrite import write_with_thresholds

CONFIDENCE = 0.9
METHOD = "Learn then Test, fixed sequence of thresholds, betting test over images"


@dataclass(frozen=True)
class Outcome:
    """The promise that can be made. If it is None: the highest level that could be promised instead (0: none), the
    highest value measured at any threshold (None without boxes), and the number of images with such boxes.
    """

    wish: Gate
    promise: Promise | None
    highest: float | None = None
    measured: float | None = None
    images: int = 0

    @property
    def reason(self) -> str:
        """Why there is no promise."""
        if self.highest:
            return f"at most {self.highest:g} can be promised"
        if self.images < 2:
            return f"{'only one' if self.images else 'no'} image has such boxes"
        return f"at best {self.measured:.4f} is measured, in {self.images:,} images with such boxes"

    def __str__(self) -> str:
        if self.promise is not None:
            return f"promised: {self.promise}"
        return f"{self.wish.name}={self.wish.limit:g} cannot be promised: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Return the row of this promise in `promises` of the `fcos eval --json` document."""
        wish = {"metric": self.wish.metric, "class": self.wish.class_name, "level": self.wish.limit}
        kept = None if self.promise is None else self.promise.to_json()
        return {**wish, "kept": kept is not None, "highest_level": self.highest, "promise": kept}


def parse_wishes(texts: Sequence[str]) -> list[Gate]:
    """Parse `recall=0.95` or `precision:CLASS=0.99`. Raises UsageError, also for two promises about one threshold."""
    wishes = [parse_gate("promise", text) for text in texts]
    for wish in wishes:
        if wish.limit in (0, 1):
            what = "a promise is between 0 and 1, not 0 or 1 itself"
            raise UsageError(what, where=wish.option, remedy="as in --promise recall=0.95")
    about = [wish.class_name for wish in wishes]
    if len(set(about)) < len(about) or (None in about and len(about) > 1):
        raise UsageError(
            "these promises need the same threshold",
            where=", ".join(wish.option for wish in wishes),
            remedy="a class has one threshold: promise one number for all classes, or one for each class",
        )
    return wishes


def check_images(dataset: Dataset, model: Facts) -> None:
    """Warn of images that promise nothing. dataset: all images of the split, also if not all are evaluated."""
    if may_be_training_images(dataset, model):
        warn(
            f"split {dataset.split}: if the model was trained on these images, they promise nothing about new ones; "
            "use --split val or test, or a file of images that were set aside"
        )


def make_promises(
    wishes: Sequence[Gate],
    matches: Matches,
    dataset: Dataset,
    detector: Detector,
    *,
    lowest: float,
    tiling: Tiling | None = None,
) -> list[Outcome]:
    """Choose the threshold of each promise. Together they hold with CONFIDENCE, so each has its share of the error.

    matches: of the detector's detections in `dataset`, which are complete down to the score `lowest`.
    """
    error = (1 - CONFIDENCE) / len(wishes)
    data = {"name": dataset.name, "split": dataset.split, "images": len(dataset), "sha256": fingerprint(dataset)}
    runs_on = f"{detector.backend} in {detector.precision}" + ("" if tiling is None else f", with {tiling}")
    outcomes = []
    for wish in wishes:
        index = None if wish.class_name is None else dataset.classes.index_of_name[wish.class_name]
        grid = threshold_grid(lowest)
        metric = cast(Kind, wish.metric)
        counts = count(metric, matches, images=len(dataset), thresholds=grid, index=index)
        choice = choose(metric, counts, level=wish.limit, error=error)
        if choice is None:
            highest = highest_level(metric, counts, error=error, below=wish.limit)
            images = int(counts.total.any(axis=1).sum())
            outcomes.append(Outcome(wish, None, highest, float(np.nanmax(counts.pooled)) if images else None, images))
            continue
        promise = Promise(
            metric=metric,
            class_name=wish.class_name,
            level=wish.limit,
            confidence=CONFIDENCE,
            threshold=round(choice.threshold, 6),
            measured=float(counts.pooled[choice.index]),
            images=choice.images,
            boxes=int(counts.total[:, choice.index].sum()),
            most=choice.most,
            method=METHOD,
            data=data,
            runs_on=runs_on,
        )
        outcomes.append(Outcome(wish, promise))
    return outcomes


def failure(outcomes: Sequence[Outcome]) -> GateError | None:
    """The error that names every promise that cannot be made; None if all can."""
    broken = [str(outcome) for outcome in outcomes if outcome.promise is None]
    if not broken:
        return None
    remedy = "label more images for the val split"
    if any(outcome.highest for outcome in outcomes):
        remedy = f"promise less, or {remedy}"
    elif any(outcome.images > 1 for outcome in outcomes):
        remedy = f"train a better model, or {remedy}"
    noun = "promise" if len(outcomes) == 1 else "promises"
    what = f"{len(broken)} of {len(outcomes)} {noun} cannot be made from these images"
    return GateError(what, details=broken, remedy=remedy)


def with_promised_thresholds(facts: Facts, outcomes: Sequence[Outcome]) -> Facts:
    """The facts with the thresholds of all promises that were made."""
    threshold, thresholds = facts.threshold, list(facts.thresholds)
    for promise in (outcome.promise for outcome in outcomes if outcome.promise is not None):
        if promise.class_name is None:
            threshold, thresholds = promise.threshold, [promise.threshold] * len(thresholds)
        else:
            thresholds[facts.classes.index_of_name[promise.class_name]] = promise.threshold
    return replace(facts, threshold=threshold, class_thresholds=tuple(thresholds))


def write_model(detector: Detector, source: Path, out: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the model file `source` of `detector` to `out` with the promised thresholds. All promises were made."""
    facts = with_promised_thresholds(detector.facts, outcomes)
    promises = [outcome.promise for outcome in outcomes if outcome.promise is not None]
    write_with_thresholds(source, out, threshold=facts.threshold, class_thresholds=facts.thresholds, promises=promises)
