"""Which detection hit which truth, at IoU 0.5: hotcoco's own matching, as flat arrays.

COCO's greedy matching goes from the best score down, so dropping detections below a threshold changes nothing above
it: one matching serves every threshold. What is drawn, counted and suggested in a report rests on this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.data.samples import Sample
from fcos_cli.evaluate.coco_format import found_rows, truth_document
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.results import Detections

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

IOU = 0.5


@dataclass(frozen=True)
class Matches:
    """Rows for all N detections and all T truths, in the order of the samples and of the boxes in them.

    picture, truth_picture: index of the sample [N], [T]. classes, truth_classes: class index [N], [T].
    boxes, truth_boxes: float64 xyxy in source pixels [N, 4], [T, 4].
    scores: 0…1 [N]. hit: has a truth of its class that counts [N]. ignored: neither hit nor false alarm, since it lies
    on an ignored truth or is not among the 100 best of its class and picture [N].
    found_at: score of the detection that hit the truth, -1 where none did [T]. truth_ignored: crowd, difficult [T].
    """

    picture: Ints
    classes: Ints
    boxes: Floats
    scores: Floats
    hit: Bools
    ignored: Bools
    truth_picture: Ints
    truth_classes: Ints
    truth_boxes: Floats
    truth_ignored: Bools
    found_at: Floats

    def shown(self, thresholds: npt.NDArray[np.floating[Any]]) -> Bools:
        """The detections that count from these scores on, one per class [C]: bool [N]."""
        return ~self.ignored & (self.scores >= thresholds[self.classes])

    def found(self, thresholds: npt.NDArray[np.floating[Any]]) -> Bools:
        """The truths that count and are found from these scores on: bool [T]."""
        return ~self.truth_ignored & (self.found_at >= 0) & (self.found_at >= thresholds[self.truth_classes])


def evaluator(detections: Sequence[Detections], samples: Sequence[Sample], classes: ClassTable, **params: Any) -> Any:
    """A hotcoco.COCOeval after `evaluate()`; `params` are set before it (iouThrs, maxDets, areaRng, catIds, …)."""
    from hotcoco import COCO, COCOeval

    known = COCO(truth_document(samples, classes))
    judge = COCOeval(known, known.load_res(found_rows(detections, samples)), "bbox")
    for name, value in params.items():
        setattr(judge.params, name, value)
    judge.evaluate()
    return judge


ALL_SIZES: dict[str, Any] = {"areaRng": [[0, 1e10]], "areaRngLbl": ["all"], "maxDets": [100]}
PLAIN: dict[str, Any] = {**ALL_SIZES, "iouThrs": np.array([IOU])}
"""`params` of an evaluator at IoU 0.5 alone, over all sizes."""


def match(judge: Any, detections: Sequence[Detections], samples: Sequence[Sample]) -> Matches:
    """The matching of an `evaluator` with PLAIN parameters for the same detections and samples."""
    found_classes = _joined([found.classes for found in detections], np.int64)
    scores = _joined([found.scores for found in detections], np.float64)
    hit, ignored = np.zeros(len(scores), bool), np.ones(len(scores), bool)
    truth_ignored = _joined([sample.ignore for sample in samples], np.bool_)
    found_at = np.full(len(truth_ignored), -1.0)
    for row in judge.evalImgs:
        if row is None:
            continue
        places = np.asarray(row["dtIds"], np.int64) - 1  # numbered from 1 in the order of the rows
        partners = np.asarray(row["dtMatches"][0], np.int64)
        outside = np.asarray(row["dtIgnore"][0], bool)
        ignored[places] = outside
        hit[places] = (partners > 0) & ~outside
        found_at[partners[hit[places]] - 1] = scores[places[hit[places]]]
    return Matches(
        picture=_owners([len(found) for found in detections]),
        classes=found_classes,
        boxes=_joined([found.boxes for found in detections], np.float64).reshape(-1, 4),
        scores=scores,
        hit=hit,
        ignored=ignored,
        truth_picture=_owners([len(sample.boxes) for sample in samples]),
        truth_classes=_joined([sample.classes for sample in samples], np.int64),
        truth_boxes=_joined([sample.boxes for sample in samples], np.float64).reshape(-1, 4),
        truth_ignored=truth_ignored,
        found_at=found_at,
    )


def _joined(arrays: list[Any], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype)


def _owners(counts: list[int]) -> Ints:
    return np.repeat(np.arange(len(counts)), counts)
