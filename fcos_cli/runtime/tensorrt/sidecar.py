"""What is known of a TensorRT engine: the table `engine` of the JSON file beside it.

The file is `MODEL.engine.json`: {"schema_version": 1, "facts": {…}, "engine": {…}}, where `facts` are the strings of
`Facts.to_metadata`. An engine itself tells nothing before it is loaded, and cannot be loaded where it does not fit.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import ModelError
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.tensorrt.package import Flavour

SCHEMA_VERSION = 1

CURRENT_GPU = "current"
"""In place of a compute capability: that of the GPU on which the engine is built."""


class Shape(NamedTuple):
    """What one call takes: pictures, and their height and width in pixels."""

    batch: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.batch} x 3 x {self.height} x {self.width}"


@dataclass(frozen=True)
class EngineRecord:
    """How an engine came about.

    version: of the TensorRT that built it, which is the only one that runs it. gpu, compute_capability: name and
    `major.minor` of the GPU it was built on, None without one. compute_capabilities: those TensorRT-RTX was asked to
    build for, or CURRENT; none = its default, `8.0` and later. precision: what was asked of the export. network: layers
    with weights (convolutions, matrix products) by the precision in which the strongly typed network has them. layers,
    body: all layers, and those with weights, by precision as read back from the built engine; None, with the reason in
    unread, where they could not be read. min, opt, max: of the input. date: UTC, ISO 8601. log: the builder's lines,
    not stored; warnings: those of them that are no mere information.
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
    tf32: bool = False
    gpu: str | None = None
    compute_capability: str | None = None
    compute_capabilities: tuple[str, ...] = ()
    layers: dict[str, int] | None = None
    body: dict[str, int] | None = None
    unread: str | None = None
    warnings: tuple[str, ...] = ()
    log: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def precision_used(self) -> str:
        """In what most layers with weights run: `fp32`, `fp16`, `bf16`, `int8`; `mixed` where none has the half."""
        counts = self.body or self.network
        best = max(counts, key=lambda key: counts[key], default=self.precision)
        # int8 leaves layers out that suffer from it
        if self.precision == "int8" and counts.get("int8", 0) * 2 >= sum(counts.values()):
            best = "int8"
        return best if counts.get(best, 1) * 2 >= sum(counts.values()) else "mixed"

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values; `from_json` reads it back."""
        return {key: value for key, value in asdict(self).items() if key != "log"}

    @classmethod
    def from_json(cls, content: dict[str, Any], *, where: Path) -> EngineRecord:
        """Raises ModelError naming what is missing or wrong. What a newer version added is left aside."""
        try:
            known = {entry.name: content[entry.name] for entry in fields(cls) if entry.name in content}
            lacking = [e.name for e in fields(cls) if e.default is e.default_factory is MISSING and e.name not in known]
            if lacking:
                raise KeyError(lacking[0])
            for key in ("min", "opt", "max"):
                known[key] = Shape(*(int(value) for value in known[key]))
            for key in ("compute_capabilities", "warnings"):
                known[key] = tuple(str(value) for value in known.get(key, ()))
            if known["flavour"] not in get_args(Flavour):
                raise ValueError(f"unknown flavour {known['flavour']!r}")
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ModelError(
                f"what is noted of this engine cannot be used: {missing}",
                where=where,
                remedy="export the engine again with this version",
            ) from error


def sidecar_path(engine: Path) -> Path:
    """`best.engine` → `best.engine.json`."""
    return engine.with_name(engine.name + ".json")


def write_sidecar(engine: Path, facts: Facts, record: EngineRecord) -> None:
    """Write, or write again (after a parity run, with `facts.verified` changed), what is known of `engine`."""
    content = {"schema_version": SCHEMA_VERSION, "facts": facts.to_metadata(), "engine": record.to_json()}
    with atomic_write(sidecar_path(engine)) as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def read_sidecar(engine: Path) -> tuple[Facts, EngineRecord]:
    """Raises ModelError where the file beside `engine` is missing, damaged, too new or of something else."""
    from fcos_cli.runtime.headers import read_header

    header = read_header(engine)
    return header.facts, EngineRecord.from_json(header.engine or {}, where=sidecar_path(engine))
