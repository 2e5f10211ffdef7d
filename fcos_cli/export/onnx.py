"""PyTorch → ONNX: one file that takes pixels, returns detections and contains its own facts."""

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
from fcos_cli.errors import UsageError
from fcos_cli.export.deformable import deform_conv, refuse_engine
from fcos_cli.export.formats import FORMATS
from fcos_cli.export.graph import Graph, example_inputs, takes_sizes
from fcos_cli.export.options import ExportOptions
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.backbone import COARSEST, check_maps, takes_any_size
from fcos_cli.model.config import ModelConfig
from fcos_cli.model.optimize.fuse import fold_batch_norm
from fcos_cli.model.optimize.halve import halve
from fcos_cli.model.optimize.winograd import is_worthwhile
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import INPUT, SIZES, SMALLEST, output_names, raw_names
from fcos_cli.runtime.speed import typical_size

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""The last opset in which GroupNorm is decomposed into operations that every target supports."""

MAX_SIDE = 8192
"""Upper bound of a free height or width in pixels."""
DIMENSIONS = {0: "batch", 2: "height", 3: "width"}


def trace(artifact: Artifact, facts: Facts, options: ExportOptions) -> onnx.ModelProto:
    """Trace `artifact` to an ONNX graph with the limits of `facts`.

    The raw outputs are still graph outputs, and the metadata is not yet written. Raises RuntimeError (from
    torch.export) if a dimension that should be dynamic turns out to be fixed; ModelError if the network has a layer
    that the format does not; UsageError if the backbone does not take this size.
    """
    if FORMATS[options.format].engine:
        refuse_engine(artifact.config)
    model = artifact.build()
    model.config = model.config.model_copy(update=facts.limits)
    if options.winograd and any(is_worthwhile(module) for module in model.backbone.body.modules()):
        fold_batch_norm(model)  # runtimes fold it into convolutions, but not into the Winograd operations
    if options.precision == "fp16":
        halve(model, torch.float16)
    graph = Graph(model, nms=options.nms).eval()
    sizes, dtype = takes_sizes(model), torch.uint8 if facts.resize.dtype is np.uint8 else torch.float32
    inputs = example_inputs(batch=options.batch, size=options.size, dtype=dtype, sizes=sizes)
    height, width = inputs[0].shape[2:]
    _check_size(artifact.config, facts, options, size=(height, width))
    names = (*output_names(options.nms), *raw_names(model.config.strides))
    dynamic = _dynamic_dimensions(options, model.config)
    shapes = (dynamic, {0: dynamic[0]} if 0 in dynamic else {}) if sizes else (dynamic,)
    with torch.no_grad(), _quiet():
        program = torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=False)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT, SIZES][: len(inputs)],
            output_names=list(names),
            custom_translation_table={
                torch.ops.fcos.keep_mask.default: non_max_suppression,
                torch.ops.torchvision.deform_conv2d.default: deform_conv,
            },
        )
    assert exported is not None
    proto: onnx.ModelProto = exported.model_proto
    return simplify(proto, dynamic)


def _check_size(config: ModelConfig, facts: Facts, options: ExportOptions, *, size: tuple[int, int]) -> None:
    """Raise UsageError if the backbone does not take this input size, which is an example if it is to be free."""
    try:
        check_maps(config, size=size)
    except UsageError as error:
        height, width = typical_size(facts.resize)
        remedy = f"use --size {height}x{width}, the model's own" if options.size is None else error.remedy
        raise UsageError(error.what, where="--size", remedy=remedy) from error


def _dynamic_dimensions(options: ExportOptions, config: ModelConfig) -> dict[int, Any]:
    """The axes of `images` whose size is free. Where the backbone rounds down, as DLA does, in steps of 32 pixels."""
    dimensions: dict[int, Any] = {}
    if options.batch is None:
        dimensions[0] = torch.export.Dim("batch", min=1, max=1024)
    if options.size is None:
        step = 1 if takes_any_size(config) else COARSEST
        for axis in (2, 3):
            name = DIMENSIONS[axis] if step == 1 else f"{DIMENSIONS[axis]}_by_{step}"
            side = torch.export.Dim(name, min=SMALLEST // step, max=MAX_SIDE // step)
            dimensions[axis] = side if step == 1 else step * side
    return dimensions


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence the exporter: it prints to stdout, which is reserved for data, and warns about its own internals."""
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
    max_per_class: int,
) -> Any:
    """`fcos::keep_mask` in ONNX: one NonMaxSuppression over all classes, with its rows scattered into a mask [B, P]."""
    from onnxscript import opset20

    op: Any = opset20  # its type hints reject Python constants
    class_ids = op.Constant(value_ints=list(range(class_count)))
    is_class = op.Equal(
        op.Unsqueeze(classes, op.Constant(value_ints=[1])), op.Unsqueeze(class_ids, op.Constant(value_ints=[0, 2]))
    )
    zero = op.Constant(value_float=0.0)
    per_class = op.Where(is_class, op.Unsqueeze(scores, op.Constant(value_ints=[1])), zero)
    rows = op.NonMaxSuppression(
        boxes,
        per_class,
        op.Constant(value_ints=[max_per_class]),
        op.Constant(value_floats=[iou]),
        op.Constant(value_floats=[0.0]),
    )
    indices = op.Gather(rows, op.Constant(value_ints=[0, 2]), axis=1)  # a row is (image, class, box)
    ones = op.Expand(op.Constant(value_float=1.0), op.Shape(rows, start=0, end=1))
    return op.Greater(op.ScatterND(op.Mul(scores, zero), indices, ones), zero)


def simplify(proto: onnx.ModelProto, dynamic: dict[int, Any]) -> onnx.ModelProto:
    """Remove the exporter's annotations, which contain paths of this machine, and name the dynamic dimensions.

    Raises RuntimeError if a dimension of `images` that should be dynamic is fixed: tracing may specialize one silently.
    """
    values = (*proto.graph.input, *proto.graph.output, *proto.graph.value_info)
    for item in (proto, proto.graph, *proto.graph.node, *values):
        del item.metadata_props[:]
        item.doc_string = ""
    names = {}
    for axis, dimension in enumerate(proto.graph.input[0].type.tensor_type.shape.dim):
        if bool(dimension.dim_param) != (axis in dynamic):
            expected = "dynamic" if axis in dynamic else "fixed"
            raise RuntimeError(f"dimension {axis} of the exported input is {dimension or 'unknown'}, not {expected}")
        if axis in dynamic:
            names[dimension.dim_param] = DIMENSIONS[axis]
    for value in values:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                name = names.get(dimension.dim_param)  # the input's may be an expression: 32*height_by_32
                dimension.dim_param = name or re.sub(
                    r"\w+", lambda match: names.get(match[0], match[0]), dimension.dim_param
                )
    return proto


def finalize(proto: onnx.ModelProto, *, outputs: tuple[str, ...]) -> onnx.ModelProto:
    """Hide all outputs except `outputs`, and check that the graph is valid and uses standard operators only."""
    import onnx

    by_name = {output.name: output for output in proto.graph.output}
    del proto.graph.output[:]
    proto.graph.output.extend(by_name[name] for name in outputs)
    proto.producer_name, proto.producer_version = "fcos-cli", __version__
    onnx.checker.check_model(proto, full_check=True)
    domains = {entry.domain for entry in proto.opset_import} | {node.domain for node in proto.graph.node}
    if domains - {"", "ai.onnx"}:
        raise RuntimeError(f"the graph uses operators of the domains {sorted(domains)}")
    return proto


def write(proto: onnx.ModelProto, path: Path, facts: Facts) -> None:
    """Write the file atomically, with `facts` in its metadata."""
    import onnx

    onnx.helper.set_model_props(proto, facts.to_metadata())
    with atomic_write(path, binary=True) as file:
        file.write(proto.SerializeToString())


def store_in_half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Store weights that float16 represents exactly as float16, and add a Cast to float32 for each.

    Runtimes fold the casts when they load the file. Weights from a half-precision file are all of this kind, and the
    ONNX file is then half as large. Nothing is rounded.
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
