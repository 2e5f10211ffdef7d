"""What a report shows, computed: hotcoco's figures over one matching, nothing of how they look.

Notable choices:
- Counts (found, missed, false alarms; the confusion matrix; the worst pictures) stand at the thresholds at which
  `fcos predict` shows detections of this model; curves, AP and the error split look at every score.
- hotcoco's confusion matrix takes a detection on a crowd for a false alarm; so what the evaluator ignores is taken out
  before, and ignored truths too.
- Error kinds and their cost are TIDE's (Bolya et al., 2020, arXiv:2008.08115), in AP at IoU 0.5; each is what AP would
  gain were errors of this kind alone mended, so they do not add up to what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.data.samples import Sample
from fcos_cli.evaluate.coco import CocoResult
from fcos_cli.evaluate.matches import ALL_SIZES, PLAIN, Floats, Ints, Matches, evaluator, match
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.results import Detections

ERRORS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
"""TIDE's kinds: wrong class; wrong place; both; found twice; nothing there; nothing found."""

GRID: Floats = np.linspace(0, 1, 101)
"""Recalls of the precision curves, thresholds of the F1 curves."""

SIZES = (0, 16, 32, 64, 96, 128, 192, 256, 384, 512, 1024)
"""Edges of the size buckets: square roots of box areas in source pixels; the last bucket is open."""


@dataclass(frozen=True)
class Counts:
    """Truths found and missed, and false alarms."""

    found: int
    missed: int
    false: int


@dataclass(frozen=True)
class ErrorCost:
    """One of ERRORS: how much AP50 it costs (0…1), and how often it happens at the thresholds."""

    kind: str
    cost: float
    count: int


@dataclass(frozen=True)
class ScoreBin:
    """Detections with scores in low…high: how many, their mean score, and the share of hits among them (0…1)."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class SizeBucket:
    """Truths with low ≤ sqrt(area) < high px (high None: no limit). AP, AP50 0…1, or -1 without such truths."""

    low: int
    high: int | None
    truths: int
    AP: float
    AP50: float


@dataclass(frozen=True)
class Numbers:
    """Everything a report shows of one model on one split, pictures aside.

    thresholds [C]: where counts are taken. counts: per class. precision [C, 101]: at IoU 0.5 over the recalls of GRID,
    as COCO interpolates it, NaN for classes without truth. f1 [C, 101]: over the thresholds of GRID, NaN likewise.
    confusion [C + 1, C + 1]: rows truth, columns detection, the last of each: none. ece: expected calibration error.
    """

    result: CocoResult
    classes: ClassTable
    matches: Matches
    thresholds: npt.NDArray[np.float32]
    counts: list[Counts]
    precision: Floats
    f1: Floats
    confusion: Ints
    errors: list[ErrorCost]
    ece: float
    bins: list[ScoreBin]
    sizes: list[SizeBucket]


def numbers(
    result: CocoResult,
    detections: Sequence[Detections],
    samples: Sequence[Sample],
    classes: ClassTable,
    *,
    thresholds: npt.NDArray[np.float32],
) -> Numbers:
    """The figures of `detections[i]` in `samples[i]`, whose COCO figures are `result`. thresholds: one per class."""
    judge = evaluator(detections, samples, classes, **PLAIN)
    judge.accumulate()
    matches = match(judge, detections, samples)
    shown = _kept(detections, matches.shown(thresholds))
    calibration = judge.calibration(n_bins=10, iou_threshold=0.5)
    return Numbers(
        result=result,
        classes=classes,
        matches=matches,
        thresholds=thresholds,
        counts=_counts(matches, thresholds),
        precision=_precision(judge),
        f1=np.stack([_f1(matches, index) for index in range(len(classes))]),
        confusion=_confusion(shown, samples, classes),
        errors=_errors(judge, evaluator(shown, samples, classes, **PLAIN)),
        ece=float(calibration["ece"]),
        bins=[_bin(row) for row in calibration["bins"]],
        sizes=_sizes(detections, samples, classes),
    )


def _kept(detections: Sequence[Detections], keep: npt.NDArray[np.bool_]) -> list[Detections]:
    """Those of the flat rows that `keep` marks."""
    ends = np.cumsum([len(found) for found in detections])[:-1]
    parts = np.split(keep, ends)
    return [Detections(f.boxes[k], f.scores[k], f.classes[k]) for f, k in zip(detections, parts, strict=True)]


def _counts(matches: Matches, thresholds: npt.NDArray[np.float32]) -> list[Counts]:
    shown, found = matches.shown(thresholds), matches.found(thresholds)
    rows = []
    for index in range(len(thresholds)):
        truths = (matches.truth_classes == index) & ~matches.truth_ignored
        false = shown & ~matches.hit & (matches.classes == index)
        hits = int((truths & found).sum())
        rows.append(Counts(hits, int(truths.sum()) - hits, int(false.sum())))
    return rows


def _precision(judge: Any) -> Floats:
    curves = np.asarray(judge.eval["precision"], np.float64)[0, :, :, 0, -1].T
    return np.where(curves < 0, np.nan, curves)


def _f1(matches: Matches, index: int) -> Floats:
    """F1 of one class at each threshold of GRID; NaN without truth."""
    truths = int(((matches.truth_classes == index) & ~matches.truth_ignored).sum())
    if not truths:
        return np.full(len(GRID), np.nan)
    mine = (matches.classes == index) & ~matches.ignored
    order = np.sort(matches.scores[mine]), np.sort(matches.scores[mine & matches.hit])
    kept, hits = (len(scores) - np.searchsorted(scores, GRID, side="left") for scores in order)
    return np.asarray(2 * hits / (kept + truths), np.float64)


def _confusion(shown: Sequence[Detections], samples: Sequence[Sample], classes: ClassTable) -> Ints:
    judge = evaluator(shown, [without_ignored(sample) for sample in samples], classes, **PLAIN)
    matrix = judge.confusion_matrix(iou_thr=0.5, max_det=100 * len(classes))["matrix"]
    return np.asarray(matrix).astype(np.int64)


def without_ignored(sample: Sample) -> Sample:
    """The sample without its crowd and difficult boxes."""
    keep = ~sample.ignore
    return replace(
        sample,
        boxes=sample.boxes[keep],
        classes=sample.classes[keep],
        ignore=sample.ignore[keep],
        areas=sample.areas[keep],
    )


def _errors(judge: Any, at_thresholds: Any) -> list[ErrorCost]:
    cost, count = judge.tide_errors()["delta_ap"], at_thresholds.tide_errors()["counts"]
    return [ErrorCost(kind, float(cost[kind]), int(count[kind])) for kind in ERRORS]


def _bin(row: dict[str, Any]) -> ScoreBin:
    return ScoreBin(
        float(row["bin_lower"]),
        float(row["bin_upper"]),
        int(row["count"]),
        float(row["avg_confidence"]),
        float(row["avg_accuracy"]),
    )


def _sizes(detections: Sequence[Detections], samples: Sequence[Sample], classes: ClassTable) -> list[SizeBucket]:
    """From the first bucket with a truth to the last."""
    areas = np.concatenate([sample.areas[~sample.ignore] for sample in samples])
    sides = [*SIZES, None]
    known = np.searchsorted(SIZES, np.sqrt(areas), side="right") - 1
    used = range(int(known.min()), int(known.max()) + 1) if len(known) else range(0)
    # COCO's ranges include both ends: the largest float below the next edge keeps a truth in one bucket
    edges = [
        [float(side) ** 2, np.nextafter(float(after or 1e5) ** 2, 0)]
        for side, after in zip(SIZES, sides[1:], strict=True)
    ]
    chosen = {"areaRng": [edges[i] for i in used], "areaRngLbl": [str(SIZES[i]) for i in used]}
    if not used:
        return []
    judge = evaluator(detections, samples, classes, **{**ALL_SIZES, **chosen})
    judge.accumulate()
    precision = np.asarray(judge.eval["precision"])[..., -1]  # [IoU, recall, class, area]
    return [
        SizeBucket(
            SIZES[i],
            sides[i + 1],
            int((known == i).sum()),
            _mean(precision[..., place]),
            _mean(precision[0, ..., place]),
        )
        for place, i in enumerate(used)
    ]


def _mean(values: npt.NDArray[np.float64]) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0
