"""A small replacement for TensorRT's Python API for tests without a GPU or TensorRT.

It has the members that `fcos_cli` uses, with their types, and raises if they are used against the API's rules, such as
a wrong shape, an address that was never set, or a plan of another version. `World` configures its behaviour and records
the calls. A plan is JSON; executing one writes to the given addresses, as a GPU would.
`tests/export/tensorrt/test_engine.py` tests that the members exist in the real API.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch

from fcos_cli.export.tensorrt import engine

COMMAND = "fcos export best.safetensors --format trt"

build_engine = partial(engine.build_engine, command=COMMAND, say=str)
"""Builds without messages."""


class DataType(enum.IntEnum):
    FLOAT, HALF, BF16, INT8, INT32, INT64, BOOL, UINT8, FP8 = range(9)


class LayerType(enum.IntEnum):
    CONVOLUTION, CAST, DECONVOLUTION, MATRIX_MULTIPLY, QUANTIZE, DEQUANTIZE, TOPK = range(7)


class ComputeCapability(enum.IntEnum):
    NONE, CURRENT, SM75, SM80, SM86, SM89, SM120, SM121 = range(8)


class EngineInvalidityDiagnostics(enum.IntEnum):
    VERSION_MISMATCH, UNSUPPORTED_CC, OLD_CUDA_DRIVER, MALFORMED_ENGINE = 1, 2, 4, 32


class DynamicShapesKernelSpecializationStrategy(enum.IntEnum):
    LAZY, EAGER, NONE = range(3)


class BuilderFlag(enum.IntEnum):
    TF32 = 7


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY, DETAILED, NONE = range(3)


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class TensorIOMode(enum.IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class LayerInformationFormat(enum.IntEnum):
    ONELINE, JSON = range(2)


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


@dataclass
class World:
    """Behaviour of this TensorRT, and recorded calls.

    layers: (layer type, data type) of the parsed network. parse_errors: (operation, node, description). build_error:
    error of the builder. inspector: output of the engine inspector; None = from `layers`. outputs: of the engine, name
    → type. fails: whether execution fails. unconverged: images (by their first pixel) whose NMS did not converge.
    cache: accepted prefix of a timing cache.
    """

    flavour: str
    version: str
    layers: tuple[tuple[LayerType, DataType], ...] = ((LayerType.CONVOLUTION, DataType.FLOAT),)
    parse_errors: tuple[tuple[str, str, str], ...] = ()
    build_error: str | None = None
    no_builder: bool = False
    inspector: Any = None
    outputs: dict[str, DataType] = field(default_factory=lambda: dict(OUTPUTS))
    fails: bool = False
    unconverged: int | None = None
    cache: bytes = b"valid"
    places: int = 4
    network_flags: list[int] = field(default_factory=list)
    configs: list[Config] = field(default_factory=list)
    executed: list[tuple[int, ...]] = field(default_factory=list)
    contexts: list[IRuntimeConfig | None] = field(default_factory=list)
    allocations: int = 0


OUTPUTS = {
    "boxes": DataType.FLOAT,
    "scores": DataType.FLOAT,
    "classes": DataType.INT64,
    "counts": DataType.INT64,
}


class ILogger:
    Severity: ClassVar[type[Severity]] = Severity

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class Tensor:
    def __init__(self, name: str, dtype: DataType) -> None:
        self.name, self.dtype = name, dtype


class Layer:
    def __init__(self, number: int, kind: LayerType, dtype: DataType) -> None:
        self.type, self.num_outputs = kind, 1
        self._input, self._output = Tensor(f"t{number}", dtype), Tensor(f"t{number + 1}", dtype)

    def get_input(self, index: int) -> Tensor:
        assert index == 0
        return self._input

    def get_output(self, index: int) -> Tensor:
        assert index == 0
        return self._output


class INetworkDefinition:
    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.inputs: list[Any] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> Any:
        return self.inputs[index]

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]


class Memory:
    """Host memory that exposes its bytes through the buffer protocol, as IHostMemory does."""

    def __init__(self, content: bytes) -> None:
        self._array = (ctypes.c_char * len(content)).from_buffer_copy(content)

    def __buffer__(self, flags: int) -> memoryview:  # PEP 688: Python 3.12
        return memoryview(self._array)


def memory(content: bytes) -> Any:
    """Return a Memory, or a bytearray before Python 3.12, where classes cannot implement the buffer protocol."""
    return Memory(content) if sys.version_info >= (3, 12) else bytearray(content)


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> Any:
        return memory(self.content)


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: list[list[int]] | None = None

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        assert input == "images"
        assert all(len(shape) == 4 and shape[1] == 3 for shape in (min, opt, max))
        self.shapes = [list(min), list(opt), list(max)]


class Config:
    """IBuilderConfig. Compute capabilities exist in TensorRT-RTX only."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.flags = {BuilderFlag.TF32}
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.num_compute_capabilities = 0
        self.capabilities: dict[int, ComputeCapability] = {}
        self.workspace: int | None = None
        self.profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        assert pool == MemoryPoolType.WORKSPACE
        self.workspace = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        low, opt, high = profile.shapes or ([], [], [])
        if not all(a <= b <= c for a, b, c in zip(low, opt, high, strict=True)):
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        assert self._world.flavour == "trt-rtx", "TensorRT-RTX only"
        if not 0 <= index < self.num_compute_capabilities or compute_capability == ComputeCapability.NONE:
            return False
        self.capabilities[index] = compute_capability
        return True

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        assert self._world.flavour == "trt", "deprecated in TensorRT-RTX, with a warning"
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.content and not cache.content.startswith(self._world.cache):
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder:
    world: ClassVar[World]

    def __init__(self, logger: ILogger) -> None:
        assert isinstance(logger, ILogger)
        self._logger = logger
        if self.world.no_builder:
            logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        self.world.network_flags.append(flags)
        return INetworkDefinition()

    def create_builder_config(self) -> Config:
        self.world.configs.append(Config(self.world))
        return self.world.configs[-1]

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: Config) -> Any:
        self._logger.log(Severity.INFO, "Compiling ...")
        self._logger.log(Severity.VERBOSE, "a thousand lines of this")
        if self.world.build_error is not None:
            self._logger.log(Severity.ERROR, self.world.build_error)
            return None
        if config.get_timing_cache() is not None:
            config.get_timing_cache().content = self.world.cache + b" and more"
        plan = {
            "version": self.world.version,
            "detailed": config.profiling_verbosity == ProfilingVerbosity.DETAILED,
            "profile": config.profiles[0].shapes if config.profiles else None,
            "layers": [(layer.type.name, layer.get_input(0).dtype.name) for layer in network.layers],
        }
        return memory(json.dumps(plan).encode())


class ParserError:
    def __init__(self, operation: str, node: str, message: str) -> None:
        self._operation, self._node, self._message = operation, node, message

    def node_operator(self) -> str:
        return self._operation

    def node_name(self) -> str:
        return self._node

    def desc(self) -> str:
        return self._message


class OnnxParser:
    world: ClassVar[World]

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._errors = network, [ParserError(*error) for error in self.world.parse_errors]

    def parse_from_file(self, model: str) -> bool:
        self._network.layers = [Layer(index, *layer) for index, layer in enumerate(self.world.layers)]
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.execution_context: IExecutionContext | None = None

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert format == LayerInformationFormat.JSON
        if self._engine.world.inspector is not None:
            return json.dumps(self._engine.world.inspector)
        type_names = {"FLOAT": "Float", "HALF": "Half", "INT8": "Int8"}
        layers: list[Any] = []
        for index, (kind, dtype) in enumerate(self._engine.plan["layers"]):
            tensor = {"Name": f"t{index}", "Format/Datatype": type_names.get(dtype, dtype)}
            layers.append({"Name": f"layer{index}", "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor]})
        return json.dumps({"Layers": layers if self._engine.plan["detailed"] else [item["Name"] for item in layers]})


class ICudaEngine:
    def __init__(self, world: World, plan: dict[str, Any]) -> None:
        self.world, self.plan = world, plan
        self._tensors = {"images": DataType.UINT8, **world.outputs}

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._tensors[name]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "images" else TensorIOMode.OUTPUT

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: IRuntimeConfig | None = None) -> IExecutionContext:
        self.world.contexts.append(runtime_config)
        return IExecutionContext(self)


class IRuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY


class IExecutionContext:
    """Gives results like `tests.runtime.fakes.CornerDetector`: see `_answer`."""

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self._world = engine, engine.world
        self._shape: tuple[int, ...] | None = None
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "images"
        assert isinstance(shape, tuple)
        profile = self._engine.plan["profile"]
        if profile and not all(a <= s <= b for a, s, b in zip(profile[0], shape, profile[2], strict=True)):
            return False
        self._shape = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self._shape is not None, "set the input shape first"
        return {
            "images": self._shape,
            "boxes": (self._shape[0], self._world.places, 4),
            "counts": (self._shape[0],),
            "converged": (self._shape[0],),
        }.get(name, (self._shape[0], self._world.places))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert isinstance(memory, int)
        assert memory
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == StandInGpu.stream, "must use the stream of its own"
        assert set(self._addresses) == {"images", *self._world.outputs}, "every tensor needs an address"
        assert self._shape is not None
        if self._world.fails:
            return False
        self._world.executed.append(self._shape)
        images = np.frombuffer(_bytes(self._addresses["images"], int(np.prod(self._shape))), np.uint8)
        for name, values in self._detections(images.reshape(self._shape)).items():
            kind = {"FLOAT": np.float32, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}
            raw = np.ascontiguousarray(values, kind[self._world.outputs[name].name]).tobytes()
            ctypes.memmove(self._addresses[name], raw, len(raw))
        return True

    def _detections(self, images: Any) -> dict[str, Any]:
        """Two boxes over the whole input: score 0.75 of class 0, and (red of the first pixel) / 256 of class 1."""
        count, places = len(images), self._world.places
        red = images[:, 0, 0, 0]
        boxes = np.zeros((count, places, 4))
        boxes[:, :2] = [0, 0, *images.shape[:1:-1]]
        scores = np.zeros((count, places))
        scores[:, 0], scores[:, 1] = 0.75, red / 256
        classes = np.full((count, places), -1)
        classes[:, :2] = [0, 1]
        results = {"boxes": boxes, "scores": scores, "classes": classes, "counts": np.full(count, 2)}
        return results | ({"converged": red != self._world.unconverged} if "converged" in self._world.outputs else {})


def _bytes(address: int, count: int) -> bytes:
    return ctypes.string_at(address, count)


class Runtime:
    world: ClassVar[World]

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        plan = self._read(serialized_engine)
        if plan is None or plan["version"] != self.world.version:
            self._logger.log(Severity.ERROR, "Version tag does not match")
            return None
        return ICudaEngine(self.world, plan)

    def _read(self, content: bytes) -> dict[str, Any] | None:
        try:
            return dict(json.loads(content))
        except ValueError:
            return None


class RtxRuntime(Runtime):
    def get_engine_validity(self, buffer: bytes) -> tuple[int, int]:
        plan = self._read(buffer)
        if plan is None:
            return 2, int(EngineInvalidityDiagnostics.MALFORMED_ENGINE)
        return (0, 0) if plan["version"] == self.world.version else (2, 1)


def module_of(world: World) -> ModuleType:
    """Return `tensorrt` or `tensorrt_rtx`, depending on `world`."""
    module: Any = ModuleType("tensorrt" if world.flavour == "trt" else "tensorrt_rtx")
    module.__version__ = world.version
    # the value differs between versions, as in TensorRT
    typed = 1 if world.version.startswith("10.") else 0
    module.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": typed})
    shared = (DataType, LayerType, BuilderFlag, ProfilingVerbosity, MemoryPoolType, TensorIOMode, ILogger)
    for kind in (*shared, LayerInformationFormat, ICudaEngine):
        setattr(module, kind.__name__, kind)
    runtime = Runtime
    if world.flavour == "trt-rtx":
        module.ComputeCapability = ComputeCapability
        module.EngineInvalidityDiagnostics = EngineInvalidityDiagnostics
        module.DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy
        runtime = RtxRuntime
    module.Runtime = type("Runtime", (runtime,), {"world": world})
    for kind in (Builder, OnnxParser):
        setattr(module, kind.__name__, type(kind.__name__, (kind,), {"world": world}))
    return module


class StandInGpu:
    """Replaces `package.Gpu`. Its memory is host memory, which the execution context can reach."""

    stream = 7

    def __init__(self, capability: tuple[int, int] = (8, 9), name: str = "NVIDIA Test 1") -> None:
        self.capability, self.name = capability, name
        self.device = torch.device("cpu")

    @contextmanager
    def active(self) -> Iterator[None]:
        yield


def install(monkeypatch: Any, flavour: str, version: str, *, gpu: StandInGpu | None, **behavior: Any) -> World:
    """Make `fcos_cli` import this TensorRT and use this GPU."""
    world = World(flavour, version, **behavior)
    module = module_of(world)
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, module if name == module.__name__ else None)
    for module_name in ("runtime.tensorrt.detector", "export.tensorrt.capabilities", "export.tensorrt.engine"):
        monkeypatch.setattr(f"fcos_cli.{module_name}.find_gpu", lambda device="auto", flavour="trt": gpu)
    return world
