"""What this machine has and what this process may use of it: cores, processor, memory, native bfloat16."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from functools import cache
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
    """Bytes of memory that this process can still use; 0 if the system does not report it.

    On Linux also within the limit of a container (cgroup v2), whose page cache can be used too. root: where /proc and
    /sys are.
    """
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text())
        free = 1024 * int(found[1]) if found else 0
    except OSError:
        try:
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):  # Windows, macOS
            return 0
    try:
        group = root / "sys/fs/cgroup"
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - int(used) + _page_cache(group / "memory.stat")))


def _page_cache(stat: Path) -> int:
    """Bytes of files in a container's memory, which the kernel drops when it needs room; 0 if it does not say."""
    try:
        return sum(map(int, re.findall(r"^(?:in)?active_file (\d+)$", stat.read_text(), re.MULTILINE)))
    except OSError:
        return 0


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


def peak_memory() -> int:
    """Peak memory of this process in bytes; 0 on Windows.

    Read from /proc if available: after an exec, getrusage's value starts with that of the parent process.
    """
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else 1024 * peak


@cache
def _cpuinfo() -> dict[str, str]:
    """/proc/cpuinfo of the first core."""
    facts: dict[str, str] = {}
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for line in text.split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            facts[key.strip()] = value.strip()
    return facts
