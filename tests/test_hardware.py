"""Which devices compute in bf16 at full speed, how much memory is left, and what the processor is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from fcos_cli import hardware
from fcos_cli.hardware import available_memory, has_native_bf16, peak_memory, processor, processor_flags


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_since_ampere_have_native_bf16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], native: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert has_native_bf16(torch.device("cuda")) is native


def test_a_cpu_without_avx512_emulates_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not has_native_bf16(torch.device("cpu"))


@pytest.mark.parametrize(("limit", "expected"), [("max", 1000 * 1024), ("900000", 400_000), ("100", 0)])
def test_available_memory_is_what_the_system_and_the_container_allow(tmp_path: Path, limit: str, expected: int) -> None:
    group = tmp_path / "sys/fs/cgroup"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 2000 kB\nMemAvailable:     1000 kB\n")
    assert available_memory(tmp_path) == 1000 * 1024
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text("500000\n")
    assert available_memory(tmp_path) == expected


def test_files_that_a_container_keeps_in_memory_can_make_room(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemAvailable:     1000 kB\n")
    (group / "memory.max").write_text("900000\n")
    (group / "memory.current").write_text("800000\n")
    (group / "memory.stat").write_text("anon 50\nfile 300000\ninactive_file 200000\nactive_file 50000\nshmem 7\n")
    assert available_memory(tmp_path) == 350_000


def test_arm_flags_are_read_from_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_cpuinfo", lambda: {"Features": "fp asimd asimdhp"})
    assert "asimdhp" in processor_flags()


def test_processor_without_cpuinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_cpuinfo", dict)
    assert processor_flags() == set()
    assert processor()


def test_memory_is_unknown_on_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sysconf")
    assert available_memory(tmp_path) == 0
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it fails
    monkeypatch.setattr(hardware, "Path", lambda _: tmp_path / "missing")
    assert peak_memory() == 0
