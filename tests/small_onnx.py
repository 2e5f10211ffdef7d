"""A graph of two convolutions with the inputs, outputs and metadata of an exported detector.

Building it takes a second.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.facts import Facts

CLASSES = ClassTable(("a", "b", "c"), (1, 2, 3))
FACTS = Facts(CLASSES, ResizeRule("letterbox", (64, 64)), verified=True)
PLACES = 8


def write_onnx(path: Path, *, precision: str = "fp32", free: bool = True, batch: int = 1, **changes: Any) -> Path:
    """Write the graph. free: dynamic batch size, height and width; otherwise `batch` × 64 × 64. changes: to FACTS."""
    import onnx

    model = detector_graph(precision=precision, free=free, batch=batch)
    facts = replace(FACTS, **{"precision": precision, **changes})
    onnx.helper.set_model_props(model, facts.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def detector_graph(*, precision: str = "fp32", free: bool = True, batch: int = 1) -> Any:
    """images → cast → [quantized] convolution, ReLU, convolution → cast → best score and class per cell → TopK."""
    import onnx
    from onnx import helper, numpy_helper
    from onnx.helper import make_node as node

    types = onnx.TensorProto
    half = precision == "fp16"
    rng = np.random.default_rng(0)
    count = len(CLASSES)
    constants = {
        "w1": (rng.standard_normal((8, 3, 3, 3)) * 0.01).astype(np.float16 if half else np.float32),
        "w2": (rng.standard_normal((count + 4, 8, 1, 1)) * 0.1).astype(np.float16 if half else np.float32),
        "rows": np.array([0, count + 4, -1]),
        "parts": np.array([count, 4]),
        "one": np.array([1]),
        "two": np.array([2]),
        "places": np.array([PLACES]),
        "tile": np.array([1, 1, 4]),
        "limit": np.float32(0.5),
        "scale": np.float32(2.0),
        "scale_w": np.float32(0.01),
        "zero": np.int8(0),
    }
    pixels, weights, quantized = "pixels", "w1", []
    if precision == "int8":
        pixels, weights = "pixels_dq", "w1_dq"
        for name, scale in (("pixels", "scale"), ("w1", "scale_w")):
            quantized += [
                node("QuantizeLinear", [name, scale, "zero"], [f"{name}_q"], f"quantize_{name}"),
                node("DequantizeLinear", [f"{name}_q", scale, "zero"], [f"{name}_dq"], f"dequantize_{name}"),
            ]
    nodes = [
        node("Cast", ["images"], ["pixels"], "cast_in", to=types.FLOAT16 if half else types.FLOAT),
        *quantized,
        node("Conv", [pixels, weights], ["c1"], "conv1", strides=[8, 8], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2"], ["c2"], "conv2"),
        node("Cast", ["c2"], ["raw"], "cast_out", to=types.FLOAT),
        node("Reshape", ["raw", "rows"], ["flat"], "flat"),
        node("Split", ["flat", "parts"], ["cls", "ltrb"], "split", axis=1),
        node("Sigmoid", ["cls"], ["probability"], "sigmoid"),
        node("ReduceMax", ["probability", "one"], ["best"], "best", keepdims=0),
        node("ArgMax", ["probability"], ["kind"], "kind", axis=1, keepdims=0),
        node("TopK", ["best", "places"], ["scores", "order"], "topk", axis=1),
        node("GatherElements", ["kind", "order"], ["classes"], "gather_classes", axis=1),
        node("Transpose", ["ltrb"], ["sides"], "transpose", perm=[0, 2, 1]),
        node("Unsqueeze", ["order", "two"], ["order3"], "unsqueeze"),
        node("Tile", ["order3", "tile"], ["order4"], "tile"),
        node("GatherElements", ["sides", "order4"], ["boxes"], "gather_boxes", axis=1),
        node("Greater", ["scores", "limit"], ["above"], "above"),
        node("Cast", ["above"], ["above_number"], "cast_above", to=types.INT64),
        node("ReduceSum", ["above_number", "one"], ["counts"], "counts", keepdims=0),
    ]
    used = {name for entry in nodes for name in entry.input}
    first = "batch" if free else batch
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [value("images", types.UINT8, [first, 3, *(("height", "width") if free else (64, 64))])],
        [
            value("boxes", types.FLOAT, [first, PLACES, 4]),
            value("scores", types.FLOAT, [first, PLACES]),
            value("classes", types.INT64, [first, PLACES]),
            value("counts", types.INT64, [first]),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
