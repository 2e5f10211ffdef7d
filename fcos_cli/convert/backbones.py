"""Identify a checkpoint's backbone from its tensors' names and shapes, and refuse unsupported networks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fcos_cli.errors import ModelError


@dataclass(frozen=True)
class BackboneInfo:
    """A supported backbone.

    name: timm's name. caffe: whether it has Caffe weights, whose stride is in the 1×1 convolution. It is used only if
    the preset has the stride there. stem: name of its first convolution. own_norm: whether its BatchNorm is torch's in
    every implementation, also where that of ResNets has no epsilon.
    """

    name: str
    caffe: bool
    stem: str = "conv1"
    own_norm: bool = False


_Shape = tuple[tuple[int, ...], int, tuple[int, int]]

_BACKBONES: dict[_Shape, BackboneInfo] = {
    ((2, 2, 2, 2), 3, (64, 64)): BackboneInfo("resnet18", caffe=False),
    ((3, 4, 6, 3), 3, (64, 64)): BackboneInfo("resnet34", caffe=False),
    ((3, 4, 6, 3), 1, (64, 64)): BackboneInfo("resnet50", caffe=True),
    ((3, 4, 23, 3), 1, (64, 64)): BackboneInfo("resnet101", caffe=True),
    ((3, 4, 23, 3), 1, (256, 8)): BackboneInfo("resnext101_32x8d", caffe=False),
    ((3, 4, 23, 3), 1, (256, 4)): BackboneInfo("resnext101_64x4d", caffe=False),
}
"""Blocks per stage, kernel size of a block's first convolution, (output channels, input channels per group) of its
second one."""

_OTHER_KINDS = {
    "backbone.body.level": BackboneInfo("dla34", caffe=False, stem="base_layer.0", own_norm=True),
    "backbone.body.blocks.": BackboneInfo("mobilenetv2_100", caffe=False, stem="conv_stem", own_norm=True),
}
"""Start of the names of their tensors → backbone. Others of the same kind have other shapes, which are listed then."""

WITHOUT_1X1 = ("resnet18", "resnet34")
"""ResNets without 1×1 convolutions in their blocks: there is no choice of where the stride is."""

_UNSUPPORTED = (
    (r"_subnet\..*running_(mean|var)$", "detectron2's towers with BatchNorm are not supported"),
    (r"^backbone\.(bottom_up\.base\.|body\.(base_layer|level\d))", "this DLA backbone is not supported"),
    (r"^backbone\.(bottom_up|body)\..*OSA", "a VoVNet backbone is not supported"),
    (r"^backbone\.(bottom_up\.features|(bottom_up|body)\.xif)", "this MobileNet backbone is not supported"),
    (r"^fcos_body\.", "checkpoints of VectXmy/FCOS.Pytorch are not supported"),
)


def refuse_unsupported(keys: Iterable[str], *, where: Path) -> None:
    """Raise ModelError, listing the matching tensors, if the network has parts that fcos does not support."""
    names = list(keys)
    for pattern, what in _UNSUPPORTED:
        matches = [key for key in names if re.search(pattern, key)]
        if matches:
            raise ModelError(
                what,
                where=where,
                remedy="use a checkpoint of a published model; docs/conversion.md lists them",
                details=(f"matching tensors ({len(matches)}):", *(f"  {key}" for key in matches)),
            )


def deformable_parts(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """ModelConfig's `deformable_stages` and `deformable_tower`, from the native names of the offsets.

    A stage or tower that is only partly deformable counts as deformable, and `check_fit` lists what it lacks.
    """
    found = [re.match(r"backbone\.body\.layer([1-4])\.\d+\.conv2\.offset\.", key) for key in weights]
    tower = any(re.match(r"head\.\w+_head\.conv\.\d+\.offset\.", key) for key in weights)
    return {
        "deformable_stages": tuple(sorted({int(match[1]) for match in found if match})),
        "deformable_tower": tower,
    }


def identify_backbone(weights: Mapping[str, Tensor], *, where: Path) -> BackboneInfo:
    """Return the backbone of `weights`, which have native names. Raises ModelError if it is not supported."""
    for start, other in _OTHER_KINDS.items():
        if any(key.startswith(start) for key in weights):
            return other
    stages: dict[int, set[int]] = {}
    for key in weights:
        if match := re.match(r"backbone\.body\.layer(\d+)\.(\d+)\.", key):
            stages.setdefault(int(match[1]), set()).add(int(match[2]))
    first, second = (weights.get(f"backbone.body.layer1.0.conv{n}.weight") for n in (1, 2))
    blocks = tuple(len(stages.get(stage, ())) for stage in range(1, 5))
    backbone = None
    if first is not None and second is not None and first.ndim == second.ndim == 4:
        backbone = _BACKBONES.get((blocks, first.shape[-1], (second.shape[0], second.shape[1])))
    if backbone is not None and set(stages) == {1, 2, 3, 4}:
        return backbone
    if not stages:
        what = "the file has no known backbone"
    else:
        shapes = ", ".join(
            f"{name} {'is missing' if value is None else list(value.shape)}"
            for name, value in (("layer1.0.conv1", first), ("layer1.0.conv2", second))
        )
        what = f"unknown backbone: blocks per stage {list(blocks)}, {shapes}"
    supported = ", ".join(backbone.name for backbone in (*_BACKBONES.values(), *_OTHER_KINDS.values()))
    raise ModelError(what, where=where, remedy=f"use a checkpoint with one of these backbones: {supported}")
