"""The images that an export is compared and calibrated with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fcos_cli.errors import DataError, UsageError
from fcos_cli.export.sample_images import PARITY_IMAGES, SampleImages, read_sample_images
from fcos_cli.model.classes import ClassTable
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.facts import Facts
from tests.runtime.onnx_files import FACTS


def images_of_a_run(folder: Path, data: Path, *, int8: bool) -> SampleImages:
    (folder / "config.toml").write_text(f'[data]\npath = "{data}"\n', encoding="utf-8")
    return read_sample_images(None, limit=None, model=FACTS, weights=folder / "best.safetensors", int8=int8)


def test_int8_is_compared_on_the_images_it_is_calibrated_with(shapes: Path, tmp_path: Path) -> None:
    found = images_of_a_run(tmp_path, shapes, int8=True)
    assert len(found.calibration) == 12
    assert len(found.parity) == PARITY_IMAGES
    assert set(found.parity) < set(found.calibration)
    assert (found.parity[0], found.parity[-1]) == (found.calibration[0], found.calibration[-1])


def test_images_that_cannot_be_read_are_left_out_of_the_calibration(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    train = images_of_a_run(tmp_path, data, int8=True).calibration
    train[0].write_bytes(train[0].read_bytes()[:-20])
    found = images_of_a_run(tmp_path, data, int8=True)
    assert found.calibration == train[1:]
    assert train[0] not in found.parity
    told = capsys.readouterr().err
    assert "not used for calibration: the image is truncated or damaged" in told
    assert str(train[0]) in told
    for path in train:
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image of the train split can be read"):
        images_of_a_run(tmp_path, data, int8=True)


def test_a_damaged_config_of_the_run_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[data\n", encoding="utf-8")
    with pytest.raises(UsageError, match="not valid TOML") as caught:
        read_sample_images(None, limit=None, model=FACTS, weights=tmp_path / "best.safetensors", int8=True)
    assert str(caught.value.where).endswith("config.toml")


def test_other_precisions_are_compared_on_the_bundled_photos(shapes: Path, tmp_path: Path) -> None:
    found = images_of_a_run(tmp_path, shapes, int8=False)
    assert (found.parity, found.calibration, found.val) == (demo_photos(), [], None)


def test_all_images_of_a_small_val_split_are_compared(shapes: Path, tmp_path: Path) -> None:
    model = Facts(ClassTable.from_names(["circle", "square", "triangle"]), FACTS.resize)
    found = read_sample_images(shapes, limit=1, model=model, weights=tmp_path / "best.safetensors", int8=False)
    assert len(set(found.parity)) == 4
    assert found.val is not None
    assert len(found.val) == 1
