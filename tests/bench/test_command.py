"""The `fcos bench` command with real models and processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.small_onnx import write_onnx

pytestmark = pytest.mark.slow

RUN = "from fcos_cli.cli import main; main()"


def fcos(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, check=False)


def test_weights_and_exports_side_by_side(model_file: Path, shapes: Path, tmp_path: Path) -> None:
    """A torch network, an exported graph and a missing file, with accuracy and a plot."""
    onnx = write_onnx(tmp_path / "small.onnx")
    answer = fcos(
        *("bench", model_file, onnx, "none.onnx", "--rounds", 2, "--batch", 2, "--int8", "--threads", 1, "--json"),
        *("--data", shapes, "--limit", 2, "--out", "b.png"),
        folder=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr
    document: dict[str, Any] = json.loads(answer.stdout)
    assert document["environment"]["threads"] == 1
    torch, graph, absent = document["rows"]
    assert (torch["backend"], torch["asked"], torch["precision"], torch["threads"]) == ("pytorch", "int8", "fp32", 1)
    assert "int8 was requested" in torch["note"]
    assert torch["stages_ms"]["network"]["p50"] > 0
    assert torch["stages_ms"]["network_decode_nms"] is None
    assert 0 <= torch["AP"] <= 1
    assert graph["stages_ms"]["network"] is None
    assert graph["stages_ms"]["network_decode_nms"]["p50"] > 0
    assert "no AP" in graph["note"]  # its classes differ from the data's
    for row in (torch, graph):
        assert row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert min(row["images_per_s"], row["cold_start_ms"], row["peak_memory_mb"], row["size_mb"]) > 0
    assert "there is no such model" in absent["skipped"]
    assert (tmp_path / "b.png").is_file()


def test_if_nothing_runs_the_document_has_the_reason_and_the_exit_code_of_the_error(tmp_path: Path) -> None:
    answer = fcos("benchmark", "none.onnx", "--json", folder=tmp_path)
    assert answer.returncode == 4
    assert "no such model" in json.loads(answer.stdout)["rows"][0]["skipped"]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--batch", "x"),
        ("--backend", "tensorflow"),
        ("--out", "b.gif"),
        ("--size", "0"),
        ("--split", "val"),
        ("--limit", "3"),
    ],
)
def test_invalid_options_fail_before_measuring(wrong: tuple[str, str], tmp_path: Path) -> None:
    answer = fcos("bench", *wrong, folder=tmp_path)
    assert answer.returncode == 2
    assert "starting" not in answer.stderr


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(
    not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="needs Linux's list of children"
)
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_benchmark_leaves_no_processes(how: signal.Signals, code: int, tmp_path: Path) -> None:
    onnx = write_onnx(tmp_path / "small.onnx")
    command = [sys.executable, "-c", RUN, "bench", str(onnx), "--rounds", "100000"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("rounds 10000/") or "starting" in line:
                break
        time.sleep(1.5)
        found = children(process.pid)
        process.send_signal(how)
        said = process.stderr.read()
        assert process.wait(timeout=20) == code
    assert found
    assert "Traceback" not in said
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in found) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in found)
