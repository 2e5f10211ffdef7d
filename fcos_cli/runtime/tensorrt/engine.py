"""A TensorRT engine loaded on a GPU: its inputs and outputs, and one call of it. torch holds the GPU's memory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from fcos_cli.errors import FcosError, ModelError
from fcos_cli.runtime.exported import Inputs
from fcos_cli.runtime.graph_io import INPUT, OUTPUTS, SIZES
from fcos_cli.runtime.tensorrt.layers import Layers, read_layers
from fcos_cli.runtime.tensorrt.package import Gpu, Package

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
