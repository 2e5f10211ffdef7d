"""The precision of the layers of a TensorRT engine, read back from the engine.

The engine inspector returns JSON, {"Layers": [{"Name", "LayerType", "Inputs", "Outputs", "Metadata", …}, …]}, for
engines built with ProfilingVerbosity.DETAILED; for others, a layer is only a name. A tensor's type is in
"Format/Datatype", or "Datatype" in some versions. It is a phrase ("Channel major FP16 format where channel % 8 == 0")
in the older parts of TensorRT and a word ("Half", "Float") in its compiler. With dynamic shapes the older parts report
"N/A due to dynamic shapes"; the name of the kernel ("TacticName") and the weights ("Weights": {"Type": "Half"}) remain.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

TYPES = (
    ("int8", r"(?<!u)int8"),
    ("fp8", r"fp8"),
    ("bf16", r"bf16|bfloat16"),
    ("fp16", r"(?<!b)fp16|half|(?<!b)float16"),
    ("fp32", r"fp32|float32|\bfloat\b"),
)
"""Narrowest first: a layer with a wide and a narrow type has a cast fused into it and computes in the narrow one."""

KERNELS = {"i8i8": "int8", "e4m3e4m3": "fp8", "bf16bf16": "bf16", "f16f16": "fp16", "f32f32_f32f32": "fp32"}
"""What kernels multiply, in their names: `sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_…`. TF32 is `f32f32_tf32`."""

COPY_KINDS = ("reformat", "constant", "noop", "shuffle", "signal", "wait", "copy", "cast")
"""Prefixes of the kinds of layers that compute nothing, whatever their names and types."""

WEIGHTED_KINDS = re.compile(r"conv|gemm|matrixmultiply|matmul|fullyconnected", re.IGNORECASE)


class Layers(NamedTuple):
    """Number of layers by precision (`fp32`, `fp16`, `bf16`, `int8`, `fp8`, `other`: another one or unknown).

    all: all layers. body: the layers with weights.
    """

    all: dict[str, int]
    body: dict[str, int]


def read_layers(information: str, *, weighted_nodes: Collection[str] = ()) -> Layers:
    """Count the layers in the inspector's JSON. weighted_nodes: names of the ONNX nodes with weights.

    Raises ValueError with the reason if the JSON does not contain the types.
    """
    layers = json.loads(information).get("Layers", [])
    detailed = [layer for layer in layers if isinstance(layer, Mapping)]
    if not detailed:
        raise ValueError(
            "the engine inspector reports only names" if layers else "the engine inspector reports no layers"
        )
    names = frozenset(weighted_nodes)
    counts = Counter(precision_of(layer) for layer in detailed)
    if set(counts) <= {"other"}:
        raise ValueError("the engine inspector reports no types")
    body = Counter(precision_of(layer) for layer in detailed if _has_weights(layer, names))
    return Layers(dict(counts), dict(body))


def precision_of(layer: Mapping[str, Any]) -> str:
    """`int8` and `fp8` by input (a half-precision layer may quantize its output), otherwise the narrowest type.

    If the types of the inputs are not reported, that of the kernel or of narrow weights.
    """
    inputs, outputs = _types(layer.get("Inputs")), _types(layer.get("Outputs"))
    if not inputs and (known := _kernel_type(layer)):
        return known
    for name, _ in TYPES:
        if name in inputs or (name in outputs and name not in ("int8", "fp8")):
            return name
    return "other"


def _kernel_type(layer: Mapping[str, Any]) -> str | None:
    """By the kernel's name, or by its weights if they are narrow: those in fp32 may be cast to another type."""
    kernel = re.search(rf"(?<![a-z0-9])({'|'.join(KERNELS)})(?![a-z0-9])", str(layer.get("TacticName", "")))
    if kernel:
        return KERNELS[kernel[1]]
    weights = layer.get("Weights")
    found = _types([{"Datatype": weights.get("Type")}]) if isinstance(weights, Mapping) else set()
    return next((name for name, _ in TYPES if name in found - {"fp32"}), None)


def _types(tensors: Iterable[Any] | None) -> set[str]:
    found = set()
    for tensor in tensors or ():
        text = str(tensor.get("Format/Datatype") or tensor.get("Datatype") or tensor.get("DataType") or "")
        found |= {name for name, pattern in TYPES if re.search(pattern, text, re.IGNORECASE)}
    return found


def _has_weights(layer: Mapping[str, Any], weighted_nodes: frozenset[str]) -> bool:
    kind, name = str(layer.get("LayerType", "")), str(layer.get("Name", ""))
    if kind.lower().startswith(COPY_KINDS) or name.startswith("Reformatting CopyNode"):
        return False
    origins = set(re.findall(r"\[ONNX Layer: ([^\]]+)\]", str(layer.get("Metadata", "")))) | set(name.split(" + "))
    return bool(origins & weighted_nodes) or WEIGHTED_KINDS.search(kind) is not None
