"""Comparison of two models on the same images, with confidence intervals.

The intervals come from hotcoco's paired bootstrap over images: the split is resampled with replacement many times, both
models are scored on each resample, and the interval contains the middle 95 % of the differences. It reflects the choice
of images, not the variation between training runs. hotcoco only gives intervals over all classes; those of one class
come from evaluators restricted to this class.

Without ground truth in a resample, both models are at -1 there and do not differ. Where that is not rare, because few
images have such ground truth, the interval would always contain zero, so none is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fcos_cli.data.samples import Sample
from fcos_cli.evaluate.coco import CocoResult
from fcos_cli.evaluate.matches import ALL_AREAS, evaluate_pair, load_pairs
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.results import Detections

ROUNDS, CONFIDENCE, SEED = 1000, 0.95, 0
RARE = 0.001  # share of the resamples that may be without ground truth
AREAS = {"s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, np.inf)}
"""COCO's sizes, by the last letter of their metrics: areas in pixels², both ends included."""


@dataclass(frozen=True)
class Difference:
    """A metric of both models (0…1, or -1 if not measured), and b - a with its interval low…high.

    better: share of the resamples in which b is better. images: number of images with ground truth that the metric
    counts. difference, low, high and better are None if a or b is -1; low, high and better also with too few images.
    """

    a: float
    b: float
    difference: float | None
    low: float | None
    high: float | None
    better: float | None
    images: int

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class ClassDifference:
    """Differences in one class of the data set."""

    name: str
    category_id: int
    AP: Difference
    AP50: Difference


@dataclass(frozen=True)
class Comparison:
    """Comparison of model a with model b: the twelve metrics and each class, in the order of the class table."""

    metrics: dict[str, Difference]
    per_class: list[ClassDifference]
    rounds: int = ROUNDS
    confidence: float = CONFIDENCE
    seed: int = SEED

    def to_json(self) -> dict[str, Any]:
        """Return the `comparison` of the `fcos eval A B --json` document."""
        return {"method": "paired bootstrap over images", **asdict(self)}


def compare(
    results: tuple[CocoResult, CocoResult],
    detections: tuple[Sequence[Detections], Sequence[Detections]],
    samples: Sequence[Sample],
    classes: ClassTable,
    *,
    rounds: int = ROUNDS,
    on_progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Add confidence intervals to the difference of two models' COCO results on the same samples.

    on_progress: called with (steps done, total); the steps are the overall metrics and each class.
    """
    report_progress = on_progress or (lambda _done, _total: None)
    pairs = load_pairs(detections, samples, classes)
    overall = _intervals(pairs, rounds=rounds)
    report_progress(1, len(classes) + 1)
    a, b = results
    metrics = {}
    for name in a.metrics:
        share = _Share.of(samples, areas=AREAS.get(name[-1]))
        metrics[name] = _difference(a.metrics[name], b.metrics[name], overall.get(name), share)
    per_class = []
    for index, (one, other) in enumerate(zip(a.per_class, b.per_class, strict=True)):
        intervals, share = {}, _Share.of(samples, index=index)
        if share.suffices:
            intervals = _intervals(pairs, rounds=rounds, **{**ALL_AREAS, "catIds": [index]})
        ap = _difference(one.AP, other.AP, intervals.get("AP"), share)
        ap50 = _difference(one.AP50, other.AP50, intervals.get("AP50"), share)
        per_class.append(ClassDifference(one.name, one.category_id, ap, ap50))
        report_progress(index + 2, len(classes) + 1)
    return Comparison(metrics, per_class, rounds=rounds)


def _intervals(pairs: list[tuple[Any, Any]], *, rounds: int, **params: Any) -> dict[str, dict[str, float]]:
    """Return hotcoco's interval of each metric: lower, upper, prob_positive."""
    import hotcoco

    one, other = (evaluate_pair(*pair, **params) for pair in pairs)
    result = hotcoco.compare(one, other, n_bootstrap=rounds, seed=SEED, confidence=CONFIDENCE)
    return dict(result["ci"])


@dataclass(frozen=True)
class _Share:
    """Number of images with ground truth that counts, and of all images."""

    count: int
    images: int

    @classmethod
    def of(
        cls, samples: Sequence[Sample], *, index: int | None = None, areas: tuple[float, float] | None = None
    ) -> _Share:
        """index: of this class only. areas: smallest and largest area, in pixels²."""
        low, high = areas or (0, np.inf)
        count = 0
        for sample in samples:
            counted = ~sample.ignore & (sample.areas >= low) & (sample.areas <= high)
            count += bool(np.any(counted if index is None else counted & (sample.classes == index)))
        return cls(count, len(samples))

    @property
    def suffices(self) -> bool:
        """Whether a resample without any of these images is rare."""
        return self.count > 0 and (1 - self.count / self.images) ** self.images <= RARE


def _difference(a: float, b: float, interval: dict[str, float] | None, share: _Share) -> Difference:
    if a == -1 or b == -1:
        return Difference(a, b, None, None, None, None, share.count)
    if interval is None or not share.suffices:
        return Difference(a, b, b - a, None, None, None, share.count)
    low, high, better = (float(interval[key]) for key in ("lower", "upper", "prob_positive"))
    return Difference(a, b, b - a, low, high, better, share.count)
