"""Real worker processes with small models: their results, how they end, and errors when they end early."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.bench.process import RemoteDetector, Worker
from fcos_cli.bench.protocol import Job, JobSkipped
from fcos_cli.hardware import peak_memory
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.open import open_detector
from tests.small_onnx import write_onnx

PICTURES = tuple(map(str, demo_photos()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("bench") / "small.onnx")


@pytest.fixture(scope="module")
def worker(model: Path) -> Iterator[Worker]:
    with closing(Worker.start(Job(str(model), PICTURES, batch=2, size=(96, 64)))) as started:
        yield started


def test_worker_describes_its_model(worker: Worker, model: Path) -> None:
    ready = worker.ready
    assert (ready.backend, ready.device, ready.precision, ready.note) == ("onnxruntime", "cpu", "fp32", None)
    assert ready.facts.resize.size == (96, 64)
    assert worker.start_ms > 50  # an interpreter, numpy and ONNX Runtime were loaded
    assert worker.request("model_bytes") == model.stat().st_size


def test_turn_times_every_available_stage(worker: Worker) -> None:
    worker.request("warm_up")
    samples = worker.request("turn")
    assert samples
    assert all(set(sample) == {"open", "preprocess", "network_decode_nms", "total"} for sample in samples)


def test_peak_memory_excludes_the_parent_process(worker: Worker) -> None:
    """getrusage would start with the memory of the parent process."""
    hog = np.ones(400_000_000, np.uint8)
    assert peak_memory() > hog.nbytes
    del hog
    assert 20e6 < worker.request("peak_memory") < 350e6


def test_remote_detections_equal_local_ones(worker: Worker, model: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), np.uint8)
    remote, local = RemoteDetector(worker, name="small"), open_detector(model)
    for actual, expected in zip(remote(images), local(images), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert remote.facts.classes == local.facts.classes


def test_a_failing_request_does_not_end_the_worker(worker: Worker) -> None:
    with pytest.raises(JobSkipped):
        worker.request("detect", np.zeros((1, 5), np.uint8))
    assert worker.request("turn")


def test_a_model_that_cannot_be_opened_is_refused_with_the_error(tmp_path: Path) -> None:
    with pytest.raises(JobSkipped, match="no such model") as caught:
        Worker.start(Job(str(tmp_path / "none.onnx"), PICTURES))
    assert caught.value.refusal.exit_code == 4


def test_a_backend_that_cannot_run_the_file_is_a_refusal(model: Path) -> None:
    with pytest.raises(JobSkipped, match=r"tensorrt cannot run a \.onnx") as caught:
        Worker.start(Job(str(model), PICTURES, backend="tensorrt"))
    assert caught.value.refusal.exit_code == 2


def test_a_limited_batch_size_is_noted(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "fixed.onnx", free=False, batch=1)
    with closing(Worker.start(Job(str(path), PICTURES, batch=3))) as started:
        assert started.ready.note == "the file has a maximum batch size of 1: 3 calls per batch"


def test_a_dead_worker_is_reported_with_its_signal(model: Path) -> None:
    with closing(Worker.start(Job(str(model), PICTURES))) as started:
        os.kill(started.pid, signal.SIGKILL)
        with pytest.raises(JobSkipped, match="killed by signal 9"):
            started.request("turn")


def test_closing_ends_the_process(model: Path) -> None:
    started = Worker.start(Job(str(model), PICTURES))
    started.close()
    with pytest.raises(ProcessLookupError):
        os.kill(started.pid, 0)
