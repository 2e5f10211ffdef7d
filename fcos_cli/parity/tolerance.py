"""Tolerances of the parity check per precision: how far an exported model may deviate from the reference, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fcos_cli.errors import UsageError


@dataclass(frozen=True)
class Tolerance:
    """Bounds of one layer of the parity check; None = reported, not judged.

    raw: relative L2 error of a raw output. matched: smallest share of detections that must match; excused ones are not
    counted. max_px, median_px: difference of matched boxes, in pixels of network input. max_score: difference of their
    scores. same_iou, same_px: boxes of one class are the same if their IoU is at least `same_iou`, or if every edge
    differs by less than `same_px` pixels. sure: detections with lower scores are reported, not judged. score_eps,
    iou_eps: distance from a threshold, a cut or a tie within which a decision may go either way. ap: allowed difference
    (fp32) or loss of AP (0…1) on a data set. why: the reason, for people.
    """

    raw: float | None = None
    matched: float = 1.0
    max_px: float | None = None
    median_px: float | None = None
    max_score: float | None = None
    same_iou: float = 0.9
    same_px: float = 1.0
    sure: float = 0.0
    score_eps: float = 1e-4
    iou_eps: float = 1e-3
    ap: float = 0.001
    why: str = ""

    def missing(self, detections: int) -> int:
        """Number of unexplained detections allowed, rounded up so that one miss among few does not fail the check."""
        return math.ceil((1 - self.matched) * detections - 1e-9)


NEVER = 2.0
"""An IoU that no boxes reach, so that boxes match only within `same_px`.

Of tied candidates, another one may stay. It must not be mistaken for the same box at another position."""

POST = Tolerance(
    max_px=1e-3,
    max_score=1e-5,
    same_iou=NEVER,
    same_px=0.05,
    score_eps=1e-5,
    iou_eps=1e-5,
    why="decode and NMS run in float32 on the same inputs at every precision: only the last digits may differ",
)
"""For post-processing alone, at every precision."""

TOLERANCES = {
    "fp32": Tolerance(
        raw=1e-4,
        max_px=0.05,
        max_score=1e-4,
        same_iou=NEVER,
        same_px=0.2,
        ap=0.001,
        why="float32 sums are computed in another order",
    ),
    "fp16": Tolerance(
        raw=2e-2,
        matched=0.97,
        median_px=0.25,
        max_score=0.02,
        score_eps=5e-3,
        iou_eps=2e-2,
        ap=0.005,
        why="the network runs with 11 bits of mantissa",
    ),
    "bf16": Tolerance(
        raw=0.1,
        matched=0.90,
        median_px=1.0,
        max_score=0.1,
        score_eps=2e-2,
        iou_eps=5e-2,
        ap=0.01,
        why="the network runs with 8 bits of mantissa, steps eight times those of fp16",
    ),
    "int8": Tolerance(
        matched=0.80,
        same_iou=0.75,
        sure=0.2,
        score_eps=2e-2,
        iou_eps=5e-2,
        ap=0.01,
        why="256 steps per tensor: judged by AP on real data; without data, only gross errors are detected "
        "(an earlier default detector matched 96 % of its detections with scores of 0.2 and higher)",
    ),
}
"""For raw outputs and end to end, by the precision of the network."""


def tolerance_of(precision: str) -> Tolerance:
    """Return the tolerance of a precision. Raises UsageError if it is unknown."""
    if precision not in TOLERANCES:
        raise UsageError(f"unknown precision {precision!r}", remedy=f"use one of {', '.join(TOLERANCES)}")
    return TOLERANCES[precision]
