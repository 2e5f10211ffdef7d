"""int8 export: which layers are quantized for which target, and that the error stays small."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fcos_cli.export import quantize as module
from fcos_cli.export.onnx import finalize, trace, write
from fcos_cli.export.options import ExportOptions
from fcos_cli.export.quantize import backbone_and_head_nodes, float_candidates, fold, quantize, relative_error
from fcos_cli.export.sample_images import network_inputs
from fcos_cli.model.config import STRIDES
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.graph_io import output_names, raw_names
from fcos_cli.runtime.open import open_detector
from fcos_cli.runtime.pytorch import facts_of
from tests.tiny import tiny_artifact

pytestmark = pytest.mark.slow

ARTIFACT = tiny_artifact()
OPTIONS = ExportOptions(precision="int8", size=(160, 160))
FACTS = OPTIONS.apply(facts_of(ARTIFACT))
PICTURES = network_inputs(demo_photos(), FACTS.resize)


@pytest.fixture(scope="module")
def traced() -> bytes:
    return bytes(trace(ARTIFACT, FACTS, OPTIONS).SerializeToString())


def fresh(traced: bytes) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(traced)


def test_backbone_and_head_are_the_nodes_behind_the_raw_outputs(traced: bytes, tmp_path: Path) -> None:
    folded = fold(fresh(traced), tmp_path)
    kinds = Counter(node.op_type for node in backbone_and_head_nodes(folded))
    assert kinds["Conv"] == Counter(node.op_type for node in folded.graph.node)["Conv"]
    assert kinds["TopK"] == kinds["NonMaxSuppression"] == 0
    assert [entry.domain for entry in folded.opset_import] == [""]


def test_the_first_and_last_convolutions_are_found(traced: bytes, tmp_path: Path) -> None:
    folded = fold(fresh(traced), tmp_path)
    found = float_candidates(folded)
    assert [len(nodes) for nodes in found.values()] == [1, 5, 5]
    by_name = {node.name: node for node in folded.graph.node}
    weights = {t.name: list(t.dims) for t in folded.graph.initializer}
    channels = {group: {weights[by_name[n].input[1]][0] for n in nodes} for group, nodes in found.items()}
    assert channels["the class logits"] == {len(ARTIFACT.classes)}
    assert channels["the distances"] == {4}


@pytest.mark.parametrize(("target", "kind"), [("cpu", np.uint8), ("tensorrt", np.int8)])
def test_each_target_gets_its_own_recipe(
    traced: bytes, target: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "float_candidates", lambda _: {})  # covered by another test
    messages: list[str] = []
    proto = quantize(fresh(traced), PICTURES, target=target, say=messages.append)  # type: ignore[arg-type]
    initial = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    quantized = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    points = [initial[node.input[2]] for node in quantized]
    assert {point.dtype.type for point in points} == {kind}
    if target == "tensorrt":  # symmetric, and no bias is quantized
        assert all(int(point) == 0 for point in points)
        assert np.int32 not in {value.dtype.type for name, value in initial.items() if "bias" in name}
    makers = {name: node.op_type for node in proto.graph.node for name in node.output}
    convs = [node for node in proto.graph.node if node.op_type == "Conv"]
    assert all(makers[node.input[0]] == makers[node.input[1]] == "DequantizeLinear" for node in convs)
    assert set(raw_names(STRIDES)) <= set(makers)

    write(finalize(proto, outputs=output_names("op")), tmp_path / "model.onnx", FACTS)
    detector = open_detector(tmp_path / "model.onnx")
    assert detector.precision == "int8"
    assert detector(PICTURES[0]).boxes.shape == (1, 100, 4)
    assert len(messages) == 1


def test_inputs_of_norms_stay_in_float_for_openvino(traced: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "float_candidates", lambda _: {})

    def consumers(between: bool) -> Counter[str]:
        """Kinds of nodes that use the outputs of convolutions."""
        proto = quantize(fresh(traced), PICTURES[:1], target="cpu", between=between)
        makers = {name: node for node in proto.graph.node for name in node.output}
        convs = [node for node in proto.graph.node if node.op_type == "Conv"]
        assert all(makers[node.input[0]].op_type == "DequantizeLinear" for node in convs)
        users = [
            node
            for node in proto.graph.node
            for name in node.input
            if getattr(makers.get(name), "op_type", 0) == "Conv"
        ]
        return Counter(node.op_type for node in users)

    with_between, without = consumers(True), consumers(False)
    assert set(with_between) == {"QuantizeLinear"}
    assert without["Reshape"] == 10  # GroupNorm: two towers of one norm, five levels


def test_first_and_last_layers_stay_in_float_only_if_the_error_shrinks(
    traced: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = len([n for n in fresh(traced).graph.node if n.op_type == "Conv"])

    def floats(ratio: float) -> int:
        monkeypatch.setattr(module, "FLOAT_ERROR_RATIO", ratio)
        proto = quantize(fresh(traced), PICTURES[:1], target="cpu")
        makers = {name: node.op_type for node in proto.graph.node for name in node.output}
        return sum(
            makers.get(node.input[0]) != "DequantizeLinear" or makers.get(node.input[1]) != "DequantizeLinear"
            for node in proto.graph.node
            if node.op_type == "Conv"
        )

    assert floats(0.0) == 0
    assert 0 < floats(1e9) <= 11 < whole


def test_relative_error() -> None:
    reference = [[np.array([3.0, 4.0], np.float32), np.array([1.0], np.float32)]]
    outputs = [[np.array([3.0, 4.5], np.float32), np.array([1.0], np.float32)]]
    assert relative_error(reference, reference) == 0
    assert relative_error(outputs, reference) == pytest.approx(0.05)  # 0.5 of 5 in one branch of two
