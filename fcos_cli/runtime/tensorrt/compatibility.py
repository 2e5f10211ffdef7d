"""Whether this machine can run an engine: the version of TensorRT, and the GPUs an engine was built for."""

from __future__ import annotations

from pathlib import Path

from fcos_cli.errors import ModelError
from fcos_cli.runtime.tensorrt.package import NAMES, Gpu, Package, format_capability, parse_version
from fcos_cli.runtime.tensorrt.sidecar import CURRENT_GPU, EngineRecord


def check_version(record: EngineRecord, package: Package, where: Path) -> None:
    """Raise ModelError unless `package` is the version that built the engine.

    Engines are not portable between versions of TensorRT, nor between releases of TensorRT-RTX.
    (BuilderFlag.VERSION_COMPATIBLE would lift that, but such engines embed code and are slower; we build none.) The
    first three numbers must match; TensorRT itself decides on a fourth.
    """
    built, here = parse_version(record.version)[:3], parse_version(package.version)[:3]
    if built[: len(here)] != here[: len(built)]:
        name, wanted = NAMES[record.flavour], ".".join(map(str, built))
        module = "tensorrt" if record.flavour == "trt" else "tensorrt-rtx"
        raise ModelError(
            f"the engine was built by {name} {record.version} and runs on no other version; this machine has "
            f"{package.version}",
            where=where,
            remedy=f"export it again on this machine, or install {module} {wanted}",
        )


def check_gpu(record: EngineRecord, gpu: Gpu, where: Path) -> None:
    """Raise ModelError if the engine was built for other GPUs than `gpu`.

    TensorRT builds for the compute capability of the GPU it builds on. TensorRT-RTX builds for the requested ones, or
    by default for 8.0 and later.
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
        # TensorRT-RTX does not build for every one: 9.0, say, is missing
        rtx = f" for compute capability {here}, or use --format trt or the .onnx file"
        raise ModelError(
            f"the engine was built for {made_for}; this {gpu.name} has {here}",
            where=where,
            remedy=f"export it again{rtx if record.flavour == 'trt-rtx' else ' on this machine'}",
        )
