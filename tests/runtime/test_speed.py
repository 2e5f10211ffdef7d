"""Time per image, and the cost of a file's network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import UsageError
from fcos_cli.model.networks.cost import network_cost
from fcos_cli.model.networks.named import Network
from fcos_cli.runtime import speed
from fcos_cli.runtime.exported import InputLimits
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.speed import file_speed, measure_speed, named_speed, with_cost
from tests.runtime.onnx_files import FACTS, write_onnx
from tests.tiny import tiny_config


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Measure for a moment, and leave torch's threads as they were."""
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class Recorder:
    """A detector that records its inputs; each call takes `seconds` of a clock of its own."""

    name, backend, precision, device = "recorder", "onnxruntime", "int8", "cpu"
    limits: InputLimits | None = None

    def __init__(self, rule: ResizeRule, *, seconds: list[float]) -> None:
        self.facts = Facts(FACTS.classes, rule)
        self.seconds, self.now, self.inputs = seconds, 0.0, list[Any]()

    def __call__(self, images: Any, sizes: object = None) -> Any:
        self.now += self.seconds[len(self.inputs)]
        self.inputs.append(images)


def test_the_median_without_the_first_image(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Recorder(ResizeRule("letterbox", (32, 48)), seconds=[5.0, 0.3, 0.1, 0.2, 0.9])
    monkeypatch.setattr(speed, "SECONDS", 1.4)
    monkeypatch.setattr(speed, "perf_counter", lambda: detector.now)
    found = measure_speed(detector)
    assert (found.images, found.ms, found.size) == (4, pytest.approx(250), (32, 48))
    assert "250.0 ms per image of 32 x 48 (onnxruntime, int8, 1 thread)" in str(found)
    assert {(image.shape, image.dtype) for image in detector.inputs} == {((1, 3, 32, 48), np.dtype(np.uint8))}


def test_a_slow_network_is_timed_on_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Recorder(ResizeRule("letterbox", (32, 48)), seconds=[30.0, 20.0])
    monkeypatch.setattr(speed, "perf_counter", lambda: detector.now)
    assert (measure_speed(detector).images, len(detector.inputs)) == (1, 2)


def test_a_file_with_a_fixed_batch_is_timed_per_image(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Recorder(ResizeRule("letterbox", (32, 48)), seconds=[9.0, 0.8, 0.8])
    detector.limits = InputLimits.of_shape(4, None, None)
    monkeypatch.setattr(speed, "SECONDS", 1.5)
    monkeypatch.setattr(speed, "perf_counter", lambda: detector.now)
    found = measure_speed(detector)
    assert (found.images, found.ms, found.batch) == (8, pytest.approx(200), 4)
    assert "200.0 ms per image of 32 x 48 (onnxruntime, int8, 1 thread, batches of 4)" in str(found)
    assert {len(images) for images in detector.inputs} == {4}


def test_an_engine_is_not_timed_on_the_cpu() -> None:
    with pytest.raises(UsageError, match="runs on a GPU only") as caught:
        file_speed(Path("x.engine"))
    assert caught.value.remedy == "fcos bench x.engine"


def test_files_are_timed_with_their_own_backend(tmp_path: Path, model_file: Path) -> None:
    for path, backend in ((write_onnx(tmp_path / "m.onnx"), "onnxruntime"), (model_file, "pytorch")):
        found = file_speed(path)
        assert (found.backend, found.precision) == (backend, "fp32")
        assert found.ms > 0


def test_a_named_network_is_timed_untrained() -> None:
    found = named_speed(Network("test", "test_efficientnet", 64, 1, "separable", 64, False, 0, 0))
    assert (found.backend, found.size) == ("pytorch", (64, 64))
    assert found.ms > 0


def test_the_cost_of_a_file_is_that_of_its_network(model_file: Path) -> None:
    facts, cost = with_cost(read_header(model_file).facts), network_cost(tiny_config(), classes=3, size=(64, 64))
    assert (facts.parameters, facts.macs) == cost
    assert Facts.from_metadata(facts.to_metadata(), where=model_file).macs == cost.macs
    assert with_cost(FACTS) == FACTS


@pytest.mark.parametrize("model", [{"channels": "many"}, {"backbone": "no_such_net"}, {"payload": 1}])
def test_a_file_that_does_not_describe_its_network_has_no_cost(model: dict[str, Any]) -> None:
    facts = replace(FACTS, model=model)
    assert with_cost(facts) == facts


def test_a_network_that_cannot_be_counted_has_no_cost(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise NotImplementedError("a meta tensor has no values")

    monkeypatch.setattr("fcos_cli.model.networks.cost.network_cost", fail)
    facts = read_header(model_file).facts
    assert with_cost(facts) == facts


@pytest.mark.parametrize("cost", [None, 3, [], {}, {"macs": -1}, {"macs": "many"}, {"macs": 2**64}, {"macs": 1.5}])
def test_a_cost_that_is_none_is_left_out(cost: object) -> None:
    assert replace(FACTS, provenance={"cost": cost}).macs is None
