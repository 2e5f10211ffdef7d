from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.data.images import image_size
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.crops import Crop, crop_paths, crops_of, safe_name, write_crops
from fcos_cli.predict.outputs import shorten
from fcos_cli.predict.pipeline import Prediction
from fcos_cli.runtime.results import Detections

CLASSES = ClassTable(("cat",), (1,))


def write_crop(folder: Path, *box: float) -> Image.Image:
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 0] = np.arange(60) * 4
    detections = Detections(np.array([box], np.float32), np.array([0.87], np.float32), np.zeros(1, np.int64))
    crops = crops_of(Prediction(Path("a.jpg"), 60, 40, detections, image), CLASSES)
    assert len(crops) == 1
    write_crops(image, crops, crop_paths(folder, "a", crops))
    with Image.open(folder / "cat" / "a-000-cat-0.87.jpg") as crop:
        return crop.convert("RGB")


def test_crop_is_rounded_outwards_to_whole_pixels(tmp_path):
    crop = write_crop(tmp_path, 10.4, 5, 19.2, 15.0)
    assert crop.size == (10, 10)
    assert np.asarray(crop)[5, :, 0] == pytest.approx(np.arange(10, 20) * 4, abs=8)


def test_crop_is_never_empty(tmp_path):
    assert write_crop(tmp_path, 10, 5, 10, 5).size == (1, 1)
    assert write_crop(tmp_path, 60, 40, 60, 40).size == (1, 1)


def test_a_crop_too_large_for_jpeg_is_a_png(tmp_path):
    image = np.zeros((2, 65_501, 3), np.uint8)
    boxes = np.array([[0, 0, 65_501, 2], [0, 0, 65_500, 2]], np.float32)
    detections = Detections(boxes, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64))
    crops = crops_of(Prediction(Path("a.tif"), 65_501, 2, detections, image), CLASSES)
    paths = crop_paths(tmp_path, "a", crops)
    write_crops(image, crops, paths)
    assert [path.name for path in paths] == ["a-000-cat-0.90.png", "a-001-cat-0.80.jpg"]
    assert [image_size(path)[0] for path in paths] == [65_501, 65_500]


@pytest.mark.parametrize(
    ("name", "safe"),
    [("cat", "cat"), ("a/b", "a-b"), ("..", "unnamed"), ("", "unnamed"), ("猫 x", "猫-x"), ("x" * 300, "x" * 80)],
)
def test_class_names_become_valid_file_names(name, safe):
    assert safe_name(name) == safe


def test_long_names_in_any_script_fit_into_a_file_name(tmp_path):
    """Letters of two, three and four bytes; the network may find a thousand objects."""
    for letter in "жก𐐷":
        crops = [Crop((0, 0, 2, 2), 0.87, safe_name(letter * 80))] * 1001
        path = crop_paths(tmp_path, f"{shorten(letter * 80)}-1000", crops)[-1]
        write_crops(np.zeros((4, 4, 3), np.uint8), crops[:1], [path])
        assert path.is_file()
