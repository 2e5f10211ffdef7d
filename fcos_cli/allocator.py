"""Keep freed memory in the process (Linux with glibc), to avoid page faults that take a third of a training step."""

from __future__ import annotations

import ctypes
import platform


def keep_freed_memory() -> bool:
    """Tell glibc not to return large freed blocks to the kernel. Call it first in a process.

    A training step frees and allocates the same large buffers repeatedly. By default each one goes back to the kernel
    and is faulted in again page by page, which is slow in a virtual machine. Returns False on other systems.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3  # constants of malloc.h
    # glibc before 2.35 takes at most 32 MiB. Any of these settings stops the threshold, initially 128 KiB, from growing
    # by itself, so the others are set only once this one is.
    if not any(mallopt(m_mmap_threshold, size) for size in (1 << 30, 32 << 20)):
        return False
    return bool(mallopt(m_trim_threshold, 2**31 - 1) and mallopt(m_top_pad, 256 << 20))
