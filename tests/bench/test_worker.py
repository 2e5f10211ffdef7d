"""What a worker says about its model, with a stand-in for one on a GPU. `test_process` starts real workers."""

import pytest

from fcos_cli.bench import precision
from fcos_cli.bench.precision import Opened
from fcos_cli.bench.protocol import Job
from fcos_cli.bench.worker import _open
from fcos_cli.resources import demo_photos
from tests.runtime.fakes import CornerDetector


@pytest.mark.parametrize(("device", "noted"), [("cpu", False), ("cuda:0", True), ("tensorrt:1", True)])
def test_the_memory_of_a_gpu_is_not_measured_and_the_row_says_so(
    monkeypatch: pytest.MonkeyPatch, device: str, noted: bool
) -> None:
    opened = Opened(CornerDetector(device=device), attempt=None, precision="fp32", note=None)
    monkeypatch.setattr(precision, "open_in_precision", lambda job: opened)
    ready, _ = _open(Job("m.onnx", tuple(map(str, demo_photos()))))
    assert ready.note == ("peak memory is host memory, without GPU memory" if noted else None)
