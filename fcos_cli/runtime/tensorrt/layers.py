"""In what precision the layers of a TensorRT engine run, read back from the engine itself.

The engine inspector tells it as JSON, {"Layers": [{"Name", "LayerType", "Inputs", "Outputs", "Metadata", …}, …]}, of
engines built with ProfilingVerbosity.DETAILED; otherwise a layer is just its name. A tensor's type stands in
"Format/Datatype", by the engine's older parts in words ("Channel major FP16 format where channel % 8 == 0"), by its
compiler in one ("Half", "Float"); some versions write "Datatype".
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
"""Narrowest first: a layer that has a wide and a narrow side has a cast merged into it, and computes in the narrow."""

MOVES = ("reformat", "constant", "noop", "shuffle", "signal", "wait", "copy", "cast")
"""Kinds of layers that compute nothing, whatever their names and types."""

PRODUCTS = re.compile(r"conv|gemm|matrixmultiply|matmul|fullyconnected", re.IGNORECASE)


class Layers(NamedTuple):
    """Number of layers by precision (`fp32`, `fp16`, `bf16`, `int8`, `fp8`, `other`): of all, and of those with
    weights."""

    all: dict[str, int]
    body: dict[str, int]


def read_layers(information: str, *, weighty: Collection[str] = ()) -> Layers:
    """Counts from the inspector's JSON. weighty: names of the ONNX nodes that have weights.

    Raises ValueError, saying why, where the text does not tell the types.
    """
    layers = json.loads(information).get("Layers", [])
    told = [layer for layer in layers if isinstance(layer, Mapping)]
    if not told:
        raise ValueError("the inspector gave names only" if layers else "the inspector gave no layers")
    names = frozenset(weighty)
    every = Counter(precision_of(layer) for layer in told)
    if set(every) <= {"other"}:
        raise ValueError("the inspector gave no types")
    body = Counter(precision_of(layer) for layer in told if _has_weights(layer, names))
    return Layers(dict(every), dict(body))


def precision_of(layer: Mapping[str, Any]) -> str:
    """`int8` and `fp8` by what goes in (a half-precision layer may quantise its answer), else the narrower side."""
    inputs, outputs = _types(layer.get("Inputs")), _types(layer.get("Outputs"))
    for name, _ in TYPES:
        if name in inputs or (name in outputs and name not in ("int8", "fp8")):
            return name
    return "other"


def _types(tensors: Iterable[Any] | None) -> set[str]:
    found = set()
    for tensor in tensors or ():
        text = str(tensor.get("Format/Datatype") or tensor.get("Datatype") or tensor.get("DataType") or "")
        found |= {name for name, pattern in TYPES if re.search(pattern, text, re.IGNORECASE)}
    return found


def _has_weights(layer: Mapping[str, Any], weighty: frozenset[str]) -> bool:
    kind, name = str(layer.get("LayerType", "")), str(layer.get("Name", ""))
    if kind.lower().startswith(MOVES) or name.startswith("Reformatting CopyNode"):
        return False
    origins = set(re.findall(r"\[ONNX Layer: ([^\]]+)\]", str(layer.get("Metadata", "")))) | set(name.split(" + "))
    return bool(origins & weighty) or PRODUCTS.search(kind) is not None
