"""Keep freed memory in the process, on Linux with glibc: page faults cost a training step a third of its time."""

from __future__ import annotations

import ctypes
import platform


def keep_freed_memory() -> bool:
    """Tell glibc not to hand large freed blocks back to the kernel; call first thing in a process. False elsewhere.

    A step frees and takes the same large buffers again and again; by default each goes back to the kernel and is
    faulted in anew, page by page, which is dear in a virtual machine.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3  # numbers of malloc.h
    settings = ((m_mmap_threshold, 1 << 30), (m_trim_threshold, 2**31 - 1), (m_top_pad, 256 << 20))
    return bool(sum(mallopt(option, value) for option, value in settings) == len(settings))
