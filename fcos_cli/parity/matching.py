"""Match the detections of two detectors in one image, one to one. Unmatched detections need an excuse.

Differences in the last digits may tip a decision: whether a score passes the threshold, which of two tied boxes
suppresses the other, which detection is the last that fits. A detection of one side only is excused if the decision by
which the other side lacks it is within `eps` of tipping, or follows from such a decision. Everything else is
unexplained. This is sound because with greedy NMS a detection can be missing for no other reason. In addition, a
detection of the exported model only must have been a candidate of the reference: a box in a wrong place has no excuse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fcos_cli.data.boxes import box_iou
from fcos_cli.parity.tolerance import Tolerance
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import RawDetections

Side = Literal["reference", "exported"]
Float = npt.NDArray[np.float64]
AT_TOPK_CUT = "at the cut of a level's candidates"


class ImageDetections(NamedTuple):
    """The detections in one image: boxes float32 [N, 4] xyxy, scores float32 [N], classes int64 [N]."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def take(self, indices: npt.NDArray[np.int64]) -> ImageDetections:
        return ImageDetections(self.boxes[indices], self.scores[indices], self.classes[indices])


@dataclass(frozen=True)
class Limits:
    """When two detections count as the same, and the thresholds near which two results may differ.

    same_iou, same_px: boxes of one class are the same if their IoU is at least `same_iou`, or if every edge differs by
    less than `same_px` pixels. score_eps, iou_eps: distance from a threshold within which a decision may go either way.
    score_threshold, nms_iou, max_detections: of the post-processing. topk_scores: lowest kept score of each level that
    reached its top-k limit. candidates: of the reference before NMS; None = unknown, so any box may have been one.
    inclusive: whether boxes overlap as if they were a pixel wider and higher.
    """

    score_threshold: float
    nms_iou: float
    max_detections: int
    same_iou: float = 0.9
    same_px: float = 1.0
    score_eps: float = 1e-4
    iou_eps: float = 1e-3
    topk_scores: tuple[float, ...] = ()
    inclusive: bool = False
    candidates: ImageDetections | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls, facts: Facts, tolerance: Tolerance, *, topk_scores: tuple[float, ...], candidates: ImageDetections | None
    ) -> Limits:
        """Those of a file, whose facts are given, judged by `tolerance`."""
        judged = {name: getattr(tolerance, name) for name in ("same_iou", "same_px", "score_eps", "iou_eps")}
        inclusive = facts.conventions.box_ends == "inclusive"
        return cls(**facts.limits, **judged, topk_scores=topk_scores, inclusive=inclusive, candidates=candidates)


@dataclass(frozen=True)
class Unmatched:
    """A detection of one side only. reason: its excuse; None = unexplained."""

    side: Side
    index: int
    score: float
    reason: str | None


@dataclass(frozen=True)
class Match:
    """Comparison of two sides' detections in one image.

    reference, exported: number of detections of each. pairs: (index in reference, index in exported) of matched
    detections, in the reference's order. px: float64 [pairs], largest difference of an edge, in pixels of network
    input. max_score: largest difference of a score. same_order: whether the pairs are in the same order on both sides.
    order_excused: whether only ties (within eps, or within the measured score differences) are in a different order.
    """

    reference: int
    exported: int
    pairs: tuple[tuple[int, int], ...]
    px: Float = field(repr=False)
    max_score: float
    same_order: bool
    order_excused: bool
    unmatched: tuple[Unmatched, ...] = ()

    @property
    def matched(self) -> int:
        return len(self.pairs)

    @property
    def excused(self) -> int:
        return sum(item.reason is not None for item in self.unmatched)

    @property
    def unexplained(self) -> tuple[Unmatched, ...]:
        return tuple(item for item in self.unmatched if item.reason is None)

    @property
    def max_px(self) -> float:
        return float(self.px.max()) if len(self.px) else 0.0

    @property
    def worst(self) -> tuple[int, int] | None:
        """The pair whose boxes differ most; None if nothing matched."""
        return self.pairs[int(self.px.argmax())] if self.pairs else None


def image_detections(raw: RawDetections, index: int) -> ImageDetections:
    """The detections of image `index` of a batch, without padding."""
    count = int(raw.counts[index])
    return ImageDetections(raw.boxes[index, :count], raw.scores[index, :count], raw.classes[index, :count])


def match(reference: ImageDetections, exported: ImageDetections, *, limits: Limits) -> Match:
    """Compare the detections of both sides in one image, in pixels of the same network input."""
    pairs, px = _pair(reference, exported, limits)
    left, right = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    scores = reference.scores[left].astype(np.float64)
    gaps = np.abs(scores - exported.scores[right])
    swapped = np.triu(right[:, None] > right[None, :], 1)
    largest = float(gaps.max()) if len(gaps) else 0.0
    near = np.abs(scores[:, None] - scores[None, :]) <= max(limits.score_eps, 2 * largest)
    return Match(
        reference=len(reference.scores),
        exported=len(exported.scores),
        pairs=pairs,
        px=px,
        max_score=largest,
        same_order=not swapped.any(),
        order_excused=not (swapped & ~near).any(),
        unmatched=_excuse(reference, exported, left, right, limits),
    )


def _pair(
    reference: ImageDetections, exported: ImageDetections, limits: Limits
) -> tuple[tuple[tuple[int, int], ...], Float]:
    """Match greedily by descending score, each to the nearest free detection.

    Returns the pairs and their px [pairs].
    """
    distance = np.abs(reference.boxes.astype(np.float64)[:, None] - exported.boxes[None]).max(-1, initial=0.0)
    same = (box_iou(reference.boxes, exported.boxes) >= limits.same_iou) | (distance < limits.same_px)
    same &= reference.classes[:, None] == exported.classes[None]
    # if boxes are equally near, prefer the closer score
    cost = np.where(same, distance + np.abs(reference.scores[:, None] - exported.scores[None]) * 1e-3, np.inf)
    pairs = []
    for index in np.flatnonzero(same.any(1)).tolist():
        nearest = int(cost[index].argmin())
        if np.isfinite(cost[index, nearest]):
            pairs.append((index, nearest))
            cost[:, nearest] = np.inf
    return tuple(pairs), np.array([distance[pair] for pair in pairs], np.float64)


class _Leftover(NamedTuple):
    """The unmatched detections of one side, with all detections of the other side."""

    side: Side
    indices: npt.NDArray[np.int64]
    own: ImageDetections
    other: ImageDetections


def _excuse(
    reference: ImageDetections,
    exported: ImageDetections,
    matched_reference: npt.NDArray[np.int64],
    matched_exported: npt.NDArray[np.int64],
    limits: Limits,
) -> tuple[Unmatched, ...]:
    left = np.setdiff1d(np.arange(len(reference.scores)), matched_reference)
    right = np.setdiff1d(np.arange(len(exported.scores)), matched_exported)
    leftovers = (_leftover("reference", left, reference, exported), _leftover("exported", right, exported, reference))
    if not len(left) and not len(right):
        return ()
    reasons = [_threshold_reasons(leftover, limits) for leftover in leftovers]
    only_reference, only_exported = (leftover.own for leftover in leftovers)
    candidate = _were_candidates(only_exported, limits) | np.array([r == AT_TOPK_CUT for r in reasons[1]], bool)
    reasons[1] = [reason if known else None for reason, known in zip(reasons[1], candidate.tolist(), strict=True)]

    overlap = _overlap(only_reference, only_exported, limits) > limits.nms_iou - limits.iou_eps
    overlap &= candidate[None]
    overlap &= only_reference.classes[:, None] == only_exported.classes[None]
    gap = only_reference.scores.astype(np.float64)[:, None] - only_exported.scores[None]
    tied = overlap & (np.abs(gap) <= limits.score_eps)
    for side, ties in ((0, tied), (1, tied.T)):
        for row in np.flatnonzero(ties.any(1)).tolist():
            reasons[side][row] = reasons[side][row] or "tied with the box that suppresses it"
    _propagate(reasons, overlap & (gap <= limits.score_eps), (overlap & (gap >= -limits.score_eps)).T)
    return tuple(
        Unmatched(leftover.side, index, float(leftover.own.scores[row]), reasons[side][row])
        for side, leftover in enumerate(leftovers)
        for row, index in enumerate(leftover.indices.tolist())
    )


def _overlap(one: ImageDetections, other: ImageDetections, limits: Limits) -> Float:
    """IoU of each pair as NMS computes it, [N, M]."""
    wider = np.array([0, 0, 1, 1], np.float32) * limits.inclusive
    return box_iou(one.boxes + wider, other.boxes + wider)


def _were_candidates(detections: ImageDetections, limits: Limits) -> npt.NDArray[np.bool_]:
    """Whether each detection was a candidate of the reference: bool [N].

    Candidates beyond the top-k limit of a level are unknown, so a detection at that limit may have been one.
    """
    known = limits.candidates
    if known is None:
        return np.ones(len(detections.scores), bool)
    same = (
        np.abs(detections.boxes.astype(np.float64)[:, None] - known.boxes[None]).max(-1, initial=0.0) < limits.same_px
    )
    same |= box_iou(detections.boxes, known.boxes) >= limits.same_iou
    same &= np.abs(detections.scores[:, None] - known.scores[None]) <= 4 * limits.score_eps
    result: npt.NDArray[np.bool_] = (same & (detections.classes[:, None] == known.classes[None])).any(1)
    return result


def _leftover(
    side: Side, indices: npt.NDArray[np.int64], detections: ImageDetections, other: ImageDetections
) -> _Leftover:
    return _Leftover(side, indices, detections.take(indices), other)


def _threshold_reasons(leftover: _Leftover, limits: Limits) -> list[str | None]:
    """For each unmatched detection, the threshold of the other side that it is within eps of, or None."""
    own, other = leftover.own, leftover.other
    scores = own.scores.astype(np.float64)
    full = len(other.scores) >= limits.max_detections
    last = float(other.scores.min()) if full and len(other.scores) else -np.inf
    overlap = _overlap(own, other, limits)
    same = own.classes[:, None] == other.classes[None]
    cuts = np.array(limits.topk_scores, np.float64)
    reasons = {
        # first, because it also excuses detections that are not known candidates
        AT_TOPK_CUT: (np.abs(scores[:, None] - cuts[None]) <= limits.score_eps).any(1),
        "at the score threshold": np.abs(scores - limits.score_threshold) <= limits.score_eps,
        "the other side is full": scores <= last + limits.score_eps,
        "at the NMS threshold": (same & (np.abs(overlap - limits.nms_iou) <= limits.iou_eps)).any(1),
    }
    return [next((reason for reason, applies in reasons.items() if applies[i]), None) for i in range(len(scores))]


def _propagate(reasons: list[list[str | None]], left: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]) -> None:
    """Excuse detections that an excused box of the other side would suppress, repeatedly, in place.

    left: bool [reference, exported], whether the row's detection is suppressed by the column's. right: bool [exported,
    reference], likewise.
    """
    changed = True
    while changed:
        changed = False
        for side, suppressed in ((0, left), (1, right)):
            excused = np.array([reason is not None for reason in reasons[1 - side]], bool)
            for row in np.flatnonzero((suppressed & excused[None]).any(1)).tolist():
                if reasons[side][row] is None:
                    reasons[side][row] = "follows from another"
                    changed = True
