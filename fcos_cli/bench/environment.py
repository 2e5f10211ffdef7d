"""Describe where a benchmark ran: processor, GPUs, memory, versions. No measured library is imported for it."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from fcos_cli import __version__

LIBRARIES = (
    "torch", "torchvision", "timm", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx",
    "tensorrt-rtx-cu13-libs", "numpy", "pillow",
)  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_fp16",
         "asimdhp", "bf16", "i8mm", "sve")  # fmt: skip
"""CPU flags that affect inference speed per precision."""


def environment(*, threads: int | None) -> dict[str, Any]:
    """Return the `environment` section of the document. threads: as requested; None for all available.

    load: mean number of running processes in the last minute, before measuring; None if unknown.
    """
    from datetime import UTC, datetime

    flags = processor_flags()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": processor(),
        "cpu_flags": [flag for flag in FLAGS if flag in flags],
        "cores": allowed_cores(),
        "threads": threads or allowed_cores(),
        "memory_gb": _memory_gb(),
        "gpus": gpus(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {"fcos-cli": __version__, **versions()},
    }


def allowed_cores() -> int:
    """Number of cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def processor() -> str:
    """Processor name as reported by the system."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def processor_flags() -> set[str]:
    """CPU feature flags by their Linux names; empty on other systems."""
    facts = _cpuinfo()
    return set((facts.get("flags") or facts.get("Features") or "").split())


def versions() -> dict[str, str]:
    """Library → version, for installed libraries."""
    from importlib import metadata  # imported here because workers, whose start is timed, do not need it

    installed = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def gpus() -> list[str]:
    """NVIDIA GPUs with driver version, from nvidia-smi; empty if it is not installed."""
    import shutil
    import subprocess

    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip().replace(", ", ", driver ") for line in result.stdout.splitlines() if line.strip()]


def peak_memory() -> int:
    """Peak memory of this process in bytes.

    Read from /proc if available: after an exec, getrusage's value starts with that of the parent process.
    """
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else 1024 * peak


@cache
def _cpuinfo() -> dict[str, str]:
    """/proc/cpuinfo of the first core."""
    facts: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            facts[key.strip()] = value.strip()
    return facts


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None
