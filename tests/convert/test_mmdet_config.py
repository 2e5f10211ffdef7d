"""The config in mmdetection's checkpoints: what is read from it, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fcos_cli.convert.mmdet_config import read_config
from fcos_cli.convert.run import convert
from fcos_cli.errors import ModelError, UsageError
from fcos_cli.model.presets import IMAGENET_MEAN, IMAGENET_STD, PRESETS, preset_name
from tests.convert.foreign import file_of, lsj_config, ours, pth, theirs

BASE = """
auto_scale_lr = dict(base_batch_size=16, enable=False)
model = dict(
    backbone=dict(depth=18, frozen_stages=1, style='pytorch', type='ResNet'),
    bbox_head=dict(
        loss_cls=dict(alpha=0.25, gamma=2.0, type='FocalLoss'),
        strides=[8, 16, 32, 64, 128],
        type='FCOSHead'),
    data_preprocessor=dict(
        bgr_to_rgb=False, mean=[102.9801, 115.9465, 122.7717], pad_size_divisor=32, std=[1.0, 1.0, 1.0]),
    test_cfg=dict(max_per_img=100, min_bbox_size=0, nms=dict(iou_threshold=0.5, type='nms'), nms_pre=1000,
        score_thr=0.05),
    type='FCOS')
"""
TRICKS = """
img_norm_cfg = {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375], 'to_rgb': True}
model = dict(
    backbone=dict(type='ResNet', style='pytorch'),
    bbox_head=dict(type='FCOSHead', norm_on_bbox=True, centerness_on_reg=True, dcn_on_last_conv=False,
        center_sampling=True, conv_bias=True))
test_cfg = dict(nms_pre=500, score_thr=0.1, nms=dict(type='nms', iou_thr=0.55), max_per_img=50)
"""


@pytest.mark.parametrize("key", ["cfg", "config"])
def test_mmdetection_config_is_read(key: str, tmp_path: Path) -> None:
    found = convert(file_of(tmp_path, "mmdet", meta={key: TRICKS}))
    config = found.artifact.config
    assert (found.preset, preset_name(config.conventions)) == ("mmdet-tricks", "mmdet-tricks")
    assert (config.mean, config.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (config.candidates, config.score_threshold, config.nms_iou, config.max_detections) == (500, 0.1, 0.55, 50)
    state = ours(scales=True)
    assert "from the config" in found.notes[0]

    found = convert(pth(tmp_path / "b.pth", {"state_dict": theirs("mmdet", state), "meta": {key: BASE}}))
    assert (found.preset, preset_name(found.artifact.config.conventions)) == ("mmdet-base", "mmdet-base")
    assert found.artifact.config.mean == (122.7717, 115.9465, 102.9801)
    first = "backbone.body.conv1.weight"
    assert torch.equal(found.artifact.weights[first], state[first].flip(1))  # bgr_to_rgb=False


def test_mixed_mmdetection_config_gives_custom_conventions(tmp_path: Path) -> None:
    text = TRICKS.replace("centerness_on_reg=True", "centerness_on_reg=False").replace(
        "center_sampling=True", "center_sampling=True, center_sample_radius=2.5"
    )
    rules = convert(file_of(tmp_path, "mmdet", meta={"config": text})).artifact.config.conventions
    assert (rules.activation, rules.stride_normalised, rules.centerness_on, rules.radius) == (
        "relu",
        True,
        "class",
        2.5,
    )
    assert preset_name(rules) == "custom"


def test_strides_may_be_pairs(tmp_path: Path) -> None:
    pairs = "strides=[(8, 8), (16, 16), (32, 32), (64, 64), (128, 128)]"
    text = TRICKS.replace("center_sampling=True", f"center_sampling=True, {pairs}")
    assert convert(file_of(tmp_path, "mmdet", meta={"config": text})).preset == "mmdet-tricks"


def test_stride_of_a_resnet50_comes_from_the_config(tmp_path: Path) -> None:
    for style, in_1x1 in (("caffe", True), ("pytorch", False)):
        meta = {"config": TRICKS.replace("style='pytorch'", f"style='{style}'")}
        config = convert(file_of(tmp_path, "mmdet", meta=meta, backbone="resnet50")).artifact.config
        assert config.stride_in_1x1 == in_1x1


@pytest.mark.parametrize(("depth", "backbone"), [(18, "resnet18"), (50, "resnet50"), (101, "resnet101")])
def test_lsj_models_are_in_the_style_of_pytorch(depth: int, backbone: str, tmp_path: Path) -> None:
    found = convert(file_of(tmp_path, "mmdet", meta={"cfg": lsj_config(depth)}, backbone=backbone))
    config = found.artifact.config
    assert (found.preset, preset_name(config.conventions)) == ("mmdet-tricks", "mmdet-tricks")
    assert (config.backbone, config.stride_in_1x1) == (backbone, False)
    assert (config.mean, config.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert any("trained on RGB input (from the file)" in note for note in found.notes)
    assert found.artifact.geometry["size"] == [800, 1333]


def test_preset_contradicting_the_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="--preset mmdet-base contradicts the file: according to the config it is mmdet-tricks"
    ):
        convert(file_of(tmp_path, "mmdet", meta={"config": TRICKS}), preset="mmdet-base")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("'FCOSHead'", "'ATSSHead'", "ATSSHead, not FCOSHead"),
        ("center_sampling=True", "center_sampling=True, strides=[4, 8, 16, 32, 64]", "strides"),
        ("center_sampling=True", "center_sampling=True, strides=8", "strides 8; only"),
        ("center_sampling=True", "center_sampling=True, strides=[[]]", "strides"),
        ("center_sampling=True", "center_sampling=True, center_sample_radius=-1", "center_sample_radius=-1, not"),
        ("center_sampling=True", "center_sampling=True, center_sample_radius=1e999", "center_sample_radius=inf, not"),
        ("center_sampling=True", "center_sampling=True, center_sample_radius=float('inf')", "radius=None, not"),
        ("type='nms'", "type='soft_nms'", "soft_nms"),
        (
            "model = dict(",
            "model = dict(neck=dict(type='FPN', add_extra_convs='on_output'),",
            "relu_before_extra_convs",
        ),
        (
            "model = dict(",
            "model = dict(neck=dict(type='FPN', relu_before_extra_convs=False),",
            "relu_before_extra_convs",
        ),
        (
            "model = dict(",
            "model = dict(neck=dict(add_extra_convs='on_lateral', relu_before_extra_convs=True),",
            "on_lateral",
        ),
        (
            "test_cfg =",
            "test_pipeline = [dict(type='Resize', scale=(640, 640), keep_ratio=False)]\ntest_cfg =",
            "keep_ratio",
        ),
    ],
)
def test_configs_of_unsupported_networks_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert TRICKS.count(old) == 1
    with pytest.raises(ModelError, match=message):
        convert(file_of(tmp_path, "mmdet", meta={"config": TRICKS.replace(old, new)}))


def test_a_threshold_of_zero_is_kept(tmp_path: Path) -> None:
    text = TRICKS.replace("score_thr=0.1", "score_thr=0").replace("nms_pre=500", "nms_pre=-1")  # -1: no limit
    config = convert(file_of(tmp_path, "mmdet", meta={"config": text})).artifact.config
    assert (config.score_threshold, config.candidates) == (0, PRESETS["mmdet-tricks"].model["candidates"])


def test_a_value_of_the_config_that_is_too_large_is_named(tmp_path: Path) -> None:
    text = TRICKS.replace("nms_pre=500", "nms_pre=5000")
    with pytest.raises(ModelError, match="the file has nms_pre = 5000, which is not") as caught:
        convert(file_of(tmp_path, "mmdet", meta={"config": text}))
    assert "change nms_pre" in str(caught.value.remedy)


def test_without_bgr_to_rgb_the_network_takes_bgr(tmp_path: Path) -> None:
    """The default of mmdetection 3's data_preprocessor; that of mmdetection 2's Normalize is RGB."""
    for old, new, mean in (
        (BASE, BASE.replace("bgr_to_rgb=False, ", ""), (122.7717, 115.9465, 102.9801)),
        (TRICKS, TRICKS.replace(", 'to_rgb': True", ""), IMAGENET_MEAN),
    ):
        assert old != new
        assert convert(file_of(tmp_path, "mmdet", meta={"config": new})).artifact.config.mean == mean


RESIZE = "dict(type='Resize', scale=(1000, 600), keep_ratio=True)"
OTHER = "test_pipeline = [dict(type='Resize', scale=(2000, 1600), keep_ratio=True)]"


@pytest.mark.parametrize(
    "text",
    [
        f"test_pipeline = [dict(type='LoadImageFromFile'), {RESIZE}]",
        f"test_dataloader = dict(dataset=dict(pipeline=[{RESIZE}]))\n{OTHER}",
        f"p = 1\ntest_dataloader = dict(dataset=dict(pipeline=p))\ntest_pipeline = [{RESIZE}]",
        "data = dict(test=dict(pipeline=[dict(type='MultiScaleFlipAug', img_scale=(1000, 600), flip=False, transforms=["
        "dict(type='Resize', keep_ratio=True), dict(type='RandomFlip')])]))",
        "test_pipeline = [dict(type='MultiScaleFlipAug', img_scale=[(600, 1000)], transforms=[dict(type='Resize')])]",
    ],
)
def test_input_size_comes_from_the_config(text: str, tmp_path: Path) -> None:
    found = convert(file_of(tmp_path, "mmdet", meta={"cfg": f"{TRICKS}\n{text}"}))
    assert found.artifact.geometry["size"] == [600, 1000]
    assert "input: shorter side 600 px, longer at most 1000 (from the file)" in found.notes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "test_pipeline = 3",
        "test_pipeline = [dict(type='MultiScaleFlipAug', img_scale=[(9, 9), (8, 8)],"
        " transforms=[dict(type='Resize')])]",
        "test_pipeline = [dict(type='MultiScaleFlipAug', transforms=3), dict(type='Resize', scale_factor=2.0)]",
        "test_pipeline = [dict(type='Resize', scale=(0, 100000), keep_ratio=True)]",
    ],
)
def test_without_one_size_in_the_config_it_is_that_of_the_published_models(text: str, tmp_path: Path) -> None:
    found = convert(file_of(tmp_path, "mmdet", meta={"cfg": f"{TRICKS}\n{text}"}))
    assert found.artifact.geometry["size"] == [800, 1333]
    assert any("longer at most 1333 (that of the published models; not stated" in note for note in found.notes)


def test_the_users_size_wins(tmp_path: Path) -> None:
    file = file_of(tmp_path, "mmdet", meta={"cfg": f"{TRICKS}\ntest_pipeline = [{RESIZE}]"})
    found = convert(file, size=(512, 736))
    assert found.artifact.geometry["size"] == [512, 736]
    assert "input: shorter side 512 px, longer at most 736 (from --size)" in found.notes


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34"])
def test_small_resnets_have_no_style(backbone: str, tmp_path: Path) -> None:
    meta = {"config": TRICKS.replace("style='pytorch'", "style='caffe'")}
    found = convert(file_of(tmp_path, "mmdet", meta=meta, backbone=backbone))
    assert (found.artifact.config.backbone, found.artifact.config.stride_in_1x1) == (backbone, False)
    assert not any("stride in" in note for note in found.notes)


@pytest.mark.parametrize("text", ["not python (", "import os", "", "model = 3", "model = dict(bbox_head=3)", "\x00"])
def test_unreadable_or_empty_config_is_ignored(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="do not show which"):
        convert(file_of(tmp_path, "mmdet", meta={"config": text}))


def test_config_is_never_executed(tmp_path: Path) -> None:
    trap = tmp_path / "it-ran"
    config = read_config(f"a = open({str(trap)!r}, 'w')\nb = dict(c=1, d=[(2, -3), {{'e': None}}], f=g())\nh.i = 2\n")
    assert config == {"a": None, "b": {"c": 1, "d": [[2, -3], {"e": None}], "f": None}}
    assert not trap.exists()


NAMES = ["cell", "dust"]


@pytest.mark.parametrize(
    "meta", [{"CLASSES": tuple(NAMES)}, {"dataset_meta": {"CLASSES": NAMES}}, {"dataset_meta": {"classes": NAMES}}]
)
def test_class_names_in_mmdetection_files_are_used(meta: Any, tmp_path: Path) -> None:
    file = file_of(tmp_path, "mmdet", meta={"config": TRICKS, **meta}, classes=2)
    assert convert(file).artifact.classes.names == ("cell", "dust")
    assert convert(file, names=["a", "b"]).artifact.classes.names == ("a", "b")


def test_mmdetection_1_has_inclusive_boxes(tmp_path: Path) -> None:
    for version, ends in (("1.0rc0+f41a4d9", "inclusive"), ("2.25.0", "exclusive")):
        file = file_of(tmp_path, "old mmdet", without_bias=True, meta={"mmdet_version": version}, backbone="resnet18")
        assert convert(file).artifact.config.conventions.box_ends == ends
