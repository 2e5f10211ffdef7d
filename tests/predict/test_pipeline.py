from __future__ import annotations

import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.errors import UsageError
from fcos_cli.predict.pipeline import Failure, Prediction, predict
from tests.runtime.fakes import CornerDetector


def pictures(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{n:03}.png" for n in range(count)]
    for n, path in enumerate(paths):
        Image.new("RGB", (20 + n, 10), (n, 0, 0)).save(path)
    return paths


def test_boxes_come_back_in_pixels_of_the_source(tmp_path):
    # 20 x 10 is letterboxed to 32 x 16 in 32 x 32; the box over the whole input is clipped to the picture.
    (answer,) = predict(CornerDetector(), pictures(tmp_path, 1))
    assert isinstance(answer, Prediction)
    assert (answer.width, answer.height) == (20, 10)
    np.testing.assert_allclose(answer.detections.boxes[0], [0, 0, 20, 10])
    assert answer.image is None


@pytest.mark.parametrize("batch", [1, 3, 7, 50])
@pytest.mark.parametrize("workers", [1, 3])
def test_answers_are_those_of_the_inputs_in_their_order(tmp_path, batch, workers):
    paths = pictures(tmp_path, 7)
    detector = CornerDetector()
    answers = list(predict(detector, paths, batch=batch, workers=workers))
    assert [a.source for a in answers] == paths
    assert [a.width for a in answers] == [20 + n for n in range(7)]
    assert [float(a.detections.scores[1]) * 256 for a in answers] == list(range(7))
    assert max(detector.sizes) == min(batch, 7)
    assert sum(detector.sizes) == 7


def test_pixels_are_kept_where_asked_for(tmp_path):
    (answer,) = predict(CornerDetector(), pictures(tmp_path, 1), keep_images=True)
    assert answer.image.shape == (10, 20, 3)
    assert answer.image.dtype == np.uint8


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_one_bad_file_costs_its_place_only(tmp_path, batch):
    paths = pictures(tmp_path, 5)
    paths[1].write_bytes(b"not a picture")
    paths[4].unlink()
    answers = list(predict(CornerDetector(), paths, batch=batch))
    assert [isinstance(a, Failure) for a in answers] == [False, True, False, False, True]
    assert [a.source for a in answers] == paths
    assert float(answers[3].detections.scores[1]) * 256 == 3
    assert str(paths[1]) in str(answers[1].error)


def test_when_every_file_is_bad_the_network_is_not_called(tmp_path):
    detector = CornerDetector()
    (answer,) = predict(detector, [tmp_path / "gone.png"])
    assert isinstance(answer, Failure)
    assert detector.sizes == []


def test_thresholds_hold_for_all_or_per_class(tmp_path):
    paths = pictures(tmp_path, 1)  # class 0 scores 0.75, class 1 scores 0
    (by_one,) = predict(CornerDetector(), paths, threshold=0.5)
    (by_class,) = predict(CornerDetector(), paths, threshold=np.array([0.8, 0.0], np.float32))
    assert by_one.detections.classes.tolist() == [0]
    assert by_class.detections.classes.tolist() == [1]


def test_no_pictures_give_no_answers():
    assert list(predict(CornerDetector(), [])) == []


def test_a_batch_of_zero_is_a_usage_error_at_once():
    with pytest.raises(UsageError):
        predict(CornerDetector(), [], batch=0)


class LiveCount:
    """Stands for open_image: hands out pictures and counts those that are still alive."""

    def __init__(self) -> None:
        self.now = self.peak = self.opened = 0
        self.lock = threading.RLock()

    def __call__(self, path: Path) -> np.ndarray:
        image = np.zeros((8, 8, 3), np.uint8)
        with self.lock:
            self.opened += 1
            self.now += 1
            self.peak = max(self.peak, self.now)
        weakref.finalize(image, self.gone)
        return image

    def gone(self) -> None:
        with self.lock:
            self.now -= 1


@pytest.mark.parametrize("keep_images", [False, True])
def test_ten_thousand_pictures_need_the_memory_of_a_few_batches(monkeypatch, keep_images):
    live = LiveCount()
    monkeypatch.setattr("fcos_cli.predict.pipeline.open_image", live)
    paths = (Path(f"{n}.png") for n in range(10_000))
    count = sum(1 for _ in predict(CornerDetector(), paths, batch=8, workers=2, keep_images=keep_images))
    assert count == live.opened == 10_000
    assert live.peak <= 8 * (2 + 2)


def test_paths_are_read_no_further_than_the_look_ahead(monkeypatch):
    monkeypatch.setattr("fcos_cli.predict.pipeline.open_image", LiveCount())
    asked = []
    answers = predict(CornerDetector(), (asked.append(n) or Path(f"{n}") for n in range(1000)), batch=4, workers=1)
    next(answers)
    assert len(asked) == 8
    answers.close()


def test_reading_goes_on_while_the_network_works(monkeypatch):
    live = LiveCount()
    monkeypatch.setattr("fcos_cli.predict.pipeline.open_image", live)
    ahead = []

    class Slow(CornerDetector):
        def __call__(self, images):
            limit = time.monotonic() + 5
            while live.opened < 2 and time.monotonic() < limit:
                time.sleep(0.001)
            ahead.append(live.opened)
            return super().__call__(images)

    list(predict(Slow(), [Path("a"), Path("b")], batch=1))
    assert ahead[0] == 2  # the second picture was open before the first was answered


def test_stopping_early_ends_the_threads(tmp_path):
    before = threading.active_count()
    answers = predict(CornerDetector(), pictures(tmp_path, 9), workers=3)
    next(answers)
    answers.close()
    assert threading.active_count() == before


def test_an_error_of_the_detector_is_not_hidden(tmp_path):
    class Broken(CornerDetector):
        def __call__(self, images):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(predict(Broken(), pictures(tmp_path, 3)))
