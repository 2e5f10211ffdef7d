from __future__ import annotations

import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.data.images import ReadImage
from fcos_cli.errors import UsageError
from fcos_cli.predict.pipeline import Failure, Prediction, predict
from tests.runtime.fakes import CornerDetector


def write_images(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{n:03}.png" for n in range(count)]
    for n, path in enumerate(paths):
        Image.new("RGB", (20 + n, 10), (n, 0, 0)).save(path)
    return paths


def test_boxes_are_in_source_pixels(tmp_path):
    # 20 x 10 is letterboxed to 32 x 16 in 32 x 32; a box over the whole input is clipped to the image
    (result,) = predict(CornerDetector(), write_images(tmp_path, 1))
    assert isinstance(result, Prediction)
    assert (result.width, result.height) == (20, 10)
    np.testing.assert_allclose(result.detections.boxes[0], [0, 0, 20, 10])
    assert result.image is None


@pytest.mark.parametrize("batch", [1, 3, 7, 50])
@pytest.mark.parametrize("workers", [1, 3])
def test_results_keep_the_order_of_the_inputs(tmp_path, batch, workers):
    paths = write_images(tmp_path, 7)
    detector = CornerDetector()
    results = list(predict(detector, paths, batch=batch, workers=workers))
    assert [a.source for a in results] == paths
    assert [a.width for a in results] == [20 + n for n in range(7)]
    assert [float(a.detections.scores[1]) * 256 for a in results] == list(range(7))
    assert max(detector.sizes) == min(batch, 7)
    assert sum(detector.sizes) == 7


def test_pixels_are_kept_on_request(tmp_path):
    (result,) = predict(CornerDetector(), write_images(tmp_path, 1), keep_images=True)
    assert result.image.shape == (10, 20, 3)
    assert result.image.dtype == np.uint8


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_bad_file_is_a_failure_in_its_place(tmp_path, batch):
    paths = write_images(tmp_path, 5)
    paths[1].write_bytes(b"not an image")
    paths[4].unlink()
    results = list(predict(CornerDetector(), paths, batch=batch))
    assert [isinstance(a, Failure) for a in results] == [False, True, False, False, True]
    assert [a.source for a in results] == paths
    assert float(results[3].detections.scores[1]) * 256 == 3
    assert str(paths[1]) in str(results[1].error)


def test_network_is_not_called_without_a_readable_file(tmp_path):
    detector = CornerDetector()
    (result,) = predict(detector, [tmp_path / "gone.png"])
    assert isinstance(result, Failure)
    assert detector.sizes == []


def test_threshold_is_global_or_per_class(tmp_path):
    paths = write_images(tmp_path, 1)  # class 0 scores 0.75, class 1 scores 0
    (by_global,) = predict(CornerDetector(), paths, threshold=0.5)
    (by_class,) = predict(CornerDetector(), paths, threshold=np.array([0.8, 0.0], np.float32))
    assert by_global.detections.classes.tolist() == [0]
    assert by_class.detections.classes.tolist() == [1]


def test_no_inputs_give_no_results():
    assert list(predict(CornerDetector(), [])) == []


def test_batch_size_zero_is_a_usage_error_before_iteration():
    with pytest.raises(UsageError):
        predict(CornerDetector(), [], batch=0)


class LiveCount:
    """Replaces open_image: returns images and counts how many are alive."""

    def __init__(self) -> None:
        self.alive = self.peak = self.opened = 0
        self.lock = threading.RLock()

    def __call__(self, path: Path) -> ReadImage:
        image = np.zeros((8, 8, 3), np.uint8)
        with self.lock:
            self.opened += 1
            self.alive += 1
            self.peak = max(self.peak, self.alive)
        weakref.finalize(image, self.on_delete)
        return ReadImage(image, None)

    def on_delete(self) -> None:
        with self.lock:
            self.alive -= 1


@pytest.mark.parametrize("keep_images", [False, True])
def test_ten_thousand_images_need_the_memory_of_a_few_batches(monkeypatch, keep_images):
    live = LiveCount()
    monkeypatch.setattr("fcos_cli.predict.pipeline.read_image", live)
    paths = (Path(f"{n}.png") for n in range(10_000))
    count = sum(1 for _ in predict(CornerDetector(), paths, batch=8, workers=2, keep_images=keep_images))
    assert count == live.opened == 10_000
    assert live.peak <= 8 * (2 + 2)


def test_inputs_are_read_lazily(monkeypatch):
    monkeypatch.setattr("fcos_cli.predict.pipeline.read_image", LiveCount())
    consumed = []
    results = predict(CornerDetector(), (consumed.append(n) or Path(f"{n}") for n in range(1000)), batch=4, workers=1)
    next(results)
    assert len(consumed) == 8
    results.close()


def test_results_come_before_inputs_that_must_be_waited_for(monkeypatch):
    monkeypatch.setattr("fcos_cli.predict.pipeline.read_image", LiveCount())
    consumed = []
    inputs = (consumed.append(n) or Path(f"{n}") for n in range(4))
    for number, result in enumerate(predict(CornerDetector(), inputs, is_ready=lambda: False)):
        assert result.source == Path(f"{number}")
        assert len(consumed) == number + 1
    assert len(consumed) == 4


def test_images_are_opened_while_the_network_runs(monkeypatch):
    live = LiveCount()
    monkeypatch.setattr("fcos_cli.predict.pipeline.read_image", live)
    opened = []

    class Slow(CornerDetector):
        def __call__(self, images):
            deadline = time.monotonic() + 5
            while live.opened < 2 and time.monotonic() < deadline:
                time.sleep(0.001)
            opened.append(live.opened)
            return super().__call__(images)

    list(predict(Slow(), [Path("a"), Path("b")], batch=1))
    assert opened[0] == 2  # the second image was opened before the first result


def test_stopping_early_ends_the_threads(tmp_path):
    before = threading.active_count()
    results = predict(CornerDetector(), write_images(tmp_path, 9), workers=3)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_detector_error_is_raised(tmp_path):
    class Broken(CornerDetector):
        def __call__(self, images):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(predict(Broken(), write_images(tmp_path, 3)))
