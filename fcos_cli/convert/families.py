"""Tables for the implementations whose FCOS checkpoints can be converted.

Native names are torchvision's. Sources of the foreign names: torchvision `models/detection/fcos.py`; tianzhi0549/FCOS
`modeling/rpn/fcos`; AdelaiDet `modeling/fcos`; detectron2 `modeling/meta_arch/fcos.py`; mmdetection `dense_heads`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fcos_cli.convert.bodies import DLA_34, MOBILENET_V2, UNUSED_IN_DLA
from fcos_cli.convert.key_map import KeyMap, Row
from fcos_cli.model.presets import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Family:
    """An implementation and the properties of its checkpoints.

    signature: regular expression that matches the start of some tensor name in this family's files and none in others.
    names: mapping between the family's names and native ones. bodies: further names of the backbones that are not
    ResNets. presets: possible dialects. dropped: regular expression for names of tensors that are not part of the
    network. realtime: whether it has models with three levels. bgr: whether the networks take BGR input. by_backbone:
    exceptions for single backbones: values of ModelConfig, and bgr. norm_without_eps: the frozen BatchNorm divides by
    the root of the variance without an epsilon. optional: prefix of native names that files may lack as a whole.
    rows_are_ids: row i of the class layer is the category with id i; otherwise the rows are the categories in order.
    preset_without_bias: assumed preset of the files whose tower convolutions have no bias, as in the published ones.
    """

    title: str
    signature: str
    names: KeyMap
    presets: tuple[str, ...]
    dropped: str
    bodies: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    realtime: bool = False
    bgr: bool = True
    by_backbone: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    norm_without_eps: bool = False
    optional: str | None = None
    rows_are_ids: bool = False
    preset_without_bias: str | None = None

    def names_with(self, *backbones: str) -> KeyMap:
        """The names of a file with one of these backbones. timm's `bn1` is part of more than one of them."""
        rows = (row for backbone in backbones for row in self.bodies.get(backbone, ()))
        return replace(self.names, rows=(*rows, *self.names.rows))


def _resnet(theirs: str) -> tuple[Row, ...]:
    """Rows for the stages of a ResNet with torchvision's names, which are also timm's."""
    tails = ("conv{n}.{tail}", "bn{n}.{tail}", "downsample.{d}.{tail}")
    return tuple((f"{theirs}layer{{k}}.{{b}}.{tail}", f"backbone.body.layer{{k}}.{{b}}.{tail}") for tail in tails)


def _stem(theirs: str) -> tuple[Row, ...]:
    return tuple((f"{theirs}{part}.{{tail}}", f"backbone.body.{part}.{{tail}}") for part in ("conv1", "bn1"))


_BOTTOM_UP = (
    ("backbone.bottom_up.stem.conv1.{tail}", "backbone.body.conv1.{tail}"),
    ("backbone.bottom_up.stem.conv1.norm.{tail}", "backbone.body.bn1.{tail}"),
    ("backbone.bottom_up.res{k+1}.{b}.conv{n}.{tail}", "backbone.body.layer{k}.{b}.conv{n}.{tail}"),
    ("backbone.bottom_up.res{k+1}.{b}.conv{n}.norm.{tail}", "backbone.body.layer{k}.{b}.bn{n}.{tail}"),
    ("backbone.bottom_up.res{k+1}.{b}.shortcut.{tail}", "backbone.body.layer{k}.{b}.downsample.0.{tail}"),
    ("backbone.bottom_up.res{k+1}.{b}.shortcut.norm.{tail}", "backbone.body.layer{k}.{b}.downsample.1.{tail}"),
    ("backbone.fpn_lateral{j+3}.{tail}", "backbone.fpn.inner_blocks.{j}.0.{tail}"),
    ("backbone.fpn_output{j+3}.{tail}", "backbone.fpn.layer_blocks.{j}.0.{tail}"),
    ("backbone.top_block.p{j}.{tail}", "backbone.fpn.extra_blocks.p{j}.{tail}"),
)
"""detectron2's backbone, also used by AdelaiDet."""

_CLASS, _BOX = "head.classification_head.", "head.regression_head."

_TORCHVISION = (
    *_stem("backbone.body."),
    *_resnet("backbone.body."),
    ("backbone.fpn.inner_blocks.{j}.0.{tail}", "backbone.fpn.inner_blocks.{j}.0.{tail}"),
    ("backbone.fpn.layer_blocks.{j}.0.{tail}", "backbone.fpn.layer_blocks.{j}.0.{tail}"),
    # before version 2 of FeaturePyramidNetwork, as in the published file
    ("backbone.fpn.inner_blocks.{j}.{tail}", "backbone.fpn.inner_blocks.{j}.0.{tail}"),
    ("backbone.fpn.layer_blocks.{j}.{tail}", "backbone.fpn.layer_blocks.{j}.0.{tail}"),
    ("backbone.fpn.extra_blocks.p{j}.{tail}", "backbone.fpn.extra_blocks.p{j}.{tail}"),
    (f"{_CLASS}{{rest}}", f"{_CLASS}{{rest}}"),
    (f"{_BOX}{{rest}}", f"{_BOX}{{rest}}"),
)

_FCOS = (
    *_stem("backbone.body.stem."),
    *_resnet("backbone.body."),
    ("backbone.fpn.fpn_inner{j+2}.{tail}", "backbone.fpn.inner_blocks.{j}.0.{tail}"),
    ("backbone.fpn.fpn_layer{j+2}.{tail}", "backbone.fpn.layer_blocks.{j}.0.{tail}"),
    ("backbone.fpn.top_blocks.p{j}.{tail}", "backbone.fpn.extra_blocks.p{j}.{tail}"),
    ("rpn.head.cls_tower.{i}.{tail}", f"{_CLASS}conv.{{i}}.{{tail}}"),
    ("rpn.head.bbox_tower.{i}.{tail}", f"{_BOX}conv.{{i}}.{{tail}}"),
    ("rpn.head.cls_logits.{tail}", f"{_CLASS}cls_logits.{{tail}}"),
    ("rpn.head.bbox_pred.{tail}", f"{_BOX}bbox_reg.{{tail}}"),
    ("rpn.head.centerness.{tail}", f"{_BOX}bbox_ctrness.{{tail}}"),
    ("rpn.head.scales.{i}.scale", f"{_BOX}scales.{{i}}"),
)

_ADELAIDET = (
    *_BOTTOM_UP,
    ("proposal_generator.fcos_head.cls_tower.{i}.{tail}", f"{_CLASS}conv.{{i}}.{{tail}}"),
    ("proposal_generator.fcos_head.bbox_tower.{i}.{tail}", f"{_BOX}conv.{{i}}.{{tail}}"),
    ("proposal_generator.fcos_head.share_tower.{i}.{tail}", "head.shared_tower.{i}.{tail}"),
    # a BatchNorm for each level
    ("proposal_generator.fcos_head.cls_tower.{i}.{l}.{tail}", f"{_CLASS}conv.{{i}}.{{l}}.{{tail}}"),
    ("proposal_generator.fcos_head.bbox_tower.{i}.{l}.{tail}", f"{_BOX}conv.{{i}}.{{l}}.{{tail}}"),
    ("proposal_generator.fcos_head.share_tower.{i}.{l}.{tail}", "head.shared_tower.{i}.{l}.{tail}"),
    ("proposal_generator.fcos_head.cls_logits.{tail}", f"{_CLASS}cls_logits.{{tail}}"),
    ("proposal_generator.fcos_head.bbox_pred.{tail}", f"{_BOX}bbox_reg.{{tail}}"),
    ("proposal_generator.fcos_head.ctrness.{tail}", f"{_BOX}bbox_ctrness.{{tail}}"),
    ("proposal_generator.fcos_head.scales.{i}.scale", f"{_BOX}scales.{{i}}"),
)

_DETECTRON2 = (
    *_BOTTOM_UP,
    ("head.cls_subnet.{i}.{tail}", f"{_CLASS}conv.{{i}}.{{tail}}"),
    ("head.bbox_subnet.{i}.{tail}", f"{_BOX}conv.{{i}}.{{tail}}"),
    ("head.cls_score.{tail}", f"{_CLASS}cls_logits.{{tail}}"),
    ("head.bbox_pred.{tail}", f"{_BOX}bbox_reg.{{tail}}"),
    ("head.ctrness.{tail}", f"{_BOX}bbox_ctrness.{{tail}}"),
)

_MMDET = (
    *_stem("backbone."),
    *_resnet("backbone."),
    ("neck.lateral_convs.{j}.conv.{tail}", "backbone.fpn.inner_blocks.{j}.0.{tail}"),
    ("neck.fpn_convs.3.conv.{tail}", "backbone.fpn.extra_blocks.p6.{tail}"),
    ("neck.fpn_convs.4.conv.{tail}", "backbone.fpn.extra_blocks.p7.{tail}"),
    ("neck.fpn_convs.{j}.conv.{tail}", "backbone.fpn.layer_blocks.{j}.0.{tail}"),
    ("bbox_head.cls_convs.{i}.conv.{tail}", f"{_CLASS}conv.{{3i}}.{{tail}}"),
    ("bbox_head.cls_convs.{i}.gn.{tail}", f"{_CLASS}conv.{{3i+1}}.{{tail}}"),
    ("bbox_head.reg_convs.{i}.conv.{tail}", f"{_BOX}conv.{{3i}}.{{tail}}"),
    ("bbox_head.reg_convs.{i}.gn.{tail}", f"{_BOX}conv.{{3i+1}}.{{tail}}"),
    ("bbox_head.cls_convs.{i}.bn.{tail}", f"{_CLASS}conv.{{3i+1}}.{{tail}}"),
    ("bbox_head.reg_convs.{i}.bn.{tail}", f"{_BOX}conv.{{3i+1}}.{{tail}}"),
    ("bbox_head.conv_cls.{tail}", f"{_CLASS}cls_logits.{{tail}}"),
    ("bbox_head.conv_reg.{tail}", f"{_BOX}bbox_reg.{{tail}}"),
    ("bbox_head.conv_centerness.{tail}", f"{_BOX}bbox_ctrness.{{tail}}"),
    ("bbox_head.scales.{i}.scale", f"{_BOX}scales.{{i}}"),
    # names before mmdetection 2.3
    ("bbox_head.fcos_cls.{tail}", f"{_CLASS}cls_logits.{{tail}}"),
    ("bbox_head.fcos_reg.{tail}", f"{_BOX}bbox_reg.{{tail}}"),
    ("bbox_head.fcos_centerness.{tail}", f"{_BOX}bbox_ctrness.{{tail}}"),
)

_BOTTOM_UP_DEFORMABLE = (
    ("backbone.bottom_up.res{k+1}.{b}.conv{n}_offset.{tail}", "backbone.body.layer{k}.{b}.conv{n}.offset.{tail}"),
)
"""Offsets beside the convolution, whose weights keep their names (detectron2 `modeling/backbone/resnet.py`)."""


def _deformable_tower(theirs: str) -> tuple[Row, ...]:
    """Rows for a tower's layer that contains an offset and a convolution (`DFConv2d` of the authors and AdelaiDet)."""
    towers = ((f"{theirs}cls_tower", f"{_CLASS}conv"), (f"{theirs}bbox_tower", f"{_BOX}conv"))
    parts = (("offset.{tail}", "offset.{tail}"), ("conv.{tail}", "{tail}"))
    return tuple((f"{tower}.{{i}}.{part}", f"{ours}.{{i}}.{name}") for tower, ours in towers for part, name in parts)


_FCOS_DEFORMABLE = (
    ("backbone.body.layer{k}.{b}.conv{n}.offset.{tail}", "backbone.body.layer{k}.{b}.conv{n}.offset.{tail}"),
    ("backbone.body.layer{k}.{b}.conv{n}.conv.{tail}", "backbone.body.layer{k}.{b}.conv{n}.{tail}"),
    *_deformable_tower("rpn.head."),
)

_ADELAIDET_DEFORMABLE = (*_BOTTOM_UP_DEFORMABLE, *_deformable_tower("proposal_generator.fcos_head."))

_MMDET_DEFORMABLE = (
    ("backbone.layer{k}.{b}.conv{n}.conv_offset.{tail}", "backbone.body.layer{k}.{b}.conv{n}.offset.{tail}"),
    ("bbox_head.cls_convs.{i}.conv.conv_offset.{tail}", f"{_CLASS}conv.{{3i}}.offset.{{tail}}"),
    ("bbox_head.reg_convs.{i}.conv.conv_offset.{tail}", f"{_BOX}conv.{{3i}}.offset.{{tail}}"),
    # names before version 2 of mmcv's layer
    ("backbone.layer{k}.{b}.conv{n}_offset.{tail}", "backbone.body.layer{k}.{b}.conv{n}.offset.{tail}"),
    ("bbox_head.cls_convs.{i}.conv_offset.{tail}", f"{_CLASS}conv.{{3i}}.offset.{{tail}}"),
    ("bbox_head.reg_convs.{i}.conv_offset.{tail}", f"{_BOX}conv.{{3i}}.offset.{{tail}}"),
)

_IMAGENET_STD_BACKBONES = {"resnext101_32x8d": {"std": IMAGENET_STD}}
_RGB_BACKBONES = {
    name: {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "bgr": False}
    for name in ("resnet18", "resnet34", "resnext101_32x8d", "resnext101_64x4d")
}

_COUNTERS = r".*\.num_batches_tracked"
_CONSTANTS = r"(.*\.)?(anchor_generator\.cell_anchors\.\d+|pixel_mean|pixel_std)"

FAMILIES: dict[str, Family] = {
    "torchvision": Family(
        title="torchvision",
        signature=r"head\.(classification|regression)_head\.",
        names=KeyMap(_TORCHVISION),
        presets=("torchvision",),
        dropped=_COUNTERS,
        bgr=False,
        rows_are_ids=True,
    ),
    "fcos": Family(
        title="the authors' FCOS (tianzhi0549/FCOS)",
        signature=r"rpn\.head\.",
        names=KeyMap(_FCOS, _FCOS_DEFORMABLE),
        bodies={"mobilenetv2_100": MOBILENET_V2},
        presets=("fcos-v1", "fcos-imprv"),
        dropped=_COUNTERS,
        norm_without_eps=True,
    ),
    "adelaidet": Family(
        title="AdelaiDet",
        signature=r"proposal_generator\.fcos_head\.",
        names=KeyMap(_ADELAIDET, _ADELAIDET_DEFORMABLE),
        bodies={"dla34": DLA_34},
        presets=("adelaidet", "adelaidet-iou"),
        dropped=f"{_COUNTERS}|{_CONSTANTS}|{UNUSED_IN_DLA}",
        realtime=True,
        by_backbone=_IMAGENET_STD_BACKBONES,
        optional=f"{_BOX}scales.",
    ),
    "detectron2": Family(
        title="detectron2",
        signature=r"head\.(cls_subnet|bbox_subnet|cls_score|ctrness)\.",
        names=KeyMap(_DETECTRON2, _BOTTOM_UP_DEFORMABLE),
        presets=("detectron2",),
        dropped=f"{_COUNTERS}|{_CONSTANTS}",
        by_backbone=_IMAGENET_STD_BACKBONES,
    ),
    "mmdet": Family(
        title="mmdetection",
        signature=r"bbox_head\.(cls_convs|reg_convs|conv_cls|fcos_cls)\.",
        names=KeyMap(_MMDET, _MMDET_DEFORMABLE),
        presets=("mmdet-base", "mmdet-tricks"),
        dropped=_COUNTERS,
        by_backbone=_RGB_BACKBONES,
        preset_without_bias="mmdet-base",
    ),
}

PRESET_HINTS = {
    "fcos-v1": "trained with a config without `imprv` in its name (FCOS_R_50_FPN_1x, every MobileNetV2; exp, "
    "centerness on class tower)",
    "fcos-imprv": "trained with a config named `imprv` (FCOS_imprv_R_50_FPN_1x; relu, centerness on box tower)",
    "adelaidet": 'trained with BOX_QUALITY "ctrness", the default',
    "adelaidet-iou": 'trained with BOX_QUALITY "iou": the centerness branch predicts the box\'s IoU',
    "mmdet-base": "trained with norm_on_bbox=False, as fcos_r50-caffe_fpn_gn-head_1x (exp, centerness on class tower)",
    "mmdet-tricks": "trained with norm_on_bbox=True and centerness_on_reg=True (…-center-normbbox-centeronreg-giou)",
}
"""How a user can recognize the preset of a checkpoint."""
