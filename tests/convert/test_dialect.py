"""Detection of the family and preset from tensor names, tower biases and config."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fcos_cli.convert.families import FAMILIES, PRESET_HINTS
from fcos_cli.convert.mmdet_config import read_config
from fcos_cli.convert.run import convert
from fcos_cli.errors import ModelError, UsageError
from fcos_cli.model.presets import IMAGENET_MEAN, IMAGENET_STD, PRESETS, preset_name
from tests.convert.foreign import State, ours, pth, shapes_of, theirs

SCALED = ("fcos", "adelaidet", "mmdet")


def file_of(folder: Path, family: str, *, without_bias: bool = False, meta: Any = None, **shape: Any) -> Path:
    state: State = theirs(family, shapes_of(scales=family.split()[-1] in SCALED, **shape))
    if without_bias:
        state = {key: value for key, value in state.items() if not key.endswith(".conv.bias") or "neck" in key}
    return pth(folder / "theirs.pth", {"state_dict": state, "meta": meta or {}})


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_detected_from_tensor_names(family: str, tmp_path: Path) -> None:
    file = file_of(tmp_path, family, classes=91 if family == "torchvision" else 80)
    for source in ("auto", family):
        assert convert(file, source=source, preset=FAMILIES[family].presets[-1]).family == family


@pytest.mark.parametrize("family", FAMILIES)
def test_contradicting_family_is_refused(family: str, tmp_path: Path) -> None:
    file = file_of(tmp_path, family)
    for other in FAMILIES.keys() - {family}:
        with pytest.raises(UsageError, match=f"--from {other} contradicts the file"):
            convert(file, source=other)


def test_unknown_family_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown --from 'yolo'") as caught:
        convert(file_of(tmp_path, "mmdet"), source="yolo")
    assert "detectron2" in str(caught.value.remedy)


@pytest.mark.parametrize("key", ["features.0.weight", "bbox_head.atss_cls.weight", "a.rpn.head.cls_logits.weight"])
def test_unknown_tensor_names_are_refused_and_listed(key: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="match no known FCOS") as caught:
        convert(pth(tmp_path / "x.pth", {key: torch.ones(1)}))
    assert key in str(caught.value.details)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if len(family.presets) > 1])
def test_ambiguous_preset_is_requested_with_hints(family: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its tensors do not show which") as caught:
        convert(file_of(tmp_path, family))
    assert caught.value.exit_code == 2
    for preset in FAMILIES[family].presets:
        assert f"--preset {preset}: {PRESET_HINTS[preset]}" in str(caught.value.remedy)


@pytest.mark.parametrize("family", FAMILIES)
def test_preset_of_another_family_is_refused(family: str, tmp_path: Path) -> None:
    file = file_of(tmp_path, family)
    for preset in (PRESETS.keys() | {"nonsense"}) - set(FAMILIES[family].presets):
        with pytest.raises(UsageError, match=f"--preset {preset} is not a preset of") as caught:
            convert(file, preset=preset)
        assert FAMILIES[family].presets[0] in str(caught.value.remedy)


def test_every_preset_but_default_has_a_family() -> None:
    listed = [preset for family in FAMILIES.values() for preset in family.presets]
    assert sorted([*listed, "default"]) == sorted(PRESETS)


def test_mmdetection_towers_without_bias_mean_the_base_preset(tmp_path: Path) -> None:
    file = file_of(tmp_path, "mmdet", without_bias=True)
    found = convert(file)
    assert found.preset == "mmdet-base"
    assert not found.artifact.weights["head.regression_head.conv.3.bias"].any()
    assert any("zero biases added" in note for note in found.notes)
    assert "(from the towers without bias)" in found.notes[0]


def test_the_users_preset_wins_over_towers_without_bias(tmp_path: Path) -> None:
    """norm_on_bbox=True with conv_bias left at its default."""
    found = convert(file_of(tmp_path, "mmdet", without_bias=True), preset="mmdet-tricks")
    assert (found.preset, preset_name(found.artifact.config.conventions)) == ("mmdet-tricks", "mmdet-tricks")
    assert any("zero biases added" in note for note in found.notes)


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


def test_stride_of_a_resnet50_comes_from_the_config(tmp_path: Path) -> None:
    for style, in_1x1 in (("caffe", True), ("pytorch", False)):
        meta = {"config": TRICKS.replace("style='pytorch'", f"style='{style}'")}
        config = convert(file_of(tmp_path, "mmdet", meta=meta, backbone="resnet50")).artifact.config
        assert config.stride_in_1x1 == in_1x1


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
    ],
)
def test_configs_of_unsupported_networks_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        convert(file_of(tmp_path, "mmdet", meta={"config": TRICKS.replace(old, new)}))


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
