"""What an ONNX graph must satisfy to become an engine, checked before TensorRT sees it.

The parser accepts some graphs whose build then fails with an unhelpful message about kernels, and one kind (uint8
quantization) that it silently computes incorrectly. Every rule below was observed with TensorRT-RTX 1.7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos_cli.errors import ModelError, UsageError
from fcos_cli.export.tensorrt.profile import Dimensions
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import INPUT, OUTPUTS, SIZES
from fcos_cli.runtime.tensorrt.package import NAMES, Flavour

MAX_TOPK = 3840
"""Largest K of TopK in all versions of TensorRT so far."""

WEIGHTED_OPS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
REEXPORT = "export it again with `fcos export --format"


@dataclass(frozen=True)
class EngineGraph:
    """What the builder needs to know about an ONNX file. weighted_nodes: names of the nodes with weights."""

    facts: Facts
    dimensions: Dimensions
    outputs: tuple[str, ...]
    weighted_nodes: frozenset[str]
    sha256: str

    @classmethod
    def read(cls, path: Path, flavour: Flavour) -> EngineGraph:
        """Read an ONNX file.

        Raises ModelError if it was not written by `fcos export`, does not map `images` to detections, or fails
        `check_graph`.
        """
        model = _read(path)
        facts = Facts.from_metadata({entry.key: entry.value for entry in model.metadata_props}, where=path)
        inputs, outputs = {value.name: value for value in model.graph.input}, [v.name for v in model.graph.output]
        if INPUT not in inputs or not set(inputs) <= {INPUT, SIZES} or not set(OUTPUTS) <= set(outputs):
            raise ModelError(
                f"the graph maps {', '.join(inputs)} to {', '.join(sorted(outputs))}, not {INPUT} to "
                f"{', '.join(OUTPUTS)}",
                where=path,
                remedy="only models that `fcos export` wrote can become engines",
            )
        tensor = inputs[INPUT].type.tensor_type
        batch, channels, height, width = ((d.dim_value or None) if not d.dim_param else None for d in tensor.shape.dim)
        kind = facts.resize.dtype.__name__
        if tensor.elem_type != {"float32": 1, "uint8": 2}[kind] or channels != 3:  # TensorProto.FLOAT, UINT8
            raise ModelError(f"{INPUT} is not {kind} [B, 3, H, W]", where=path, remedy=f"{REEXPORT} onnx`")
        check_graph(model, path, flavour)
        names = frozenset(node.name for node in _nodes(model.graph) if node.op_type in WEIGHTED_OPS)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(facts, (batch, height, width), tuple(outputs), names, sha256)

    @property
    def is_free(self) -> bool:
        """Whether the graph has dynamic dimensions, so that the engine needs a profile."""
        return None in self.dimensions


def check_detections(count: int) -> None:
    """Raise UsageError if TensorRT cannot select this many detections per image. ModelConfig limits candidates."""
    if count > MAX_TOPK:
        what = f"TensorRT selects at most {MAX_TOPK} detections per image, and this model has {count}"
        raise UsageError(what, remedy=f"use --max-detections {MAX_TOPK} or fewer")


def check_graph(model: Any, path: Path, flavour: Flavour) -> None:
    """Raise ModelError naming the first node that `flavour` of TensorRT cannot build or would compute incorrectly.

    model: the graph of the file `path`.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in _nodes(model.graph):
        if node.op_type == "Constant":
            tensors.update((node.output[0], entry.t) for entry in node.attribute if entry.name == "value")
    for node in _nodes(model.graph):
        problem, remedy = _problem(node, tensors, flavour)
        if problem:
            raise ModelError(
                f"{NAMES[flavour]} cannot build {node.op_type} {node.name!r}: {problem}", where=path, remedy=remedy
            )


def _problem(node: Any, tensors: dict[str, Any], flavour: Flavour) -> tuple[str, str]:
    if node.domain not in ("", "ai.onnx"):
        return f"it belongs to the domain {node.domain!r}, which has no plugin", f"{REEXPORT} {flavour}`"
    if node.op_type == "NonMaxSuppression" and flavour == "trt-rtx":
        # supports_model_v2 returns True, but the build fails with "has no runners that implement it"
        return "the parser accepts this operation, but there is no kernel for it", f"{REEXPORT} trt-rtx`"
    if node.op_type == "DeformConv":  # the parser of 10.1 and later looks for a plugin, which is never loaded here
        return "there is no layer for it", "run the .onnx file with ONNX Runtime, or use fcos export --format openvino"
    if node.op_type == "TopK" and len(node.input) > 1 and node.input[1] in tensors:
        count = int(_to_array(tensors[node.input[1]]).reshape(-1)[0])
        if count > MAX_TOPK:
            return (
                f"it selects {count} values, but the limit is {MAX_TOPK}",
                "use fewer candidates per level or fewer detections",
            )
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _quantization_problem(node, tensors)
    return "", ""


def _quantization_problem(node: Any, tensors: dict[str, Any]) -> tuple[str, str]:
    """Only symmetric int8 is computed as written.

    A uint8 tensor with zero point 0 would be taken for int8: the result is wrong, and there is no error. Biases in
    int32 are rejected by the parser.
    """
    remedy = f"{REEXPORT} trt --precision int8`, or --target tensorrt for an .onnx"
    types = {2: "uint8", 6: "int32", 4: "uint16", 5: "int16"}  # TensorProto.DataType
    point = tensors.get(node.input[2]) if len(node.input) > 2 else None
    stored = tensors.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    for tensor in (point, stored):
        if tensor is not None and tensor.data_type in types:
            return f"it quantizes to {types[tensor.data_type]}, but only int8 is supported", remedy
    typed = any(entry.name == "output_dtype" and entry.i == 3 for entry in node.attribute)  # INT8, from opset 21
    if node.op_type == "QuantizeLinear" and point is None and not typed:
        return "without a zero point it quantizes to uint8, but only int8 is supported", remedy
    if point is not None and _to_array(point).any():
        return "its zero point is not 0, but only symmetric int8 is supported", remedy
    return "", ""


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, including those in the bodies of If and Loop."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


def _to_array(tensor: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


def _read(path: Path) -> Any:
    import onnx

    try:
        return onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"the graph cannot be read ({error.strerror})", where=path) from error
    except Exception as error:  # protobuf's errors have no public base class
        raise ModelError(f"this is not a readable .onnx file ({error})", where=path) from error
