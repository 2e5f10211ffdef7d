"""ONNX → a TensorRT engine and the facts beside it. One way for `tensorrt` 10 and 11 and for `tensorrt_rtx`.

Notable choices:
- Networks are strongly typed: TensorRT 11 and RTX know no others, 10 is asked for them. One ONNX means one thing, and
  its types are the engine's; nothing is made half precision, or left in full, by a builder's flag.
- TensorFloat-32 is off: fp32 means fp32.
- What was built is read back, on a GPU from the engine, elsewhere from the typed network, and `fp16` without a single
  layer in half is an error.
- An engine is never `verified` by being built: whoever has run it writes that into its facts (`write_sidecar`).
"""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from fcos_cli import console
from fcos_cli.atomic import atomic_write
from fcos_cli.errors import FcosError, MissingExtra, ModelError, UsageError
from fcos_cli.export.tensorrt.builder import EngineBuilder, dotted_name
from fcos_cli.export.tensorrt.graph_check import EngineGraph, check_graph
from fcos_cli.export.tensorrt.profile import Profile
from fcos_cli.runtime.graph_io import INPUT, SIZES
from fcos_cli.runtime.tensorrt.layers import Layers
from fcos_cli.runtime.tensorrt.package import Flavour, Gpu, Package, find_gpu, find_package, format_capability
from fcos_cli.runtime.tensorrt.sidecar import EngineRecord, Shape, sidecar_path, write_sidecar

__all__ = ["BuildUnavailable", "EngineRecord", "Profile", "Shape", "build_engine", "check_graph", "write_sidecar"]


class BuildUnavailable(FcosError):
    """This machine cannot build the engine; another one can, from the ONNX. `command` finishes the job there."""

    def __init__(self, reason: str, *, onnx: Path, command: str) -> None:
        super().__init__(reason, where=onnx, remedy=f"on a machine that can: {command}")
        self.command = command


def build_engine(
    onnx: Path,
    engine: Path,
    *,
    flavour: Flavour,
    profile: Profile | None = None,
    workspace_mb: int | None = None,
    timing_cache: Path | None = None,
    compute_capabilities: Sequence[str] = (),
    command: str | None = None,
    say: Callable[[str], object] = console.say,
) -> EngineRecord:
    """Build `engine` from `onnx` (one that `fcos export` wrote) and write what is known of it to `engine`.json.

    profile: sizes of input where the graph leaves them free (default: `Profile.default`). workspace_mb: most GPU memory
    a layer may take for its work. timing_cache: file of measured kernel times, used and updated (`trt` only).
    compute_capabilities: GPUs to build for, `8.6` or `sm86`, or `current` (`trt-rtx` only; default 8.0 and later).
    command: what finishes the job elsewhere. Raises UsageError, ModelError with the builder's last errors, CannotBuild.
    """
    graph = EngineGraph.read(onnx, flavour)
    shapes = profile or Profile.default(graph.facts.resize, graph.dimensions)
    shapes.check(graph.dimensions, graph.facts.resize)
    if workspace_mb is not None and workspace_mb < 1:
        raise UsageError(f"a workspace of {workspace_mb} MB is none", where="workspace")
    if compute_capabilities and flavour == "trt":
        raise UsageError(
            "TensorRT builds for the GPU it runs on; only TensorRT-RTX builds for chosen compute capabilities",
            remedy="use --format trt-rtx, or build on the GPU that will run the engine",
        )
    command = command or elsewhere(
        onnx,
        engine,
        flavour,
        shapes if graph.is_free else None,
        workspace_mb,
        compute_capabilities,
        clips=graph.facts.conventions.clip == "picture",
    )
    package, gpu = _machine(onnx, flavour, command)
    say(f"building {engine} with {package.label}{f' on {gpu.name}' if gpu else ', ahead of time'}")
    began, mark = time.monotonic(), package.log.mark()
    build = EngineBuilder(package, gpu, onnx)
    _insist(graph.facts.precision, build.types, "network's", onnx)
    plan = build.plan(
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
        network=build.types,
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
        log=tuple(package.log.since(mark)),
    )
    _insist(record.precision, record.body or record.layers or {}, "engine's", onnx)
    _write(engine, plan, graph, record)
    say(f"built in {seconds:.1f} s, {len(plan) / 1e6:.1f} MB; {_told(record)}")
    return record


def _insist(precision: str, counts: dict[str, int], whose: str, onnx: Path) -> None:
    """ModelError where half precision or int8 was asked for and no layer has it: never silently something else."""
    if precision in ("fp16", "bf16", "int8") and counts and not counts.get(precision):
        raise ModelError(
            f"{precision} was asked for, but the {whose} layers with weights are in {_listed(counts)}",
            where=onnx,
            remedy=f"export it again with --precision {precision}, or take --precision fp32",
        )


def _read_back(
    plan: bytes, package: Package, gpu: Gpu | None, graph: EngineGraph, onnx: Path
) -> tuple[Layers | None, str | None]:
    """Layers by precision from the engine itself, or why they could not be read."""
    from fcos_cli.runtime.tensorrt.engine import load_engine, read_engine_layers

    if gpu is None:
        return None, "built without a GPU, and only on one an engine can be read"
    try:
        return read_engine_layers(load_engine(plan, package, gpu, where=onnx), weighty=graph.weighty), None
    except ValueError as error:
        return None, str(error)
    except ModelError as error:
        if package.flavour == "trt":  # built here, for here
            raise
        return None, f"this {gpu.name} cannot load it: {error.what}"


def _write(engine: Path, plan: bytes, graph: EngineGraph, record: EngineRecord) -> None:
    """Both files, each whole or not at all; an old JSON never stands beside a new engine."""
    sidecar_path(engine).unlink(missing_ok=True)
    with atomic_write(engine, binary=True) as file:
        file.write(plan)
    write_sidecar(engine, replace(graph.facts, verified=False), record)


def _machine(onnx: Path, flavour: Flavour, command: str) -> tuple[Package, Gpu | None]:
    """Raises CannotBuild where the package, or for `trt` the GPU, is missing."""
    gpu = find_gpu()
    if gpu is None and flavour == "trt":
        raise BuildUnavailable(
            "TensorRT builds an engine on the GPU that will run it, and torch sees none here",
            onnx=onnx,
            command=command,
        )
    try:
        package = find_package(flavour)
    except MissingExtra as error:
        raise BuildUnavailable(f"{error.what} ({error.remedy})", onnx=onnx, command=command) from error
    return package, gpu


def elsewhere(
    onnx: Path,
    engine: Path,
    flavour: Flavour,
    shapes: Profile | None,
    workspace_mb: int | None = None,
    compute_capabilities: Sequence[str] = (),
    *,
    clips: bool = False,
) -> str:
    """The same build by the vendor's own program: `trtexec` (TensorRT 10, 11) or `tensorrt_rtx` (the RTX SDK).

    clips: the graph takes `sizes` too. The engine has no facts beside it: it is for programs of one's own, `fcos` opens
    only what `fcos` has built.
    """
    words = ["trtexec" if flavour == "trt" else "tensorrt_rtx", f"--onnx={onnx}", f"--saveEngine={engine}"]
    if shapes is not None:
        for name, shape in (("min", shapes.min), ("opt", shapes.opt), ("max", shapes.max)):
            further = f",{SIZES}:{shape.batch}x2" if clips else ""
            words.append(f"--{name}Shapes={INPUT}:{shape.batch}x3x{shape.height}x{shape.width}{further}")
    if flavour == "trt":
        words += ["--stronglyTyped", "--noTF32", "--profilingVerbosity=detailed"]  # the first is for 10; 11 is always
        words += [] if workspace_mb is None else [f"--memPoolSize=workspace:{workspace_mb}"]
    elif compute_capabilities:
        numbers = (dotted_name(capability).replace(".", "") for capability in compute_capabilities)
        words.append(f"--computeCapabilities={','.join(numbers)}")
    return shlex.join([*words, "--skipInference"])


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def _told(record: EngineRecord) -> str:
    if record.layers is None:
        return f"layers with weights by type: {_listed(record.network)}; not read back: {record.unread}"
    return f"layers read back: {_listed(record.layers)}, of them with weights: {_listed(record.body or {})}"
