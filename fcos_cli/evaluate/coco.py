"""COCO metrics of a detector on a data set, with per-class AP and the best score threshold of each class.

Two evaluators share one code path: hotcoco (fast) and pycocotools (the reference, against which the tests check
hotcoco). Both receive the same arrays in memory, without temporary files.

- COCO counts the 100 highest-scoring detections per image *and class*. The evaluators drop any others.
- The best thresholds are computed from the evaluator's own matching at IoU 0.5.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fcos_cli.data.boxes import scale_boxes
from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import DataError, UsageError
from fcos_cli.evaluate.coco_format import coco_detections, coco_ground_truth
from fcos_cli.evaluate.matches import AT_IOU_50
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.pipeline import Failure, Prediction, predict
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections

Evaluator = Literal["hotcoco", "pycocotools"]
NO_DETECTIONS = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
_STDOUT = threading.Lock()  # all threads share stdout: two that replace and restore it at once would lose it
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class ClassResult:
    """Metrics of one class. `truths` counts the ground-truth boxes that are not ignored.

    AP and AP50 are -1 if there are none. best_threshold: the score threshold with the highest F1 at IoU 0.5 (the
    highest such threshold in a tie), or None if no detection matches a ground-truth box. best_f1: that F1, 0…1; 0 if
    nothing matches, None without ground truth.
    """

    name: str
    category_id: int
    AP: float
    AP50: float
    best_threshold: float | None
    best_f1: float | None
    truths: int


@dataclass(frozen=True)
class CocoResult:
    """COCO metrics on one split.

    metrics: keyed by METRICS, in that order; each 0…1, or -1 if it could not be measured (no such ground truth).
    per_class: in the order of the class table. images: number of images. notes: remarks needed to interpret the
    metrics.
    """

    metrics: dict[str, float]
    per_class: list[ClassResult]
    images: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the `images`, `metrics`, `per_class` and `notes` of the `fcos eval --json` document."""
        return {
            "images": self.images,
            "metrics": dict(self.metrics),
            "per_class": [asdict(row) for row in self.per_class],
            "notes": list(self.notes),
        }


def score(
    detections: Sequence[Detections],
    samples: Sequence[Sample],
    classes: ClassTable,
    *,
    evaluator: Evaluator = "hotcoco",
    notes: Iterable[str] = (),
) -> CocoResult:
    """Compute COCO metrics of `detections[i]` in `samples[i]`; both use the indices of `classes`.

    Raises UsageError for an unknown evaluator, and DataError if the two lists differ in length.
    """
    if len(detections) != len(samples):
        raise DataError(f"got {len(detections)} detection results for {len(samples)} images")
    if evaluator not in ("hotcoco", "pycocotools"):
        raise UsageError(f"unknown evaluator {evaluator!r}", remedy="use hotcoco or pycocotools")
    if not samples or not len(classes):
        names_and_ids = zip(classes.names, classes.ids, strict=True)
        rows = [ClassResult(name, category_id, -1.0, -1.0, None, None, 0) for name, category_id in names_and_ids]
        return CocoResult(dict.fromkeys(METRICS, -1.0), rows, len(samples), tuple(notes))

    ground_truth, rows_found = coco_ground_truth(samples, classes), coco_detections(detections, samples)
    with _STDOUT, contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints to stdout, which is reserved for data
        run = _run_hotcoco if evaluator == "hotcoco" else _run_pycocotools
        stats, precision, matches = run(ground_truth, rows_found)
    metrics = {name: float(value) for name, value in zip(METRICS, stats, strict=True)}
    best = _best_thresholds(matches, len(classes))
    per_class = []
    for index, (name, category_id) in enumerate(zip(classes.names, classes.ids, strict=True)):
        ap, ap50 = mean_precision(precision[:, :, index, 0, -1]), mean_precision(precision[0, :, index, 0, -1])
        per_class.append(ClassResult(name, category_id, ap, ap50, *best[index]))
    return CocoResult(metrics, per_class, len(samples), tuple(notes))


def evaluate(
    detector: Detector,
    dataset: Dataset,
    *,
    batch: int = 8,
    tiling: Tiling | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> CocoResult:
    """Run `detector` on the images of `dataset` and score the detections in the classes of the data set.

    batch, tiling, on_progress: as in `collect_detections`. Raises DataError if an image cannot be read, or if the model
    and the data set have no class in common.
    """
    detections, notes = collect_detections(detector, dataset, batch=batch, tiling=tiling, on_progress=on_progress)
    return score(detections, dataset.samples, dataset.classes, notes=notes)


def collect_detections(
    detector: Detector,
    dataset: Dataset,
    *,
    batch: int = 8,
    tiling: Tiling | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_unreadable: Callable[[Failure], None] | None = None,
) -> tuple[list[Detections], list[str]]:
    """Return the detections to score, per image and in the data set's class indices, and notes about the classes.

    The model's classes are matched to the data set's by name; detections of other classes are dropped, which is noted.
    Boxes are in pixels of the annotated size, which may not be that of the file. Images are not kept in memory. tiling,
    batch: as in `predict`. on_progress: called with (images done, total) after each image. on_unreadable: called for
    each image that cannot be read, which then counts as having no detections; without it, DataError is raised. Also
    raises DataError if the model and the data set have no class in common.
    """
    class_map, notes = match_classes(detector.facts.classes, dataset.classes, where=detector.name)
    samples = dataset.samples
    order = reading_order(detector.facts.resize, samples)
    detections = [NO_DETECTIONS] * len(samples)
    predictions = predict(detector, (samples[i].image for i in order), batch=batch, workers=2, tiling=tiling)
    for done, (index, prediction) in enumerate(zip(order, predictions, strict=True), start=1):
        if isinstance(prediction, Prediction):
            detections[index] = _as_annotated(prediction, samples[index], class_map)
        elif on_unreadable is None:
            raise prediction.error  # metrics of the readable images alone would be misleading
        else:
            on_unreadable(prediction)
        if on_progress is not None:
            on_progress(done, len(samples))
    return detections, notes


def thresholds_for(facts: Facts, classes: ClassTable) -> npt.NDArray[np.float32]:
    """Return the score threshold `fcos predict` applies to each class of the data set: float32 [C], 0…1.

    Classes unknown to the model get its global threshold.
    """
    own = facts.thresholds
    thresholds = [facts.threshold if index is None else own[index] for index in classes.match(facts.classes)]
    return np.array(thresholds, np.float32)


def rounded_down(threshold: float | None) -> float | None:
    """A threshold to show with three decimals. Rounded up, it would leave out the box whose score it is."""
    return None if threshold is None else math.floor(1000 * threshold + 1e-4) / 1000  # scores are float32


def reading_order(rule: ResizeRule, samples: Sequence[Sample]) -> list[int]:
    """The order in which samples are detected. Images of similar shape come together, to keep the padding small."""
    order = list(range(len(samples)))
    if rule.mode == "shortest":
        order.sort(key=lambda i: rule.geometry(samples[i].width, samples[i].height).resized)
    return order


def match_classes(
    model: ClassTable, data: ClassTable, *, where: object = None
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the data set's index of each model class, -1 if there is none [C], and notes about unmatched classes.

    Raises DataError, naming `where`, if there is no class in common.
    """
    class_map = np.array([-1 if index is None else index for index in model.match(data)], np.int64)
    if not (class_map >= 0).any():
        raise DataError(
            "the model and the data set have no class in common"
            f" (model: {format_names(model.names)}; data set: {format_names(data.names)})",
            where=where,
            remedy="use a data set with the model's classes, or rename the classes of the data set",
        )
    notes = []
    if dropped := [name for name, index in zip(model.names, class_map, strict=True) if index < 0]:
        notes.append(f"dropped detections of classes that are not in the data set: {format_names(dropped)}")
    if unknown := [name for name, index in zip(data.names, data.match(model), strict=True) if index is None]:
        notes.append(f"classes unknown to the model count as missed: {format_names(unknown)}")
    return class_map, notes


def format_names(names: Sequence[str], limit: int = 8) -> str:
    """The first `limit` names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _as_annotated(prediction: Prediction, sample: Sample, class_map: npt.NDArray[np.int64]) -> Detections:
    found, size = prediction.detections, (prediction.width, prediction.height)
    boxes, classes = scale_boxes(found.boxes, size=size, to=(sample.width, sample.height)), class_map[found.classes]
    keep = classes >= 0
    return Detections(boxes[keep], found.scores[keep], classes[keep])


def mean_precision(precision: npt.NDArray[np.float64]) -> float:
    """The mean of precisions of an evaluator, which are -1 where there is no ground truth; -1 if there are none."""
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else -1.0


EvaluatorOutput = tuple[Sequence[float], npt.NDArray[np.float64], list[dict[str, Any]]]
"""The 12 metrics; precision [IoU, recall, class, area, maxDets]; matches per image and class at IoU 0.5."""


def _run_hotcoco(ground_truth: dict[str, Any], detections: npt.NDArray[np.float64]) -> EvaluatorOutput:
    from hotcoco import COCO, COCOeval

    coco_gt = COCO(ground_truth)
    return _run_evaluator(COCOeval, coco_gt, coco_gt.load_res(detections))


def _run_pycocotools(ground_truth: dict[str, Any], detections: npt.NDArray[np.float64]) -> EvaluatorOutput:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    coco_gt, coco_dt = COCO(), COCO()
    coco_gt.dataset = ground_truth
    coco_gt.createIndex()
    if len(detections):
        coco_dt = coco_gt.loadRes(detections)
    else:  # loadRes reads the first row
        coco_dt.dataset = {**ground_truth, "annotations": []}
        coco_dt.createIndex()
    return _run_evaluator(COCOeval, coco_gt, coco_dt)


def _run_evaluator(evaluator_class: Any, coco_gt: Any, coco_dt: Any) -> EvaluatorOutput:
    full = evaluator_class(coco_gt, coco_dt, "bbox")
    full.evaluate()
    full.accumulate()
    full.summarize()
    # A second run for the matches at IoU 0.5 alone: one fortieth of the matches of the full run.
    at_iou_50 = evaluator_class(coco_gt, coco_dt, "bbox")
    for name, value in AT_IOU_50.items():
        setattr(at_iou_50.params, name, value)
    at_iou_50.evaluate()
    return full.stats, np.asarray(full.eval["precision"]), [row for row in at_iou_50.evalImgs if row is not None]


def _best_thresholds(matches: list[dict[str, Any]], count: int) -> list[tuple[float | None, float | None, int]]:
    """Return (best_threshold, best_f1, truths) of each class; see ClassResult."""
    by_class: dict[int, list[dict[str, Any]]] = {index: [] for index in range(count)}
    for row in matches:
        by_class[int(row["category_id"])].append(row)
    return [_best_threshold(rows) for rows in by_class.values()]


def _best_threshold(rows: list[dict[str, Any]]) -> tuple[float | None, float | None, int]:
    truths = sum(len(row["gtIgnore"]) - int(np.sum(row["gtIgnore"])) for row in rows)
    if not truths:
        return None, None, 0
    scores = np.array([value for row in rows for value in row["dtScores"]], np.float64)
    counted = ~np.array([ignored for row in rows for ignored in row["dtIgnore"][0]], bool)
    hits = np.array([match > 0 for row in rows for match in row["dtMatches"][0]], bool)
    order = np.argsort(-scores[counted], kind="stable")
    scores, hits = scores[counted][order], hits[counted][order]
    if not hits.any():
        return None, 0.0, truths
    f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + truths)
    # A threshold keeps all detections of equal score or none, so only the last of a tie is a valid cut.
    last_of_tie = np.append(scores[1:] != scores[:-1], [True])
    best = int(np.argmax(np.where(last_of_tie, f1, -1.0)))
    return float(scores[best]), float(f1[best]), truths
