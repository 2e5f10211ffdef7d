"""The `config.pbtxt` of a model in a repository of NVIDIA's Triton Inference Server.

Field names and meaning: `model_config.proto` of triton-inference-server/common. Notable choices:

- `max_batch_size` is 0 if the batch of the graph is fixed, since Triton's batching needs a dynamic first dimension. The
  shapes then include it.
- `counts` is one number per image. Triton has no scalars, so clients see `[batch, 1]`.
- One line holds the facts of the newest version (classes, resize rule, thresholds) as JSON, so that a client needs
  nothing but the server's answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fcos_cli.runtime.facts import Facts

QUEUE, DELAY = 64, 2000
"""Requests that may wait, and microseconds that one waits for others to share its batch."""

SEARCH = """
# on a GPU: choose convolution algorithms by cuDNN's heuristic (1) instead of timing all of them for every new shape (0)
parameters { key: "cudnn_conv_algo_search" value { string_value: "1" } }
"""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph. type: as in `TYPE_UINT8`. shape: with the batch first; None = dynamic."""

    name: str
    type: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Served:
    """What Triton has to know about a model file.

    file: its name in a version folder. most: images per batch; 0 if the batch is fixed. typical: (height, width) of the
    warm-up in pixels of the network input.
    """

    file: str
    backend: Literal["onnxruntime", "tensorrt"]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    most: int
    typical: tuple[int, int]
    facts: Facts


def config_text(served: Served, name: str) -> str:
    """The whole file for a new model `name`."""
    batching = (
        f"dynamic_batching {{\n  max_queue_delay_microseconds: {DELAY}\n"
        f"  default_queue_policy {{ max_queue_size: {QUEUE} }}\n}}\n"
        if served.most
        else ""
    )
    return f"""\
# Written by fcos export. When a version is added, the line of the parameter "fcos" is replaced and the rest stays.
name: "{name}"
{interface_text(served)}
{batching}instance_group [ {{ count: 1 kind: {"KIND_GPU" if served.backend == "tensorrt" else "KIND_AUTO"} }} ]
version_policy {{ latest {{ num_versions: 1 }} }}
model_warmup [
{_listed(_warm_up(served, batch) for batch in _warm_batches(served))}
]
{SEARCH if served.backend == "onnxruntime" else ""}
{facts_line(served.facts)}
"""


def interface_text(served: Served) -> str:
    """What all versions of a model have in common."""
    return f"""\
backend: "{served.backend}"
default_model_filename: "{served.file}"
max_batch_size: {served.most}

input [
{_listed(f"name: {_quoted(tensor.name)} {_shape(tensor, served)}" for tensor in served.inputs)}
]
output [
{_listed(_output(tensor, served) for tensor in served.outputs)}
]
"""


def facts_line(facts: Facts) -> str:
    """The parameter `fcos`: `Facts.to_metadata` as JSON, without the test vectors, which only the file holds."""
    metadata = json.dumps(replace(facts, vectors="").to_metadata())
    return f'parameters {{ key: "fcos" value {{ string_value: {_quoted(metadata)} }} }}'


def with_facts(text: str, facts: Facts) -> str:
    """The text of an existing file with the facts of a new version."""
    kept = re.sub(r'^parameters \{ key: "fcos" .*\n?', "", text, flags=re.MULTILINE).rstrip("\n")
    return f"{kept}\n\n{facts_line(facts)}\n"


def _output(tensor: Tensor, served: Served) -> str:
    label = ' label_filename: "labels.txt"' if tensor.name == "classes" else ""
    return f"name: {_quoted(tensor.name)} {_shape(tensor, served)}{label}"


def _shape(tensor: Tensor, served: Served) -> str:
    """Type and dimensions, the batch left out if Triton adds it."""
    dims = [-1 if side is None else side for side in tensor.shape[1 if served.most else 0 :]]
    scalar = "" if dims else " reshape { shape: [ ] }"
    return f"data_type: TYPE_{tensor.type} dims: {_dims(dims or [1])}{scalar}"


def _warm_batches(served: Served) -> Iterable[int]:
    """1 and the largest batch; for ONNX Runtime, which prepares each shape at its first request, all batches."""
    most = served.most or 1
    return range(1, most + 1) if served.backend == "onnxruntime" else sorted({1, most})


def _warm_up(served: Served, batch: int) -> str:
    """A request of random pixels; runtimes choose and allocate at the first one."""
    inputs = []
    for tensor in served.inputs:
        sides = tensor.shape if len(tensor.shape) < 4 else (*tensor.shape[:2], *served.typical)
        dims = _dims([side or 1 for side in sides[1 if served.most else 0 :]])
        data = "random_data" if len(sides) == 4 else "zero_data"
        value = f"data_type: TYPE_{tensor.type} dims: {dims} {data}: true"
        inputs.append(f"inputs {{ key: {_quoted(tensor.name)} value {{ {value} }} }}")
    return f'name: "batch of {batch}" batch_size: {batch} {" ".join(inputs)}'


def _listed(items: Iterable[str]) -> str:
    return ",\n".join(f"  {{ {item} }}" for item in items)


def _dims(sides: Sequence[int]) -> str:
    return f"[ {', '.join(map(str, sides))} ]"


def _quoted(text: str) -> str:
    """A string of protobuf's text format; in ASCII text, JSON only escapes quotes and backslashes."""
    return json.dumps(text)
