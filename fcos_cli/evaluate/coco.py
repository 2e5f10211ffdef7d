"""Detector × data set → COCO's twelve numbers, per-class figures, and the score at which each class works best.

Two evaluators, one code path: hotcoco (fast) and pycocotools (the reference; the tests hold hotcoco to it). Both get
the same numbers in memory, no files. Notable choices:

- COCO counts the 100 best detections per picture *and class*; more may be passed, the evaluator drops them.
- The best threshold comes from the evaluator's own matching at IoU 0.5, not from a second matcher.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.errors import DataError, UsageError
from fcos_cli.evaluate.coco_format import found_rows, truth_document
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.pipeline import Failure, predict
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections

Evaluator = Literal["hotcoco", "pycocotools"]
NOT_MEASURED = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class ClassResult:
    """One class. `truths` counts the boxes that are not ignored; AP and AP50 are -1 where there are none.

    best_threshold: the score from which on F1 at IoU 0.5 is highest (of equals the highest score), None where no
    detection hits a truth. best_f1: that F1, 0…1; 0 where nothing hits, None where there is no truth.
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
    """`metrics`: the keys of METRICS in that order, each 0…1, or -1 where nothing could be measured (no such truth).

    per_class: in the order of the class table. images: pictures counted. notes: what a reader must know to judge it.
    """

    metrics: dict[str, float]
    per_class: list[ClassResult]
    images: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The `images`, `metrics`, `per_class` and `notes` of the `fcos eval --json` document."""
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
    """COCO figures of `detections[i]`, found in `samples[i]`; both index `classes`. Raises UsageError, DataError."""
    if len(detections) != len(samples):
        raise DataError(f"{len(detections)} answers for {len(samples)} pictures")
    if evaluator not in ("hotcoco", "pycocotools"):
        raise UsageError(f"no evaluator {evaluator!r}", remedy="choose hotcoco or pycocotools")
    if not samples or not len(classes):
        known = zip(classes.names, classes.ids, strict=True)
        rows = [ClassResult(name, category_id, -1.0, -1.0, None, None, 0) for name, category_id in known]
        return CocoResult(dict.fromkeys(METRICS, -1.0), rows, len(samples), tuple(notes))

    truth, found = truth_document(samples, classes), found_rows(detections, samples)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools talks on stdout, which carries data
        run = _hotcoco if evaluator == "hotcoco" else _pycocotools
        stats, precision, matches = run(truth, found)
    metrics = {name: float(value) for name, value in zip(METRICS, stats, strict=True)}
    best = _best_thresholds(matches, len(classes))
    per_class = []
    for index, (name, category_id) in enumerate(zip(classes.names, classes.ids, strict=True)):
        ap, ap50 = _mean(precision[:, :, index, 0, -1]), _mean(precision[0, :, index, 0, -1])
        per_class.append(ClassResult(name, category_id, ap, ap50, *best[index]))
    return CocoResult(metrics, per_class, len(samples), tuple(notes))


def evaluate(
    detector: Detector,
    dataset: Dataset,
    *,
    batch: int = 8,
    workers: int = 2,
    evaluator: Evaluator = "hotcoco",
    on_progress: Callable[[int, int], None] | None = None,
    on_unreadable: Callable[[Failure], None] | None = None,
) -> CocoResult:
    """Run `detector` over the pictures of `dataset` and score it, in the data set's class table.

    The model's classes are matched to the data's by name; those that the data lacks are dropped and noted. on_progress:
    called with (pictures done, pictures in all) after each. on_unreadable: told of a picture that cannot be read, in
    which then nothing was found; without it that is a DataError, and so is a data set with no class of the model's.
    """
    detections, notes = collect_detections(
        detector, dataset, batch=batch, workers=workers, on_progress=on_progress, on_unreadable=on_unreadable
    )
    return score(detections, dataset.samples, dataset.classes, evaluator=evaluator, notes=notes)


def collect_detections(
    detector: Detector,
    dataset: Dataset,
    *,
    batch: int = 8,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
    on_unreadable: Callable[[Failure], None] | None = None,
) -> tuple[list[Detections], list[str]]:
    """What `evaluate` scores: the detections of each picture in the data set's class indices, and the notes."""
    lookup, notes = _match(detector.facts.classes, dataset.classes)
    detections = detect_all(
        detector, dataset.samples, batch=batch, workers=workers, on_progress=on_progress, on_unreadable=on_unreadable
    )
    return [_relabel(found, lookup) for found in detections], notes


def thresholds_for(facts: Facts, classes: ClassTable) -> npt.NDArray[np.float32]:
    """The scores from which on `fcos predict` shows detections of this model, for each class of the data [C].

    0…1; the model's global threshold for classes that it does not know.
    """
    own = facts.class_thresholds
    limits = [facts.threshold if index is None or own is None else own[index] for index in classes.match(facts.classes)]
    return np.array(limits, np.float32)


def detect_all(
    detector: Detector,
    samples: Sequence[Sample],
    *,
    batch: int = 8,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
    on_unreadable: Callable[[Failure], None] | None = None,
) -> list[Detections]:
    """The detections of each sample, in the model's class indices. Pictures are dropped as soon as they are seen.

    Where the rule lets shapes differ, pictures of like shape share a batch, so that padding is small.
    """
    rule = detector.facts.resize
    order = list(range(len(samples)))
    if rule.mode == "shortest":
        order.sort(key=lambda i: rule.geometry(samples[i].width, samples[i].height).resized)
    answers: list[Detections | None] = [None] * len(samples)
    paths = (samples[i].image for i in order)
    for done, (index, answer) in enumerate(
        zip(order, predict(detector, paths, batch=batch, workers=workers), strict=True), start=1
    ):
        if isinstance(answer, Failure):
            if on_unreadable is None:
                raise answer.error  # a figure over the readable pictures alone would not be the figure asked for
            on_unreadable(answer)
        answers[index] = NOT_MEASURED if isinstance(answer, Failure) else answer.detections
        if on_progress is not None:
            on_progress(done, len(samples))
    return [answer for answer in answers if answer is not None]


def _match(model: ClassTable, data: ClassTable) -> tuple[npt.NDArray[np.int64], list[str]]:
    """For each class of the model its index in the data or -1 [C], and what to tell about the rest."""
    lookup = np.array([-1 if index is None else index for index in model.match(data)], np.int64)
    if not (lookup >= 0).any():
        raise DataError(
            f"the model and the data have no class in common: {_some(model.names)} against {_some(data.names)}",
            remedy="evaluate on data with the model's classes, or rename the classes of the data",
        )
    notes = []
    if dropped := [name for name, index in zip(model.names, lookup, strict=True) if index < 0]:
        notes.append(f"detections of classes that the data lacks were dropped: {_some(dropped)}")
    if unknown := [name for name, index in zip(data.names, data.match(model), strict=True) if index is None]:
        notes.append(f"classes that the model does not know count as missed: {_some(unknown)}")
    return lookup, notes


def _some(names: Sequence[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _relabel(found: Detections, lookup: npt.NDArray[np.int64]) -> Detections:
    classes = lookup[found.classes]
    keep = classes >= 0
    return Detections(found.boxes[keep], found.scores[keep], classes[keep])


def _mean(precision: npt.NDArray[np.float64]) -> float:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else -1.0


Answer = tuple[Sequence[float], npt.NDArray[np.float64], list[dict[str, Any]]]
"""The 12 numbers; precision [IoU, recall, class, area, maxDets]; matches per picture and class at IoU 0.5."""


def _hotcoco(truth: dict[str, Any], found: npt.NDArray[np.float64]) -> Answer:
    from hotcoco import COCO, COCOeval

    known = COCO(truth)
    return _run(COCOeval, known, known.load_res(found))


def _pycocotools(truth: dict[str, Any], found: npt.NDArray[np.float64]) -> Answer:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    known, answers = COCO(), COCO()
    known.dataset = truth
    known.createIndex()
    if len(found):
        answers = known.loadRes(found)
    else:  # loadRes looks at the first row
        answers.dataset = {**truth, "annotations": []}
        answers.createIndex()
    return _run(COCOeval, known, answers)


def _run(judge: Any, known: Any, answers: Any) -> Answer:
    full = judge(known, answers, "bbox")
    full.evaluate()
    full.accumulate()
    full.summarize()
    plain = judge(known, answers, "bbox")  # once more, for the matches alone: a fortieth of the full run's
    plain.params.iouThrs, plain.params.maxDets = np.array([0.5]), [100]
    plain.params.areaRng, plain.params.areaRngLbl = [[0, 1e10]], ["all"]
    plain.evaluate()
    return full.stats, np.asarray(full.eval["precision"]), [row for row in plain.evalImgs if row is not None]


def _best_thresholds(matches: list[dict[str, Any]], count: int) -> list[tuple[float | None, float | None, int]]:
    """Per class (best_threshold, best_f1, truths); see ClassResult."""
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
    # A threshold takes all of equal scores or none: only the last of them is a place to cut.
    last = np.append(scores[1:] != scores[:-1], [True])
    best = int(np.argmax(np.where(last, f1, -1.0)))
    return float(scores[best]), float(f1[best]), truths
