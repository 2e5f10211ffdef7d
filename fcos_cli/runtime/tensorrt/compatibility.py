"""Can this machine run this engine? Versions of TensorRT, and the GPUs that an engine was built for."""

from __future__ import annotations

from pathlib import Path

from fcos_cli.errors import ModelError
from fcos_cli.runtime.tensorrt.package import NAMES, Gpu, Package, format_capability, parse_version
from fcos_cli.runtime.tensorrt.sidecar import CURRENT_GPU, EngineRecord


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
