"""Data without a val split is divided for a measurement as it was for training."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset, Division
from fcos_cli.evaluate.split import may_be_training_images, read_split, split_held_out
from fcos_cli.runtime.facts import Facts
from tests.runtime.onnx_files import FACTS


@pytest.fixture
def undivided(shapes: Path, tmp_path: Path) -> Path:
    """The data set of 12 training images, without its val split."""
    shutil.copytree(shapes, tmp_path / "shapes")
    (tmp_path / "shapes" / "val.json").unlink()
    return tmp_path / "shapes"


def trained_with(division: Any) -> Facts:
    return Facts(FACTS.classes, FACTS.resize, provenance={"data": {"name": "shapes", "division": division}})


def names(dataset: Dataset) -> list[str]:
    return [sample.image.name for sample in dataset.samples]


def test_the_images_are_those_that_training_held_out(undivided: Path) -> None:
    model = trained_with({"val_fraction": 0.25, "seed": 5})
    assert model.division == Division(0.25, 5)
    val = read_split(undivided, [model])
    assert names(val) == names(read_dataset(undivided, split="val", val_fraction=0.25, seed=5))
    assert (len(val), val.division) == (3, Division(0.25, 5))
    assert names(read_split(undivided, [FACTS])) == names(read_dataset(undivided, split="val"))


@pytest.mark.parametrize("division", [None, 7, [], {}, {"val_fraction": 2.0, "seed": 1}, {"val_fraction": 0.1}])
def test_without_a_usable_record_the_division_is_the_default(undivided: Path, division: Any) -> None:
    assert read_split(undivided, [trained_with(division)]).division == Division()


def test_a_val_split_of_the_data_set_is_used_as_it_is(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [trained_with({"val_fraction": 0.25, "seed": seed}) for seed in (1, 2)]
    val = read_split(shapes, models)
    assert (names(val), val.division) == (names(read_dataset(shapes, split="val")), None)
    assert "division" not in capsys.readouterr().err


def test_a_whole_file_that_was_divided_for_training_is_warned_of(
    undivided: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = (undivided / "train.json").rename(undivided / "shapes.json")
    division = {"val_fraction": 0.25, "seed": 5}
    model = Facts(FACTS.classes, FACTS.resize, provenance={"data": {"name": "shapes.json", "division": division}})
    assert len(read_split(file, [model])) == 12
    assert "--split val is that part" in capsys.readouterr().err
    assert len(read_split(file, [model], split="val")) == 3
    read_split(file, [model], split="all")
    read_split(file, [trained_with(division), FACTS])  # of another name
    assert capsys.readouterr().err == ""


def test_models_that_were_trained_on_different_divisions_are_noticed(
    undivided: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (trained_with({"val_fraction": 0.25, "seed": seed}) for seed in (1, 2))
    assert read_split(undivided, [one, other, FACTS]).division == Division(0.25, 2)
    assert "different divisions of their data (val: 0.25 with seed 2; 0.25 with seed 1)" in capsys.readouterr().err
    read_split(undivided, [one, one, FACTS])
    assert capsys.readouterr().err == ""


def test_an_export_is_compared_on_the_part_of_a_whole_file_that_was_held_out(undivided: Path) -> None:
    division = {"val_fraction": 0.25, "seed": 5}
    model = Facts(FACTS.classes, FACTS.resize, provenance={"data": {"name": "train.json", "division": division}})
    assert split_held_out(undivided / "train.json", model) == "val"
    assert split_held_out(undivided / "val.json", model) is None
    assert split_held_out(undivided, trained_with(division)) is None  # read as val anyway
    assert split_held_out(undivided / "train.json", FACTS) is None


def test_all_images_of_other_data_are_not_taken_for_training_images(undivided: Path) -> None:
    everything = read_dataset(undivided, split="all")
    assert may_be_training_images(everything, trained_with({"val_fraction": 0.25, "seed": 5}))
    other = Facts(FACTS.classes, FACTS.resize, provenance={"data": {"name": "others"}})
    assert not may_be_training_images(everything, other)
    assert not may_be_training_images(everything, FACTS)  # nothing is known of its training
    assert may_be_training_images(read_dataset(undivided, split="train"), other)
