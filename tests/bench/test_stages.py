"""Timing of the stages between files and detections."""

import gc
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.bench.stages import Batch, Pipeline, batches_of, measure_turn, warm_up
from tests.runtime.fakes import CornerDetector


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "p.png"
    Image.fromarray(np.full((20, 30, 3), 128, np.uint8)).save(path)
    return path


def test_every_image_is_used_and_the_last_batch_is_filled_up() -> None:
    names = [[path.name for path in batch] for batch in batches_of(["a", "b", "c"], 2)]
    assert names == [["a", "b"], ["c", "a"]]
    assert [len(batch) for batch in batches_of(["a"], 4)] == [4]


def test_a_single_graph_detector_has_one_stage(image: Path) -> None:
    detector = CornerDetector()
    sample = Pipeline(detector, detector.facts.resize)((image, image))
    assert set(sample) == {"open", "preprocess", "network_decode_nms", "total"}
    assert detector.sizes == [2]
    parts = sample["open"] + sample["preprocess"] + sample["network_decode_nms"]
    assert parts == pytest.approx(sample["total"])
    assert min(sample.values()) > 0


def test_stages_of_a_torch_network_are_timed_separately(model_file: Path, image: Path) -> None:
    from fcos_cli.runtime.open import open_detector

    detector = open_detector(model_file)
    sample = Pipeline(detector, detector.facts.resize)((image,))
    assert set(sample) == {"open", "preprocess", "network", "decode_nms", "total"}
    parts = sum(sample[stage] for stage in sample if stage != "total")
    assert parts == pytest.approx(sample["total"])


def test_the_forward_hook_does_not_change_the_output(model_file: Path) -> None:
    from fcos_cli.runtime.open import open_detector

    images = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), np.uint8)
    detector = open_detector(model_file)
    before = detector(images)
    Pipeline(detector, detector.facts.resize)
    for old, new in zip(before, detector(images), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("calls", [0, 2])
def test_a_network_that_is_not_called_exactly_once_is_not_split(calls: int, image: Path) -> None:
    import torch

    class Odd(CornerDetector):
        model = torch.nn.Identity()

        def __call__(self, images):
            for _ in range(calls):
                self.model(torch.zeros(1))
            return super().__call__(images)

    detector = Odd()
    assert "network_decode_nms" in Pipeline(detector, detector.facts.resize)((image,))


class FakePipeline:
    """Reports `ms` milliseconds for every batch."""

    def __init__(self, ms: float) -> None:
        self.ms, self.seen, self.collecting = ms, list[Batch](), list[bool]()

    def __call__(self, batch: Batch) -> dict[str, float]:
        self.seen.append(batch)
        self.collecting.append(gc.isenabled())
        return {"total": self.ms}


BATCHES = batches_of(["a", "b", "c"], 1)


def test_a_slow_model_runs_once_per_image_after_one_untimed_call() -> None:
    slow = FakePipeline(1000.0)
    assert len(measure_turn(slow, BATCHES, seconds=0.25)) == 3
    assert slow.seen == [BATCHES[0], *BATCHES]


def test_a_fast_model_runs_all_images_equally_often_until_the_time_is_up() -> None:
    fast = FakePipeline(20.0)
    samples = measure_turn(fast, BATCHES, seconds=0.25)
    assert len(samples) == 15  # 12 calls take 240 ms, the next three reach 300
    assert {batch: fast.seen[1:].count(batch) for batch in BATCHES} == dict.fromkeys(BATCHES, 5)


def test_garbage_collection_is_off_while_timing() -> None:
    watched = FakePipeline(1000.0)
    measure_turn(watched, BATCHES)
    assert not any(watched.collecting)
    assert gc.isenabled()


def test_garbage_collection_is_on_again_after_a_failure() -> None:
    def fail(_: Batch) -> dict[str, float]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        measure_turn(fail, BATCHES)
    assert gc.isenabled()


def test_warm_up_runs_each_batch_twice_and_long_enough() -> None:
    slow, fast = FakePipeline(1000.0), FakePipeline(50.0)
    warm_up(slow, BATCHES, seconds=0.5)
    warm_up(fast, BATCHES, seconds=0.5)
    assert len(slow.seen) == 6
    assert len(fast.seen) == 12  # 600 ms


def test_samples_are_in_milliseconds(monkeypatch: pytest.MonkeyPatch, image: Path) -> None:
    ticks = count()
    monkeypatch.setattr("fcos_cli.bench.stages.perf_counter", lambda: float(next(ticks)))
    detector = CornerDetector()
    sample = Pipeline(detector, detector.facts.resize)((image,))
    assert sample == {"open": 1000.0, "preprocess": 1000.0, "network_decode_nms": 1000.0, "total": 3000.0}
