"""Models with deformable convolutions from checkpoint to exported file, and the formats that have none."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.helper import make_node as node
from safetensors.torch import save_file

from fcos_cli.convert import backbones
from fcos_cli.errors import ModelError
from fcos_cli.export import run
from fcos_cli.export.deformable import offset_convolutions
from fcos_cli.export.openvino import write_openvino
from fcos_cli.export.options import make_options
from fcos_cli.export.tensorrt.graph_check import check_graph
from fcos_cli.model.artifact import save
from fcos_cli.runtime.detector import detect_batch
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.open import open_detector
from tests.cli_runner import Fcos
from tests.small_resnets import BY_SHAPE
from tests.tiny import tiny_artifact, tiny_model

sys.path.insert(0, str(Path(__file__).parent.parent / "vectors"))  # its scripts are not a package

from deformable import SMALL, keys
from seeded import seeded_state

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "cat.jpg"


@pytest.mark.slow
def test_checkpoint_becomes_verified_files_of_onnx_runtime_and_openvino(
    fcos: Fcos, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shape, info in BY_SHAPE.items():
        monkeypatch.setitem(backbones._BACKBONES, shape, info)
    state = seeded_state(keys(SMALL["small-fcos"]))
    state["backbone.body.stem.conv1.weight"] /= 60  # taps move by about a pixel for images of 0…255, as if trained
    save_file(state, "theirs.safetensors")
    converted = fcos("convert", "theirs.safetensors", "--preset", "fcos-imprv", "--out", "m.safetensors")
    assert converted.code == 0, converted.err
    assert "deformable convolutions: layer2, layer3, layer4 and the last of each tower" in converted.err
    model = fcos("info", "m.safetensors", "--json").document["model"]
    assert (model["deformable_stages"], model["deformable_tower"]) == ([2, 3, 4], True)
    exported = fcos("export", "m.safetensors", "--out", "m.onnx", "--size", "160", "--batch", "1")
    assert exported.code == 0, exported.err
    assert read_header(Path("m.onnx")).facts.verified
    assert sum(entry.op_type == "DeformConv" for entry in onnx.load("m.onnx").graph.node) == 4 + 2 * 5  # 5 levels
    predicted = fcos("predict", PHOTO, "--model", "m.onnx", "--json")
    assert predicted.code == 0, predicted.err
    assert_same_detections("m.safetensors", "m.onnx")
    pytest.importorskip("openvino")
    assert_same_detections("m.safetensors", "m.onnx", backend="openvino")
    write_openvino(Path("m.onnx"), Path("m.xml"), read_header(Path("m.onnx")).facts)
    assert 'type="DeformableConvolution"' in Path("m.xml").read_text(encoding="utf-8")
    assert_same_detections("m.safetensors", "m.xml")


def assert_same_detections(weights: str, exported: str, **options: Any) -> None:
    expected, found = open_detector(Path(weights), device="cpu"), open_detector(Path(exported), **options)
    pictures = [np.random.default_rng(7).integers(0, 256, (90, 120, 3), np.uint8)]
    batch = found.facts.resize.batch(pictures)
    ours, theirs = detect_batch(expected, *batch)[0], detect_batch(found, *batch)[0]
    assert len(theirs) == len(ours) > 20
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)
    for box, kind in list(zip(theirs.boxes, theirs.classes, strict=True))[: len(ours) * 3 // 4]:
        same = ours.boxes[ours.classes == kind]  # nearly equal scores may change places
        assert np.abs(same - box).max(axis=1).min() < 0.05


@pytest.mark.parametrize("format_", ["trt", "trt-rtx"])
def test_tensorrt_is_refused_before_anything_is_written(format_: str, tmp_path: Path) -> None:
    model = tiny_model(deformable_tower=True)
    save(tmp_path / "m.safetensors", tiny_artifact(weights=model.state_dict(), config=model.config))
    job = run.ExportJob(make_options(format_), tmp_path / "m.engine")
    with pytest.raises(ModelError, match="TensorRT has no layer for the deformable convolutions") as caught:
        run.export(tmp_path / "m.safetensors", job)
    assert "ONNX Runtime" in str(caught.value.remedy)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def graph(path: Path) -> onnx.ModelProto:
    """A convolution, then a deformable one whose offsets and masks come from a second, and then a third."""
    shapes = {"w1": (4, 3, 3, 3), "w2": (27, 4, 3, 3), "w3": (5, 4, 3, 3), "w4": (2, 5, 1, 1)}
    weights = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in shapes.items()]
    parts = numpy_helper.from_array(np.array([18, 9]), "parts")
    nodes = [
        node("Conv", ["images", "w1"], ["a"], "first", pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"], "relu"),
        node("Conv", ["b", "w2"], ["c"], "offsets", pads=[1, 1, 1, 1]),
        node("Split", ["c", "parts"], ["d", "e"], "split", axis=1),
        node("Sigmoid", ["e"], ["f"], "sigmoid"),
        node("DeformConv", ["b", "w3", "d", "", "f"], ["g"], "moved", pads=[1, 1, 1, 1]),
        node("Conv", ["g", "w4"], ["out"], "last"),
    ]
    value, kind = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    ends = [value("images", kind, [1, 3, 8, 8])], [value("out", kind, [1, 2, 8, 8])]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", *ends, [*weights, parts]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, str(path))
    return proto


def test_convolutions_that_give_offsets_are_found_and_stay_in_float(tmp_path: Path) -> None:
    assert offset_convolutions(graph(tmp_path / "g.onnx")) == ["offsets"]


@pytest.mark.parametrize("flavour", ["trt", "trt-rtx"])
def test_an_onnx_file_with_such_a_layer_cannot_become_an_engine(flavour: Any, tmp_path: Path) -> None:
    model = graph(tmp_path / "g.onnx")
    with pytest.raises(ModelError, match="cannot build DeformConv 'moved': there is no layer") as caught:
        check_graph(model, tmp_path / "g.onnx", flavour)
    assert "ONNX Runtime" in str(caught.value.remedy)
