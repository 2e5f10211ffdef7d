"""fp32 ONNX → int8 ONNX: static quantisation with QuantizeLinear/DequantizeLinear pairs, ranges from real pictures.

Only the network's body is quantised; what follows the raw outputs (decode, NMS) keeps its float32. Two recipes:
CPUs (ONNX Runtime, OpenVINO) want unsigned activations, TensorRT wants symmetric signed ones and floating-point biases.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcos_cli.export.graph import RAW
from fcos_cli.export.options import Target

if TYPE_CHECKING:
    import onnx

QUANTISED = ("Conv", "Clip", "Relu", "Add", "MaxPool", "Resize")
"""Operations that run in int8; between them no float is needed."""

Batch = npt.NDArray[np.uint8]


def quantize(proto: onnx.ModelProto, pictures: Sequence[Batch], *, target: Target) -> onnx.ModelProto:
    """`proto` (raw outputs among its outputs) with an int8 body.

    pictures: network inputs uint8 [B, 3, H, W] to calibrate with, a hundred or so; all of one shape calibrate faster.
    """
    with tempfile.TemporaryDirectory() as folder:
        folded = fold(proto, Path(folder))
        return _quantize(folded, pictures, target=target, keep=sensitive(folded), folder=Path(folder))


def fold(proto: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Frozen BatchNorm (multiply and add) folded into the convolutions, by ONNX Runtime's standard rewriting."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "folded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    folded = onnx.load(options.optimized_model_filepath)
    used = {node.domain for node in folded.graph.node}
    kept = [entry for entry in folded.opset_import if entry.domain in used]
    del folded.opset_import[:]
    folded.opset_import.extend(kept)
    return folded


def body(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that the raw outputs are computed by, in the graph's order."""
    maker = {name: node for node in proto.graph.node for name in node.output}
    open_, seen = [name for name in RAW if name in maker], set()
    while open_:
        node = maker[open_.pop()]
        if node.name not in seen:
            seen.add(node.name)
            open_.extend(name for name in node.input if name in maker)
    return [node for node in proto.graph.node if node.name in seen]


def sensitive(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes that stay in float: measured to cost more accuracy than they save time."""
    del proto
    return []


class _Reader:
    """onnxruntime's CalibrationDataReader: one feed after another, then None."""

    def __init__(self, pictures: Iterable[Batch]) -> None:
        self.feeds: Iterator[dict[str, Batch]] = ({"images": batch} for batch in pictures)

    def get_next(self) -> dict[str, Batch] | None:
        return next(self.feeds, None)


def _quantize(
    proto: onnx.ModelProto, pictures: Sequence[Batch], *, target: Target, keep: list[str], folder: Path
) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    onnx.save(proto, folder / "in.onnx")
    signed = target == "tensorrt"
    with _quiet():
        quantize_static(
            folder / "in.onnx",
            folder / "out.onnx",
            _Reader(pictures),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_quantize=[n.name for n in body(proto) if n.op_type in QUANTISED and n.name not in keep],
            per_channel=True,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": signed, "QuantizeBias": not signed, "WeightSymmetric": True},
        )
    return onnx.load(folder / "out.onnx")


@contextmanager
def _quiet() -> Any:
    import logging

    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
