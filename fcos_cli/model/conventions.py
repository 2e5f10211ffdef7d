"""The switches in which FCOS implementations differ. They are stored with the weights. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

LARGEST = 1_000_000
"""Every number among the switches is below this."""


@dataclass(frozen=True)
class Conventions:
    """How a network's outputs are interpreted. A wrong value gives wrong boxes or scores without an error.

    This is the only place where dialects are distinguished; `presets` has the published ones by name. The resize rule
    (`ResizeRule`) and the mean, standard deviation and thresholds (`ModelConfig`) are stored beside it.

    Points and targets:
    point_offset: position of a point in its cell, as a fraction of the stride (0.5 = cell center).
    stride_rule: points are `nominal` strides apart, or, per axis, as many whole pixels as a cell of the
        `padded` input has (torchvision: 61 instead of 64 if 800 px give 13 cells). Ranges and distances stay nominal.
    range_ends: whether a longest distance exactly on the border between two levels belongs to the lower level
        (`half-open`: each distance has exactly one level), to both (`closed`) or to neither (`open`).
    area: how the smaller of two boxes is found: `exact`; `plus-one` adds 1 px to both sides; `float32` compares
        1e8 - area in float32, so that areas that differ by less than 4 px² can tie (the first box wins).
    radius: center sampling: a point is positive only within `radius` strides of the box center; 0 = anywhere in
        the box (the first paper, v1).

    Head:
    activation: how the head makes distances positive: `relu` or `exp`.
    stride_normalised: whether the head predicts distances / stride (FCOS with improvements) or pixels (v1).
    scales: whether each level has a learned factor in front of the activation (FCOS §3.2).
    centerness_on: the tower of the centerness branch: `box` (improvements) or `class` (v1).
    quality: target of that branch: `centerness`, or the `iou` of the predicted box.

    Detections:
    score: final score from class probability p and centerness c: `sqrt` of p·c, or the `product` itself.
    threshold_on: whether the threshold applies to a candidate's final `score` or to its `class` probability.
    threshold_ends: whether a value exactly at the threshold passes (`closed`) or not (`open`).
    best_by: whether the best candidates of a level are chosen by final `score` or by `class` probability.
    clip: boxes are clipped to the network `input` before NMS, to the `picture` inside it before NMS, or to the source
        image only `after` NMS.
    nms: IoU computed `exact`ly and per class, or as in torchvision's `batched` operator, which offsets the boxes of
        each class in float32 and thereby rounds edges by up to 1/128 px.
    box_ends: whether a box's right and bottom edge is one past its last pixel (`exclusive`) or that pixel
        (`inclusive`). Inclusive boxes are clipped to width - 1, and 1 px is added to their sides in NMS
        and in the results.
    empty_boxes: boxes without area are dropped `before-nms` or `after-nms` (and count as detections until then),
        or `keep`.
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
        """Read from a file's metadata. Raises ValueError naming an unknown switch, or a value that it cannot have.

        A file written before a switch existed gets its default, which is what the program did then.
        """
        hints = get_type_hints(cls)
        for name, value in values.items():
            if name not in hints:
                raise ValueError(f"unknown convention {name!r}")
            settings = get_args(hints[name])
            if settings and value not in settings:
                raise ValueError(f"convention {name} = {value!r} is none of {', '.join(settings)}")
            if hints[name] is bool and type(value) is not bool:
                raise ValueError(f"convention {name} = {value!r:.40} is neither true nor false")
            if hints[name] is float and not (type(value) in (int, float) and 0 <= value < LARGEST):
                raise ValueError(f"convention {name} = {value!r:.40} is not a number from 0 to {LARGEST:,}")
        return cls(**values)
