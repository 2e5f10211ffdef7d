"""Conversion of foreign checkpoints to artifacts: all families, corrections, classes and errors."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fcos_cli.convert.labels import coco_classes, read_names
from fcos_cli.convert.run import Converted, convert
from fcos_cli.errors import ModelError, UsageError
from fcos_cli.model.artifact import load, save
from fcos_cli.model.presets import IMAGENET_MEAN, IMAGENET_STD, PRESETS, preset_name
from tests.convert.foreign import State, hollow, ours, pth, shapes_of, theirs

STEM = "backbone.body.conv1.weight"
LAYER = "head.classification_head.cls_logits"
SCALES = "head.regression_head.scales."

# preset: (family, has scales, blue first)
DIALECTS = {
    "torchvision": ("torchvision", False, False),
    "fcos-v1": ("fcos", True, True),
    "fcos-imprv": ("fcos", True, True),
    "adelaidet": ("adelaidet", True, True),
    "adelaidet-iou": ("adelaidet", True, True),
    "detectron2": ("detectron2", False, True),
    "mmdet-base": ("mmdet", True, False),  # with this body: pytorch style
    "mmdet-tricks": ("mmdet", True, False),
}


def made(preset: str, *, classes: int = 80) -> tuple[State, State]:
    """Return a random network with native names, and with the names of the preset's family."""
    family, scales, _ = DIALECTS[preset]
    state = ours(scales=scales, classes=91 if family == "torchvision" and classes == 80 else classes)
    if preset == "mmdet-base":
        state = {key: value for key, value in state.items() if not (".conv." in key and bias_of_conv(key, state))}
    return state, theirs(family, state)


def bias_of_conv(key: str, state: State) -> bool:
    return key.endswith(".bias") and state[key.replace(".bias", ".weight")].ndim == 4


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Converted]:
    """Save tensors to a file and convert it."""

    def run(state: State, **options: Any) -> Converted:
        wrap = options.pop("wrap", None)
        return convert(pth(tmp_path / "theirs.pth", wrap(state) if wrap else state), **options)

    return run


@pytest.mark.parametrize("preset", DIALECTS)
def test_tensors_of_every_preset_are_converted_exactly(preset: str, tmp_path: Path) -> None:
    family, scales, bgr = DIALECTS[preset]
    source, foreign = made(preset)
    save_file({key: value.contiguous() for key, value in foreign.items()}, tmp_path / "theirs.safetensors")
    found = convert(tmp_path / "theirs.safetensors", preset=preset)
    weights, config = found.artifact.weights, found.artifact.config

    expected_weights = dict(source)
    if family == "torchvision":  # 91 rows by id → the 80 that are classes
        rows = list(coco_classes().ids)
        expected_weights |= {f"{LAYER}.{part}": source[f"{LAYER}.{part}"][rows] for part in ("weight", "bias")}
    if bgr:
        expected_weights[STEM] = source[STEM][:, [2, 1, 0]]
    if preset == "mmdet-base":
        expected_weights |= {key: torch.zeros(32) for key in ours(scales=True) if key not in source}
    variances = {key for key in expected_weights if key.startswith("backbone.body") and key.endswith("running_var")}
    assert weights.keys() == expected_weights.keys()
    for key, value in expected_weights.items():
        if family == "fcos" and key in variances:
            assert torch.allclose(weights[key].double() + 1e-5, value.double(), rtol=1e-7, atol=0)
        else:
            assert torch.equal(weights[key], value), key
    assert len(variances) == 20

    assert (found.family, found.preset) == (family, preset)
    assert (config.backbone, config.channels, config.convs, config.stride_in_1x1) == ("resnet18", 32, 2, False)
    assert preset_name(config.conventions) == preset
    assert config.conventions.scales == scales
    assert found.artifact.classes == coco_classes()
    assert found.artifact.build().config == config


def test_converted_artifact_survives_saving(read: Callable[..., Converted], tmp_path: Path) -> None:
    found = read(made("fcos-v1")[1], preset="fcos-v1").artifact
    save(tmp_path / "ours.safetensors", found)
    again = load(tmp_path / "ours.safetensors")
    assert (again.config, again.classes, again.geometry) == (found.config, found.classes, found.geometry)
    assert again.provenance["converted_from"]["file"] == "theirs.pth"
    assert again.provenance["converted_from"]["preset"] == "fcos-v1"
    assert len(again.provenance["converted_from"]["sha256"]) == 64


def test_names_of_older_versions_are_supported(read: Callable[..., Converted]) -> None:
    state = ours(classes=91)
    old = read(theirs("old torchvision", state)).artifact.weights
    assert all(torch.equal(old[key], value) for key, value in state.items() if not key.startswith(LAYER))
    state = ours(scales=True)
    old = read(theirs("old mmdet", state), preset="mmdet-tricks").artifact.weights
    assert all(torch.equal(old[key], value) for key, value in state.items())


def test_scalar_scales_are_reshaped(read: Callable[..., Converted]) -> None:
    state = theirs("mmdet", ours(scales=True))
    bare = {key: value.squeeze() if key.endswith(".scale") else value for key, value in state.items()}
    assert bare["bbox_head.scales.0.scale"].shape == ()
    weights = read(bare, preset="mmdet-tricks").artifact.weights
    for level in range(5):
        assert torch.equal(weights[f"{SCALES}{level}"], state[f"bbox_head.scales.{level}.scale"])


def test_adelaidet_models_may_have_no_scales(read: Callable[..., Converted]) -> None:
    found = read(theirs("adelaidet", ours()), preset="adelaidet").artifact
    assert not found.config.conventions.scales
    assert not any(key.startswith(SCALES) for key in found.weights)


def test_half_precision_becomes_float32(read: Callable[..., Converted]) -> None:
    state = {key: value.half() for key, value in theirs("detectron2", ours()).items()}
    assert {value.dtype for value in read(state).artifact.weights.values()} == {torch.float32}


def test_training_state_is_dropped_and_noted(read: Callable[..., Converted]) -> None:
    state = theirs("detectron2", shapes_of())
    state |= {
        key.replace("running_var", "num_batches_tracked"): torch.tensor(7) for key in state if "running_var" in key
    }
    found = read(state, wrap=lambda s: {"model": s, "iteration": 90000, "optimizer": {}, "scheduler": {}})
    assert found.notes[-1].startswith("dropped: iteration, optimizer, scheduler, 20 num_batches_tracked")


# pixel statistics


@pytest.mark.parametrize(
    ("mean", "std", "rgb_mean", "turned"),
    [
        ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395], IMAGENET_MEAN, True),
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], IMAGENET_MEAN, False),
    ],
)
def test_pixel_statistics_and_channel_order_are_read_from_the_file(
    mean: list[float], std: list[float], rgb_mean: tuple[float, ...], turned: bool, read: Callable[..., Converted]
) -> None:
    state = ours()
    pixels = {"pixel_mean": torch.tensor(mean).view(3, 1, 1), "pixel_std": torch.tensor(std).view(3, 1, 1)}
    found = read({**theirs("detectron2", state), **pixels}).artifact
    assert found.config.mean == pytest.approx(rgb_mean)
    assert found.config.std == pytest.approx(IMAGENET_STD)
    assert torch.equal(found.weights[STEM], state[STEM].flip(1) if turned else state[STEM])
    assert found.geometry["pad_value"] == pytest.approx(list(rgb_mean))
    assert any("(from the file)" in note for note in found.provenance["conversion"])


def test_pixel_statistics_that_imply_no_channel_order_are_used(read: Callable[..., Converted]) -> None:
    state = ours()
    pixels = {"pixel_mean": torch.full((3, 1, 1), 127.5), "pixel_std": torch.tensor([57.0, 58.0, 59.0]).view(3, 1, 1)}
    found = read({**theirs("detectron2", state), **pixels})
    assert (found.artifact.config.mean, found.artifact.config.std) == ((127.5,) * 3, (59.0, 58.0, 57.0))
    assert torch.equal(found.artifact.weights[STEM], state[STEM].flip(1))
    assert any("(from the file, except for BGR, which is from the preset)" in note for note in found.notes)


def test_notes_name_facts_missing_in_the_file(read: Callable[..., Converted]) -> None:
    found = read(theirs("detectron2", shapes_of()))
    assert any("from the preset; not stated in the file" in note for note in found.notes)


# backbones


@pytest.mark.parametrize(
    ("backbone", "family", "expected"),
    [
        ("resnet50", "fcos", {"stride_in_1x1": True, "std": (1.0, 1.0, 1.0)}),
        ("resnet50", "torchvision", {"stride_in_1x1": False, "std": IMAGENET_STD}),
        ("resnet101", "adelaidet", {"stride_in_1x1": True, "std": (1.0, 1.0, 1.0)}),
        ("resnext101_32x8d", "adelaidet", {"stride_in_1x1": False, "std": IMAGENET_STD}),
        ("resnext101_64x4d", "fcos", {"stride_in_1x1": False, "std": (1.0, 1.0, 1.0)}),
        ("resnext101_64x4d", "mmdet", {"stride_in_1x1": False, "std": IMAGENET_STD, "mean": IMAGENET_MEAN}),
        ("resnet34", "detectron2", {"stride_in_1x1": False}),
    ],
)
def test_backbone_is_identified_from_tensor_shapes(
    backbone: str, family: str, expected: dict[str, Any], read: Callable[..., Converted]
) -> None:
    scaled = family in ("fcos", "adelaidet", "mmdet")
    state = shapes_of(scales=scaled, backbone=backbone, classes=91 if family == "torchvision" else 80)
    choice = {"fcos": "fcos-v1", "adelaidet": "adelaidet", "mmdet": "mmdet-tricks"}.get(family)
    config = read(theirs(family, state), preset=choice).artifact.config
    assert config.backbone == backbone
    assert {key: getattr(config, key) for key in expected} == expected


@pytest.mark.parametrize(("channels", "convs"), [(32, 1), (64, 3), (256, 4)])
def test_tower_width_and_depth_are_inferred(channels: int, convs: int, read: Callable[..., Converted]) -> None:
    config = read(theirs("detectron2", shapes_of(channels=channels, convs=convs))).artifact.config
    assert (config.channels, config.convs, config.groups) == (channels, convs, 32)


@pytest.mark.parametrize("backbone", ["resnet152", "resnext50_32x4d", "wide_resnet50_2", "resnet26"])
def test_unsupported_resnets_are_refused(backbone: str, read: Callable[..., Converted]) -> None:
    with pytest.raises(ModelError, match="unknown backbone: blocks per stage") as caught:
        read(theirs("detectron2", shapes_of(backbone=backbone)))
    assert "resnet50" in str(caught.value.remedy)


# classes


def test_91_torchvision_rows_become_80_classes(read: Callable[..., Converted]) -> None:
    state = ours(classes=91)
    layer = torch.arange(91.0)
    found = read({**state, f"{LAYER}.bias": layer}).artifact
    assert len(found.classes) == 80
    assert found.weights[f"{LAYER}.bias"].tolist() == [float(i) for i in found.classes.ids]
    table = dict(zip(found.classes.ids, found.classes.names, strict=True))
    assert (table[1], table[13], table[90]) == ("person", "stop sign", "toothbrush")  # 12 is no class
    assert 12 not in table


@pytest.mark.parametrize(
    ("family", "rows", "names", "ids", "kept"),
    [
        ("torchvision", 4, ["a", "b", "c"], (1, 2, 3), [1, 2, 3]),
        ("torchvision", 4, ["background", "a", "b", "c"], (0, 1, 2, 3), [0, 1, 2, 3]),
        ("detectron2", 3, ["a", "b", "c"], (1, 2, 3), [0, 1, 2]),
    ],
)
def test_class_names_can_be_given(
    family: str, rows: int, names: list[str], ids: tuple[int, ...], kept: list[int], read: Callable[..., Converted]
) -> None:
    state = ours(classes=rows)
    found = read(theirs(family, state), names=names).artifact
    assert (list(found.classes.names), found.classes.ids) == (names, ids)
    assert torch.equal(found.weights[f"{LAYER}.weight"], state[f"{LAYER}.weight"][kept])


@pytest.mark.parametrize("space", [" ", "_"])
def test_cocos_names_in_a_file_have_cocos_ids(read: Callable[..., Converted], space: str) -> None:
    names = tuple(name.replace(" ", space) for name in coco_classes().names)
    _, state = made("mmdet-tricks")
    found = read({"state_dict": state, "meta": {"CLASSES": names}}, preset="mmdet-tricks").artifact.classes
    assert (found.names, found.ids) == (names, coco_classes().ids)
    mixed = (*names[1:], names[0])
    found = read({"state_dict": state, "meta": {"CLASSES": mixed}}, preset="mmdet-tricks").artifact.classes
    assert (found.names, found.ids) == (mixed, tuple(range(1, 81)))


@pytest.mark.parametrize(
    ("family", "rows", "names", "message"),
    [
        ("detectron2", 3, None, "does not name its classes"),
        ("torchvision", 80, None, "does not name its classes"),
        ("detectron2", 3, ["a", "b"], "2 class names for 3 rows"),
        ("torchvision", 3, ["a"], "1 class names for 3 rows"),
        ("detectron2", 91, "coco", "COCO needs 80 rows in the class layer, but the file has 91"),
    ],
)
def test_missing_or_mismatched_class_names_are_refused(
    family: str, rows: int, names: Any, message: str, read: Callable[..., Converted]
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read(theirs(family, shapes_of(classes=rows)), names=names)
    assert "--classes names.txt" in str(caught.value.remedy)


def test_class_names_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\ufeffcat\n\n  traffic light \nÄpfel\n", encoding="utf-8")
    assert read_names(str(tmp_path / "names.txt")) == ["cat", "traffic light", "Äpfel"]
    assert (read_names("coco"), read_names(None)) == ("coco", None)
    for text, message in (("a\nb\na\n", "duplicate class name 'a'"), ("\n", "no class names")):
        (tmp_path / "names.txt").write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=message):
            read_names(str(tmp_path / "names.txt"))
    with pytest.raises(UsageError, match="cannot be read"):
        read_names(str(tmp_path / "gone.txt"))


# misfitting tensors


def test_all_misfitting_tensors_are_listed_by_their_file_names(read: Callable[..., Converted]) -> None:
    state = theirs("detectron2", shapes_of())
    gone = ["head.ctrness.bias", *(f"head.bbox_subnet.3.{part}" for part in ("weight", "bias"))]
    extra = [f"head.mask.{i}.weight" for i in range(12)] + ["backbone.bottom_up.res2.0.conv7.weight"]
    state = {key: value for key, value in state.items() if key not in gone}
    state |= {key: torch.zeros(3) for key in extra} | {"head.bbox_pred.weight": torch.zeros(8, 32, 3, 3)}
    with pytest.raises(ModelError, match="3 missing, 13 unknown, 1 misshapen") as caught:
        read(state)
    details = caught.value.details
    assert str(caught.value.where).endswith("theirs.pth")
    assert all(any(line.startswith(f"  {key} [") for line in details) for key in (*gone, *extra))
    assert "  head.bbox_pred.weight [8, 32, 3, 3], expected [4, 32, 3, 3]" in details
    assert caught.value.exit_code == 4
    assert [line for line in details if not line.startswith(" ")] == ["missing (3):", "unknown (13):", "misshapen (1):"]


@pytest.mark.parametrize("family", ["torchvision", "fcos", "adelaidet", "detectron2", "mmdet"])
def test_missing_or_renamed_tensor_is_named_in_every_family(family: str, read: Callable[..., Converted]) -> None:
    state = theirs(family, shapes_of(scales=family in ("fcos", "mmdet"), classes=91 if family == "torchvision" else 80))
    choice = PRESETS.keys() & {"fcos-v1", "adelaidet", "mmdet-tricks"}
    preset = next((name for name in sorted(choice) if name.startswith(family)), None)
    victim = next(key for key in state if "layer2.0.conv1" in key or "res3.0.conv1" in key)
    value = state.pop(victim)
    with pytest.raises(ModelError, match="1 missing") as caught:
        read(state, preset=preset)
    assert victim in str(caught.value.details)
    with pytest.raises(ModelError, match="1 missing, 1 unknown") as caught:
        read({**state, f"{victim}_": value}, preset=preset)
    assert f"{victim}_ [128, 64, 3, 3]" in str(caught.value.details)


def test_tensor_under_two_names_is_refused(read: Callable[..., Converted]) -> None:
    state = shapes_of(classes=91)
    old = "backbone.fpn.inner_blocks.0.weight"
    with pytest.raises(ModelError, match="1 unknown") as caught:
        read({**state, old: state["backbone.fpn.inner_blocks.0.0.weight"]})
    assert old in str(caught.value.details)


def test_towers_with_only_some_biases_are_refused(read: Callable[..., Converted]) -> None:
    state = theirs("mmdet", shapes_of(scales=True))
    del state["bbox_head.cls_convs.1.conv.bias"]
    with pytest.raises(ModelError, match="1 missing"):
        read(state, preset="mmdet-tricks")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["head.cls_subnet.1.running_mean", "head.cls_subnet.1.running_var"], "towers with BatchNorm"),
        (["backbone.body.base_layer.0.weight"], "DLA"),
        (["backbone.bottom_up.base.level2.tree1.conv1.weight"], "DLA"),
        (["backbone.bottom_up.stage2.OSA2_1.layers.0.OSA2_1_0/conv.weight"], "VoVNet"),
        (["backbone.bottom_up.features.0.0.weight"], "MobileNet"),
        (["fcos_body.head.cls_logits.weight"], "VectXmy"),
    ],
)
def test_unsupported_networks_are_refused(keys: list[str], message: str, read: Callable[..., Converted]) -> None:
    state = theirs("detectron2", shapes_of()) | {key: torch.zeros(1) for key in keys}
    with pytest.raises(ModelError, match=message) as caught:
        read(state)
    assert all(key in str(caught.value.details) for key in keys)


def test_three_levels_are_recognized_in_files_of_adelaidet_only(read: Callable[..., Converted]) -> None:
    state = {key: value for key, value in shapes_of(scales=True).items() if "extra_blocks" not in key}
    with pytest.raises(ModelError, match="4 missing"):  # it has five scales, so levels are missing
        read(theirs("adelaidet", state), preset="adelaidet")
    state = {key: value for key, value in state.items() if key not in (f"{SCALES}3", f"{SCALES}4")}
    assert read(theirs("adelaidet", state), preset="adelaidet").artifact.config.strides == (8, 16, 32)
    for family, preset in (("fcos", "fcos-imprv"), ("mmdet", "mmdet-tricks")):
        with pytest.raises(ModelError, match="6 missing") as caught:
            read(theirs(family, state), preset=preset)
        assert "three levels" in str(caught.value.remedy)


def test_p6_from_c5_is_recognized(read: Callable[..., Converted]) -> None:
    state, p6 = ours(top_from="c5"), "backbone.fpn.extra_blocks.p6.weight"
    assert state[p6].shape == (32, 512, 3, 3)
    found = read(theirs("detectron2", state)).artifact
    assert found.config.top_from == "c5"
    assert torch.equal(
        found.weights["backbone.fpn.extra_blocks.p6.weight"], state["backbone.fpn.extra_blocks.p6.weight"]
    )
    assert read(theirs("detectron2", shapes_of())).artifact.config.top_from == "p5"


@pytest.mark.parametrize("family", ["fcos", "mmdet"])
def test_towers_with_one_batch_norm_for_all_levels_are_recognized(family: str, read: Callable[..., Converted]) -> None:
    state = ours(scales=True, norm="batch")
    foreign = theirs(family, {key: value for key, value in state.items() if "num_batches_tracked" not in key})
    foreign = {re.sub(r"\.gn\.", ".bn.", key): value for key, value in foreign.items()}
    found = read(foreign, preset={"fcos": "fcos-imprv", "mmdet": "mmdet-tricks"}[family]).artifact
    assert found.config.norm == "batch"
    for key in ("classification", "regression"):
        name = f"head.{key}_head.conv.4.running_var"
        assert torch.equal(found.weights[name], state[name])
    assert not found.build().training


def test_other_detector_is_recognized(read: Callable[..., Converted]) -> None:
    state = {key: value for key, value in theirs("detectron2", shapes_of()).items() if "ctrness" not in key}
    with pytest.raises(ModelError, match="2 missing") as caught:
        read(state)
    assert "is not FCOS" in str(caught.value.remedy)


def test_channels_must_be_a_multiple_of_the_groups(read: Callable[..., Converted]) -> None:
    with pytest.raises(ModelError, match="multiple of groups"):
        read(theirs("detectron2", shapes_of(channels=48, groups=16)))


def test_backbone_without_a_head_is_refused(read: Callable[..., Converted]) -> None:
    state = {key: value for key, value in hollow(ours()).items() if key.startswith("backbone.body.")}
    with pytest.raises(ModelError, match="match no known FCOS") as caught:
        read(state)
    assert "backbone.body.bn1.bias" in str(caught.value.details)
