"""`fcos verify` as a command: what passes, what differs, what has no vectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fcos_cli.parity import check
from fcos_cli.parity.check import find_exported
from fcos_cli.resources import ASSETS
from fcos_cli.runtime.headers import read_header
from tests.cli_runner import Fcos
from tests.runtime.onnx_files import FACTS, write_onnx

DEFAULT = ASSETS / "default.onnx"


def changed(path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """The bundled detector with a change."""
    model = onnx.load(DEFAULT)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def damage_expected(model: onnx.ModelProto) -> None:
    (entry,) = (entry for entry in model.metadata_props if entry.key == "vectors")
    content = json.loads(entry.value)
    content["pictures"][1]["detections"][0][0] += 0.1
    entry.value = json.dumps(content)


def change_weight(model: onnx.ModelProto) -> None:
    """One of the million weights, of a convolution in the middle."""
    tensor = max(model.graph.initializer, key=lambda tensor: numpy_helper.to_array(tensor).size)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[values.size // 2] += 2
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def test_the_bundled_detector_passes(fcos: Fcos) -> None:
    result = fcos("verify", "--json")
    assert result.code == 0
    assert result.document["passed"]
    assert (result.document["backend"], result.document["device"]) == ("onnxruntime", "cpu")
    assert [row["times"] for row in result.document["end_to_end"]["pictures"]] == [2, 2, 2]
    assert "the same as PyTorch on 3 images" in result.err
    assert "largest box difference" in result.err


@pytest.mark.parametrize(("change", "words"), [(damage_expected, "0.1 px off"), (change_weight, "do not match|differ")])
def test_other_results_are_exit_code_5(fcos: Fcos, tmp_path: Path, change: Any, words: str) -> None:
    result = fcos("verify", changed(tmp_path / "x.onnx", change), "--json")
    assert result.code == 5
    assert not result.document["passed"]
    assert "this machine gives different results from PyTorch" in result.err
    assert any(word in result.err for word in words.split("|"))


def test_a_file_without_vectors_is_exit_code_4(fcos: Fcos, tmp_path: Path) -> None:
    result = fcos("verify", write_onnx(tmp_path / "x.onnx"))
    assert (result.code, result.out) == (4, "")
    assert "no test vectors" in result.err
    assert "fcos export" in result.err


def test_damaged_vectors_are_exit_code_4(fcos: Fcos, tmp_path: Path) -> None:
    vectors = read_header(DEFAULT).facts.vectors[:1000]
    result = fcos("verify", write_onnx(tmp_path / "x.onnx", facts=replace(FACTS, vectors=vectors)))
    assert result.code == 4
    assert result.err.count("error: ") == 1


def test_weights_are_exit_code_4_and_the_remedy_names_the_export(fcos: Fcos, model_file: Path, tmp_path: Path) -> None:
    assert "fcos export" in fcos("verify", model_file).err
    (tmp_path / "run").mkdir()
    weights = tmp_path / "run/best.safetensors"
    weights.write_bytes(model_file.read_bytes())
    weights.with_suffix(".onnx").touch()
    result = fcos("verify", weights)
    assert result.code == 4
    assert "fcos verify " in result.err


def test_a_run_folder_means_its_export(fcos: Fcos, tmp_path: Path) -> None:
    (tmp_path / "best.onnx").write_bytes(DEFAULT.read_bytes())
    assert fcos("verify", tmp_path).code == 0


def test_weights_that_would_be_downloaded_are_refused_before(fcos: Fcos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "find_artifact", lambda *_: pytest.fail("downloaded"))
    result = fcos("verify", "coco")
    assert result.code == 4
    assert "fcos export coco, then fcos verify" in " ".join(result.err.split())


def test_a_name_comes_before_a_folder_of_this_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "default").mkdir()
    (tmp_path / "default/best.onnx").touch()
    monkeypatch.chdir(tmp_path)
    assert find_exported("default") == DEFAULT


def test_saved_vectors_are_the_inputs_and_expected_boxes(fcos: Fcos, tmp_path: Path) -> None:
    from fcos_cli.runtime.open import open_detector

    assert fcos("verify", "--save", tmp_path / "vectors").code == 0
    content = json.loads((tmp_path / "vectors/vectors.json").read_text())
    assert len(content["vectors"]) == 3
    assert (content["precision"], content["tolerance"]["max_px"], content["tolerance"]["matched"]) == ("fp32", 0.05, 1)
    assert {"person", "cat"} < {row["name"] for row in content["classes"]}
    detector = open_detector("default")
    for entry in content["vectors"]:
        pixels = np.fromfile(tmp_path / "vectors" / entry["file"], entry["dtype"]).reshape(1, *entry["shape"])
        found = detector(pixels)
        assert found.counts[0] == len(entry["boxes"]) == len(entry["scores"]) > 50
        np.testing.assert_allclose(found.boxes[0, : found.counts[0]], entry["boxes"], atol=0.05)
        assert found.classes[0, : found.counts[0]].tolist() == entry["classes"]


def test_wrong_flags_are_exit_code_2(fcos: Fcos, tmp_path: Path) -> None:
    assert fcos("verify", "default", "--backend", "nonsense").code == 2
    (tmp_path / "file").touch()
    assert fcos("verify", "default", "--save", tmp_path / "file").code == 2
