"""The images that an export is compared and calibrated with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.images import open_image
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import DataError, UsageError
from fcos_cli.export.sample_images import PARITY_IMAGES, SampleImages, network_inputs, read_sample_images
from fcos_cli.model.classes import ClassTable
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.facts import Facts
from tests.runtime.onnx_files import FACTS


def images_of_a_run(folder: Path, data: Path, *, int8: bool) -> SampleImages:
    (folder / "config.toml").write_text(f'[data]\npath = "{data}"\n', encoding="utf-8")
    return read_sample_images(
        None, limit=None, model=FACTS, weights=folder / "best.safetensors", int8=int8, compare=True
    )


def of_a_data_set(data: Path, *, limit: int | None = None, int8: bool = False, compare: bool = True) -> SampleImages:
    model = Facts(ClassTable.from_names(["circle", "square", "triangle"]), FACTS.resize)
    return read_sample_images(data, limit=limit, model=model, weights=Path("w"), int8=int8, compare=compare)


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
    assert "left out: the image is truncated or damaged" in told
    assert str(train[0]) in told
    for path in train:
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image of the train split can be read"):
        images_of_a_run(tmp_path, data, int8=True)


def test_a_damaged_config_of_the_run_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[data\n", encoding="utf-8")
    with pytest.raises(UsageError, match="not valid TOML") as caught:
        read_sample_images(
            None, limit=None, model=FACTS, weights=tmp_path / "best.safetensors", int8=True, compare=True
        )
    assert str(caught.value.where).endswith("config.toml")


def test_other_precisions_are_compared_on_the_bundled_photos(shapes: Path, tmp_path: Path) -> None:
    found = images_of_a_run(tmp_path, shapes, int8=False)
    assert (found.parity, found.calibration, found.val) == (demo_photos(), [], None)


def test_all_images_of_a_small_val_split_are_compared(shapes: Path, tmp_path: Path) -> None:
    found = of_a_data_set(shapes, limit=1)
    assert len(set(found.parity)) == 4
    assert found.val is not None
    assert len(found.val) == 1


def test_another_image_is_compared_in_place_of_one_that_cannot_be_read(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    whole = of_a_data_set(data).parity
    whole[1].write_bytes(whole[1].read_bytes()[:-20])
    assert of_a_data_set(data).parity == [whole[0], *whole[2:]]
    assert str(whole[1]) in capsys.readouterr().err
    for path in whole:
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image of the val split can be read"):
        of_a_data_set(data)


def test_calibration_alone_needs_no_val_split(shapes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    empty = {**json.loads((data / "val.json").read_text(encoding="utf-8")), "images": [], "annotations": []}
    (data / "val.json").write_text(json.dumps(empty), encoding="utf-8")
    assert len(of_a_data_set(data, int8=True, compare=False).calibration) == 12
    with pytest.raises(DataError, match="no images"):
        of_a_data_set(data, int8=True)


def test_half_of_the_calibration_of_a_model_for_tiles_are_tiles(shapes: Path) -> None:
    images = of_a_data_set(shapes, int8=True).calibration
    rule = ResizeRule("letterbox", (40, 40))
    whole, tiled = network_inputs(images, rule), network_inputs(images, rule, tile=40)
    same = [bool((a == b).all()) for a, b in zip(whole, tiled, strict=True)]
    assert same == [True, False] * 6
    second = open_image(images[1])
    left, top, right, bottom = Tiling(40).tiles(second.shape[1], second.shape[0])[0]
    assert (tiled[1][0] == second[top:bottom, left:right].transpose(2, 0, 1)).all()
