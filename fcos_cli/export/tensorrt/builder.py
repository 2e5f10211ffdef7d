"""Running TensorRT's builder: ONNX → strongly typed network → serialized engine. See `engine.build_engine`.

Supports `tensorrt` 10 and 11 and `tensorrt_rtx` 1. Methods that apply to only some of them say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import FcosError, ModelError
from fcos_cli.export.tensorrt.capabilities import capability_members, dotted_name
from fcos_cli.export.tensorrt.profile import Profile
from fcos_cli.runtime.graph_io import INPUT, SIZES
from fcos_cli.runtime.tensorrt.package import Gpu, Package

TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}


class EngineBuilder:
    """One parsed graph. Keeps TensorRT's objects alive until the engine is built.

    precisions: number of layers with weights by precision, as inferred by TensorRT from the ONNX file. In a strongly
    typed network this is also the precision of the computation. Raises ModelError naming the node that cannot be
    parsed, FcosError if TensorRT does not start.
    """

    def __init__(self, package: Package, gpu: Gpu | None, onnx: Path) -> None:
        self.package, self.gpu, self.onnx = package, gpu, onnx
        self.module: Any = package.module
        mark = package.log.mark()
        try:
            self.builder = self.module.Builder(package.logger)
        except TypeError as error:  # pybind11 raises this if no builder is returned
            raise FcosError(
                f"{package.label} does not start ({package.log.errors(mark)})",
                remedy="check the NVIDIA driver and the CUDA libraries",
            ) from error
        self.network = self._parse(self.builder)
        self.precisions = self._count_precisions(self.network)

    def build(
        self,
        shapes: Profile | None,
        *,
        workspace_mb: int | None,
        timing_cache: Path | None,
        compute_capabilities: Sequence[str],
        say: Callable[[str], object],
    ) -> bytes:
        """Return the serialized engine. shapes: None if the graph has no dynamic dimensions.

        Raises ModelError with the builder's last errors, and UsageError.
        """
        config = self._configure(shapes, workspace_mb)
        self._set_compute_capabilities(config, compute_capabilities)
        cache = self._open_cache(config, timing_cache, say)
        mark = self.package.log.mark()
        plan = self.builder.build_serialized_network(self.network, config)
        if plan is None:
            raise ModelError(
                f"{self.package.label} cannot build this graph: {self.package.log.errors(mark)}", where=self.onnx
            )
        if cache is not None:
            with atomic_write(cache, binary=True) as file:
                file.write(memoryview(config.get_timing_cache().serialize()))
        return bytes(memoryview(plan))

    def _parse(self, builder: Any) -> Any:
        flag = self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED  # TensorRT 11 and RTX ignore it
        network = builder.create_network(1 << int(flag))
        parser = self.module.OnnxParser(network, self.package.logger)
        if parser.parse_from_file(str(self.onnx)):
            return network
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        messages = [f"{e.node_operator()} {e.node_name()!r}: {' '.join(e.desc().split())}" for e in errors]
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        raise ModelError(
            f"{self.package.label} cannot parse the graph at {messages[0] if messages else 'an unknown node'}{more}",
            where=self.onnx,
            remedy=f"export it again with --format {self.package.flavour}",
        )

    def _configure(self, shapes: Profile | None, workspace_mb: int | None) -> Any:
        config = self.builder.create_builder_config()
        config.profiling_verbosity = self.module.ProfilingVerbosity.DETAILED
        config.clear_flag(self.module.BuilderFlag.TF32)
        if workspace_mb is not None:
            config.set_memory_pool_limit(self.module.MemoryPoolType.WORKSPACE, workspace_mb << 20)
        if shapes is not None:
            profile = self.builder.create_optimization_profile()
            bounds = [(shape.batch, 3, shape.height, shape.width) for shape in (shapes.min, shapes.opt, shapes.max)]
            profile.set_shape(INPUT, *bounds)
            if any(self.network.get_input(i).name == SIZES for i in range(self.network.num_inputs)):
                profile.set_shape(SIZES, *((shape[0], 2) for shape in bounds))
            if config.add_optimization_profile(profile) < 0:
                raise ModelError(f"{self.package.label} rejects the profile {bounds}", where=self.onnx)
        return config

    def _set_compute_capabilities(self, config: Any, capabilities: Sequence[str]) -> None:
        """For TensorRT-RTX only.

        The number of slots is set first: without slots, a capability is rejected without an error.
        """
        if not capabilities:
            return
        chosen = capability_members(self.package, self.gpu, capabilities)
        config.num_compute_capabilities = len(chosen)
        for index, name in enumerate(chosen):
            if not config.set_compute_capability(getattr(self.module.ComputeCapability, name), index):
                raise ModelError(f"{self.package.label} does not build for {dotted_name(name)}", where=self.onnx)

    def _open_cache(self, config: Any, path: Path | None, say: Callable[[str], object]) -> Path | None:
        """Load the timing cache. Return the path to save it to after the build, or None if unused."""
        if path is None:
            return None
        if self.package.flavour == "trt-rtx":
            # deprecated no-ops since 1.2
            say("TensorRT-RTX times no kernels during the build: the timing cache is neither read nor written")
            return None
        stored = path.read_bytes() if path.is_file() else b""
        cache = config.create_timing_cache(stored)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            say(f"the timing cache {path} is from another GPU or TensorRT version; starting with an empty one")
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
        return path

    def _count_precisions(self, network: Any) -> dict[str, int]:
        """Number of layers with weights by precision, as inferred by TensorRT; int8 if the input was dequantized."""
        kinds, counts, producers = self.module.LayerType, Counter[str](), {}
        weighted = (kinds.CONVOLUTION, kinds.DECONVOLUTION, kinds.MATRIX_MULTIPLY)
        for layer in map(network.get_layer, range(network.num_layers)):
            producers.update({layer.get_output(index).name: layer.type for index in range(layer.num_outputs)})
            if layer.type in weighted:
                tensor = layer.get_input(0)
                quantized = producers.get(tensor.name) == kinds.DEQUANTIZE
                counts["int8" if quantized else TYPES.get(tensor.dtype.name, "other")] += 1
        return dict(counts)
