"""Foreign checkpoints made from our own networks. The name mappings are written independently of fcos_cli."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcos_cli.model.config import ModelConfig
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.fcos import FCOS

State = dict[str, Tensor]

NARROW: dict[str, Any] = {"backbone": "resnet18", "channels": 32, "convs": 2, "groups": 32}
"""The smallest network whose backbone `convert` supports."""


@cache
def _ours(scales: bool, classes: int, seed: int, shape: tuple[tuple[str, Any], ...]) -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FCOS(ModelConfig(**dict(shape), conventions=Conventions(scales=scales)), classes=classes)
    state: State = dict(model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    for key, value in state.items():  # all zeros or ones would hide mix-ups
        if value.ndim <= 1:
            state[key] = torch.rand(value.shape, generator=generator) + 0.5
    return state


def ours(*, scales: bool = False, classes: int = 80, seed: int = 0, **shape: Any) -> State:
    """Return a random state dict with native names. Do not modify its tensors in place."""
    return dict(_ours(scales, classes, seed, tuple({**NARROW, **shape}.items())))


def hollow(state: State) -> State:
    """Return the same names and shapes with zeros that take no memory."""
    return {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}


def shapes_of(*, scales: bool = False, classes: int = 80, **shape: Any) -> State:
    """Return the names and shapes of a network as hollow tensors, without building it."""
    with torch.device("meta"):
        model = FCOS(ModelConfig(**{**NARROW, **shape}, conventions=Conventions(scales=scales)), classes=classes)
    return hollow(model.state_dict())


def theirs(family: str, state: State) -> State:
    """Return a native state dict with the names of a family's published files."""
    return {_NAMES[family](key): value for key, value in state.items()}


def _swap(key: str, *pairs: tuple[str, str]) -> str:
    for pattern, replacement in pairs:
        key = re.sub(pattern, replacement, key)
    return key


def _add_to_index(key: str, pattern: str, text: str, amount: int) -> str:
    return re.sub(pattern, lambda found: text.format(int(found[1]) + amount), key)


def _torchvision(key: str) -> str:
    return key


def _old_torchvision(key: str) -> str:
    return _swap(key, (r"(inner|layer)_blocks\.(\d)\.0\.", r"\1_blocks.\2."))


def _fcos(key: str) -> str:
    key = _swap(
        key,
        (r"^backbone\.body\.(conv1|bn1)\.", r"backbone.body.stem.\1."),
        (r"extra_blocks", "top_blocks"),
        (r"^head\.classification_head\.conv\.", "rpn.head.cls_tower."),
        (r"^head\.regression_head\.conv\.", "rpn.head.bbox_tower."),
        (r"^head\.classification_head\.", "rpn.head."),
        (r"^head\.regression_head\.scales\.(\d)$", r"rpn.head.scales.\1.scale"),
        (r"^head\.regression_head\.bbox_reg", "rpn.head.bbox_pred"),
        (r"^head\.regression_head\.bbox_ctrness", "rpn.head.centerness"),
    )
    key = _add_to_index(key, r"inner_blocks\.(\d)\.0", "fpn_inner{}", 2)
    return _add_to_index(key, r"layer_blocks\.(\d)\.0", "fpn_layer{}", 2)


def _bottom_up(key: str) -> str:
    key = _swap(key, (r"^backbone\.body\.(conv1|bn1)\.", r"backbone.bottom_up.stem.\1."))
    key = _add_to_index(key, r"^backbone\.body\.layer(\d)", "backbone.bottom_up.res{}", 1)
    key = _add_to_index(key, r"^backbone\.fpn\.inner_blocks\.(\d)\.0", "backbone.fpn_lateral{}", 3)
    key = _add_to_index(key, r"^backbone\.fpn\.layer_blocks\.(\d)\.0", "backbone.fpn_output{}", 3)
    return _swap(
        key,
        (r"\.bn(\d)\.", r".conv\1.norm."),
        (r"\.downsample\.0\.", ".shortcut."),
        (r"\.downsample\.1\.", ".shortcut.norm."),
        (r"^backbone\.fpn\.extra_blocks", "backbone.top_block"),
    )


def _adelaidet(key: str) -> str:
    head = "proposal_generator.fcos_head."
    return _swap(
        _bottom_up(key),
        (r"^head\.classification_head\.conv", f"{head}cls_tower"),
        (r"^head\.regression_head\.conv", f"{head}bbox_tower"),
        (r"^head\.classification_head\.", head),
        (r"^head\.regression_head\.scales\.(\d)$", rf"{head}scales.\1.scale"),
        (r"^head\.regression_head\.bbox_reg", f"{head}bbox_pred"),
        (r"^head\.regression_head\.bbox_ctrness", f"{head}ctrness"),
    )


def _detectron2(key: str) -> str:
    return _swap(
        _bottom_up(key),
        (r"^head\.classification_head\.conv", "head.cls_subnet"),
        (r"^head\.regression_head\.conv", "head.bbox_subnet"),
        (r"^head\.classification_head\.cls_logits", "head.cls_score"),
        (r"^head\.regression_head\.bbox_reg", "head.bbox_pred"),
        (r"^head\.regression_head\.bbox_ctrness", "head.ctrness"),
    )


def _mmdet(key: str) -> str:
    def tower(found: re.Match[str]) -> str:
        place = int(found[2])
        branch = {"classification": "cls", "regression": "reg"}[found[1]]
        return f"bbox_head.{branch}_convs.{place // 3}.{('conv', 'gn')[place % 3]}."

    return _swap(
        re.sub(r"^head\.(\w+)_head\.conv\.(\d+)\.", tower, key),
        (r"^backbone\.body\.", "backbone."),
        (r"^backbone\.fpn\.inner_blocks\.(\d)\.0", r"neck.lateral_convs.\1.conv"),
        (r"^backbone\.fpn\.layer_blocks\.(\d)\.0", r"neck.fpn_convs.\1.conv"),
        (r"^backbone\.fpn\.extra_blocks\.p6", "neck.fpn_convs.3.conv"),
        (r"^backbone\.fpn\.extra_blocks\.p7", "neck.fpn_convs.4.conv"),
        (r"^head\.classification_head\.cls_logits", "bbox_head.conv_cls"),
        (r"^head\.regression_head\.bbox_reg", "bbox_head.conv_reg"),
        (r"^head\.regression_head\.bbox_ctrness", "bbox_head.conv_centerness"),
        (r"^head\.regression_head\.scales\.(\d)$", r"bbox_head.scales.\1.scale"),
    )


def _old_mmdet(key: str) -> str:
    return _swap(_mmdet(key), (r"^bbox_head\.conv_(cls|reg|centerness)", r"bbox_head.fcos_\1"))


_NAMES = {
    "torchvision": _torchvision,
    "old torchvision": _old_torchvision,
    "fcos": _fcos,
    "adelaidet": _adelaidet,
    "detectron2": _detectron2,
    "mmdet": _mmdet,
    "old mmdet": _old_mmdet,
}


def pth(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


SCALED_FAMILIES = ("fcos", "adelaidet", "mmdet")


def file_of(folder: Path, family: str, *, without_bias: bool = False, meta: Any = None, **shape: Any) -> Path:
    """Save hollow tensors with the names of a family. without_bias: those of the towers are left out."""
    state: State = theirs(family, shapes_of(scales=family.split()[-1] in SCALED_FAMILIES, **shape))
    if without_bias:
        state = {key: value for key, value in state.items() if not key.endswith(".conv.bias") or "neck" in key}
    return pth(folder / "theirs.pth", {"state_dict": state, "meta": meta or {}})


def lsj_config(depth: int) -> str:
    """The part of mmdetection's LSJ configs that says how the network differs from those with Caffe's weights."""
    return f"""
model = dict(
    type='FCOS',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(type='ResNet', depth={depth}, frozen_stages=1, norm_eval=True, style='pytorch'),
    neck=dict(type='FPN', add_extra_convs='on_output', num_outs=5, relu_before_extra_convs=True),
    bbox_head=dict(
        type='FCOSHead',
        strides=[8, 16, 32, 64, 128],
        norm_on_bbox=True,
        centerness_on_reg=True,
        dcn_on_last_conv=False,
        center_sampling=True,
        conv_bias=True),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=100))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='PackDetInputs')]
"""
