"""ModelConfig: everything that is needed to build a network, and nothing else. No torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fcos_cli.model.conventions import Conventions

ClassLoss = Literal["focal", "logistic"]
BoxLoss = Literal["giou", "iou", "l1", "l2"]
"""Choices of model/losses.py. They are listed here because settings are checked without torch."""

STRIDES = (8, 16, 32, 64, 128)
"""Strides of P3…P7 in pixels of network input."""


class ModelConfig(BaseModel):
    """The shape of an FCOS network. Two configs that are equal build networks with equal state dicts.

    Sizes of interest: level i takes boxes whose longest distance lies in (ranges[i-1], ranges[i]], in pixels of
    network input; the last level is open. The papers' 64…512 suit pictures of 800 px; half of that suits 320.
    mean, std and backbone_norm_eps belong to the backbone's weights; the defaults are EfficientNet-Lite0's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = Field("efficientnet_lite0", description="any timm model with features at strides 8, 16 and 32")
    channels: int = Field(96, ge=8, description="channels of the pyramid and of the head's towers")
    convs: int = Field(2, ge=1, description="convolutions per tower")
    norm: Literal["group", "batch"] = Field("group", description="normalisation in the towers")
    groups: int = Field(32, ge=1, description="groups of GroupNorm; `channels` must be a multiple")
    backbone_norm: Literal["frozen", "trained"] = Field("frozen", description="the backbone's BatchNorm statistics")
    backbone_norm_eps: float = Field(1e-3, ge=0, description="epsilon of it; 0 = timm's own")
    stride_in_1x1: bool = Field(False, description="a ResNet that halves in the 1x1 convolution, as Caffe's")
    ranges: tuple[float, float, float, float] = (64.0, 128.0, 256.0, 512.0)
    mean: tuple[float, float, float] = Field((127.5, 127.5, 127.5), description="RGB mean, of pixels 0…255")
    std: tuple[float, float, float] = Field((127.5, 127.5, 127.5), description="RGB deviation, of pixels 0…255")
    conventions: Conventions = Conventions()
    candidates: int = Field(1000, ge=1, le=3840, description="best (point, class) pairs kept per level before NMS")
    score_threshold: float = Field(0.05, ge=0, lt=1, description="lowest final score of a candidate")
    nms_iou: float = Field(0.6, gt=0, le=1, description="same-class boxes that overlap more than this: the best stays")
    max_detections: int = Field(100, ge=1, description="most detections per picture")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.norm == "group" and self.channels % self.groups:
            raise ValueError(f"channels = {self.channels} is not a multiple of groups = {self.groups}")
        if list(self.ranges) != sorted(set(self.ranges)) or self.ranges[0] <= 0:
            raise ValueError(f"ranges = {self.ranges} must be positive and ascending")
        return self
