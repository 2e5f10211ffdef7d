"""What an ONNX graph must be to become an engine, checked before TensorRT sees it.

Its parser says yes to graphs whose build then fails with words about kernels, and to one kind (uint8 quantisation)
that it silently computes otherwise. Each rule below was met with TensorRT-RTX 1.7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos_cli.errors import ModelError
from fcos_cli.export.tensorrt.profile import Dimensions
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import INPUT, OUTPUTS, SIZES
from fcos_cli.runtime.tensorrt.package import NAMES, Flavour

MOST = 3840
"""Largest K of TopK in every version of TensorRT so far."""

WEIGHTY = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
AGAIN = "export it again with `fcos export --format"


@dataclass(frozen=True)
class EngineGraph:
    """What the builder has to know of an ONNX file. weighty: names of its nodes that have weights."""

    facts: Facts
    dimensions: Dimensions
    weighty: frozenset[str]
    sha256: str

    @classmethod
    def read(cls, path: Path, flavour: Flavour) -> EngineGraph:
        """Raises ModelError for a file that is not ours, does not map `images` uint8 to detections, or what
        `check_graph` finds."""
        model = _read(path)
        facts = Facts.from_metadata({entry.key: entry.value for entry in model.metadata_props}, where=path)
        inputs, outputs = {value.name: value for value in model.graph.input}, {v.name for v in model.graph.output}
        if INPUT not in inputs or not set(inputs) <= {INPUT, SIZES} or not set(OUTPUTS) <= outputs:
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
            raise ModelError(f"{INPUT} is not {kind} [B, 3, H, W]", where=path, remedy=f"{AGAIN} onnx`")
        _check(model, path, flavour)
        names = frozenset(node.name for node in _nodes(model.graph) if node.op_type in WEIGHTY)
        return cls(facts, (batch, height, width), names, hashlib.sha256(path.read_bytes()).hexdigest())

    @property
    def is_free(self) -> bool:
        """Needs the engine a profile?"""
        return None in self.dimensions


def check_graph(onnx: Path, flavour: Flavour) -> None:
    """Raises ModelError naming the first node that `flavour` of TensorRT cannot build, or would compute otherwise."""
    _check(_read(onnx), onnx, flavour)


def _check(model: Any, path: Path, flavour: Flavour) -> None:
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
        return f"it is of the domain {node.domain!r}, for which there is no plugin", f"{AGAIN} {flavour}`"
    if node.op_type == "NonMaxSuppression" and flavour == "trt-rtx":
        # supports_model_v2 says yes; the build ends in "has no runners that implement it"
        return "its parser takes this operation, but it has none to run it", f"{AGAIN} trt-rtx`"
    if node.op_type == "TopK" and len(node.input) > 1 and node.input[1] in tensors:
        count = int(_numbers(tensors[node.input[1]]).reshape(-1)[0])
        if count > MOST:
            return f"it takes the best {count}, the most is {MOST}", "choose fewer candidates per level or detections"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _problem_of_quantisation(node, tensors)
    return "", ""


def _problem_of_quantisation(node: Any, tensors: dict[str, Any]) -> tuple[str, str]:
    """Only symmetric int8 is computed as written. A uint8 whose zero point is 0 would be taken for int8: wrong, and
    without an error. Biases in int32 are refused by the parser."""
    remedy = f"{AGAIN} trt --precision int8`, or --target tensorrt for an .onnx"
    types = {2: "uint8", 6: "int32", 4: "uint16", 5: "int16"}  # TensorProto.DataType
    point = tensors.get(node.input[2]) if len(node.input) > 2 else None
    stored = tensors.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    for tensor in (point, stored):
        if tensor is not None and tensor.data_type in types:
            return f"it quantises to {types[tensor.data_type]}, only int8 can be had", remedy
    typed = any(entry.name == "output_dtype" and entry.i == 3 for entry in node.attribute)  # INT8, from opset 21
    if node.op_type == "QuantizeLinear" and point is None and not typed:
        return "without a zero point it quantises to uint8, only int8 can be had", remedy
    if point is not None and _numbers(point).any():
        return "its zero point is not 0, only symmetric int8 can be had", remedy
    return "", ""


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, also those of the bodies of If and Loop."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


def _numbers(tensor: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


def _read(path: Path) -> Any:
    import onnx

    try:
        return onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"the graph cannot be read ({error.strerror})", where=path) from error
    except Exception as error:  # protobuf's errors have no common ancestor that is public
        raise ModelError(f"this is not a readable .onnx file ({error})", where=path) from error
