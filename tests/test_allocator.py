"""The C library keeps freed memory: what is set, and in which order, by the limits of its versions."""

import ctypes
from types import SimpleNamespace

import pytest

from fcos_cli.allocator import keep_freed_memory

TRIM, PAD, MMAP = -1, -2, -3


@pytest.mark.parametrize(
    ("largest", "accepted"),
    [
        (1 << 40, [(MMAP, 1 << 30), (TRIM, 2**31 - 1), (PAD, 256 << 20)]),
        (32 << 20, [(MMAP, 32 << 20), (TRIM, 2**31 - 1), (PAD, 256 << 20)]),  # glibc before 2.35
        (0, []),
    ],
)
def test_nothing_is_set_without_a_larger_threshold(
    largest: int, accepted: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def mallopt(option: int, value: int) -> int:
        if option == MMAP and value > largest:
            return 0
        calls.append((option, value))
        return 1

    monkeypatch.setattr("fcos_cli.allocator.platform.system", lambda: "Linux")
    monkeypatch.setattr("fcos_cli.allocator.platform.libc_ver", lambda: ("glibc", "2.31"))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    assert keep_freed_memory() == bool(accepted)
    assert calls == accepted
