"""The switches in which FCOS implementations differ. They travel with the weights. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints


@dataclass(frozen=True)
class Conventions:
    """What a network's numbers mean; a wrong setting gives a wrong box or score without any error.

    The only place where dialects are told apart; `presets` has the published ones by name. The resize rule
    (`ResizeRule`) and mean, deviation and thresholds (`ModelConfig`) travel beside it.

    Points and targets:
    point_offset: where in its cell a point lies, as a fraction of the stride (0.5 = cell centre).
    stride_rule: points are `nominal` strides apart (8…128), or as many whole pixels as the `padded` input has per cell,
        per axis (torchvision: 61 instead of 64 where 800 px give 13 cells). Ranges and distances stay nominal.
    range_ends: does a longest distance exactly on the border between two levels belong to the lower level
        (`half-open`: each distance has exactly one level), to both (`closed`) or to none (`open`)?
    area: by what the smaller of two boxes is found: `exact`; `plus-one` adds 1 px to both sides; `float32` is
        1e8 - area in float32, in which areas that differ by less than 4 px² can tie (the first box wins).
    radius: center sampling: a point is positive only within `radius` strides of the box centre; 0 = anywhere in
        the box (the first paper, v1).

    The head:
    activation: how the head makes distances positive: `relu` or `exp`.
    stride_normalised: the head predicts distances / stride (FCOS with improvements) or plain pixels (v1).
    scales: one learned factor per level in front of the activation (FCOS §3.2).
    centerness_on: the tower the centerness branch sits on: `box` (improvements) or `class` (v1).
    quality: what that branch was trained to say: `centerness`, or the `iou` of the predicted box.

    Detections:
    score: final score from class probability p and centerness c: `sqrt` of p·c, or the `product` itself.
    threshold_on: candidates pass by their final `score`, or by the probability of their `class` alone.
    threshold_ends: does one exactly at the threshold pass (`closed`) or not (`open`)?
    best_by: the best candidates of a level are chosen by final `score` or by `class` probability.
    clip: boxes are cut off at the network `input` before NMS, at the `picture` inside it before NMS, or only
        `after` NMS at the source picture.
    nms: overlaps in `exact` arithmetic class by class, or as torchvision's `batched` operator, which moves classes
        apart in float32 and so rounds edges by up to 1/128 px.
    box_ends: is a box's right and bottom edge one past its last pixel (`exclusive`) or that pixel (`inclusive`)?
        Inclusive boxes are clipped to width - 1, have 1 px more in the overlaps of NMS, and get it in the answer.
    empty_boxes: boxes without area are dropped `before-nms`, `after-nms` (they count as found until then), or `keep`.
    """

    point_offset: float = 0.5
    stride_rule: Literal["nominal", "padded"] = "nominal"
    range_ends: Literal["half-open", "closed", "open"] = "half-open"
    area: Literal["exact", "plus-one", "float32"] = "exact"
    radius: float = 1.5
    activation: Literal["relu", "exp"] = "relu"
    stride_normalised: bool = True
    scales: bool = False
    centerness_on: Literal["box", "class"] = "box"
    quality: Literal["centerness", "iou"] = "centerness"
    score: Literal["sqrt", "product"] = "sqrt"
    threshold_on: Literal["score", "class"] = "score"
    threshold_ends: Literal["closed", "open"] = "closed"
    best_by: Literal["score", "class"] = "score"
    clip: Literal["input", "picture", "after"] = "input"
    nms: Literal["exact", "batched"] = "exact"
    box_ends: Literal["exclusive", "inclusive"] = "exclusive"
    empty_boxes: Literal["before-nms", "after-nms", "keep"] = "after-nms"

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Conventions:
        """Read from a file's facts. Raises ValueError naming a switch or a setting that is unknown.

        Files written before a switch existed mean its default: what the program did then.
        """
        hints = get_type_hints(cls)
        for name, value in values.items():
            if name not in hints:
                raise ValueError(f"unknown convention {name!r}")
            settings = get_args(hints[name])
            if settings and value not in settings:
                raise ValueError(f"convention {name} = {value!r} is none of {', '.join(settings)}")
        return cls(**values)
