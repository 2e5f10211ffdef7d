"""Metrics shown in a report, computed with hotcoco from a single matching.

- Counts (found, missed, false positives), the confusion matrix and the worst images are at the score thresholds that
`fcos predict` applies to this model. Curves, AP and the costs of error types include every score.
- hotcoco's confusion matrix counts a detection on a crowd box as a false positive, so detections that the evaluator
ignores are removed first, as are ignored ground-truth boxes.
- Error types and costs are TIDE's (Bolya et al., 2020, arXiv:2008.08115), in AP at IoU 0.5. Each cost is the gain in AP
from fixing this error type alone, so the costs do not sum to the missing AP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.data.samples import Sample
from fcos_cli.evaluate.coco import CocoResult, mean_precision
from fcos_cli.evaluate.matches import ALL_AREAS, AT_IOU_50, Floats, Ints, Matches, match_detections, run_evaluator
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.results import Detections

ERROR_TYPES = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
"""TIDE's error types: classification, localization, both, duplicate, background, missed."""

GRID: Floats = np.linspace(0, 1, 101)
"""Recalls of the precision curves and thresholds of the F1 curves."""

SIZE_EDGES = (0, 16, 32, 64, 96, 128, 192, 256, 384, 512, 1024)
"""Lower edges of the size buckets: square roots of box areas in source pixels. The last bucket is open-ended."""


@dataclass(frozen=True)
class Counts:
    """Numbers of ground-truth boxes found and missed, and of false positives."""

    found: int
    missed: int
    false_positives: int


@dataclass(frozen=True)
class ErrorCost:
    """One of ERROR_TYPES: its cost in AP50 (0…1), and its number of occurrences at the thresholds."""

    kind: str
    cost: float
    count: int


@dataclass(frozen=True)
class ScoreBin:
    """Detections with scores in low…high: their number, mean score, and share of true positives (0…1)."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class SizeBucket:
    """Ground-truth boxes with low ≤ sqrt(area) < high px (high None: no limit).

    AP, AP50: 0…1, or -1 without such boxes.
    """

    low: int
    high: int | None
    truths: int
    AP: float
    AP50: float


@dataclass(frozen=True)
class ReportMetrics:
    """All metrics a report shows for one model on one split.

    thresholds [C]: score thresholds of the counts. counts: per class. precision [C, 101]: at IoU 0.5, at the recalls of
    GRID, interpolated as in COCO; NaN for classes without ground truth. f1 [C, 101]: at the thresholds of GRID; NaN
    likewise. confusion [C + 1, C + 1]: rows are ground truth, columns are detections; the last row and column stand for
    "no match". ece: expected calibration error.
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


def compute_metrics(
    result: CocoResult,
    detections: Sequence[Detections],
    samples: Sequence[Sample],
    classes: ClassTable,
    *,
    thresholds: npt.NDArray[np.float32],
) -> ReportMetrics:
    """Compute the report's metrics of `detections[i]` in `samples[i]`.

    result: COCO metrics of the same detections. thresholds: one per class.
    """
    coco_eval = run_evaluator(detections, samples, classes, **AT_IOU_50)
    coco_eval.accumulate()
    matches = match_detections(coco_eval, detections, samples)
    shown = _select(detections, matches.shown(thresholds))
    calibration = coco_eval.calibration(n_bins=10, iou_threshold=0.5)
    return ReportMetrics(
        result=result,
        classes=classes,
        matches=matches,
        thresholds=thresholds,
        counts=_counts(matches, thresholds),
        precision=_precision_curves(coco_eval),
        f1=np.stack([_f1_curve(matches, index) for index in range(len(classes))]),
        confusion=_confusion(shown, samples, classes),
        errors=_error_costs(coco_eval, run_evaluator(shown, samples, classes, **AT_IOU_50)),
        ece=float(calibration["ece"]),
        bins=[_score_bin(row) for row in calibration["bins"]],
        sizes=_size_buckets(detections, samples, classes),
    )


def _select(detections: Sequence[Detections], keep: npt.NDArray[np.bool_]) -> list[Detections]:
    """Return the detections for which the flat mask `keep` is set."""
    ends = np.cumsum([len(found) for found in detections])[:-1]
    parts = np.split(keep, ends)
    return [found.select(part) for found, part in zip(detections, parts, strict=True)]


def _counts(matches: Matches, thresholds: npt.NDArray[np.float32]) -> list[Counts]:
    shown, found = matches.shown(thresholds), matches.found(thresholds)
    rows = []
    for index in range(len(thresholds)):
        truths = (matches.truth_classes == index) & ~matches.truth_ignored
        false_positives = shown & ~matches.hit & (matches.classes == index)
        hits = int((truths & found).sum())
        rows.append(Counts(hits, int(truths.sum()) - hits, int(false_positives.sum())))
    return rows


def _precision_curves(coco_eval: Any) -> Floats:
    curves = np.asarray(coco_eval.eval["precision"], np.float64)[0, :, :, 0, -1].T
    return np.where(curves < 0, np.nan, curves)


def _f1_curve(matches: Matches, index: int) -> Floats:
    """Return the F1 of one class at each threshold of GRID; NaN without ground truth."""
    truths = int(((matches.truth_classes == index) & ~matches.truth_ignored).sum())
    if not truths:
        return np.full(len(GRID), np.nan)
    of_class = (matches.classes == index) & ~matches.ignored
    sorted_scores = np.sort(matches.scores[of_class]), np.sort(matches.scores[of_class & matches.hit])
    kept, hits = (len(scores) - np.searchsorted(scores, GRID, side="left") for scores in sorted_scores)
    return np.asarray(2 * hits / (kept + truths), np.float64)


def _confusion(shown: Sequence[Detections], samples: Sequence[Sample], classes: ClassTable) -> Ints:
    coco_eval = run_evaluator(shown, [without_ignored(sample) for sample in samples], classes, **AT_IOU_50)
    matrix = coco_eval.confusion_matrix(iou_thr=0.5, max_det=100 * len(classes))["matrix"]
    return np.asarray(matrix).astype(np.int64)


def without_ignored(sample: Sample) -> Sample:
    """Return the sample without its crowd and difficult boxes."""
    keep = ~sample.ignore
    return replace(
        sample,
        boxes=sample.boxes[keep],
        classes=sample.classes[keep],
        ignore=sample.ignore[keep],
        areas=sample.areas[keep],
    )


def _error_costs(coco_eval: Any, at_thresholds: Any) -> list[ErrorCost]:
    cost, count = coco_eval.tide_errors()["delta_ap"], at_thresholds.tide_errors()["counts"]
    return [ErrorCost(kind, float(cost[kind]), int(count[kind])) for kind in ERROR_TYPES]


def _score_bin(row: dict[str, Any]) -> ScoreBin:
    return ScoreBin(
        float(row["bin_lower"]),
        float(row["bin_upper"]),
        int(row["count"]),
        float(row["avg_confidence"]),
        float(row["avg_accuracy"]),
    )


def _size_buckets(detections: Sequence[Detections], samples: Sequence[Sample], classes: ClassTable) -> list[SizeBucket]:
    """Return the buckets from the first to the last that contain a ground-truth box."""
    areas = np.concatenate([sample.areas[~sample.ignore] for sample in samples])
    upper_edges = [*SIZE_EDGES[1:], None]
    bucket_of = np.searchsorted(SIZE_EDGES, np.sqrt(areas), side="right") - 1
    used = range(int(bucket_of.min()), int(bucket_of.max()) + 1) if len(bucket_of) else range(0)
    # COCO's ranges include both ends. Ending at the largest float below the next edge keeps buckets disjoint.
    edges = [
        [float(low) ** 2, np.nextafter(float(high or 1e5) ** 2, 0)]
        for low, high in zip(SIZE_EDGES, upper_edges, strict=True)
    ]
    params = {"areaRng": [edges[i] for i in used], "areaRngLbl": [str(SIZE_EDGES[i]) for i in used]}
    if not used:
        return []
    coco_eval = run_evaluator(detections, samples, classes, **{**ALL_AREAS, **params})
    coco_eval.accumulate()
    precision = np.asarray(coco_eval.eval["precision"])[..., -1]  # [IoU, recall, class, area]
    return [
        SizeBucket(
            SIZE_EDGES[i],
            upper_edges[i],
            int((bucket_of == i).sum()),
            mean_precision(precision[..., column]),
            mean_precision(precision[0, ..., column]),
        )
        for column, i in enumerate(used)
    ]
