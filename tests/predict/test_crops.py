from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.crops import safe_name, write_crops
from fcos_cli.predict.pipeline import Prediction
from fcos_cli.runtime.results import Detections

CLASSES = ClassTable(("cat",), (1,))


def crop(folder: Path, *box: float) -> Image.Image:
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 0] = np.arange(60) * 4
    found = Detections(np.array([box], np.float32), np.array([0.87], np.float32), np.zeros(1, np.int64))
    assert write_crops(folder, "a", Prediction(Path("a.jpg"), 60, 40, found, image), CLASSES) == 1
    with Image.open(folder / "cat" / "a-000-cat-0.87.jpg") as picture:
        return picture.convert("RGB")


def test_a_crop_is_the_box_widened_to_whole_pixels(tmp_path):
    picture = crop(tmp_path, 10.4, 5, 19.2, 15.0)
    assert picture.size == (10, 10)
    assert np.asarray(picture)[5, :, 0] == pytest.approx(np.arange(10, 20) * 4, abs=8)


def test_a_crop_is_never_empty(tmp_path):
    assert crop(tmp_path, 10, 5, 10, 5).size == (1, 1)
    assert crop(tmp_path, 60, 40, 60, 40).size == (1, 1)


@pytest.mark.parametrize(
    ("name", "safe"),
    [("cat", "cat"), ("a/b", "a-b"), ("..", "unnamed"), ("", "unnamed"), ("猫 x", "猫-x"), ("x" * 300, "x" * 80)],
)
def test_names_of_classes_are_made_names_of_files(name, safe):
    assert safe_name(name) == safe
