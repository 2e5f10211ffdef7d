"""Two models on the same pictures: is the difference more than luck?

A paired bootstrap over pictures, hotcoco's: the split is drawn anew with replacement many times, both models are scored
on each draw, and the interval holds the middle 95 % of the differences. It says what another sample of such pictures
would do to the figures; it knows nothing of another training's luck. hotcoco gives intervals for the whole; those of a
class come from evaluators that see this class alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fcos_cli.data.samples import Sample
from fcos_cli.evaluate.coco import CocoResult
from fcos_cli.evaluate.matches import ALL_SIZES, evaluator
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.results import Detections

ROUNDS, CONFIDENCE, SEED = 1000, 0.95, 0


@dataclass(frozen=True)
class Difference:
    """A figure of both models (0…1, -1 where nothing could be measured), and b - a with its interval low…high.

    better: the share of draws in which b beats a. difference, low, high and better are None where a or b is -1.
    """

    a: float
    b: float
    difference: float | None
    low: float | None
    high: float | None
    better: float | None

    @property
    def sure(self) -> bool:
        """Does the interval leave out zero?"""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class ClassDifference:
    """One class of the data."""

    name: str
    category_id: int
    AP: Difference
    AP50: Difference


@dataclass(frozen=True)
class Comparison:
    """Model a against model b: the twelve numbers in their order, and each class in that of the class table."""

    metrics: dict[str, Difference]
    per_class: list[ClassDifference]
    rounds: int = ROUNDS
    confidence: float = CONFIDENCE
    seed: int = SEED

    def to_json(self) -> dict[str, Any]:
        """The `comparison` of the `fcos eval A B --json` document."""
        return {"method": "paired bootstrap over pictures", **asdict(self)}


def compare(
    results: tuple[CocoResult, CocoResult],
    detections: tuple[Sequence[Detections], Sequence[Detections]],
    samples: Sequence[Sample],
    classes: ClassTable,
    *,
    rounds: int = ROUNDS,
    on_progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Both models' detections in the same samples, and their COCO figures, to which the intervals are added.

    on_progress: called with (parts done, parts in all), a part being the whole or one class.
    """
    report_progress = on_progress or (lambda _done, _total: None)
    whole = _intervals(detections, samples, classes, rounds=rounds)
    report_progress(1, len(classes) + 1)
    a, b = results
    metrics = {name: _difference(a.metrics[name], b.metrics[name], whole.get(name)) for name in a.metrics}
    per_class = []
    for index, (one, other) in enumerate(zip(a.per_class, b.per_class, strict=True)):
        known = {}
        if one.truths:
            known = _intervals(detections, samples, classes, rounds=rounds, **{**ALL_SIZES, "catIds": [index]})
        ap, ap50 = _difference(one.AP, other.AP, known.get("AP")), _difference(one.AP50, other.AP50, known.get("AP50"))
        per_class.append(ClassDifference(one.name, one.category_id, ap, ap50))
        report_progress(index + 2, len(classes) + 1)
    return Comparison(metrics, per_class, rounds=rounds)


def _intervals(
    detections: tuple[Sequence[Detections], Sequence[Detections]],
    samples: Sequence[Sample],
    classes: ClassTable,
    *,
    rounds: int,
    **params: Any,
) -> dict[str, dict[str, float]]:
    """hotcoco's interval of each metric: lower, upper, prob_positive."""
    import hotcoco

    one, other = (evaluator(found, samples, classes, **params) for found in detections)
    answer = hotcoco.compare(one, other, n_bootstrap=rounds, seed=SEED, confidence=CONFIDENCE)
    return dict(answer["ci"])


def _difference(a: float, b: float, known: dict[str, float] | None) -> Difference:
    if known is None or a == -1 or b == -1:
        return Difference(a, b, None, None, None, None)
    return Difference(a, b, b - a, float(known["lower"]), float(known["upper"]), float(known["prob_positive"]))
