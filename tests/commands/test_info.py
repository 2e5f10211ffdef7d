"""fcos info."""

from pathlib import Path

import pytest
import torch

from fcos_cli.model.artifact import load
from fcos_cli.runtime import speed
from tests.cli_runner import Fcos


def test_model_file_as_json_and_as_table(fcos: Fcos, model_file: Path) -> None:
    document = fcos("info", model_file, "--json").document
    assert document["schema_version"] == 1
    assert document["file"] == str(model_file)
    assert [row["name"] for row in document["classes"]] == ["circle", "square", "triangle"]
    assert document["geometry"]["size"] == [64, 64]
    assert document["parameters"] == sum(weight.numel() for weight in load(model_file).weights.values())
    assert document["conventions"]["score"] == "sqrt"
    result = fcos("info", model_file)
    assert (result.code, result.out) == (0, "")
    assert "triangle" in result.err
    assert "model.backbone" in result.err


def test_exported_model(fcos: Fcos, exported: Path) -> None:
    document = fcos("info", exported, "--json").document
    assert (document["format"], document["precision"], document["limits"]["score"]) == ("onnx", "fp32", 0.05)
    assert "triangle" in fcos("info", exported).err


def test_network_by_name(fcos: Fcos) -> None:
    document = fcos("info", "nano", "--json").document
    assert (document["network"], document["model"]["tower"], document["size"]) == ("nano", "separable", 320)
    assert (document["parameters"], document["macs"], document["speed"]) == (3281845, 974564608, None)
    result = fcos("info", "medium")
    assert (result.code, result.out) == (0, "")
    assert "5.91 M parameters" in result.err
    assert "7.50 G multiplications" in result.err
    assert "efficientnet_lite2" in result.err


def test_speed_is_measured_if_asked_for(fcos: Fcos, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    assert fcos("info", model_file, "--json").document["speed"] is None
    threads = torch.get_num_threads()
    try:
        document = fcos("info", model_file, "--speed", "--json").document
        result = fcos("info", model_file, "--speed")
    finally:
        torch.set_num_threads(threads)
    assert document["macs"] > 1e6  # this file does not store it
    assert (document["speed"]["backend"], document["speed"]["size"]) == ("pytorch", [64, 64])
    assert "ms per image of 64 x 64 (pytorch, fp32, 1 thread)" in result.err
    assert "multiplications" in result.err


def test_a_mistyped_name_is_answered_with_the_nearest(fcos: Fcos) -> None:
    Path("runs/cats").mkdir(parents=True)
    Path("photos.onnx").touch()
    for typed, meant in {
        "nanno": "nano",
        "defualt": "default",
        "runs/cat": str(Path("runs/cats")),
        "phots.onnx": "photos.onnx",
    }.items():
        result = fcos("info", typed)
        assert (result.code, f"did you mean {meant}?" in result.err) == (2 if meant == "nano" else 4, True), result.err
    for file in ("nowhere/at/all.onnx", "runs/small", "medium.onnx"):
        result = fcos("info", file)
        assert (result.code, "did you mean" in result.err) == (4, False), result.err
