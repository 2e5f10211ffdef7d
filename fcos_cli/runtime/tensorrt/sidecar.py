"""The record of a TensorRT engine: the object `engine` of the JSON file beside it.

The file is `MODEL.engine.json`: {"schema_version": 1, "facts": {…}, "engine": {…}}, where `facts` are the strings of
`Facts.to_metadata`. The engine file itself says nothing until it is loaded, and cannot be loaded on an incompatible
machine.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import ModelError
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import OUTPUTS
from fcos_cli.runtime.headers import read_header, sidecar_path
from fcos_cli.runtime.tensorrt.package import Flavour

SCHEMA_VERSION = 1

CURRENT_GPU = "current"
"""Stands for the compute capability of the GPU that the engine is built on."""


class Shape(NamedTuple):
    """An input shape: batch size, and height and width in pixels."""

    batch: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.batch} x 3 x {self.height} x {self.width}"


@dataclass(frozen=True)
class EngineRecord:
    """How an engine was built.

    version: TensorRT version that built it; no other version can run it. gpu, compute_capability: name and
    `major.minor` of the GPU it was built on; None if built without one. compute_capabilities: those requested of
    TensorRT-RTX, or CURRENT_GPU; empty = its default, `8.0` and later. precision: as requested from the export.
    network: number of layers with weights (convolutions, matrix products) by their precision in the strongly typed
    network. layers, body: number of all layers, and of those with weights, by precision as read back from the engine;
    None if they could not be read, with the reason in `unread`. min, opt, max: input shapes. date: UTC, ISO 8601.
    warnings: the builder's messages that are more severe than INFO. outputs: names of the graph's.
    """

    flavour: Flavour
    version: str
    precision: str
    network: dict[str, int]
    min: Shape
    opt: Shape
    max: Shape
    onnx_sha256: str
    engine_sha256: str
    seconds: float
    date: str
    gpu: str | None = None
    compute_capability: str | None = None
    compute_capabilities: tuple[str, ...] = ()
    layers: dict[str, int] | None = None
    body: dict[str, int] | None = None
    unread: str | None = None
    warnings: tuple[str, ...] = ()
    outputs: tuple[str, ...] = OUTPUTS

    @property
    def precision_used(self) -> str:
        """Precision of most layers with weights: `fp32`, `fp16`, `bf16`, `int8`; `mixed` if none has half of them.

        From the typed network if some could not be read back.
        """
        counts = self.body if self.body and "other" not in self.body else self.network
        best = max(counts, key=lambda key: counts[key], default=self.precision)
        # an int8 export keeps sensitive layers in float
        if self.precision == "int8" and counts.get("int8", 0) * 2 >= sum(counts.values()):
            best = "int8"
        return best if counts.get(best, 1) * 2 >= sum(counts.values()) else "mixed"

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values, which `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any], *, where: Path) -> EngineRecord:
        """Inverse of `to_json`. Unknown keys, from other versions, are ignored.

        Raises ModelError naming the missing or invalid key.
        """
        try:
            known = {entry.name: content[entry.name] for entry in fields(cls) if entry.name in content}
            missing = [e.name for e in fields(cls) if e.default is e.default_factory is MISSING and e.name not in known]
            if missing:
                raise KeyError(missing[0])
            for key in ("min", "opt", "max"):
                known[key] = Shape(*(int(value) for value in known[key]))
            for key in {"compute_capabilities", "warnings", "outputs"} & set(known):
                known[key] = tuple(str(value) for value in known[key])
            if known["flavour"] not in get_args(Flavour):
                raise ValueError(f"unknown flavour {known['flavour']!r}")
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ModelError(
                f"the record of this engine is invalid: {reason}",
                where=where,
                remedy="export the engine again with this version",
            ) from error


def write_sidecar(engine: Path, facts: Facts, record: EngineRecord) -> None:
    """Write the JSON file of `engine`, or overwrite it after a parity check changed `facts.verified`."""
    content = {"schema_version": SCHEMA_VERSION, "facts": facts.to_metadata(), "engine": record.to_json()}
    with atomic_write(sidecar_path(engine)) as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def read_sidecar(engine: Path) -> tuple[Facts, EngineRecord]:
    """Read the JSON file of `engine`. Raises ModelError if it is missing, damaged, too new or of another kind."""
    header = read_header(engine)
    return header.facts, EngineRecord.from_json(header.engine or {}, where=sidecar_path(engine))
