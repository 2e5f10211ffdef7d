"""The environment section of a benchmark."""

import json
import os
import stat
from pathlib import Path

import pytest

from fcos_cli import hardware
from fcos_cli.bench.environment import environment, gpus


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"model name": "Example CPU @ 3 GHz", "flags": "fpu avx2 avx512_vnni sse"}
    monkeypatch.setattr(hardware, "_cpuinfo", lambda: facts)


def test_environment_is_json_serializable_and_complete(cpuinfo: None) -> None:
    facts = json.loads(json.dumps(environment(threads=None)))
    assert facts["cpu"] == "Example CPU @ 3 GHz"
    assert facts["cpu_flags"] == ["avx2", "avx512_vnni"]
    assert (facts["threads"], facts["cores"]) == (None, hardware.allowed_cores())
    assert {"fcos-cli", "numpy", "onnxruntime"} <= set(facts["versions"])
    assert environment(threads=1)["threads"] == 1


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'NVIDIA X, 580.1'; echo 'NVIDIA Y, 580.1'", ["NVIDIA X, driver 580.1", "NVIDIA Y, driver 580.1"]),
        ("exit 9", []),
    ],
)
def test_gpus_from_nvidia_smi(
    script: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpus() == expected


def test_no_gpus_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == []
