"""ModelConfig: everything needed to build a network, and nothing else. No torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, field_validator, model_validator

from fcos_cli.model.conventions import Conventions

ClassLoss = Literal["focal", "logistic", "varifocal"]
BoxLoss = Literal["giou", "iou", "l1", "l2"]
"""The losses in model/losses.py. They are listed here because settings are checked without torch."""

STRIDES = (8, 16, 32, 64, 128)
"""Strides of P3…P7, the levels of nearly every published FCOS, in pixels of network input. A model has its own in
`ModelConfig.strides`.
"""

FINE_STRIDES = (4, 8, 16, 32, 64)
"""Strides of P2…P6, for small objects."""

REALTIME_STRIDES = (8, 16, 32)
"""Strides of P3…P5, the levels of AdelaiDet's real-time models."""

RANGES = (64.0, 128.0, 256.0, 512.0)
"""Limits of the levels' distances, in pixels of network input, of every published FCOS with five levels."""


def level_name(stride: int) -> str:
    """`P3` for stride 8: level k has stride 2ᵏ."""
    return f"P{stride.bit_length() - 1}"


class ModelConfig(BaseModel):
    """The structure of an FCOS network. Equal configs build networks with equal state dicts.

    strides: distance between the points of each level, in pixels of network input: `STRIDES`, as in files written
    before this setting existed, `FINE_STRIDES`, for which the backbone needs features at stride 4 as well, or
    `REALTIME_STRIDES`.
    ranges: level i handles boxes whose longest distance lies in (ranges[i-1], ranges[i]], in pixels of network input;
    the last level has no upper limit, so there is one number fewer than there are levels. The papers' 64…512 suit
    images of 800 px; half of that suits 320. Three levels without ranges of their own get the first two. mean, std and
    backbone_norm_eps go with the backbone's weights; the defaults are EfficientNet-Lite0's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backbone: str = Field("efficientnet_lite0", description="any timm model with features at strides 8, 16 and 32")
    channels: int = Field(96, ge=8, le=8192, description="channels of the pyramid and of the head's towers")
    convs: int = Field(2, ge=0, le=100, description="convolutions per tower")
    shared_convs: int = Field(0, ge=0, le=100, description="convolutions before those, shared by both towers")
    tower: Literal["full", "separable"] = Field(
        "full",
        description="kind of those convolutions: 3x3, or depthwise 3x3 and then 1x1, with about a ninth of the work",
    )
    deformable_tower: bool = Field(False, description="the last convolution of each tower is deformable (DCNv2)")
    norm: Literal["group", "batch", "batch-per-level", "none"] = Field(
        "group", description="normalization in the towers; batch-per-level: each level has its own BatchNorm"
    )
    groups: int = Field(32, ge=1, le=8192, description="groups of GroupNorm; must divide `channels`")
    backbone_norm: Literal["frozen", "trained"] = Field(
        "frozen", description="BatchNorm of the backbone: frozen statistics, or trained"
    )
    backbone_norm_eps: float = Field(1e-3, ge=0, description="epsilon of that BatchNorm; 0 = timm's own")
    stride_in_1x1: bool = Field(False, description="a ResNet with the stride in the 1x1 convolution, as in Caffe")
    deformable_stages: tuple[int, ...] = Field(
        (), description="stages of a ResNet, 1 to 4, whose 3x3 convolutions are deformable (DCNv2)"
    )
    strides: tuple[int, ...] = Field(
        STRIDES, description="strides of the levels, px: 8…128, 4…64 for small objects, or 8…32 for speed"
    )
    top_from: Literal["p5", "c5"] = Field(
        "p5", description="what the levels above stride 32 are computed from: P5, or the backbone's last feature map"
    )
    ranges: tuple[float, ...] = Field(
        RANGES, description="borders between the levels, px: the longest side distance that a point of a level predicts"
    )
    mean: tuple[float, float, float] = Field((127.5, 127.5, 127.5), description="RGB mean of pixels 0…255")
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        (127.5, 127.5, 127.5), description="RGB standard deviation of pixels 0…255"
    )
    conventions: Conventions = Conventions()
    candidates: int = Field(1000, ge=1, le=3840, description="number of (point, class) pairs kept per level before NMS")
    score_threshold: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="minimum final score of a candidate; where conventions.threshold_on is class, class probability",
    )
    nms_iou: float = Field(0.6, gt=0, le=1, description="IoU above which NMS removes the worse of two boxes of a class")
    max_detections: int = Field(100, ge=1, le=100_000, description="maximum number of detections per image")

    @field_validator("strides")
    @classmethod
    def _known(cls, strides: tuple[int, ...]) -> tuple[int, ...]:
        if strides not in (STRIDES, FINE_STRIDES, REALTIME_STRIDES):
            known = f"{list(STRIDES)}, {list(FINE_STRIDES)} or {list(REALTIME_STRIDES)}"
            raise ValueError(f"strides = {list(strides)} must be {known}")
        return strides

    @field_validator("conventions")
    @classmethod
    def _readable(cls, conventions: Conventions) -> Conventions:
        return Conventions.from_json(asdict(conventions))  # or no program could read the weights

    @field_validator("deformable_stages")
    @classmethod
    def _stages(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        if list(stages) != sorted(set(stages) & {1, 2, 3, 4}):
            raise ValueError(f"deformable_stages = {list(stages)} must be ascending numbers from 1 to 4")
        return stages

    @model_validator(mode="before")
    @classmethod
    def _ranges_of_three_levels(cls, values: Any) -> Any:
        if isinstance(values, dict) and "ranges" not in values:
            strides = values.get("strides", ())
            if isinstance(strides, list | tuple) and tuple(strides) == REALTIME_STRIDES:
                return {**values, "ranges": RANGES[: len(strides) - 1]}
        return values

    @property
    def deformable(self) -> bool:
        """Whether any convolution is deformable."""
        return (self.deformable_tower and self.convs > 0) or bool(self.deformable_stages)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.norm == "group" and self.channels % self.groups:
            raise ValueError(f"channels = {self.channels} is not a multiple of groups = {self.groups}")
        if len(self.ranges) != len(self.strides) - 1:
            raise ValueError(f"ranges = {self.ranges} must be {len(self.strides) - 1} numbers for these strides")
        if self.deformable_tower and self.tower != "full":
            raise ValueError(f'deformable_tower needs tower = "full", not {self.tower!r}')
        if list(self.ranges) != sorted(set(self.ranges)) or self.ranges[0] <= 0:
            raise ValueError(f"ranges = {self.ranges} must be positive and ascending")
        if self.convs + self.shared_convs == 0:
            raise ValueError("convs and shared_convs are both 0: the towers need a convolution")
        return self
