"""The TensorRT detector: `.engine` files of TensorRT 10 and 11 and of TensorRT-RTX, on an NVIDIA GPU.

Everything that can be known of an engine before it is loaded is checked first, from the JSON file beside it, because
what TensorRT itself says of an engine that does not fit is hard to act on. torch holds the GPU's memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Pixels
from fcos_cli.errors import FcosError, ModelError
from fcos_cli.runtime.exported import InputLimits, Inputs, Outputs, check_score, run_in_batches
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import CONVERGED, INPUT, OUTPUTS, SIZES
from fcos_cli.runtime.results import RawDetections
from fcos_cli.runtime.tensorrt.layers import Layers, read_layers
from fcos_cli.runtime.tensorrt.package import (
    NAMES,
    Gpu,
    Package,
    find_gpu,
    find_package,
    format_capability,
    parse_version,
)
from fcos_cli.runtime.tensorrt.sidecar import CURRENT_GPU, EngineRecord, read_sidecar

if TYPE_CHECKING:
    import torch

TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""TensorRT's names of types → torch's."""


class TensorRtDetector:
    """Runs an engine. Open one with `open`. Not for several threads at once: its memory is reused between calls.

    precision: of most layers with weights, as read back from the engine where that was possible. device: `cuda:N`.
    """

    backend = "tensorrt"

    def __init__(
        self, loaded: LoadedEngine, facts: Facts, record: EngineRecord, *, path: Path, name: str, score: float | None
    ) -> None:
        self.facts, self.record, self.path, self.name, self.score = facts, record, path, name, score
        self.precision, self.device = record.precision_used, str(loaded.gpu.device)
        self._loaded = loaded
        low, high = record.min, record.max
        fixed = {
            side: getattr(low, side) if getattr(low, side) == getattr(high, side) else None
            for side in ("height", "width")
        }
        self.limits = InputLimits(low.batch, high.batch, **fixed)

    @classmethod
    def open(cls, path: Path, *, name: str, score: float | None = None, device: str = "auto") -> TensorRtDetector:
        """score: lowest score to return (default: the file's own). device: `auto`, `cuda` or `cuda:N`.

        Raises UsageError, MissingExtra where TensorRT is not installed, ModelError where this machine cannot run the
        engine, saying what to do.
        """
        facts, record = read_sidecar(path)
        check_score(score, facts, path)
        gpu = find_gpu(device)  # a wrong --device first
        package = find_package(record.flavour)
        check_version(record, package, path)
        if gpu is None:
            raise ModelError(
                "an engine runs on an NVIDIA GPU, and torch sees none here",
                where=path,
                remedy="use a .onnx of the model",
            )
        check_gpu(record, gpu, path)
        plan = path.read_bytes()
        if hashlib.sha256(plan).hexdigest() != record.engine_sha256:
            raise ModelError(
                "the .json beside this engine is that of another one, or the engine was damaged",
                where=path,
                remedy="copy both files again, or export the engine again",
            )
        loaded = load_engine(plan, package, gpu, where=path)
        return cls(loaded, facts, _read_now(record, loaded), path=path, name=name, score=score)

    def __call__(self, images: Pixels, sizes: npt.NDArray[np.int64] | None = None) -> RawDetections:
        self._check_size(images)
        return run_in_batches(images, sizes, self._run, limits=self.limits, score=self.score, where=self.path)

    def _run(self, given: Inputs) -> Outputs:
        found = self._loaded.run(given, where=self.path)
        return {name: found[name] for name in (*OUTPUTS, CONVERGED) if name in found}

    def _check_size(self, images: Pixels) -> None:
        low, high = self.record.min, self.record.max
        height, width = images.shape[2:]
        if not (low.height <= height <= high.height and low.width <= width <= high.width):
            raise ModelError(
                f"the engine takes pictures of {low.height} to {high.height} x {low.width} to {high.width} pixels "
                f"(height x width), not of {height} x {width}",
                where=self.path,
                remedy="build it again with a profile that holds this size",
            )


def _read_now(record: EngineRecord, loaded: LoadedEngine) -> EngineRecord:
    """`record` with the layers' precisions, where the machine that built the engine had no GPU to read them on."""
    if record.body is not None:
        return record
    try:
        layers = read_engine_layers(loaded)
    except ValueError as error:
        return replace(record, unread=str(error))
    return replace(record, layers=layers.all, body=layers.body or None, unread=None)


def check_version(record: EngineRecord, package: Package, where: Path) -> None:
    """ModelError unless `package` is the version that built the engine.

    Engines are not portable between versions of TensorRT (but for those built with BuilderFlag.VERSION_COMPATIBLE,
    which carry code and are slower; we build none), nor between releases of TensorRT-RTX. The first three numbers must
    agree; on a fourth, TensorRT itself decides.
    """
    built, here = parse_version(record.version)[:3], parse_version(package.version)[:3]
    if built[: len(here)] != here[: len(built)]:
        name, wanted = NAMES[record.flavour], ".".join(map(str, built))
        module = "tensorrt" if record.flavour == "trt" else "tensorrt-rtx"
        raise ModelError(
            f"the engine was built by {name} {record.version} and runs on no other version; here is {package.version}",
            where=where,
            remedy=f"export it again on this machine, or install {module} {wanted}",
        )


def check_gpu(record: EngineRecord, gpu: Gpu, where: Path) -> None:
    """ModelError where the engine was made for other GPUs than `gpu`.

    TensorRT builds for the compute capability it is built on. TensorRT-RTX builds for those that were asked for, and
    for 8.0 and all later ones where none was.
    """
    here = format_capability(gpu.capability)
    if record.flavour == "trt" or CURRENT_GPU in record.compute_capabilities:
        fits, made_for = (
            here == record.compute_capability,
            f"{record.gpu} (compute capability {record.compute_capability})",
        )
    elif record.compute_capabilities:
        made_for = f"compute capability {', '.join(record.compute_capabilities)}"
        fits = here in record.compute_capabilities
    else:
        fits, made_for = gpu.capability >= (8, 0), "compute capability 8.0 and later"
    if not fits:
        flag = f" for compute capability {here}" if record.flavour == "trt-rtx" else " on this machine"
        raise ModelError(
            f"the engine was built for {made_for}; this {gpu.name} has {here}",
            where=where,
            remedy=f"export it again{flag}",
        )


@dataclass
class LoadedEngine:
    """An engine on a GPU, with the memory of its inputs and outputs.

    inputs, outputs: torch's dtype by name. Memory grows to the largest call so far, per tensor, and is reused.
    """

    package: Package
    gpu: Gpu
    runtime: Any  # has to outlive the engine
    engine: Any
    context: Any
    inputs: dict[str, torch.dtype]
    outputs: dict[str, torch.dtype]
    _memory: dict[str, torch.Tensor] = field(default_factory=dict)

    def run(self, given: Inputs, *, where: Path) -> dict[str, npt.NDArray[Any]]:
        """Inputs by name, of shapes within the profile → all outputs by name, as numpy arrays of their own.

        Raises FcosError with TensorRT's own words where the execution fails.
        """
        mark = self.package.log.mark()
        with self.gpu.active():
            done = all(self._feed(name, given[name]) for name in self.inputs)
            answers = {}
            for name, dtype in self.outputs.items() if done else ():
                answers[name] = self._tensor(name, tuple(self.context.get_tensor_shape(name)), dtype)
                done = done and self.context.set_tensor_address(name, answers[name].data_ptr())
            if not (done and self.context.execute_async_v3(self.gpu.stream)):
                images = given[INPUT]
                raise FcosError(
                    f"TensorRT failed on {images.shape[0]} pictures of {images.shape[2]} x {images.shape[3]} "
                    f"({self.package.log.errors(mark)})",
                    where=where,
                    remedy="a smaller --batch needs less of the GPU's memory",
                )
            # a copy even where torch's device is the CPU: the next call writes into the same memory
            return {name: answer.to("cpu", copy=True).numpy() for name, answer in answers.items()}

    def _feed(self, name: str, values: npt.NDArray[Any]) -> bool:
        """Copy an input to the GPU and tell TensorRT; False where it refuses."""
        import torch

        held = self._tensor(name, values.shape, self.inputs[name])
        held.copy_(torch.from_numpy(values if values.flags.writeable else values.copy()))
        shaped = self.context.set_input_shape(name, tuple(values.shape))
        return bool(shaped and self.context.set_tensor_address(name, held.data_ptr()))

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        import torch

        if min(shape, default=1) < 0:
            raise ModelError(f"the size of {name} is not known before the engine runs: {shape}")
        count = prod(shape)
        memory = self._memory.get(name)
        if memory is None or memory.numel() < count:
            memory = self._memory[name] = torch.empty(max(count, 1), dtype=dtype, device=self.gpu.device)
        return memory[:count].view(shape)


def load_engine(plan: bytes, package: Package, gpu: Gpu, *, where: Path) -> LoadedEngine:
    """Raises ModelError, with TensorRT's own words, where `plan` cannot be used here."""
    import torch

    mark = package.log.mark()
    with gpu.active():
        runtime = package.module.Runtime(package.logger)
        engine = runtime.deserialize_cuda_engine(plan)
        # TensorRT-RTX compiles for this GPU here
        context = None if engine is None else engine.create_execution_context()
    if context is None:
        raise ModelError(
            f"{package.label} cannot load this engine ({_why_invalid(package, runtime, plan)}"
            f"{package.log.errors(mark)})",
            where=where,
            remedy="export the engine again on this machine",
        )
    modes = package.module.TensorIOMode
    tensors = [str(engine.get_tensor_name(index)) for index in range(engine.num_io_tensors)]
    types = {name: getattr(torch, TYPES[engine.get_tensor_dtype(name).name]) for name in tensors}
    sides = {name: engine.get_tensor_mode(name) == modes.INPUT for name in tensors}
    inputs = {name: dtype for name, dtype in types.items() if sides[name]}
    outputs = {name: dtype for name, dtype in types.items() if not sides[name]}
    kinds = inputs.get(INPUT) in (torch.uint8, torch.float32) and inputs.get(SIZES, torch.int64) == torch.int64
    if not kinds or not set(inputs) <= {INPUT, SIZES} or not set(OUTPUTS) <= set(outputs):
        raise ModelError(
            f"the engine maps {', '.join(inputs)} to {', '.join(outputs)}, not {INPUT} to {', '.join(OUTPUTS)}",
            where=where,
            remedy="only models that `fcos export` wrote can be run",
        )
    return LoadedEngine(package, gpu, runtime, engine, context, inputs, outputs)


def _why_invalid(package: Package, runtime: Any, plan: bytes) -> str:
    """TensorRT-RTX 1.1 and later can tell by an engine's header what is wrong with it.

    Only asked when loading has failed: it calls engines invalid that run, on GPUs it does not know by name.
    """
    if not hasattr(runtime, "get_engine_validity"):
        return ""
    _, found = runtime.get_engine_validity(plan)
    reasons = [
        name.lower().replace("_", " ")
        for name, member in package.module.EngineInvalidityDiagnostics.__members__.items()
        if int(found) & int(member)
    ]
    return f"{', '.join(reasons)}: " if reasons else ""


def read_engine_layers(loaded: LoadedEngine, *, weighty: Collection[str] = ()) -> Layers:
    """What the engine's layers run in. weighty: names of the ONNX nodes that have weights, where they are known.

    Raises ValueError, saying why, where the engine does not tell.
    """
    inspector = loaded.engine.create_engine_inspector()
    as_json = loaded.package.module.LayerInformationFormat.JSON
    try:
        return read_layers(str(inspector.get_engine_information(as_json)), weighty=weighty)
    except ValueError:
        inspector.execution_context = loaded.context  # TensorRT-RTX chooses its kernels with the context
        return read_layers(str(inspector.get_engine_information(as_json)), weighty=weighty)
