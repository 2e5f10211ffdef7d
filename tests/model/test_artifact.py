"""Artifacts: round trips, and errors for truncated or foreign files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fcos_cli.errors import FcosError, ModelError
from fcos_cli.model.artifact import FORMAT_VERSION, Artifact, load, save
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.config import FINE_STRIDES, STRIDES, ModelConfig
from fcos_cli.model.conventions import Conventions
from fcos_cli.runtime.open import default_weights
from tests.tiny import tiny_artifact, tiny_model

BIAS = "head.classification_head.cls_logits.bias"


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return tiny_artifact()


@pytest.fixture
def path(tmp_path: Path, artifact: Artifact) -> Path:
    save(tmp_path / "model.safetensors", artifact)
    return tmp_path / "model.safetensors"


def change_metadata(path: Path, **facts: str | None) -> None:
    """Rewrite the file with some metadata replaced (None: removed)."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | facts
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    save_file(weights, path, metadata={key: value for key, value in metadata.items() if value is not None})


def test_artifact_round_trip(tmp_path: Path) -> None:
    conventions = Conventions(
        point_offset=0.0,
        range_ends="closed",
        radius=0.0,
        activation="exp",
        stride_normalised=False,
        scales=True,
        centerness_on="class",
        score="product",
    )
    model = tiny_model(classes=2, conventions=conventions, mean=(1.0, 2.5, 3.0), std=(4.0, 5.0, 6.0), nms_iou=0.55)
    original = Artifact(
        weights=model.state_dict(),
        config=model.config,
        classes=ClassTable(("Ünïcode name", "b"), (90, 7)),
        geometry={"mode": "shortest", "size": [64, 128], "divisor": 32, "pad_value": 0},
        threshold=0.125,
        class_thresholds=(0.1, 0.9),
        provenance={"data": {"name": "x"}, "metrics": {"AP": 0.5}},
    )
    save(tmp_path / "deeper" / "m.safetensors", original)
    found = load(tmp_path / "deeper" / "m.safetensors")
    assert replace(found, weights={}) == replace(original, weights={})
    assert found.weights.keys() == original.weights.keys()
    assert all(torch.equal(found.weights[key], weight) for key, weight in original.weights.items())
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        for a, b in zip(model.detect(images), found.build().detect(images), strict=True):
            assert torch.equal(a, b)


def test_strides_are_stored(tmp_path: Path) -> None:
    model = tiny_model(strides=FINE_STRIDES, conventions=Conventions(scales=True))
    save(tmp_path / "m.safetensors", tiny_artifact(weights=model.state_dict(), config=model.config))
    found = load(tmp_path / "m.safetensors")
    assert found.config == model.config
    images = torch.randint(0, 256, (1, 3, 70, 90), dtype=torch.uint8)
    with torch.inference_mode():
        for a, b in zip(model.detect(images), found.build().detect(images), strict=True):
            assert torch.equal(a, b)


def test_a_file_from_before_strides_were_a_setting_has_8_to_128(path: Path, artifact: Artifact) -> None:
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["model"])
    assert tuple(facts.pop("strides")) == STRIDES
    change_metadata(path, model=json.dumps(facts))
    found = load(path)
    assert found.config == artifact.config
    assert found.build().state_dict().keys() == artifact.weights.keys()


def test_the_bundled_detector_still_loads() -> None:
    found = load(default_weights())
    assert found.config.strides == STRIDES
    found.build()


def test_metadata_is_json(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        facts = {key: json.loads(value) for key, value in file.metadata().items()}
    assert facts["format_version"] == FORMAT_VERSION
    assert facts["classes"] == [{"id": 1, "name": "circle"}, {"id": 2, "name": "square"}, {"id": 3, "name": "triangle"}]
    assert facts["thresholds"] == {"global": 0.06, "per_class": None}
    assert facts["conventions"]["score"] == "sqrt"
    assert facts.keys() >= {"model", "geometry", "provenance"}


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path: Path, artifact: Artifact) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save(whole, artifact)
    save(half, artifact, half=True)
    bare = [file.stat().st_size - int.from_bytes(file.read_bytes()[:8], "little") for file in (whole, half)]
    assert bare[1] == pytest.approx(bare[0] / 2, rel=0.01)
    found = load(half)
    for key, weight in artifact.weights.items():
        assert found.weights[key].dtype == weight.dtype
        torch.testing.assert_close(found.weights[key], weight, rtol=1e-3, atol=1e-4)
    assert found.build().head.classification_head.cls_logits.weight.dtype == torch.float32


def test_weights_with_shared_memory_or_channels_last_are_saved(tmp_path: Path, artifact: Artifact) -> None:
    model = artifact.build().to(memory_format=torch.channels_last)
    shared = artifact.weights | model.state_dict()
    shared["head.classification_head.conv.0.weight"] = shared["head.regression_head.conv.0.weight"]
    save(tmp_path / "m.safetensors", replace(artifact, weights=shared))
    key = "head.regression_head.conv.0.weight"
    assert torch.equal(load(tmp_path / "m.safetensors").weights[key], artifact.weights[key])


def test_thresholds_can_be_set_later(artifact: Artifact) -> None:
    changed = artifact.with_thresholds(0.4, (0.1, 0.2, 0.3))
    assert (changed.threshold, changed.class_thresholds) == (0.4, (0.1, 0.2, 0.3))
    assert changed.weights is artifact.weights
    assert artifact.class_thresholds is None


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file") as caught:
        load(tmp_path / "gone.safetensors")
    assert caught.value.where == str(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1], ids=str)
def test_truncated_file_is_named(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match="not a readable") as caught:
        load(path)
    assert caught.value.where == str(path)


def test_file_of_another_kind_is_named(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "model.pth")
    (tmp_path / "text.safetensors").write_text("hello " * 100)
    for name in ("model.pth", "text.safetensors"):
        with pytest.raises(ModelError, match="not a readable") as caught:
            load(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_foreign_safetensors_is_recognized(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata=metadata)
    with pytest.raises(ModelError, match="lacks the fact") as caught:
        load(path)
    assert caught.value.where == str(path)
    assert "not written by fcos" in str(caught.value.remedy)


def test_newer_format_version_asks_for_an_upgrade(path: Path) -> None:
    change_metadata(path, format_version=str(FORMAT_VERSION + 1))
    with pytest.raises(ModelError, match=f"version {FORMAT_VERSION + 1}.*up to {FORMAT_VERSION}") as caught:
        load(path)
    assert "newer version" in str(caught.value.remedy)


def test_newer_format_version_is_reported_before_unknown_metadata(path: Path) -> None:
    change_metadata(path, format_version=str(FORMAT_VERSION + 1), thresholds=None, classes=None)
    with pytest.raises(ModelError, match="format version"):
        load(path)


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        ("format_version", "one"),
        ("format_version", '"one"'),
        ("model", "{"),
        ("model", '{"backbone": "resnet18", "wings": 2}'),
        ("model", "[]"),
        ("model", '{"strides": [8, 16]}'),
        ("conventions", '{"score": "cube"}'),
        ("classes", '[{"id": "x", "name": "a"}]'),
        ("classes", '[{"name": "a"}]'),
        ("classes", '[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]'),
        ("classes", "7"),
        ("thresholds", "{}"),
        ("thresholds", '{"global": "high", "per_class": null}'),
        ("thresholds", '{"global": 0.3, "per_class": [0.1]}'),
        ("thresholds", "[]"),
        ("geometry", None),
        ("geometry", "[1]"),
        ("provenance", "{"),
    ],
)
def test_invalid_metadata_is_a_model_error_naming_the_file(path: Path, fact: str, text: str | None) -> None:
    change_metadata(path, **{fact: text})
    with pytest.raises(ModelError) as caught:
        load(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({BIAS: None}, f"missing {BIAS}"),
        ({"head.extra": torch.zeros(1)}, "unknown head.extra"),
        ({BIAS: torch.zeros(4)}, rf"{BIAS}: shape \(4,\), expected \(3,\)"),
    ],
)
def test_misfitting_weights_are_named(artifact: Artifact, change: dict[str, torch.Tensor], message: str) -> None:
    weights = {key: value for key, value in (artifact.weights | change).items() if value is not None}
    with pytest.raises(ModelError, match=message):
        replace(artifact, weights=weights).build()


def test_only_some_of_many_misfitting_weights_are_named(artifact: Artifact) -> None:
    with pytest.raises(ModelError, match=r"and \d+ more"):
        replace(artifact, weights={}).build()


def test_failed_write_keeps_the_existing_file(path: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fcos_cli.atomic.os.fsync", fail)
    with pytest.raises(FcosError, match="No space left"):
        save(path, replace(artifact, threshold=0.9))
    monkeypatch.setattr("fcos_cli.model.artifact.to_bytes", fail)
    with pytest.raises(FcosError, match="No space left"):
        save(path, replace(artifact, threshold=0.9))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_saving_leaves_no_temporary_file(path: Path) -> None:
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_equal_configs_build_networks_with_equal_keys(artifact: Artifact) -> None:
    again = ModelConfig.model_validate(artifact.config.model_dump(mode="json"))
    assert again == artifact.config
    assert tiny_model().state_dict().keys() == artifact.weights.keys()


def test_backbone_unknown_to_timm_is_a_model_error(artifact: Artifact) -> None:
    unknown = replace(artifact, config=artifact.config.model_copy(update={"backbone": "resnet5000"}))
    with pytest.raises(ModelError, match="resnet5000"):
        unknown.build()
