"""fp32 ONNX → int8 ONNX: static quantisation with QuantizeLinear/DequantizeLinear pairs, ranges from real pictures.

Only the network's body is quantised; what follows the raw outputs (decode, NMS) keeps its float32. Two recipes:
CPUs (ONNX Runtime, OpenVINO) want unsigned activations, TensorRT wants symmetric signed ones and floating-point biases.
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
from fcos_cli.export.options import Target
from fcos_cli.runtime.graph_io import INPUT, RAW, SIZES

if TYPE_CHECKING:
    import onnx

QUANTISED = ("Conv", "Clip", "Relu", "Add", "MaxPool", "Resize")
"""Operations that run in int8; between them no float is needed."""

PROBES = 8
"""Pictures on which the error of a quantised network is measured."""

WORTH = 0.8
"""A layer stays in float where that brings the error below this share of what it was."""

Batch = Pixels


def quantize(
    proto: onnx.ModelProto,
    pictures: Sequence[Batch],
    *,
    target: Target,
    between: bool = True,
    say: Callable[[str], object] = lambda _line: None,
) -> onnx.ModelProto:
    """`proto` (raw outputs among its outputs) with an int8 body.

    pictures: network inputs uint8 [B, 3, H, W] to calibrate with, a hundred or so. The layers at both ends are tried
    in float: those that take a large part of the error with them stay so. between: quantise also what a convolution
    hands to a norm, without which ONNX Runtime computes that convolution in float; OpenVINO does without, and is spared
    the way there and back. say: told what was measured.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folded = fold(proto, folder)
        probes = pictures[:PROBES]
        wanted = _raw(folded, probes)

        def attempt(keep: Sequence[str]) -> tuple[onnx.ModelProto, float]:
            made = _quantize(folded, pictures, target=target, between=between, keep=keep, folder=folder)
            return made, difference(_raw(made, probes), wanted)

        best, error = attempt([])
        say(f"int8: relative error of the raw outputs {error:.3f}")
        keep: list[str] = []
        for group, nodes in float_candidates(folded).items():
            tried, less = attempt([*keep, *nodes])
            stays = less < WORTH * error
            say(f"  with {group} in float {less:.3f}{': they stay so' if stays else ''}")
            if stays:
                best, error, keep = tried, less, [*keep, *nodes]
        return best


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


def backbone_and_head_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that the raw outputs are computed by, in the graph's order."""
    maker = {name: node for node in proto.graph.node for name in node.output}
    open_, seen = [name for name in RAW if name in maker], set()
    while open_:
        node = maker[open_.pop()]
        if node.name not in seen:
            seen.add(node.name)
            open_.extend(name for name in node.input if name in maker)
    return [node for node in proto.graph.node if node.name in seen]


def float_candidates(proto: onnx.ModelProto) -> dict[str, list[str]]:
    """The convolutions at both ends of the network, which see pixels and make numbers: names by what they are."""
    maker = {name: node for node in proto.graph.node for name in node.output}
    nodes = backbone_and_head_nodes(proto)
    last: dict[str, str] = {}
    for raw in RAW:  # walk back to the convolution behind a ReLU, a scale, a stride
        node = maker[raw]
        while node.op_type != "Conv":
            node = next(maker[name] for name in node.input if name in maker)
        last[raw] = node.name
    return {
        "the first convolution": [next(node.name for node in nodes if node.op_type == "Conv")],
        "the class logits": [last[raw] for raw in RAW if raw.startswith("cls")],
        "the distances": [last[raw] for raw in RAW if raw.startswith("ltrb")],
    }


def _raw(proto: onnx.ModelProto, pictures: Sequence[Batch]) -> list[list[npt.NDArray[np.float32]]]:
    """The raw outputs of each input, in the order of `RAW`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [session.run(list(RAW), _feed(proto, batch)) for batch in pictures]


def difference(ours: list[list[npt.NDArray[np.float32]]], wanted: list[list[npt.NDArray[np.float32]]]) -> float:
    """Relative L2 error, the mean over branches and levels, of all pictures together."""
    errors = []
    for mine, theirs in zip(zip(*ours, strict=True), zip(*wanted, strict=True), strict=True):
        off = sum(float(np.square(a - b).sum()) for a, b in zip(mine, theirs, strict=True))
        errors.append((off / max(sum(float(np.square(b).sum()) for b in theirs), 1e-12)) ** 0.5)
    return float(np.mean(errors))


def _feed(proto: onnx.ModelProto, batch: Batch) -> dict[str, npt.NDArray[Any]]:
    """What the graph takes; ranges of numbers do not depend on where a picture ends in its input."""
    every = {INPUT: batch, SIZES: np.tile(np.array(batch.shape[2:], np.int64), (len(batch), 1))}
    return {value.name: every[value.name] for value in proto.graph.input}


class _Reader:
    """onnxruntime's CalibrationDataReader: one feed after another, then None."""

    def __init__(self, proto: onnx.ModelProto, pictures: Iterable[Batch]) -> None:
        self.feeds = (_feed(proto, batch) for batch in pictures)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self.feeds, None)


def _quantize(
    proto: onnx.ModelProto,
    pictures: Sequence[Batch],
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
            op_types_to_quantize=list(QUANTISED),
            nodes_to_quantize=[
                n.name for n in backbone_and_head_nodes(proto) if n.op_type in QUANTISED and n.name not in keep
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

    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
