"""fp32 ONNX → int8 ONNX: static quantization with QuantizeLinear/DequantizeLinear pairs, calibrated on real images.

Only the backbone and head are quantized; what follows the raw outputs (decode, NMS) stays in float32. There are two
recipes: CPUs (ONNX Runtime, OpenVINO) use unsigned activations, TensorRT needs symmetric signed ones and float biases.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Pixels
from fcos_cli.export.deformable import offset_convolutions
from fcos_cli.export.options import Target
from fcos_cli.runtime.graph_io import CONVERGED, INPUT, OUTPUTS, SIZES
from fcos_cli.runtime.onnxruntime import allowed_threads

if TYPE_CHECKING:
    import onnx

QUANTIZED_OPS = ("Conv", "Clip", "Relu", "Add", "MaxPool", "Resize")
"""Operations that run in int8, so that values need not return to float between them."""

PROBES = 8
"""Number of images on which the error of a quantized network is measured."""

FLOAT_ERROR_RATIO = 0.8
"""A group of layers stays in float if that reduces the error to less than this fraction."""


def quantize(
    proto: onnx.ModelProto,
    pictures: Sequence[Pixels],
    *,
    target: Target,
    between: bool = True,
    say: Callable[[str], object] = lambda _line: None,
) -> onnx.ModelProto:
    """Return `proto`, which has the raw outputs among its outputs, with backbone and head in int8.

    pictures: network inputs [B, 3, H, W] for calibration, uint8, or float32 as some converted models take them, about a
    hundred. The first and last layers are also tried in float, and stay in float if that reduces the error enough.
    between: also quantize the outputs of
    convolutions that go to a normalization layer. ONNX Runtime needs this to run the convolution in int8; OpenVINO does
    not, and saves the conversion. say: called with the measured errors.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folded = fold(proto, folder)
        probes = pictures[:PROBES]
        reference = _run_raw(folded, probes)

        def attempt(keep: Sequence[str]) -> tuple[onnx.ModelProto, float]:
            quantized = _quantize(folded, pictures, target=target, between=between, keep=keep, folder=folder)
            return quantized, relative_error(_run_raw(quantized, probes), reference)

        # in 8 bits, the taps of deformable convolutions would look at rounded places
        keep = offset_convolutions(folded)
        best, error = attempt(keep)
        say(f"int8: relative error of the raw outputs {error:.3f}")
        for group, nodes in float_candidates(folded).items():
            candidate, new_error = attempt([*keep, *nodes])
            better = new_error < FLOAT_ERROR_RATIO * error
            say(f"  with {group} in float: {new_error:.3f}{', kept in float' if better else ''}")
            if better:
                best, error, keep = candidate, new_error, [*keep, *nodes]
        return best


def fold(proto: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Fold frozen BatchNorm (multiply and add) into the convolutions with ONNX Runtime's basic graph optimizations."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "folded.onnx")
    options.intra_op_num_threads = allowed_threads()
    options.log_severity_level = 3
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    folded = onnx.load(options.optimized_model_filepath)
    domains = {node.domain for node in folded.graph.node}
    imports = [entry for entry in folded.opset_import if entry.domain in domains]
    del folded.opset_import[:]
    folded.opset_import.extend(imports)
    return folded


def raw_output_names(proto: onnx.ModelProto) -> list[str]:
    """Names of the raw outputs of a graph that still has them among its outputs."""
    return [output.name for output in proto.graph.output if output.name not in (*OUTPUTS, CONVERGED)]


def backbone_and_head_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that the raw outputs depend on, in the graph's order."""
    producer = {name: node for node in proto.graph.node for name in node.output}
    queue, seen = raw_output_names(proto), set()
    while queue:
        node = producer[queue.pop()]
        if node.name not in seen:
            seen.add(node.name)
            queue.extend(name for name in node.input if name in producer)
    return [node for node in proto.graph.node if node.name in seen]


def float_candidates(proto: onnx.ModelProto) -> dict[str, list[str]]:
    """Names of the first and last convolutions of the network, by group. They are the most sensitive to int8."""
    producer = {name: node for node in proto.graph.node for name in node.output}
    nodes = backbone_and_head_nodes(proto)
    last: dict[str, str] = {}
    for raw in raw_output_names(proto):  # walk back through ReLU, scale and stride to the convolution
        node = producer[raw]
        while node.op_type != "Conv":
            node = next(producer[name] for name in node.input if name in producer)
        last[raw] = node.name
    return {
        "the first convolution": [next(node.name for node in nodes if node.op_type == "Conv")],
        "the class logits": [name for raw, name in last.items() if raw.startswith("cls")],
        "the distances": [name for raw, name in last.items() if raw.startswith("ltrb")],
    }


def _run_raw(proto: onnx.ModelProto, pictures: Sequence[Pixels]) -> list[list[npt.NDArray[np.float32]]]:
    """The raw outputs for each input, in the order of `raw_output_names`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = allowed_threads()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [session.run(raw_output_names(proto), _feed(proto, batch)) for batch in pictures]


def relative_error(
    outputs: list[list[npt.NDArray[np.float32]]], reference: list[list[npt.NDArray[np.float32]]]
) -> float:
    """Relative L2 error over all images together, averaged over branches and levels."""
    errors = []
    for values, expected in zip(zip(*outputs, strict=True), zip(*reference, strict=True), strict=True):
        squares = sum(float(np.square(a - b).sum()) for a, b in zip(values, expected, strict=True))
        errors.append((squares / max(sum(float(np.square(b).sum()) for b in expected), 1e-12)) ** 0.5)
    return float(np.mean(errors))


def _feed(proto: onnx.ModelProto, batch: Pixels) -> dict[str, npt.NDArray[Any]]:
    """The inputs of the graph, repeated if it takes a fixed number of images.

    `sizes` is the whole input: activation ranges do not depend on where the padding begins.
    """
    shapes = {value.name: value.type.tensor_type.shape for value in proto.graph.input}
    images = np.repeat(batch, max(1, shapes[INPUT].dim[0].dim_value), axis=0)
    feeds = {INPUT: images, SIZES: np.tile(np.array(images.shape[2:], np.int64), (len(images), 1))}
    return {name: feeds[name] for name in shapes}


class _Reader:
    """ONNX Runtime's CalibrationDataReader: returns one feed per call, then None."""

    def __init__(self, proto: onnx.ModelProto, pictures: Iterable[Pixels]) -> None:
        self.feeds = (_feed(proto, batch) for batch in pictures)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self.feeds, None)


def _quantize(
    proto: onnx.ModelProto,
    pictures: Sequence[Pixels],
    *,
    target: Target,
    between: bool,
    keep: Sequence[str],
    folder: Path,
) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    onnx.save(proto, folder / "in.onnx")
    signed = target == "tensorrt"
    extra: dict[str, Any] = {"ActivationSymmetric": signed, "QuantizeBias": not signed, "WeightSymmetric": True}
    if not between:
        extra["OpTypesToExcludeOutputQuantization"] = ["Conv"]
    with _quiet():
        quantize_static(
            folder / "in.onnx",
            folder / "out.onnx",
            _Reader(proto, pictures),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED_OPS),
            nodes_to_quantize=[
                n.name for n in backbone_and_head_nodes(proto) if n.op_type in QUANTIZED_OPS and n.name not in keep
            ],
            per_channel=True,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=extra,
        )
    return onnx.load(folder / "out.onnx")


@contextmanager
def _quiet() -> Any:
    import logging

    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
