"""Head: two towers shared by all levels → raw outputs. Module names follow torchvision's FCOS head."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fcos_cli.model.config import ModelConfig
from fcos_cli.model.networks.deformable import DeformConv2d

FIRST_DISTANCE = 4.0
"""Distance to each edge predicted by an untrained network, in strides. At the centre of a level's own boxes the true
distances are 2 to 8 strides.
"""


class RawOutputs(NamedTuple):
    """The network's outputs before any sigmoid, one tensor per level in each list, finest first.

    cls: class logits [B, C, h, w]. ltrb: distances [B, 4, h, w] from the point to the left, top, right and bottom edge,
    ≥ 0, in pixels of network input. ctr: centerness logits [B, 1, h, w].
    """

    cls: list[Tensor]
    ltrb: list[Tensor]
    ctr: list[Tensor]

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each level's map."""
        return [(level.shape[-2], level.shape[-1]) for level in self.cls]

    def flat(self) -> tuple[Tensor, Tensor, Tensor]:
        """All points in the order of `Points`: logits [B, P, C], ltrb [B, P, 4], ctr [B, P], float32."""
        cls, ltrb, ctr = (
            torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2).float()
            for levels in (self.cls, self.ltrb, self.ctr)
        )
        return cls, ltrb, ctr[..., 0]


class GroupNorm(nn.GroupNorm):
    """torch's GroupNorm, but a single value per group is normalized to 0 instead of refused.

    With as many groups as channels, the coarsest level of a small image has just one. Training warns
    of that (`train.recipe.plan`), since such a level cannot learn.
    """

    def forward(self, input: Tensor) -> Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class PerLevel(nn.ModuleList):
    """A layer with different weights for each level, finest first, as AdelaiDet's BatchNorm in towers."""


class Tower(nn.Sequential):
    """Layers shared by all levels, except those in a `PerLevel`."""

    def forward(self, feature: Tensor, level: int = 0) -> Tensor:
        for layer in self:
            feature = layer[level](feature) if isinstance(layer, PerLevel) else layer(feature)
        return feature


def tower(config: ModelConfig, convs: int, *, deformable: bool = False) -> Tower:
    """`convs` times (3×3 convolution, norm, ReLU) at constant width and resolution. Without convolutions, identity.

    A separable convolution is a depthwise one and a 1×1 one with nothing between them, as in EfficientDet's head.
    deformable: whether the last convolution is (`DeformConv2d`).
    """
    layers: list[nn.Module] = []
    for place in range(convs):
        if config.tower == "separable":
            # no bias: that of the 1×1 convolution is enough
            layers.append(nn.Conv2d(config.channels, config.channels, 3, padding=1, groups=config.channels, bias=False))
            layers.append(nn.Conv2d(config.channels, config.channels, 1))
        else:
            last = deformable and place == convs - 1
            layers.append((DeformConv2d if last else nn.Conv2d)(config.channels, config.channels, 3, padding=1))
        layers += _norms(config)
        layers.append(nn.ReLU(inplace=True))
    return Tower(*layers)


def _norms(config: ModelConfig) -> list[nn.Module]:
    """The layer between a convolution and its ReLU, or none."""
    match config.norm:
        case "group":
            return [GroupNorm(config.groups, config.channels)]
        case "batch":
            return [nn.BatchNorm2d(config.channels)]
        case "batch-per-level":
            return [PerLevel(nn.BatchNorm2d(config.channels) for _ in config.strides)]
        case "none":
            return []


class ClassificationHead(nn.Module):
    """Feature map [B, channels, h, w] → class logits [B, C, h, w] and the tower's features."""

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.conv = tower(config, config.convs, deformable=config.deformable_tower)
        self.cls_logits = nn.Conv2d(config.channels, classes, 3, padding=1)

    def forward(self, feature: Tensor, level: int = 0) -> tuple[Tensor, Tensor]:
        hidden = self.conv(feature, level)
        return self.cls_logits(hidden), hidden


class RegressionHead(nn.Module):
    """Feature map [B, channels, h, w] → distances before activation [B, 4, h, w] and the tower's features."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.conv = tower(config, config.convs, deformable=config.deformable_tower)
        self.bbox_reg = nn.Conv2d(config.channels, 4, 3, padding=1)
        self.bbox_ctrness = nn.Conv2d(config.channels, 1, 3, padding=1)
        levels = len(config.strides) if config.conventions.scales else 0
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(1)) for _ in range(levels)])

    def forward(self, feature: Tensor, level: int = 0) -> tuple[Tensor, Tensor]:
        hidden = self.conv(feature, level)
        return self.bbox_reg(hidden), hidden


class Head(nn.Module):
    """Feature maps of all levels → RawOutputs. The same convolutions serve every level (FCOS §3.2).

    shared_tower: in front of both branches, empty in most models.
    """

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.conventions, self.strides = config.conventions, config.strides
        self.shared_tower = tower(config, config.shared_convs)
        self.classification_head = ClassificationHead(config, classes)
        self.regression_head = RegressionHead(config)
        self._init()

    def _init(self) -> None:
        """Normal 0.01, bias 0; class bias so that every class starts at probability 0.01 (RetinaNet §4.1).

        Depthwise convolutions, which have no bias, keep torch's initialization: sums of only nine inputs would vanish.

        Distances through a ReLU start at `FIRST_DISTANCE` strides. If they start at 0, as in the papers, half of them
        have no gradient, and a few bad steps can push all of them below zero, from where they cannot recover.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, DeformConv2d):
                module.reset_offset()
        bias = self.classification_head.cls_logits.bias
        if bias is not None:
            nn.init.constant_(bias, -math.log((1 - 0.01) / 0.01))
        bias = self.regression_head.bbox_reg.bias
        if bias is not None and self.conventions.activation == "relu":
            unit = 1 if self.conventions.stride_normalised else self.strides[0]
            nn.init.constant_(bias, FIRST_DISTANCE * unit)

    def forward(self, features: list[Tensor]) -> RawOutputs:
        raw = RawOutputs([], [], [])
        on_box = self.conventions.centerness_on == "box"
        for level, (feature, stride) in enumerate(zip(features, self.strides, strict=True)):
            shared = self.shared_tower(feature, level)
            logits, class_hidden = self.classification_head(shared, level)
            distances, box_hidden = self.regression_head(shared, level)
            raw.cls.append(logits)
            raw.ltrb.append(self._distances(distances, level, stride))
            raw.ctr.append(self.regression_head.bbox_ctrness(box_hidden if on_box else class_hidden))
        return raw

    def _distances(self, raw: Tensor, level: int, stride: int) -> Tensor:
        """Branch output → distances ≥ 0 in pixels, in float32: half precision cannot hold a pixel above 2048."""
        raw = raw.float()
        if self.conventions.scales:
            raw = raw * self.regression_head.scales[level]
        positive = raw.relu() if self.conventions.activation == "relu" else raw.exp()
        return positive * stride if self.conventions.stride_normalised else positive
