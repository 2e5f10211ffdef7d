"""Winograd convolution in exported graphs: the same results, and only if it is faster."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import UsageError
from fcos_cli.export import run
from fcos_cli.export.options import make_options
from fcos_cli.export.winograd import strides_of, use_winograd
from fcos_cli.model.artifact import save
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.open import open_detector
from tests.tiny import tiny_artifact, tiny_model

pytestmark = pytest.mark.slow

Array = npt.NDArray[np.float32]
LARGE, SMALL = (64, 64), (16, 20)
PLAIN: dict[str, Any] = {"pads": [1, 1, 1, 1]}


def weights(outputs: int = 64, inputs: int = 128, kernel: int = 3, *, seed: int = 0) -> Array:
    shape = (outputs, inputs, kernel, kernel)
    return np.random.default_rng(seed).normal(0, 0.05, shape).astype(np.float32)


def graph_of(
    nodes: list[onnx.NodeProto], constants: dict[str, Array], outputs: list[str], *, channels: int = 128
) -> onnx.ModelProto:
    """Nodes from `x` [batch, channels, h, w] to `outputs`."""
    graph_input = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, "h", "w"])
    graph_outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [graph_input], graph_outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def single_convolution(weight: Array, *, bias: bool = True, **attributes: Any) -> onnx.ModelProto:
    """A single convolution, `x` → `y`."""
    constants = {"weight": weight} | ({"bias": np.linspace(-1, 1, len(weight), dtype=np.float32)} if bias else {})
    node = helper.make_node("Conv", ["x", *constants], ["y"], **attributes)
    return graph_of([node], constants, ["y"], channels=weight.shape[1] * attributes.get("group", 1))


def by_onnxruntime(proto: onnx.ModelProto, x: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": x}))


def by_openvino(proto: onnx.ModelProto, x: Array) -> list[Array]:
    openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    core = openvino.Core()
    model = core.compile_model(core.read_model(proto.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(model(x).to_tuple())


@pytest.mark.parametrize("run_it", [by_onnxruntime, by_openvino])
@pytest.mark.parametrize("bias", [True, False])
def test_it_matches_the_convolution_for_every_size_and_batch(run_it: Any, bias: bool) -> None:
    weight = weights()
    proto = single_convolution(weight, bias=bias, **PLAIN)
    bias_values = numpy_helper.to_array(proto.graph.initializer[1]).copy() if bias else None
    assert use_winograd(proto, size=LARGE) == 1
    onnx.checker.check_model(proto, full_check=True)
    assert proto.graph.output[0].name == "y"
    for shape in [(1, 20, 24), (2, 21, 19), (3, 22, 23), (1, 1, 90), (1, 50, 3), (2, 4, 4), (1, 1, 1)]:
        x = np.random.default_rng(1).normal(size=(shape[0], 128, *shape[1:])).astype(np.float32)
        (found,) = run_it(proto, x)
        exact = torch.nn.functional.conv2d(
            torch.from_numpy(x).double(),
            torch.from_numpy(weight).double(),
            None if bias_values is None else torch.from_numpy(bias_values).double(),
            padding=1,
        ).numpy()
        assert found.shape == exact.shape
        assert np.linalg.norm(found - exact) / np.linalg.norm(exact) < 3e-6


def test_the_convolution_is_replaced() -> None:
    proto = single_convolution(weights(), **PLAIN)
    use_winograd(proto, size=LARGE)
    assert not any(node.op_type == "Conv" for node in proto.graph.node)


@pytest.mark.parametrize(
    ("weight", "attributes", "size"),
    [
        (weights(inputs=64), PLAIN, (256, 256)),
        (weights(inputs=96), PLAIN, (20, 20)),
        (weights(outputs=32), PLAIN, LARGE),
        (weights(kernel=1), {}, LARGE),
        (weights(kernel=5), {"pads": [2, 2, 2, 2]}, LARGE),
        (weights(), {}, LARGE),
        (weights(), {"pads": [0, 0, 2, 2]}, LARGE),
        (weights(), {**PLAIN, "strides": [2, 2]}, LARGE),
        (weights(), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}, LARGE),
        (weights(), {**PLAIN, "group": 2}, LARGE),
        (weights(), {"auto_pad": "SAME_UPPER"}, LARGE),
        (weights(), PLAIN, SMALL),
    ],
    ids=["few inputs", "not so many inputs on a small map", "few outputs", "1x1", "5x5", "unpadded",
         "padded on two sides", "stride", "dilation", "groups", "padded by name", "small map"],
)  # fmt: skip
def test_unsuitable_convolutions_stay_as_they_are(
    weight: Array, attributes: dict[str, Any], size: tuple[int, int]
) -> None:
    proto = single_convolution(weight, **attributes)
    before = proto.SerializeToString()
    assert use_winograd(proto, size=size) == 0
    assert proto.SerializeToString() == before


def test_convolutions_with_computed_filters_stay_as_they_are() -> None:
    nodes = [
        helper.make_node("Mul", ["weight", "two"], ["scaled"]),
        helper.make_node("Conv", ["x", "scaled"], ["y"], **PLAIN),
    ]
    proto = graph_of(nodes, {"weight": weights(), "two": np.array(2, np.float32)}, ["y"])
    assert use_winograd(proto, size=LARGE) == 0


def test_each_map_and_each_shared_filter_is_transformed_once() -> None:
    """Two towers on one map, and the first tower's filters on another map."""
    nodes = [
        helper.make_node("Conv", ["x", "one"], ["a"], **PLAIN),
        helper.make_node("Conv", ["x", "other"], ["b"], **PLAIN),
        helper.make_node("Relu", ["x"], ["z"]),
        helper.make_node("Conv", ["z", "one"], ["c"], **PLAIN),
    ]
    proto = graph_of(nodes, {"one": weights(), "other": weights(seed=1)}, ["a", "b", "c"])
    x = np.random.default_rng(2).normal(size=(2, 128, 21, 22)).astype(np.float32)
    before = by_onnxruntime(proto, x)
    assert use_winograd(proto, size=LARGE) == 3
    kinds = Counter(node.op_type for node in proto.graph.node)
    assert kinds["Pad"] == 2  # maps
    assert kinds["MatMul"] == 2 + 2 + 2 * 3  # one for each map, each filter, and two for each convolution
    for actual, expected in zip(by_onnxruntime(proto, x), before, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_the_file_does_not_grow_and_runtimes_transform_filters_on_loading(tmp_path: Path) -> None:
    proto = single_convolution(weights(128, 128), **PLAIN)
    before = len(proto.SerializeToString())
    use_winograd(proto, size=LARGE)
    assert len(proto.SerializeToString()) < before + 20_000
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "optimized.onnx")
    assert sum(node.op_type == "MatMul" for node in optimized.graph.node) == 3


def test_strides_of_maps_in_a_pyramid() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["half"], strides=[2, 2], **PLAIN),
        helper.make_node("MaxPool", ["half"], ["quarter"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["quarter"], ["eighth_in"]),
        helper.make_node("Conv", ["eighth_in", "w"], ["eighth"], strides=[2, 2], **PLAIN),
        helper.make_node("Resize", ["eighth", "", "scales"], ["enlarged"]),
        helper.make_node("Add", ["enlarged", "quarter"], ["merged"]),
    ]
    constants = {"w": weights(128, 128), "scales": np.array([1, 1, 2, 2], np.float32)}
    found = strides_of(graph_of(nodes, constants, ["merged"]).graph)
    assert found == {"x": 1, "half": 2, "quarter": 4, "eighth_in": 4, "eighth": 8, "merged": 4}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny backbone with a wide FPN and head. It has many well-spread detections."""
    path = tmp_path_factory.mktemp("wide") / "wide.safetensors"
    model = tiny_model(channels=128, groups=32, score_threshold=0.1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.head.classification_head.cls_logits.weight.normal_(0, 0.1, generator=generator)
        model.head.classification_head.cls_logits.bias.fill_(-1.0)
    geometry = ResizeRule("letterbox", (256, 192)).to_json()
    artifact = tiny_artifact(weights=model.state_dict(), config=model.config, geometry=geometry)
    save(path, artifact)
    return path


@pytest.mark.parametrize("format_", ["onnx", "openvino"])
def test_a_winograd_export_passes_parity_and_records_it(wide: Path, format_: str) -> None:
    if format_ == "openvino":
        pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    options = make_options(format_)
    exported = run.export(wide, run.ExportJob(options, run.default_out(wide, options)))
    assert exported.parity is not None
    assert exported.parity.passed
    facts = read_header(exported.path).facts
    assert (facts.winograd, facts.verified) == (3, True)  # on P3: the FPN output, and one in each tower
    if format_ == "openvino":
        with pytest.raises(UsageError, match="not accurate enough in bf16") as caught:
            open_detector(exported.path, precision="bf16")
        assert "--no-winograd" in str(caught.value.remedy)
        assert open_detector(exported.path, precision="fp32").precision == "fp32"
