"""Requirements that a model has to meet: `fcos eval --require` and `--not-worse`; `--promise` is written like them.

- `METRIC=VALUE`, the metric must be at least VALUE. METRIC is one of COCO's twelve, `precision` or `recall`; or AP,
  AP50, precision or recall of one class, as in `recall:WBC`.
- `[METRIC=]MARGIN`, of the comparison with another model: it fails if the whole confidence interval of the difference
  lies below -MARGIN. METRIC is one of the twelve (default: AP), or AP or AP50 of one class.

Precision and recall are those of the boxes that `fcos predict` would show, at the model's score threshold of each class
and at IoU 0.5: pooled over all images, and over all classes if none is named. What cannot be measured is not met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fcos_cli.errors import GateError, UsageError, unknown_name
from fcos_cli.evaluate.coco import METRICS, CocoResult, format_names
from fcos_cli.evaluate.compare import Comparison, Difference
from fcos_cli.evaluate.matches import Matches
from fcos_cli.model.classes import ClassTable

Rule = Literal["require", "not-worse", "promise"]

COUNTED = ("precision", "recall")
OF_CLASSES: dict[Rule, tuple[str, ...]] = {
    "require": ("AP", "AP50", *COUNTED),
    "not-worse": ("AP", "AP50"),
    "promise": COUNTED,
}
OVERALL: dict[Rule, tuple[str, ...]] = {"require": (*METRICS, *COUNTED), "not-worse": METRICS, "promise": COUNTED}
NOUNS: dict[Rule, str] = {"require": "requirement", "promise": "promise"}
EXAMPLES: dict[Rule, str] = {
    "require": "--require recall=0.9",
    "not-worse": "--not-worse 0.01, or --not-worse AP50=0.01",
    "promise": "--promise recall=0.95",
}
ROUNDING = 1e-9  # to which the metrics are exact


@dataclass(frozen=True)
class Gate:
    """One requirement or wanted promise. class_name: None: over all classes. limit: VALUE or MARGIN, 0…1."""

    rule: Rule
    metric: str
    class_name: str | None
    limit: float

    @property
    def name(self) -> str:
        return self.metric if self.class_name is None else f"{self.metric}:{self.class_name}"

    @property
    def option(self) -> str:
        """How it is written on the command line."""
        return f"--{self.rule} {self.name}={self.limit:g}"

    @property
    def needs_matches(self) -> bool:
        return self.metric in COUNTED


@dataclass(frozen=True)
class Verdict:
    """Whether a gate is met. measured: the metric, or the difference; None if it could not be measured. low, high: the
    interval of a difference. text: one line for the user.
    """

    gate: Gate
    met: bool
    measured: float | None
    low: float | None
    high: float | None
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the row of this gate in `gates` of the `fcos eval --json` document."""
        gate = self.gate
        return {
            "rule": gate.rule,
            "metric": gate.metric,
            "class": gate.class_name,
            "limit": gate.limit,
            "measured": self.measured,
            "low": self.low,
            "high": self.high,
            "met": self.met,
            "text": self.text,
        }


def parse_gate(rule: Rule, text: str) -> Gate:
    """Parse `recall:WBC=0.95`, or `0.01` if the rule is not-worse. Class names may hold `=` and `:`.

    Raises UsageError for an unknown metric or an invalid number. Classes are checked by `check_classes`.
    """
    where = f"--{rule} {text}"
    left, equals, right = text.rpartition("=")
    example = EXAMPLES[rule]
    if not equals and rule in NOUNS:
        raise UsageError(f"a {NOUNS[rule]} is METRIC=VALUE", where=where, remedy=f"write it as in {example}")
    name, colon, class_name = left.partition(":")
    metric = "AP" if not equals else name
    known = OF_CLASSES[rule] if colon else OVERALL[rule]
    if metric not in known:
        raise unknown_name("metric of a class" if colon else "metric", metric, known, where=where)
    try:
        limit = float(right)
    except ValueError:
        limit = np.nan
    if not 0 <= limit <= 1:
        raise UsageError(f"{right!r} is not a number from 0 to 1", where=where, remedy=f"as in {example}")
    return Gate(rule, metric, class_name if colon else None, limit)


def check_classes(gates: Sequence[Gate], data: ClassTable, model: ClassTable) -> None:
    """Raise UsageError for a class that the data set (or, for a promise, the model) does not have; also for the
    precision over all classes if the data set lacks some of the model's classes.
    """
    for gate in gates:
        if gate.class_name is None:
            _check_pooled(gate, data, model)
        elif gate.class_name not in data.index_of_name:
            raise unknown_name("class of the data set", gate.class_name, data.names, where=gate.option)
        elif gate.rule == "promise" and gate.class_name not in model.index_of_name:
            raise unknown_name("class of the model", gate.class_name, model.names, where=gate.option)


def _check_pooled(gate: Gate, data: ClassTable, model: ClassTable) -> None:
    """`fcos predict` shows boxes of the model's other classes as well, and nobody knows how many of them are right."""
    match = dict(zip(model.names, model.match(data), strict=True))
    absent = [name for name, index in match.items() if index is None]
    shared = [name for name, index in match.items() if index is not None]
    if gate.metric == "precision" and absent and shared:  # without any, the evaluation says so
        raise UsageError(
            f"the precision over all classes cannot be measured: the data set lacks {format_names(absent)}",
            where=gate.option,
            remedy=f"name a class, as in precision:{shared[0]}",
        )


def judge_metrics(
    gates: Sequence[Gate],
    result: CocoResult,
    classes: ClassTable,
    *,
    matches: Matches | None,
    thresholds: npt.NDArray[np.float32],
) -> list[Verdict]:
    """Judge the gates of the rule `require`. matches: of the same detections, for gates that need them. thresholds: the
    model's score thresholds per class [C].
    """
    verdicts = []
    for gate in gates:
        index = None if gate.class_name is None else classes.index_of_name[gate.class_name]
        if gate.needs_matches:
            assert matches is not None
            value, missing = _share(gate.metric, matches, thresholds, index)
        else:
            value = result.metrics[gate.metric] if index is None else getattr(result.per_class[index], gate.metric)
            missing = "no ground truth of that kind"
        if value < 0:
            text = f"{gate.name} cannot be measured ({missing}), required {gate.limit:g}"
            verdicts.append(Verdict(gate, False, None, None, None, text))
            continue
        met = value >= gate.limit - ROUNDING
        text = f"{gate.name} is {enough_digits(value, gate.limit)}, required {gate.limit:g}"
        verdicts.append(Verdict(gate, met, value, None, None, text))
    return verdicts


def enough_digits(value: float, limit: float, *, sign: Literal["", "+"] = "") -> str:
    """The value with four decimals, or with more if the rounded value would be on the other side of the limit."""
    for digits in range(4, 10):
        text = f"{value:{sign}.{digits}f}"
        if (float(text) >= limit - ROUNDING) == (value >= limit - ROUNDING):
            break
    return text


def _share(metric: str, matches: Matches, thresholds: npt.NDArray[np.float32], index: int | None) -> tuple[float, str]:
    """Return precision or recall, -1 if there is nothing to count, and what is missing then."""
    if metric == "recall":
        counted, right = ~matches.truth_ignored, matches.found(thresholds)
        of_class, missing = matches.truth_classes == index, "no ground truth of that kind"
    else:
        counted, right = matches.shown(thresholds), matches.hit
        of_class, missing = matches.classes == index, "no detection reaches the model's threshold"
    if index is not None:
        counted = counted & of_class
    total = int(counted.sum())
    return (float((counted & right).sum() / total) if total else -1.0), missing


def judge_comparison(gates: Sequence[Gate], comparison: Comparison) -> list[Verdict]:
    """Judge the gates of the rule `not-worse`: B against A."""
    of_class = {row.name: row for row in comparison.per_class}
    verdicts = []
    for gate in gates:
        source = comparison.metrics if gate.class_name is None else vars(of_class[gate.class_name])
        row: Difference = source[gate.metric]
        if row.low is None or row.high is None:
            why = (
                f"too few images with such ground truth: {row.images}" if row.images else "no ground truth of that kind"
            )
            text = f"the difference of {gate.name} cannot be measured ({why})"
            verdicts.append(Verdict(gate, False, row.difference, None, None, text))
            continue
        met = row.high >= -gate.limit - ROUNDING
        text = (
            f"{gate.name} differs by {row.difference:+.4f} ({comparison.confidence:.0%} interval {row.low:+.4f} …"
            f" {enough_digits(row.high, -gate.limit, sign='+')}), allowed {0.0 - gate.limit:g}"
        )
        verdicts.append(Verdict(gate, met, row.difference, row.low, row.high, text))
    return verdicts


def failure(verdicts: Sequence[Verdict]) -> GateError | None:
    """The error that names every gate that is not met; None if all are."""
    failed = [verdict.text for verdict in verdicts if not verdict.met]
    if not failed:
        return None
    noun = "requirement is" if len(verdicts) == 1 else "requirements are"
    return GateError(f"{len(failed)} of {len(verdicts)} {noun} not met", details=failed)
