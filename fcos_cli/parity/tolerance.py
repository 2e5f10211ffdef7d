"""How far an exported model's answers may lie from the reference's, per precision, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fcos_cli.errors import UsageError


@dataclass(frozen=True)
class Tolerance:
    """Bounds of one layer of the proof; None = measured and reported, not judged.

    raw: relative L2 of a raw output. matched: least share of the detections that the two sides have in common, what
    is excused not counted. max_px, median_px: difference of matched boxes, pixels of network input. max_score:
    difference of their scores. same_iou, same_px: boxes of a class are the same where they overlap by so much, or no
    edge differs by so many pixels. sure: detections scored lower are reported, not judged.
    score_eps, iou_eps: how near to a threshold, a cut or a tie a decision may fall either way. ap: AP (0…1) that the
    exported model may lose or win on a data set. why: for people.
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
        """How many of so many detections may be unexplained: the share rounded up, so that one of few is no verdict."""
        return math.ceil((1 - self.matched) * detections - 1e-9)


NEVER = 2.0
"""An overlap that no boxes have: of tied candidates another one may stay, which is to be told from one that moved."""

POST = Tolerance(
    max_px=1e-3,
    max_score=1e-5,
    same_iou=NEVER,
    same_px=0.05,
    score_eps=1e-5,
    iou_eps=1e-5,
    why="decode and NMS run in float32 on the same numbers, whatever the body runs in: only the last digits may differ",
)
"""Of post-processing alone, at every precision."""

TOLERANCES = {
    "fp32": Tolerance(
        raw=1e-4,
        max_px=0.05,
        max_score=1e-4,
        same_iou=NEVER,
        same_px=0.2,
        ap=0.001,
        why="float32 sums in another order",
    ),
    "fp16": Tolerance(
        raw=2e-2,
        matched=0.97,
        median_px=0.25,
        max_score=0.02,
        score_eps=5e-3,
        iou_eps=2e-2,
        ap=0.005,
        why="a body with 11 bits of mantissa",
    ),
    "bf16": Tolerance(
        raw=0.1,
        matched=0.90,
        median_px=1.0,
        max_score=0.1,
        score_eps=2e-2,
        iou_eps=5e-2,
        ap=0.01,
        why="a body with 8 bits of mantissa, steps eight times those of fp16",
    ),
    "int8": Tolerance(
        matched=0.80,
        same_iou=0.75,
        sure=0.2,
        score_eps=2e-2,
        iou_eps=5e-2,
        ap=0.01,
        why="256 steps for each tensor: judged by AP on real data; without data only gross errors are noticed "
        "(the default detector matches 96 % of what it finds with a score of 0.2 and more)",
    ),
}
"""End to end and raw outputs, by the precision of the network's body."""


def tolerance_of(precision: str) -> Tolerance:
    """Raises UsageError for a precision that has none."""
    if precision not in TOLERANCES:
        raise UsageError(f"there is no tolerance for precision {precision!r}", remedy=f"one of {', '.join(TOLERANCES)}")
    return TOLERANCES[precision]
