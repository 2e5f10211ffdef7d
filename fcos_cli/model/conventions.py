"""The switches in which FCOS implementations differ. They travel with the weights. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Conventions:
    """What a network's numbers mean; a wrong setting gives a wrong box or score without any error.

    point_offset: where in its cell a point lies, as a fraction of the stride (0.5 = cell centre).
    range_ends: does a longest distance exactly on the border between two levels belong to the lower level
        (`half-open`: each distance has exactly one level), to both (`closed`) or to none (`open`)?
    radius: center sampling: a point is positive only within `radius` strides of the box centre; 0 = anywhere in
        the box (the first paper, v1).
    activation: how the head makes distances positive: `relu` or `exp`.
    stride_normalised: the head predicts distances / stride (FCOS with improvements) or plain pixels (v1).
    scales: one learned factor per level in front of the activation (FCOS §3.2).
    centerness_on: the tower the centerness branch sits on: `box` (improvements) or `class` (v1).
    score: final score from class probability p and centerness c: `sqrt` of p·c, or the `product` itself.
    """

    point_offset: float = 0.5
    range_ends: Literal["half-open", "closed", "open"] = "half-open"
    radius: float = 1.5
    activation: Literal["relu", "exp"] = "relu"
    stride_normalised: bool = True
    scales: bool = False
    centerness_on: Literal["box", "class"] = "box"
    score: Literal["sqrt", "product"] = "sqrt"
