"""Describe where a benchmark ran: processor, GPUs, memory, versions. No measured library is imported for it."""

from __future__ import annotations

import os
import platform
from typing import Any

from fcos_cli import __version__
from fcos_cli.extras import versions
from fcos_cli.hardware import allowed_cores, processor, processor_flags

LIBRARIES = (
    "torch", "torchvision", "timm", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx",
    "tensorrt-rtx-cu13-libs", "numpy", "pillow",
)  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_fp16",
         "asimdhp", "bf16", "i8mm", "sve")  # fmt: skip
"""CPU flags that affect inference speed per precision."""


def environment(*, threads: int | None) -> dict[str, Any]:
    """Return the `environment` section of the document. threads: as requested; None for each backend's default.

    load: mean number of running processes in the last minute, before measuring; None if unknown.
    """
    from datetime import UTC, datetime

    flags = processor_flags()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": processor(),
        "cpu_flags": [flag for flag in FLAGS if flag in flags],
        "cores": allowed_cores(),
        "threads": threads,
        "memory_gb": _memory_gb(),
        "gpus": gpus(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {"fcos-cli": __version__, **versions(LIBRARIES)},
    }


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


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None
