"""Capabilities of the hardware: native bfloat16, available memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 natively. Emulation on a CPU is 20 times slower than float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # oneDNN's own check is not public; a build without it is treated as a CPU without bf16
    probe = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(probe()) and torch.backends.cpu.get_cpu_capability() != "AVX2" if probe else False


def available_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process can still use; 0 if the system does not tell.

    On Linux also within the limit of a container (cgroup v2). root: where /proc and /sys are.
    """
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())
        free = 1024 * int(found[1]) if found else 0
    except OSError:
        try:
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError):
            return 0
    try:
        group = root / "sys/fs/cgroup"
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - int(used)))
