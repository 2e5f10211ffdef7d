"""fcos info."""

from pathlib import Path

from fcos_cli.model.artifact import load
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
