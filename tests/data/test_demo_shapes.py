"""The synthetic demo set: boxes fit the drawn shapes, and the result is deterministic."""

import json
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.data.demo_shapes import CLASSES, Drawing, draw_image, write_shapes
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.images import open_image
from fcos_cli.errors import DataError, UsageError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_demo_set_is_read_without_findings(tmp_path: Path) -> None:
    write_shapes(tmp_path / "set", train=12, val=5, size=64)
    train, val = (read_dataset(tmp_path / "set", split=split) for split in ("train", "val"))
    assert (len(train), len(val)) == (12, 5)
    assert train.classes.names == val.classes.names == CLASSES
    assert train.findings == val.findings == []
    assert not {s.image_id for s in train.samples} & {s.image_id for s in val.samples}
    assert open_image(train.samples[0].image).shape == (64, 64, 3)


def test_the_files_depend_on_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_shapes(tmp_path / name, train=2, val=1, size=48, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")


def test_a_longer_set_begins_with_the_shorter_one(tmp_path: Path) -> None:
    write_shapes(tmp_path / "a", train=2, val=1, size=48)
    write_shapes(tmp_path / "b", train=4, val=1, size=48)
    for name in ("train_00001.jpg", "val_00000.jpg"):
        assert (tmp_path / "a/images" / name).read_bytes() == (tmp_path / "b/images" / name).read_bytes()


def test_boxes_are_inside_have_the_documented_sizes_and_cover_all_classes() -> None:
    size, drawn = 96, [draw_image(96, np.random.default_rng(seed), Drawing())[1] for seed in range(60)]
    counts = {len(things) for things in drawn}
    assert counts == {0, 1, 2, 3, 4}
    boxes = np.array([box for things in drawn for _, box in things])
    assert boxes.min() >= 0
    assert boxes.max() <= size
    assert (boxes[:, 2:] - boxes[:, :2]).max() <= 0.5 * size + 2
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 0.12 * size * 0.6  # a triangle is narrower than its circle
    assert {label for things in drawn for label, _ in things} == {0, 1, 2}


def test_a_shape_contrasts_with_the_background_in_its_box() -> None:
    for seed in range(40):
        image, things = draw_image(96, np.random.default_rng(seed), Drawing())
        if len(things) == 1:
            x1, y1, x2, y2 = things[0][1]
            pixels = np.asarray(image).astype(float)
            centre = pixels[(y1 + y2) // 2, (x1 + x2) // 2]
            corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=0)
            assert np.abs(centre - corners).max() > 20


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(json.dumps({"info": {}}))
    with pytest.raises(DataError, match="not empty"):
        write_shapes(tmp_path, train=1, val=1)
    assert contents(tmp_path) == {"train.json": b'{"info": {}}'}


def test_an_earlier_demo_set_is_replaced(tmp_path: Path) -> None:
    write_shapes(tmp_path, train=3, val=1, size=48)
    write_shapes(tmp_path, train=2, val=1, size=48, seed=1)
    assert len(read_dataset(tmp_path, split="train")) == 2


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": 0}, {"size": 8}])
def test_invalid_arguments_are_usage_errors(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot draw"):
        write_shapes(tmp_path, **({"train": 1, "val": 1} | wrong))
