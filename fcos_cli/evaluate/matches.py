"""hotcoco's matching of detections to ground truth at IoU 0.5, as flat arrays.

COCO matches greedily in descending order of score, so dropping detections below a threshold does not change the matches
above it. One matching therefore serves every threshold; everything the report draws, counts and suggests uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.data.samples import Sample
from fcos_cli.evaluate.coco_format import coco_detections, coco_ground_truth
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.results import Detections

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

IOU = 0.5


@dataclass(frozen=True)
class Matches:
    """All N detections and all T ground-truth boxes, in the order of the samples and of their boxes.

    image_index, truth_image_index: index of the sample [N], [T]. classes, truth_classes: class index [N], [T].
    boxes, truth_boxes: float64 xyxy in source pixels [N, 4], [T, 4].
    scores: 0…1 [N]. hit: matches a ground-truth box of its class that is not ignored [N].
    ignored: neither a true nor a false positive, because the detection lies on an ignored box or is not among the 100
    best of its class and image [N].
    match_scores: score of the detection matched to the ground-truth box, -1 if there is none [T].
    truth_ignored: crowd or difficult [T].
    """

    image_index: Ints
    classes: Ints
    boxes: Floats
    scores: Floats
    hit: Bools
    ignored: Bools
    truth_image_index: Ints
    truth_classes: Ints
    truth_boxes: Floats
    truth_ignored: Bools
    match_scores: Floats

    def of_image(self, index: int) -> tuple[Ints, Ints]:
        """Return the indices of an image's detections and of its ground-truth boxes."""
        found, truth = (
            np.arange(*np.searchsorted(column, (index, index + 1)))
            for column in (self.image_index, self.truth_image_index)
        )
        return found, truth

    def shown(self, thresholds: npt.NDArray[np.floating[Any]]) -> Bools:
        """Return which detections are counted at these thresholds, one per class [C]: bool [N]."""
        return ~self.ignored & (self.scores >= thresholds[self.classes])

    def found(self, thresholds: npt.NDArray[np.floating[Any]]) -> Bools:
        """Return which ground-truth boxes are not ignored and found at these thresholds: bool [T]."""
        return ~self.truth_ignored & (self.match_scores >= 0) & (self.match_scores >= thresholds[self.truth_classes])


def run_evaluator(
    detections: Sequence[Detections], samples: Sequence[Sample], classes: ClassTable, **params: Any
) -> Any:
    """Return a hotcoco.COCOeval after `evaluate()`, with `params` set (iouThrs, maxDets, areaRng, catIds, …)."""
    return evaluate_pair(*load_pairs([detections], samples, classes)[0], **params)


def load_pairs(
    models: Sequence[Sequence[Detections]], samples: Sequence[Sample], classes: ClassTable
) -> list[tuple[Any, Any]]:
    """Return (ground truth, detections) of each model as hotcoco.COCO; all models share the ground truth."""
    from hotcoco import COCO

    coco_gt = COCO(coco_ground_truth(samples, classes))
    return [(coco_gt, coco_gt.load_res(coco_detections(detections, samples))) for detections in models]


def evaluate_pair(coco_gt: Any, coco_dt: Any, **params: Any) -> Any:
    """Do what `run_evaluator` does with a pair of `load_pairs`, which may be used again."""
    from hotcoco import COCOeval

    coco_eval = COCOeval(coco_gt, coco_dt, "bbox")
    for name, value in params.items():
        setattr(coco_eval.params, name, value)
    coco_eval.evaluate()
    return coco_eval


ALL_AREAS: dict[str, Any] = {"areaRng": [[0, 1e10]], "areaRngLbl": ["all"], "maxDets": [100]}
AT_IOU_50: dict[str, Any] = {**ALL_AREAS, "iouThrs": np.array([IOU])}
"""Parameters of `run_evaluator` for IoU 0.5 only, over all box sizes."""


def match_detections(coco_eval: Any, detections: Sequence[Detections], samples: Sequence[Sample]) -> Matches:
    """Return the matches of a `run_evaluator` with AT_IOU_50 on the same detections and samples."""
    detected_classes = _concatenate([found.classes for found in detections], np.int64)
    scores = _concatenate([found.scores for found in detections], np.float64)
    hit, ignored = np.zeros(len(scores), bool), np.ones(len(scores), bool)
    truth_ignored = _concatenate([sample.ignore for sample in samples], np.bool_)
    match_scores = np.full(len(truth_ignored), -1.0)
    for row in coco_eval.evalImgs:
        if row is None:
            continue
        indices = np.asarray(row["dtIds"], np.int64) - 1  # ids start at 1, in the order of the detections
        matched_ids = np.asarray(row["dtMatches"][0], np.int64)
        is_ignored = np.asarray(row["dtIgnore"][0], bool)
        ignored[indices] = is_ignored
        hit[indices] = (matched_ids > 0) & ~is_ignored
        match_scores[matched_ids[hit[indices]] - 1] = scores[indices[hit[indices]]]
    return Matches(
        image_index=_image_indices([len(found) for found in detections]),
        classes=detected_classes,
        boxes=_concatenate([found.boxes for found in detections], np.float64).reshape(-1, 4),
        scores=scores,
        hit=hit,
        ignored=ignored,
        truth_image_index=_image_indices([len(sample.boxes) for sample in samples]),
        truth_classes=_concatenate([sample.classes for sample in samples], np.int64),
        truth_boxes=_concatenate([sample.boxes for sample in samples], np.float64).reshape(-1, 4),
        truth_ignored=truth_ignored,
        match_scores=match_scores,
    )


def _concatenate(arrays: list[Any], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype)


def _image_indices(counts: list[int]) -> Ints:
    return np.repeat(np.arange(len(counts)), counts)
