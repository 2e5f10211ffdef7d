"""FCOS with deformable convolutions, by the rules of each zoo: the names and shapes of its tensors, and the network.

Written from the configs and layer definitions of tianzhi0549/FCOS, AdelaiDet, detectron2, mmdetection and mmcv, and
independently of fcos_cli. The network computes in float64, and a deformable convolution one tap at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Array = npt.NDArray[np.float64]
STRIDES = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Network:
    """One model. zoo: fcos, adelaidet or mmdet. width: channels of the 3×3 convolutions of the first stage; out: of its
    result. deformable: stages, from 1, as layer1 … layer4.
    """

    zoo: str
    blocks: tuple[int, int, int, int]
    deformable: tuple[int, ...] = ()
    tower: bool = False
    groups: int = 1
    width: int = 64
    out: int = 256
    stride_in_1x1: bool = False
    channels: int = 256
    convs: int = 4
    classes: int = 80


R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
PUBLISHED = {
    # configs/fcos/fcos_imprv_dcnv2_*.yaml: STAGE_WITH_DCN, USE_DCN_IN_TOWER, STRIDE_IN_1X1
    "fcos_imprv_dcnv2_R_50_FPN_1x": Network("fcos", R50, (2, 3, 4), tower=True, stride_in_1x1=True),
    "fcos_imprv_dcnv2_R_101_FPN_2x": Network("fcos", R101, (2, 3, 4), tower=True, stride_in_1x1=True),
    "fcos_imprv_dcnv2_X_101_32x8d_FPN_2x": Network("fcos", R101, (3, 4), tower=True, groups=32, width=256),
    "fcos_imprv_dcnv2_X_101_64x4d_FPN_2x": Network("fcos", R101, (3, 4), tower=True, groups=64, width=256),
    # configs/FCOS-Detection/MS_X_101_32x8d_2x_dcnv2.yaml: DEFORM_ON_PER_STAGE, USE_DEFORMABLE
    "MS_X_101_32x8d_2x_dcnv2": Network("adelaidet", R101, (3, 4), tower=True, groups=32, width=256),
    # configs/fcos/fcos_r50-dcn-caffe_fpn_gn-head-…_1x_coco.py: stage_with_dcn, dcn_on_last_conv, style="caffe"
    "fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco": Network(
        "mmdet", R50, (2, 3, 4), tower=True, stride_in_1x1=True
    ),
}
_SMALL: dict[str, Any] = {"blocks": (1, 2, 1, 1), "width": 8, "out": 32, "channels": 64, "convs": 2}
SMALL = {
    "small-fcos": Network("fcos", deformable=(2, 3, 4), tower=True, stride_in_1x1=True, **_SMALL),
    "small-fcos-x": Network("fcos", deformable=(3, 4), tower=True, groups=4, **_SMALL),
    "small-adelaidet": Network("adelaidet", deformable=(3, 4), tower=True, groups=4, **_SMALL),
    "small-mmdet": Network("mmdet", deformable=(2, 3, 4), tower=True, stride_in_1x1=True, **_SMALL),
}
"""The same layouts, for fast tests. `tests/small_resnets.py` has their backbones as timm models."""


@dataclass(frozen=True)
class Layer:
    """A convolution and the norm behind it, if any. place: where, such as ("block", stage, number, convolution)."""

    place: tuple[Any, ...]
    ends: tuple[int, int]  # channels out, in
    size: int
    norm: str = ""  # batch, group
    bias: bool = False
    groups: int = 1
    deformable: bool = False


def layers(net: Network) -> Iterator[Layer]:
    yield Layer(("stem",), (64, 3), 7, "batch")
    before = 64
    for stage in range(1, 5):
        width, out = net.width * 2 ** (stage - 1), net.out * 2 ** (stage - 1)
        for block in range(net.blocks[stage - 1]):
            yield Layer(("block", stage, block, 1), (width, before), 1, "batch")
            moved = stage in net.deformable
            yield Layer(("block", stage, block, 2), (width, width), 3, "batch", groups=net.groups, deformable=moved)
            yield Layer(("block", stage, block, 3), (out, width), 1, "batch")
            if block == 0:
                yield Layer(("shortcut", stage, block), (out, before), 1, "batch")
            before = out
    wide = net.channels
    for level in range(3):
        yield Layer(("lateral", level), (wide, net.out * 2 ** (level + 1)), 1, bias=True)
        yield Layer(("output", level), (wide, wide), 3, bias=True)
    yield from (Layer(("top", level), (wide, wide), 3, bias=True) for level in (6, 7))
    for tower in ("cls", "box"):
        for place in range(net.convs):
            moved = net.tower and place == net.convs - 1
            yield Layer((tower, place), (wide, wide), 3, "group", bias=True, deformable=moved)
    for branch, count in (("logits", net.classes), ("distances", 4), ("centerness", 1)):
        yield Layer((branch,), (count, wide), 3, bias=True)


def names_of(net: Network, layer: Layer) -> tuple[str, str, str]:
    """Prefixes of the tensors in the zoo's files: the convolution's, its offsets' and its norm's, or ""."""
    conv, norm = _FINDERS[net.zoo](*layer.place)
    if not layer.deformable:
        return conv, "", norm
    if net.zoo == "mmdet":  # mmcv's ModulatedDeformConv2dPack is the convolution, with the offsets inside
        return conv, f"{conv}.conv_offset", norm
    if net.zoo == "adelaidet" and layer.place[0] == "block":  # detectron2's DeformBottleneckBlock has them side by side
        return conv, f"{conv}_offset", norm
    return f"{conv}.conv", f"{conv}.offset", norm  # DFConv2d has both inside


def _resnet_names(body: str, stem: str) -> Any:
    """Names as in torchvision's ResNet."""

    def find(kind: str, *at: int) -> tuple[str, str]:
        if kind == "stem":
            return f"{stem}conv1", f"{stem}bn1"
        if kind == "block":
            return (f"{body}layer{at[0]}.{at[1]}.{part}{at[2]}" for part in ("conv", "bn"))  # type: ignore[return-value]
        return f"{body}layer{at[0]}.{at[1]}.downsample.0", f"{body}layer{at[0]}.{at[1]}.downsample.1"

    return find


def _head_names(head: str, centerness: str, kind: str, *at: int) -> tuple[str, str]:
    if kind in ("cls", "box"):
        tower = {"cls": "cls_tower", "box": "bbox_tower"}[kind]
        return f"{head}{tower}.{3 * at[0]}", f"{head}{tower}.{3 * at[0] + 1}"
    return head + {"logits": "cls_logits", "distances": "bbox_pred", "centerness": centerness}[kind], ""


def _fcos(kind: str, *at: int) -> tuple[str, str]:
    pyramid = {"lateral": "fpn_inner", "output": "fpn_layer"}
    if kind in ("stem", "block", "shortcut"):
        return tuple(_resnet_names("backbone.body.", "backbone.body.stem.")(kind, *at))
    if kind in pyramid:
        return f"backbone.fpn.{pyramid[kind]}{at[0] + 2}", ""
    if kind == "top":
        return f"backbone.fpn.top_blocks.p{at[0]}", ""
    return _head_names("rpn.head.", "centerness", kind, *at)


def _adelaidet(kind: str, *at: int) -> tuple[str, str]:
    if kind in ("stem", "block", "shortcut"):
        stage = f"backbone.bottom_up.res{at[0] + 1}.{at[1]}." if at else ""
        conv = {"stem": "backbone.bottom_up.stem.conv1", "shortcut": f"{stage}shortcut"}.get(kind)
        conv = conv or f"{stage}conv{at[2]}"
        return conv, f"{conv}.norm"
    if kind in ("lateral", "output"):
        return f"backbone.fpn_{kind}{at[0] + 3}", ""
    if kind == "top":
        return f"backbone.top_block.p{at[0]}", ""
    return _head_names("proposal_generator.fcos_head.", "ctrness", kind, *at)


def _mmdet(kind: str, *at: int) -> tuple[str, str]:
    if kind in ("stem", "block", "shortcut"):
        return tuple(_resnet_names("backbone.", "backbone.")(kind, *at))
    if kind == "lateral":
        return f"neck.lateral_convs.{at[0]}.conv", ""
    if kind in ("output", "top"):
        return f"neck.fpn_convs.{at[0] if kind == 'output' else at[0] - 3}.conv", ""
    if kind in ("cls", "box"):
        tower = {"cls": "cls_convs", "box": "reg_convs"}[kind]
        return f"bbox_head.{tower}.{at[0]}.conv", f"bbox_head.{tower}.{at[0]}.gn"
    return {"logits": "bbox_head.conv_cls", "distances": "bbox_head.conv_reg"}.get(
        kind, "bbox_head.conv_centerness"
    ), ""


_FINDERS: dict[str, Any] = {"fcos": _fcos, "adelaidet": _adelaidet, "mmdet": _mmdet}
_SCALES = {"fcos": "rpn.head", "adelaidet": "proposal_generator.fcos_head", "mmdet": "bbox_head"}


def keys(net: Network) -> dict[str, list[int]]:
    """Name → shape of every tensor of the model in its zoo's files."""
    found: dict[str, list[int]] = {}
    for layer in layers(net):
        conv, offset, norm = names_of(net, layer)
        out, into = layer.ends
        found[f"{conv}.weight"] = [out, into // layer.groups, layer.size, layer.size]
        if layer.bias:
            found[f"{conv}.bias"] = [out]
        if offset:  # for each of the nine taps: y, x, mask
            found |= {f"{offset}.weight": [27, into, 3, 3], f"{offset}.bias": [27]}
        if norm:
            found |= {f"{norm}.{part}": [out] for part in ("weight", "bias")}
        if layer.norm == "batch":
            found |= {f"{norm}.{part}": [out] for part in ("running_mean", "running_var")}
            if net.zoo == "mmdet":
                found[f"{norm}.num_batches_tracked"] = []
    shape = [] if net.zoo == "mmdet" else [1]
    return found | {f"{_SCALES[net.zoo]}.scales.{level}.scale": shape for level in range(5)}


def forward(net: Network, weights: Mapping[str, Tensor], picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Picture [1, 3, H, W], normalised and in the zoo's order → logits [P, C], distances in px [P, 4], centerness [P].

    All six models: ReLU, distances in strides, centerness on the box tower, P6 from P5.
    """
    state = {name: value.double() for name, value in weights.items()}
    by_place = {layer.place: layer for layer in layers(net)}

    def run(x: Tensor, *place: Any, stride: int = 1) -> Tensor:
        return _apply(net, by_place[place], state, x, stride)

    x = run(picture.double(), "stem", stride=2).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    stages = []
    for stage in range(1, 5):
        for block in range(net.blocks[stage - 1]):
            stride = 2 if stage > 1 and block == 0 else 1
            first, second = (stride, 1) if net.stride_in_1x1 else (1, stride)
            inner = run(x, "block", stage, block, 1, stride=first).relu()
            inner = run(run(inner, "block", stage, block, 2, stride=second).relu(), "block", stage, block, 3)
            x = (inner + (run(x, "shortcut", stage, block, stride=stride) if block == 0 else x)).relu()
        stages.append(x)
    merged = [run(feature, "lateral", level) for level, feature in enumerate(stages[1:])]
    for level in (1, 0):
        merged[level] = merged[level] + F.interpolate(merged[level + 1], size=merged[level].shape[-2:])
    features = [run(feature, "output", level) for level, feature in enumerate(merged)]
    features.append(run(features[-1], "top", 6, stride=2))
    features.append(run(features[-1].relu(), "top", 7, stride=2))
    outputs = []
    for level, feature in enumerate(features):
        on_class, on_box = feature, feature
        for place in range(net.convs):
            on_class, on_box = run(on_class, "cls", place).relu(), run(on_box, "box", place).relu()
        scale = state[f"{_SCALES[net.zoo]}.scales.{level}.scale"].reshape(())
        distances = (scale * run(on_box, "distances")).relu() * STRIDES[level]
        maps = (run(on_class, "logits"), distances, run(on_box, "centerness"))
        outputs.append(torch.cat(maps, 1).flatten(2)[0].T)
    cls, ltrb, ctr = torch.cat(outputs).split([net.classes, 4, 1], 1)
    return cls, ltrb, ctr[:, 0]


def _apply(net: Network, layer: Layer, state: Mapping[str, Tensor], x: Tensor, stride: int) -> Tensor:
    conv, offset, norm = names_of(net, layer)
    weight, bias = state[f"{conv}.weight"], state.get(f"{conv}.bias")
    if layer.deformable:
        moves = F.conv2d(x, state[f"{offset}.weight"], state[f"{offset}.bias"], stride, 1)
        given = (x[0].numpy(), moves[0, :18].numpy(), moves[0, 18:].sigmoid().numpy(), weight.numpy())
        x = torch.from_numpy(deformed(*given, stride=stride, groups=layer.groups))[None]
        x = x if bias is None else x + bias[:, None, None]
    else:
        x = F.conv2d(x, weight, bias, stride, layer.size // 2, groups=layer.groups)
    if layer.norm == "group":
        return F.group_norm(x, 32, state[f"{norm}.weight"], state[f"{norm}.bias"])
    if layer.norm == "batch":
        scale, shift, mean, var = (
            state[f"{norm}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean) / (var + (0 if net.zoo == "fcos" else 1e-5)).sqrt() * scale + shift
    return x


def deformed(
    x: Array, moves: Array, masks: Array, weight: Array, *, stride: int = 1, groups: int = 1, dilation: int = 1
) -> Array:
    """Map [C, H, W], moves [18, h, w] (y0, x0, y1, …), masks [9, h, w], weight [O, C / groups, 3, 3] → [O, h, w]."""
    _, h, w = masks.shape
    taps = np.zeros((len(x), 9, h, w))
    for tap in range(9):
        for i in range(h):
            for j in range(w):
                row = i * stride + (tap // 3 - 1) * dilation + moves[2 * tap, i, j]
                column = j * stride + (tap % 3 - 1) * dilation + moves[2 * tap + 1, i, j]
                taps[:, tap, i, j] = masks[tap, i, j] * bilinear(x, row, column)
    parts = zip(np.split(weight, groups), np.split(taps, groups), strict=True)
    return np.concatenate([np.einsum("oct,cthw->ohw", part.reshape(*part.shape[:2], 9), tap) for part, tap in parts])


def bilinear(x: Array, row: float, column: float) -> Array:
    """Values [C] at a place between pixels; what lies outside is 0."""
    value = np.zeros(len(x))
    top, left = int(np.floor(row)), int(np.floor(column))
    for i, down in ((top, 1 - (row - top)), (top + 1, row - top)):
        for j, right in ((left, 1 - (column - left)), (left + 1, column - left)):
            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                value += down * right * x[:, i, j]
    return value
