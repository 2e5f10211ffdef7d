"""A small ONNX model with the tensor names of a real one: fifteen raw outputs, then detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fcos_cli.model.config import STRIDES
from fcos_cli.runtime.graph_io import raw_names

RAW = raw_names(STRIDES)
CHANNELS = {"cls": 2, "ltrb": 4, "ctr": 1}


def write_toy(
    path: Path, *, batch: int | None = None, height: int | None = None, leak: bool = False, lose: str | None = None
) -> Path:
    """Write a model with a 1×1 convolution per raw output, all at full size, and one detection.

    boxes[0, 0] = (width, mean of all ltrb, mean of all cls, mean of all ctr), which shows the raw outputs that were
    read. leak: post-processing also reads the network before its raw outputs. lose: name of a raw output to rename.
    """
    names = ["lost" if name == lose else name for name in RAW]
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: object, kind: type = np.int64) -> str:
        constants.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    nodes = [helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT)]
    for place, name in enumerate(names):
        out = CHANNELS[RAW[place].split("_")[0]]
        weight = constant(f"w{place}", np.full((out, 3, 1, 1), 0.001 * (place + 1)), np.float32)
        nodes.append(helper.make_node("Conv", ["pixels", weight], [name]))
    every = constant("every", [1, 2, 3])
    for branch in CHANNELS:
        levels = [name for name, true in zip(names, RAW, strict=True) if true.startswith(branch)]
        nodes.append(helper.make_node("Mean", levels, [f"{branch}_levels"]))
        nodes.append(helper.make_node("ReduceMean", [f"{branch}_levels", every], [f"{branch}_mean"], keepdims=0))
    if leak:
        nodes.append(helper.make_node("Conv", ["pixels", "w0"], ["hidden"]))
        nodes.append(helper.make_node("ReduceMean", ["hidden", every], ["past"], keepdims=0))
        nodes.append(helper.make_node("Add", ["past", "ltrb_mean"], ["leaked"]))
    sums = ["leaked" if leak else "ltrb_mean", "cls_mean", "ctr_mean"]
    nodes += [
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Gather", ["shape", constant("three", 3)], ["width"], axis=0),
        helper.make_node("Cast", ["width"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["ctr_mean", constant("zero", 0, np.float32)], ["nothing"]),
        helper.make_node("Add", ["nothing", "wide"], ["widths"]),
    ]
    axis = constant("axis", [1])
    for part in ("widths", *sums):
        nodes.append(helper.make_node("Unsqueeze", [part, axis], [f"{part}_column"]))
    columns = [f"{part}_column" for part in ("widths", *sums)]
    nodes += [
        helper.make_node("Concat", columns, ["row"], axis=1),
        helper.make_node("Unsqueeze", ["row", axis], ["boxes"]),
        helper.make_node("Sigmoid", ["cls_mean_column"], ["scores"]),
        helper.make_node("Cast", ["nothing"], ["none"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["none", axis], ["classes"]),
        helper.make_node("Add", ["none", constant("one", 1)], ["counts"]),
    ]
    b = batch or "batch"
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [b, 3, height or "height", "width"])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [b, 1, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [b, 1]),
            helper.make_tensor_value_info("classes", TensorProto.INT64, [b, 1]),
            helper.make_tensor_value_info("counts", TensorProto.INT64, [b]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path
