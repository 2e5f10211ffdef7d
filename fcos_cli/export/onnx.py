"""PyTorch → ONNX: one file that takes pixels and returns detections, and carries its own facts."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fcos_cli import __version__
from fcos_cli.atomic import atomic_write
from fcos_cli.export.graph import Graph, example, half_body, takes_sizes
from fcos_cli.export.options import ExportOptions
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.optimize.fuse import fold_batch_norm
from fcos_cli.model.optimize.winograd import is_worthwhile
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import INPUT, RAW, SIZES, SMALLEST, output_names

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""The last opset in which GroupNorm is written out as operations that every target knows."""

LARGEST = 8192
DIMENSIONS = {0: "batch", 2: "height", 3: "width"}


def trace(artifact: Artifact, facts: Facts, options: ExportOptions) -> onnx.ModelProto:
    """The network of `artifact` as an ONNX graph with `facts`' limits, raw outputs among its outputs, facts not yet in.

    Raises RuntimeError of torch.export where a dimension that should be free turns out to be fixed.
    """
    model = artifact.build()
    limits = {"score_threshold": facts.score_threshold, "nms_iou": facts.nms_iou}
    model.config = model.config.model_copy(update={**limits, "max_detections": facts.max_detections})
    if options.winograd and any(is_worthwhile(module) for module in model.backbone.body.modules()):
        fold_batch_norm(model)  # runtimes fold it into convolutions, but not into what replaces them
    if options.precision == "fp16":
        half_body(model)
    graph = Graph(model, nms=options.nms).eval()
    sizes, dtype = takes_sizes(model), torch.uint8 if facts.resize.dtype is np.uint8 else torch.float32
    inputs = example(batch=options.batch, size=options.size, dtype=dtype, sizes=sizes)
    names = (*output_names(options.nms), *RAW)
    dynamic = _dynamic(options)
    shapes = (dynamic, {0: dynamic[0]} if 0 in dynamic else {}) if sizes else (dynamic,)
    with torch.no_grad(), _quiet():
        program = torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=False)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT, SIZES][: len(inputs)],
            output_names=list(names),
            custom_translation_table={torch.ops.fcos.keep_mask.default: non_max_suppression},
        )
    assert exported is not None
    proto: onnx.ModelProto = exported.model_proto
    return simplify(proto, dynamic)


def _dynamic(options: ExportOptions) -> dict[int, Any]:
    free: dict[int, Any] = {}
    if options.batch is None:
        free[0] = torch.export.Dim("batch", min=1, max=1024)
    if options.size is None:
        free[2] = torch.export.Dim("height", min=SMALLEST, max=LARGEST)
        free[3] = torch.export.Dim("width", min=SMALLEST, max=LARGEST)
    return free


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter talks on stdout, which belongs to our data, and warns of things that are not the user's."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def non_max_suppression(
    boxes: Any,
    scores: Any,
    classes: Any,
    iou: float,
    rule: str,  # noqa: ARG001 (the operator's signature)
    class_count: int,
    most: int,
) -> Any:
    """`fcos::keep_mask` in ONNX: one NonMaxSuppression over all classes, its rows scattered into a mask [B, P]."""
    from onnxscript import opset20

    op: Any = opset20  # its types do not know what a constant holds
    every = op.Constant(value_ints=list(range(class_count)))
    of_class = op.Equal(
        op.Unsqueeze(classes, op.Constant(value_ints=[1])), op.Unsqueeze(every, op.Constant(value_ints=[0, 2]))
    )
    zero = op.Constant(value_float=0.0)
    per_class = op.Where(of_class, op.Unsqueeze(scores, op.Constant(value_ints=[1])), zero)
    rows = op.NonMaxSuppression(
        boxes,
        per_class,
        op.Constant(value_ints=[most]),
        op.Constant(value_floats=[iou]),
        op.Constant(value_floats=[0.0]),
    )
    place = op.Gather(rows, op.Constant(value_ints=[0, 2]), axis=1)  # a row is (picture, class, box)
    ones = op.Expand(op.Constant(value_float=1.0), op.Shape(rows, start=0, end=1))
    return op.Greater(op.ScatterND(op.Mul(scores, zero), place, ones), zero)


def simplify(proto: onnx.ModelProto, dynamic: dict[int, Any]) -> onnx.ModelProto:
    """Drop the exporter's notes (they hold paths of the exporting machine) and name the free dimensions.

    Raises RuntimeError where a dimension of `images` that was asked to be free is fixed: tracing may specialise one
    without a word.
    """
    values = (*proto.graph.input, *proto.graph.output, *proto.graph.value_info)
    for noted in (proto, proto.graph, *proto.graph.node, *values):
        del noted.metadata_props[:]
        noted.doc_string = ""
    names = {}
    for place, dimension in enumerate(proto.graph.input[0].type.tensor_type.shape.dim):
        if bool(dimension.dim_param) != (place in dynamic):
            raise RuntimeError(f"dimension {place} of the exported input came out as {dimension or 'unknown'}")
        if place in dynamic:
            names[dimension.dim_param] = DIMENSIONS[place]
    for value in values:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), dimension.dim_param)
    return proto


def finalize(proto: onnx.ModelProto, *, outputs: tuple[str, ...]) -> onnx.ModelProto:
    """Hide all outputs but `outputs`, and hold the graph to its promises: valid, and of standard operators only."""
    import onnx

    kept = {output.name: output for output in proto.graph.output}
    del proto.graph.output[:]
    proto.graph.output.extend(kept[name] for name in outputs)
    proto.producer_name, proto.producer_version = "fcos-cli", __version__
    onnx.checker.check_model(proto, full_check=True)
    foreign = {entry.domain for entry in proto.opset_import} | {node.domain for node in proto.graph.node}
    if foreign - {"", "ai.onnx"}:
        raise RuntimeError(f"the graph uses operators of {sorted(foreign)}")
    return proto


def write(proto: onnx.ModelProto, path: Path, facts: Facts) -> None:
    """Write the file, whole or not at all, with `facts` in its metadata."""
    import onnx

    onnx.helper.set_model_props(proto, facts.to_metadata())
    with atomic_write(path, binary=True) as file:
        file.write(proto.SerializeToString())


def store_in_half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Weights that float16 holds without loss stored so, and cast back by the graph; runtimes do that once, on load.

    Weights that came from a file in half are of that kind, and the ONNX is then half as large. Nothing is rounded.
    """
    import onnx
    from onnx import numpy_helper

    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name, value = tensor.name, numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if np.array_equal(half.astype(np.float32), value):
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            cast = onnx.helper.make_node("Cast", [tensor.name], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT)
            casts.append(cast)
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto
