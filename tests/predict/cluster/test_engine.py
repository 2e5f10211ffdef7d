"""Jobs on clusters of Ray: two nodes, one of which dies, and the cores of this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fcos_cli.errors import UsageError
from fcos_cli.predict.cluster.engine import Pool, cluster, plan_pool
from fcos_cli.predict.cluster.job import JobFolder
from fcos_cli.predict.cluster.model import ModelFiles
from fcos_cli.predict.cluster.places import locate
from fcos_cli.predict.cluster.sources import check_sources, list_sources
from tests.cli_runner import Fcos
from tests.predict.cluster.made import job_rows, local_rows, task_of, worker_here, write_pictures
from tests.small_onnx import write_onnx

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray

STORE = 80 * 2**20
OURS = re.compile(r"pictures |error: |  |out[: ]|\d+ images; |\d+ images processed, ")
"""How each line on stderr begins; lines of Ray do not."""
VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes with a core each. On a busy machine Ray may give up on starting one."""
    from ray.cluster_utils import Cluster

    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    Path("/tmp/ray").mkdir(exist_ok=True)  # the cluster's address is written there
    folder = tempfile.TemporaryDirectory(prefix="fcos-ray-", dir="/tmp", ignore_cleanup_errors=True)
    node = {"num_cpus": 1, "object_store_memory": STORE}
    head = {"include_dashboard": False, "temp_dir": folder.name}
    made: Any = None
    for attempt in range(3):
        try:
            made = Cluster(initialize_head=True, head_node_args={**node, **head})
            made.second = made.add_node(**node)
            break
        except Exception:
            if made is not None:
                made.shutdown()
            if attempt == 2:
                raise
    yield made
    made.shutdown()
    folder.cleanup()


def workers_of(node: Any) -> list[int]:
    """Processes that hold the model, on a node."""
    (raylet,) = [info.process.pid for name, infos in node.all_processes.items() for info in infos if name == "raylet"]
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(raylet) and b"MapWorker" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


@pytest.mark.slow
def test_no_row_is_lost_or_doubled_when_a_worker_and_a_node_die(fcos: Fcos, two_nodes: Any) -> None:
    write_pictures(Path("in"), 60, slow=60)
    model, out, over = write_onnx(Path("model.onnx")), Path("out").absolute(), threading.Event()
    deaths = list[int]()

    def parts() -> int:
        return len(list(out.glob("part-*")))

    def kill() -> None:
        """Kill a worker of the first node after two parts, and the second node after four."""
        while not over.wait(0.02) and len(deaths) < 2:
            if not deaths and parts() >= 2 and (victims := workers_of(two_nodes.head_node)):
                os.kill(victims[0], signal.SIGKILL)
                deaths.append(parts())
            elif deaths and parts() >= 4:
                two_nodes.remove_node(two_nodes.second, allow_graceful=False)
                deaths.append(parts())

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        result = fcos(
            "predict", "in", "--model", model, "--engine", "ray", "--address", two_nodes.address, "--out", "out"
        )
    finally:
        over.set()
        killer.join()
    assert (result.code, result.out) == (1, ""), result.err  # one picture cannot be read
    assert "2 workers with one core each, on 2 nodes" in result.err
    assert "119 images processed, 1 could not be read" in result.err
    assert all(line.startswith(("pictures", "120", "119", "error", "  ")) for line in result.err.splitlines()), (
        result.err
    )
    assert [done < parts() for done in deaths] == [True, True]
    assert job_rows(out) == local_rows(model, "in", Path("local.jsonl"))
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith("part-")) == ["_job"]


@pytest.mark.slow
def test_an_interrupted_job_goes_on_without_doing_anything_again(fcos: Fcos, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(Path("in"), 60)
    model, out = write_onnx(Path("model.onnx")), Path("out")
    line = ("predict", "in", "--model", str(model), "--engine", "ray", "--out", "out", "--batch", "3", "--resume")

    def stopped(todo: Any, task: Any, *_: Any, **__: Any) -> None:
        worker = worker_here(task, model, monkeypatch)
        for number in todo[1:3]:
            worker.predict(number)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fcos_cli.predict.cluster.run._run", stopped)
        result = fcos(*line)
    assert result.code == 130
    assert "out keeps what was done: to continue, repeat the command with --resume" in result.err
    before = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(before) == 2

    # in a process of its own: Ray keeps settings of a cluster in the process that started it
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    command = [sys.executable, "-m", "fcos_cli", *line]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert all(OURS.match(text) for text in done.stderr.splitlines()), done.stderr
    assert "out: 32 of 60 images were done before" in done.stderr
    assert "59 images processed, 1 could not be read" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert job_rows(out) == local_rows(model, "in", Path("local.jsonl"))
    finished = fcos(*line)
    assert finished.code == 1
    assert "the job is finished, and 1 of its 60 rows are errors" in finished.err
    assert fcos(*line[:-1]).code == 2
    assert "options: score" in fcos(*line, "--score", 0.5).err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no cluster answers there"),
        ("nonsense", "not the address of a cluster"),
        ("host:99999", "not the address of a cluster"),
        ("ray://host:10001", "client protocol"),
    ],
)
def test_an_address_without_a_cluster_is_one_error(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error, cluster(address):
        pass
    assert error.value.where == f"--address {address}"


@pytest.mark.parametrize(
    ("cpus", "gpus", "flag", "runs_on", "expected"),
    [
        (6, 0, None, "cuda:0", Pool(6, 1, 0, 2)),
        (6, 2, None, "cuda:0", Pool(2, 3, 1, 2)),
        (64, 2, "cuda", "cuda:0", Pool(2, 8, 1, 2)),
        (6, 2, None, "cpu", Pool(6, 1, 0, 2)),
        (6, 2, "cpu", "cuda:0", Pool(6, 1, 0, 2)),
        (1, 4, None, "cuda:0", Pool(4, 1, 1, 2)),
    ],
)
def test_each_gpu_or_else_each_core_has_a_worker(
    monkeypatch: pytest.MonkeyPatch, cpus: int, gpus: int, flag: str | None, runs_on: str, expected: Pool
) -> None:
    import ray

    asked = SimpleNamespace(remote=lambda task, model: runs_on)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(cpus), "GPU": float(gpus)})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}, {"Alive": False}, {"Alive": True}])
    monkeypatch.setattr(ray, "remote", lambda **resources: lambda function: asked)
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    task = task_of(locate("out"), [], Path(), device=flag)
    assert plan_pool(task, ModelFiles("m.onnx", "m", {})) == expected


def test_a_request_that_cannot_be_met_is_refused_before_a_cluster_is_used(fcos: Fcos) -> None:
    model = write_onnx(Path("model.onnx"))
    write_pictures(Path("in"), 6)
    line = ("predict", "in", "--model", model, "--engine", "ray", "--out", "out")
    for flags, code, message in (
        (("--viz", "--track"), 2, "cannot be combined with --viz, --track"),
        (("--save", "a.jsonl"), 2, "cannot be combined with --save"),
        (("--label-score", 0), 2, "cannot be combined with --label-score"),
        (("--device", "cuda:1"), 2, "each worker gets a GPU of its own"),
        (("--classes", "nothing"), 2, "unknown class of the model"),
        (("--score", 0.01), 2, "so --score 0.01 is too low"),
        (("--out", "in"), 2, "something that is not part of such results: 000.png"),
        (("--model", "gone.onnx"), 4, "no such model"),
        (("--out", "model.onnx/out", "--model", "gone.onnx"), 2, "is not a folder"),
    ):
        result = fcos(*line, *flags)
        assert (result.code, result.out) == (code, ""), result.err
        assert message in result.err
        assert not Path("out").exists()
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), "empty.parquet")
    for arguments, code, message in (
        (("empty.parquet", "--engine", "ray"), 3, "have no rows"),
        (("gone", "--engine", "ray"), 3, "no such file or folder"),
        (("clip.mp4", "--engine", "ray"), 2, "not stdin, cameras and videos"),
        (("in", "--engine", "spark"), 2, "unknown engine 'spark'"),
        (("in", "--address", "auto"), 2, "--address needs --engine ray"),
        (("in", "--address", "auto", "--column", "a"), 2, "--address, --column need --engine ray"),
    ):
        result = fcos("predict", *arguments, "--model", model, "--out", "out")
        assert (result.code, message in result.err) == (code, True), result.err
    assert not Path("out").exists()


def test_a_job_that_has_done_nothing_leaves_nothing(fcos: Fcos) -> None:
    model = write_onnx(Path("model.onnx"))
    write_pictures(Path("in"), 6)
    result = fcos("predict", "in", "--model", model, "--engine", "ray", "--out", "out", "--address", "127.0.0.1:1")
    assert (result.code, Path("out").exists()) == (2, False)


def interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs end by Ctrl-C before they do anything."""

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fcos_cli.predict.cluster.run._run", stopped)


def test_an_interrupted_job_on_a_joined_cluster_goes_on_although_a_worker_there_finishes_later(
    fcos: Fcos, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_onnx(Path("model.onnx"))
    write_pictures(Path("in"), 20)
    line = ("predict", "in", "--model", model, "--engine", "ray", "--out", "out")
    interrupt(monkeypatch)
    result = fcos(*line, "--address", "host:6379")
    assert result.code == 130
    assert "out keeps what was done: to continue, repeat the command with --resume" in result.err
    task = task_of(locate("out"), check_sources(["in"]), Path.cwd())
    worker_here(task, model, monkeypatch).predict(0)
    result = fcos(*line, "--address", "host:6379", "--resume")
    assert result.code == 130
    assert "out: 16 of 20 images were done before" in result.err
    assert fcos(*line[:-1], "other").code == 130
    assert not Path("other").exists()  # the workers of this machine end with the job


def test_a_job_goes_on_with_its_batch_and_number_of_detections_only(
    fcos: Fcos, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_onnx(Path("model.onnx"))
    write_pictures(Path("in"), 20)
    line = ("predict", "in", "--model", model, "--engine", "ray", "--out", "out", "--address", "host:6379", "--resume")
    interrupt(monkeypatch)
    assert fcos(*line, "--batch", 2).code == 130
    result = fcos(*line, "--batch", 3, "--max-detections", 1)
    assert result.code == 2
    assert "sources or options: batch, max_detections\n" in result.err
    assert fcos(*line, "--batch", 2).code == 130


def test_what_a_job_was_begun_with_is_what_it_goes_on_with(fcos: Fcos) -> None:
    """Pictures that came later are not in the list, and partitions stay as they are."""
    write_pictures(Path("in"), 20)
    out, roots = locate("out"), check_sources(["in"])
    job = JobFolder(out)
    listed = job.begin({}, list_sources(["in"], roots, column=None, out=out), base=str(Path.cwd()))
    write_pictures(Path("in/later"), 20)
    assert job.open({}, resume=True) == listed
    assert listed.pictures == 20
