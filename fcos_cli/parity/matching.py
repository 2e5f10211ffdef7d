"""Do two detectors say the same of one picture? Boxes are matched one to one; what is left over needs an excuse.

Numbers that differ in the last digits may tip a decision: whether a score passes the threshold, which of two tied
boxes suppresses the other, which detection is the last that fits. A box that only one side has is excused where the
other side's reason for not having it lies within `eps` of such a decision, or follows from one that does. Everything
else is unexplained. Greedy NMS makes this sound: a detection can be absent for no other reason than these. And what
only the exported model finds must have been a candidate of the reference: a box in a wrong place has no excuse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fcos_cli.data.boxes import box_iou
from fcos_cli.runtime.results import RawDetections

Side = Literal["reference", "exported"]
Float = npt.NDArray[np.float64]
AT_TOPK_CUT = "at the cut of a level's candidates"


class Answer(NamedTuple):
    """The detections of one picture: boxes float32 [N, 4] xyxy, scores float32 [N], classes int64 [N]."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def take(self, indices: npt.NDArray[np.int64]) -> Answer:
        return Answer(self.boxes[indices], self.scores[indices], self.classes[indices])


@dataclass(frozen=True)
class Limits:
    """What counts as the same, and the decisions near which two answers may part.

    same_iou, same_px: boxes of one class are the same where they overlap by so much, or where no edge differs by so
    many pixels. score_eps, iou_eps: how near a decision is a toss-up. score_threshold, nms_iou, max_detections: of
    the post-processing. cuts: scores of the last candidates that were kept, of each level that was full. candidates:
    the reference's, before NMS; None = not known, any box may have been one.
    """

    score_threshold: float
    nms_iou: float
    max_detections: int
    same_iou: float = 0.9
    same_px: float = 1.0
    score_eps: float = 1e-4
    iou_eps: float = 1e-3
    cuts: tuple[float, ...] = ()
    candidates: Answer | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Unmatched:
    """A detection that one side has and the other has not. reason: its excuse; None = unexplained."""

    side: Side
    index: int
    score: float
    reason: str | None


@dataclass(frozen=True)
class Match:
    """How two answers for one picture compare.

    reference, exported: detections of each. pairs: (index in reference, index in exported) of the same ones, in the
    reference's order; px: float64 [pairs], the largest difference of an edge of each, in pixels of network input;
    max_score: the largest difference of a score. same_order: the pairs stand in one order on both sides;
    order_excused: where they do not, only ties (within eps, or what the differences of scores explain) changed places.
    """

    reference: int
    exported: int
    pairs: tuple[tuple[int, int], ...]
    px: Float = field(repr=False)
    max_score: float
    same_order: bool
    order_excused: bool
    alone: tuple[Unmatched, ...] = ()

    @property
    def matched(self) -> int:
        return len(self.pairs)

    @property
    def excused(self) -> int:
        return sum(one.reason is not None for one in self.alone)

    @property
    def unexplained(self) -> tuple[Unmatched, ...]:
        return tuple(one for one in self.alone if one.reason is None)

    @property
    def max_px(self) -> float:
        return float(self.px.max()) if len(self.px) else 0.0

    @property
    def median_px(self) -> float:
        return float(np.median(self.px)) if len(self.px) else 0.0

    @property
    def worst(self) -> tuple[int, int] | None:
        """The pair whose boxes differ most."""
        return self.pairs[int(self.px.argmax())] if self.pairs else None


def answer_of(raw: RawDetections, picture: int) -> Answer:
    """The detections of one picture of a batch, padding removed."""
    count = int(raw.counts[picture])
    return Answer(raw.boxes[picture, :count], raw.scores[picture, :count], raw.classes[picture, :count])


def match(reference: Answer, exported: Answer, *, limits: Limits) -> Match:
    """Compare two answers for one picture, in pixels of the same network input."""
    pairs, px = _pair(reference, exported, limits)
    mine, theirs = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    scores = reference.scores[mine].astype(np.float64)
    gaps = np.abs(scores - exported.scores[theirs])
    swapped = np.triu(theirs[:, None] > theirs[None, :], 1)
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
        alone=_excuse(reference, exported, mine, theirs, limits),
    )


def _pair(reference: Answer, exported: Answer, limits: Limits) -> tuple[tuple[tuple[int, int], ...], Float]:
    """The same detections, best scores first, each with the nearest that is still free; and their px [pairs]."""
    apart = np.abs(reference.boxes.astype(np.float64)[:, None] - exported.boxes[None]).max(-1, initial=0.0)
    same = (box_iou(reference.boxes, exported.boxes) >= limits.same_iou) | (apart < limits.same_px)
    same &= reference.classes[:, None] == exported.classes[None]
    # of boxes that lie equally well, the one whose score fits better
    cost = np.where(same, apart + np.abs(reference.scores[:, None] - exported.scores[None]) * 1e-3, np.inf)
    pairs = []
    for index in np.flatnonzero(same.any(1)).tolist():
        nearest = int(cost[index].argmin())
        if np.isfinite(cost[index, nearest]):
            pairs.append((index, nearest))
            cost[:, nearest] = np.inf
    return tuple(pairs), np.array([apart[pair] for pair in pairs], np.float64)


class _Rest(NamedTuple):
    """One side's detections that found no partner, with the whole answer of the side that lacks them."""

    side: Side
    indices: npt.NDArray[np.int64]
    own: Answer
    other: Answer


def _excuse(
    reference: Answer, exported: Answer, mine: npt.NDArray[np.int64], theirs: npt.NDArray[np.int64], limits: Limits
) -> tuple[Unmatched, ...]:
    left = np.setdiff1d(np.arange(len(reference.scores)), mine)
    right = np.setdiff1d(np.arange(len(exported.scores)), theirs)
    rests = (_rest("reference", left, reference, exported), _rest("exported", right, exported, reference))
    if not len(left) and not len(right):
        return ()
    reasons = [_own_reasons(rest, limits) for rest in rests]
    here, there = (rest.own for rest in rests)
    real = _candidates(there, limits) | np.array([reason == AT_TOPK_CUT for reason in reasons[1]], bool)
    reasons[1] = [reason if known else None for reason, known in zip(reasons[1], real.tolist(), strict=True)]

    hits = (box_iou(here.boxes, there.boxes) > limits.nms_iou - limits.iou_eps) & real[None]
    hits &= here.classes[:, None] == there.classes[None]
    gap = here.scores.astype(np.float64)[:, None] - there.scores[None]
    tied = hits & (np.abs(gap) <= limits.score_eps)
    for side, rivals in ((0, tied), (1, tied.T)):
        for place in np.flatnonzero(rivals.any(1)).tolist():
            reasons[side][place] = reasons[side][place] or "tied with the box that suppresses it"
    _follow(reasons, hits & (gap <= limits.score_eps), (hits & (gap >= -limits.score_eps)).T)
    return tuple(
        Unmatched(rest.side, index, float(rest.own.scores[place]), reasons[side][place])
        for side, rest in enumerate(rests)
        for place, index in enumerate(rest.indices.tolist())
    )


def _candidates(alone: Answer, limits: Limits) -> npt.NDArray[np.bool_]:
    """bool [N]: was this one a candidate of the reference? One at the cut of a level may be beyond what is known."""
    known = limits.candidates
    if known is None:
        return np.ones(len(alone.scores), bool)
    same = np.abs(alone.boxes.astype(np.float64)[:, None] - known.boxes[None]).max(-1, initial=0.0) < limits.same_px
    same |= box_iou(alone.boxes, known.boxes) >= limits.same_iou
    same &= np.abs(alone.scores[:, None] - known.scores[None]) <= 4 * limits.score_eps
    found: npt.NDArray[np.bool_] = (same & (alone.classes[:, None] == known.classes[None])).any(1)
    return found


def _rest(side: Side, indices: npt.NDArray[np.int64], whole: Answer, other: Answer) -> _Rest:
    return _Rest(side, indices, whole.take(indices), other)


def _own_reasons(rest: _Rest, limits: Limits) -> list[str | None]:
    """For each detection left over, a decision of the other side that was a toss-up, or None."""
    scores = rest.own.scores.astype(np.float64)
    full = len(rest.other.scores) >= limits.max_detections
    last = float(rest.other.scores.min()) if full and len(rest.other.scores) else -np.inf
    overlap = box_iou(rest.own.boxes, rest.other.boxes)
    same = rest.own.classes[:, None] == rest.other.classes[None]
    cuts = np.array(limits.cuts, np.float64)
    found = {
        AT_TOPK_CUT: (np.abs(scores[:, None] - cuts[None]) <= limits.score_eps).any(
            1
        ),  # first: it also excuses what is no candidate
        "at the score threshold": np.abs(scores - limits.score_threshold) <= limits.score_eps,
        "the other side is full": scores <= last + limits.score_eps,
        "at the NMS threshold": (same & (np.abs(overlap - limits.nms_iou) <= limits.iou_eps)).any(1),
    }
    return [next((reason for reason, true in found.items() if true[i]), None) for i in range(len(scores))]


def _follow(reasons: list[list[str | None]], left: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]) -> None:
    """Excuse what an excused box of the other side would suppress, and what follows from that, in place.

    left [here, there], right [there, here]: is this one suppressed by that one?
    """
    changed = True
    while changed:
        changed = False
        for side, suppressed in ((0, left), (1, right)):
            excused = np.array([reason is not None for reason in reasons[1 - side]], bool)
            for place in np.flatnonzero((suppressed & excused[None]).any(1)).tolist():
                if reasons[side][place] is None:
                    reasons[side][place] = "follows from another"
                    changed = True
