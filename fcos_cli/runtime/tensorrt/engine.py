"""A TensorRT engine loaded on a GPU: its inputs and outputs, and how it is called. torch manages the GPU's memory."""

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
"""TensorRT's names of data types → torch's."""


@dataclass
class LoadedEngine:
    """An engine on a GPU, with buffers for its inputs and outputs.

    inputs, outputs: torch dtype by name. Each buffer grows to the largest call so far and is reused.
    """

    package: Package
    gpu: Gpu
    runtime: Any  # must outlive the engine
    engine: Any
    context: Any
    inputs: dict[str, torch.dtype]
    outputs: dict[str, torch.dtype]
    _memory: dict[str, torch.Tensor] = field(default_factory=dict)

    def run(self, given: Inputs, *, where: Path) -> dict[str, npt.NDArray[Any]]:
        """Run the engine on inputs by name, with shapes within the profile. Return all outputs as new numpy arrays.

        Raises FcosError with TensorRT's message if execution fails.
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
                    f"TensorRT failed on {images.shape[0]} images of {images.shape[2]} x {images.shape[3]} "
                    f"({self.package.log.errors(mark)})",
                    where=where,
                    remedy="try a smaller --batch, which needs less GPU memory",
                )
            # copy even on a CPU device: the next call writes to the same memory
            return {name: answer.to("cpu", copy=True).numpy() for name, answer in answers.items()}

    def _feed(self, name: str, values: npt.NDArray[Any]) -> bool:
        """Copy an input to the GPU and bind it. Return False if TensorRT refuses it."""
        import torch

        held = self._tensor(name, values.shape, self.inputs[name])
        held.copy_(torch.from_numpy(values if values.flags.writeable else values.copy()))
        shaped = self.context.set_input_shape(name, tuple(values.shape))
        return bool(shaped and self.context.set_tensor_address(name, held.data_ptr()))

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        import torch

        if min(shape, default=1) < 0:
            raise ModelError(f"output {name} has a data-dependent shape: {shape}")
        count = prod(shape)
        memory = self._memory.get(name)
        if memory is None or memory.numel() < count:
            memory = self._memory[name] = torch.empty(max(count, 1), dtype=dtype, device=self.gpu.device)
        return memory[:count].view(shape)


def load_engine(plan: bytes, package: Package, gpu: Gpu, *, where: Path) -> LoadedEngine:
    """Load a serialized engine. Raises ModelError with TensorRT's message if it cannot be used on this machine."""
    import torch

    mark = package.log.mark()
    with gpu.active():
        runtime = package.module.Runtime(package.logger)
        engine = runtime.deserialize_cuda_engine(plan)
        context = None if engine is None else _create_context(package, engine)
    if context is None:
        raise ModelError(
            f"{package.label} cannot load this engine ({_why_invalid(package, runtime, plan)}"
            f"{package.log.errors(mark)})",
            where=where,
            remedy="export the engine again on this machine"
            + (", with --format trt, or use the .onnx file" if package.flavour == "trt-rtx" else ""),
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


def _create_context(package: Package, engine: Any) -> Any:
    """Make the engine ready to run. This is where TensorRT-RTX compiles for this GPU."""
    strategies = getattr(package.module, "DynamicShapesKernelSpecializationStrategy", None)
    if strategies is None:  # TensorRT compiled everything in the build
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    # by default general kernels run until those for the shape are compiled in the background: results and times would
    # change between calls
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    return engine.create_execution_context(config)


def _why_invalid(package: Package, runtime: Any, plan: bytes) -> str:
    """What TensorRT-RTX 1.1 and later report about an invalid engine header.

    Called only after loading has failed: on GPUs it does not know by name, it also reports engines that work.
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


def read_engine_layers(loaded: LoadedEngine, *, weighted_nodes: Collection[str] = ()) -> Layers:
    """Read the precision of the engine's layers. weighted_nodes: names of ONNX nodes with weights, if known.

    Raises ValueError with the reason if the engine does not report it.
    """
    inspector = loaded.engine.create_engine_inspector()
    as_json = loaded.package.module.LayerInformationFormat.JSON
    try:
        return read_layers(str(inspector.get_engine_information(as_json)), weighted_nodes=weighted_nodes)
    except ValueError:
        inspector.execution_context = loaded.context  # TensorRT-RTX chooses its kernels with the context
        return read_layers(str(inspector.get_engine_information(as_json)), weighted_nodes=weighted_nodes)
