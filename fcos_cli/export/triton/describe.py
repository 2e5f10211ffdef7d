"""What Triton has to know about a model file: names, types and shapes, from the ONNX graph or the engine's record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fcos_cli.errors import ModelError
from fcos_cli.export.triton.config import Served, Tensor
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import CONVERGED, INPUT, OUTPUTS, SIZES
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.speed import typical_size

BATCH = 8
"""Most images per batch of an ONNX graph, which itself has no limit."""

TYPES = {"UINT8": "UINT8", "INT64": "INT64", "FLOAT": "FP32", "BOOL": "BOOL"}
"""ONNX's names of the types → Triton's."""


def describe(path: Path) -> Served:
    """Describe an ONNX file, or an engine with its JSON file beside it. Raises ModelError if Triton cannot serve it."""
    return _onnx(path, read_header(path).facts) if path.suffix.lower() == ".onnx" else _engine(path)


def _onnx(path: Path, facts: Facts) -> Served:
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    inputs, outputs = (tuple(map(_tensor, values)) for values in (graph.input, graph.output))
    batch, _, height, width = next(tensor.shape for tensor in inputs if tensor.name == INPUT)
    usual = typical_size(facts.resize)
    typical = (height or usual[0], width or usual[1])
    return Served("model.onnx", "onnxruntime", inputs, outputs, 0 if batch else BATCH, typical, facts)


def _tensor(value: Any) -> Tensor:
    from onnx import TensorProto

    kind = value.type.tensor_type
    shape = tuple(side.dim_value or None for side in kind.shape.dim)
    return Tensor(value.name, TYPES[TensorProto.DataType.Name(kind.elem_type)], shape)


def _engine(path: Path) -> Served:
    from fcos_cli.runtime.tensorrt.sidecar import read_sidecar

    facts, record = read_sidecar(path)
    if record.flavour != "trt":
        what = "Triton runs engines of TensorRT, and this one is for TensorRT for RTX"
        raise ModelError(what, where=path, remedy="build it with --format trt, or serve the .onnx file")
    if 1 < record.min.batch < record.max.batch:
        what = f"the engine takes {record.min.batch} images or more, and Triton also sends single ones"
        raise ModelError(what, where=path, remedy="build it with --engine min=1xHEIGHTxWIDTH")
    batch, height, width = (low if low == high else None for low, high in zip(record.min, record.max, strict=True))
    pixels = "UINT8" if facts.resize.dtype.__name__ == "uint8" else "FP32"
    sizes = (Tensor(SIZES, "INT64", (batch, 2)),) if facts.conventions.clip == "picture" else ()
    types, places = ("FP32", "FP32", "INT64", "INT64"), facts.max_detections
    shapes = ((batch, places, 4), (batch, places), (batch, places), (batch,))
    outputs = tuple(map(Tensor, OUTPUTS, types, shapes))
    if CONVERGED in record.outputs:
        outputs += (Tensor(CONVERGED, "BOOL", (batch,)),)
    inputs = (Tensor(INPUT, pixels, (batch, 3, height, width)), *sizes)
    most = 0 if batch else record.max.batch
    return Served("model.plan", "tensorrt", inputs, outputs, most, (record.opt.height, record.opt.width), facts)
