"""ONNX → a TensorRT engine and its JSON file. One code path for `tensorrt` 10 and 11 and for `tensorrt_rtx`.

Notable choices:
- Networks are strongly typed, which TensorRT 11 and RTX require and TensorRT 10 supports. The engine's types are those
  of the ONNX file: no builder flag changes the precision of a layer.
- TensorFloat-32 is off: fp32 means fp32.
- The precision is read back, with a GPU from the engine, otherwise from the typed network. An `fp16` engine without a
  single fp16 layer is an error.
- Building an engine does not make it `verified`; the caller writes that into the facts after a parity check
  (`write_sidecar`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from fcos_cli import console
from fcos_cli.atomic import atomic_write
from fcos_cli.errors import FcosError, MissingExtra, ModelError
from fcos_cli.export.tensorrt.builder import EngineBuilder
from fcos_cli.export.tensorrt.capabilities import dotted_name
from fcos_cli.export.tensorrt.graph_check import EngineGraph
from fcos_cli.export.tensorrt.profile import Profile
from fcos_cli.export.tensorrt.settings import check_settings
from fcos_cli.runtime.headers import sidecar_path
from fcos_cli.runtime.tensorrt.layers import Layers
from fcos_cli.runtime.tensorrt.package import Flavour, Gpu, Package, find_gpu, find_package, format_capability
from fcos_cli.runtime.tensorrt.sidecar import EngineRecord, write_sidecar


class BuildUnavailable(FcosError):
    """This machine cannot build the engine. The remedy has the command that finishes the job on another one."""

    def __init__(self, reason: str, *, onnx: Path, command: str) -> None:
        super().__init__(reason, where=onnx, remedy=f"on another machine, run: {command}")


def build_engine(
    onnx: Path,
    engine: Path,
    *,
    flavour: Flavour,
    command: str,
    profile: Profile | None = None,
    workspace_mb: int | None = None,
    timing_cache: Path | None = None,
    compute_capabilities: Sequence[str] = (),
    say: Callable[[str], object] = console.say,
) -> EngineRecord:
    """Build `engine` from an ONNX file written by `fcos export`, and write its facts and record to `engine`.json.

    command: what finishes the job on another machine. profile: input shapes for dynamic dimensions (default:
    `Profile.default`). workspace_mb: limit of a layer's temporary GPU memory. timing_cache: file of kernel timings,
    read and updated (`trt` only). compute_capabilities: GPUs to build for, `8.6` or `sm86`, or `current` (`trt-rtx`
    only; default: 8.0 and later). Raises UsageError, ModelError with the builder's last errors, and BuildUnavailable.
    """
    graph = EngineGraph.read(onnx, flavour)
    shapes = profile or Profile.default(graph.facts.resize, graph.dimensions)
    shapes.check(graph.dimensions, graph.facts.resize)
    check_settings(flavour, {"workspace_mb": workspace_mb, "compute_capabilities": compute_capabilities})
    package, gpu = _find_tensorrt(onnx, flavour, command)
    say(f"building {engine.name} with {package.label}{f' on {gpu.name}' if gpu else ', ahead of time'}")
    began, mark = time.monotonic(), package.log.mark()
    builder = EngineBuilder(package, gpu, onnx)
    _require_precision(graph.facts.precision, builder.precisions, "network's", onnx)
    plan = builder.build(
        shapes if graph.is_free else None,
        workspace_mb=workspace_mb,
        timing_cache=timing_cache,
        compute_capabilities=compute_capabilities,
        say=say,
    )
    seconds = time.monotonic() - began
    layers, unread = _read_back(plan, package, gpu, graph, onnx)
    record = EngineRecord(
        flavour=flavour,
        version=package.version,
        precision=graph.facts.precision,
        network=builder.precisions,
        min=shapes.min,
        opt=shapes.opt,
        max=shapes.max,
        onnx_sha256=graph.sha256,
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        seconds=round(seconds, 2),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        gpu=gpu.name if gpu else None,
        compute_capability=format_capability(gpu.capability) if gpu else None,
        compute_capabilities=tuple(map(dotted_name, compute_capabilities)),
        layers=layers.all if layers else None,
        body=layers.body if layers else None,
        unread=unread,
        warnings=tuple(package.log.warnings(mark)[-20:]),
        outputs=graph.outputs,
    )
    _require_precision(record.precision, record.body or record.layers or {}, "engine's", onnx)
    _write(engine, plan, graph, record)
    say(f"built in {seconds:.1f} s, {len(plan) / 1e6:.1f} MB; {_layer_summary(record)}")
    return record


def _require_precision(precision: str, counts: dict[str, int], owner: str, onnx: Path) -> None:
    """Raise ModelError if fp16, bf16 or int8 was requested and no layer uses it. One of unknown type may."""
    if precision in ("fp16", "bf16", "int8") and counts and not counts.get(precision) and not counts.get("other"):
        raise ModelError(
            f"{precision} was requested, but the {owner} layers with weights are in {_format_counts(counts)}",
            where=onnx,
            remedy=f"export it again with --precision {precision}, or use --precision fp32",
        )


def _read_back(
    plan: bytes, package: Package, gpu: Gpu | None, graph: EngineGraph, onnx: Path
) -> tuple[Layers | None, str | None]:
    """Number of layers by precision, read from the engine, or the reason why they cannot be read."""
    from fcos_cli.runtime.tensorrt.engine import load_engine, read_engine_layers

    if gpu is None:
        return None, "built without a GPU, which is needed to read an engine"
    try:
        loaded = load_engine(plan, package, gpu, where=onnx)
        return read_engine_layers(loaded, weighted_nodes=graph.weighted_nodes), None
    except ValueError as error:
        return None, str(error)
    except ModelError as error:
        if package.flavour == "trt":  # it was built for this GPU, so it must load
            raise
        return None, f"this {gpu.name} cannot load it: {error.what}"


def why_not_run(record: EngineRecord, engine: Path) -> str | None:
    """Why this machine cannot run an engine that it built, if so. TensorRT-RTX also builds for other GPUs."""
    from fcos_cli.runtime.tensorrt.detector import TensorRtDetector

    if find_gpu() is None:
        return "it needs a GPU"
    if record.flavour == "trt":
        return None
    try:
        TensorRtDetector.open(engine, name=engine.name)
    except ModelError as error:
        return error.what
    return None


def _write(engine: Path, plan: bytes, graph: EngineGraph, record: EngineRecord) -> None:
    """Write engine and JSON file, each atomically.

    The old JSON file is deleted first: it must not describe a new engine.
    """
    sidecar_path(engine).unlink(missing_ok=True)
    with atomic_write(engine, binary=True) as file:
        file.write(plan)
    write_sidecar(engine, replace(graph.facts, verified=False), record)


def _find_tensorrt(onnx: Path, flavour: Flavour, command: str) -> tuple[Package, Gpu | None]:
    """The installed package and the GPU, if any.

    Raises BuildUnavailable if the package or, for `trt`, the GPU is missing.
    """
    gpu = find_gpu()
    if gpu is None and flavour == "trt":
        raise BuildUnavailable(
            "TensorRT builds an engine on the GPU that will run it, and torch finds no GPU here",
            onnx=onnx,
            command=command,
        )
    try:
        package = find_package(flavour)
    except MissingExtra as error:
        raise BuildUnavailable(f"{error.what} ({error.remedy})", onnx=onnx, command=command) from error
    return package, gpu


def _format_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def _layer_summary(record: EngineRecord) -> str:
    if record.layers is None:
        return f"layers with weights by type: {_format_counts(record.network)}; not read back: {record.unread}"
    return (
        f"layers read back: {_format_counts(record.layers)}, of them with weights: {_format_counts(record.body or {})}"
    )
