"""Data without a val split is divided for a measurement as it was for training, or not at all."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset, Division, fingerprint
from fcos_cli.evaluate.split import may_be_training_images, read_split, split_held_out
from fcos_cli.runtime.facts import Facts
from tests.data.formats.test_labelme import annotate as labelme_annotate
from tests.data.formats.test_labelme import shape as labelme_shape
from tests.runtime.onnx_files import FACTS


@pytest.fixture
def undivided(shapes: Path, tmp_path: Path) -> Path:
    """The data set of 12 training images, without its val split."""
    shutil.copytree(shapes, tmp_path / "shapes")
    (tmp_path / "shapes" / "val.json").unlink()
    return tmp_path / "shapes"


def trained_with(division: Any, *, name: str = "shapes", **facts: str) -> Facts:
    data = {"name": name, "division": division, **facts}
    return Facts(FACTS.classes, FACTS.resize, provenance={"data": data})


def names(dataset: Dataset) -> list[str]:
    return [sample.image.name for sample in dataset.samples]


def test_the_images_are_those_that_training_held_out(undivided: Path) -> None:
    model = trained_with({"val_fraction": 0.25, "seed": 5})
    assert model.division == Division(0.25, 5)
    val = read_split(undivided, [model])
    assert names(val) == names(read_dataset(undivided, split="val", val_fraction=0.25, seed=5))
    assert (len(val), val.division) == (3, Division(0.25, 5))


def test_data_that_no_model_was_trained_on_is_not_divided(
    undivided: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = trained_with({"val_fraction": 0.25, "seed": 5}, name="others")
    everything = read_split(undivided, [other, other])
    assert (len(everything), everything.split, everything.division) == (12, "all", None)
    assert "no model here is known to have used it: all its images are evaluated" in capsys.readouterr().err
    assert len(read_split(undivided, [other], split="val")) == 1  # what was asked for
    assert len(read_split(undivided, [other, trained_with({"val_fraction": 0.25, "seed": 5})])) == 3
    assert capsys.readouterr().err == ""
    content = json.loads((undivided / "train.json").read_text())
    for row in content["images"]:
        row["file_name"] = str(next(undivided.rglob(Path(row["file_name"]).name)))
    content["images"] = content["images"][:1]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] == content["images"][0]["id"]]
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "train.json").write_text(json.dumps(content))
    assert len(read_split(tmp_path / "single", [trained_with(None, name="others", sha256="0")])) == 1


def test_a_file_without_a_record_of_its_data_is_warned_of(undivided: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = trained_with(None, name="others")
    assert names(read_split(undivided, [FACTS, other])) == names(read_dataset(undivided, split="val"))
    assert "--split all evaluates all" in capsys.readouterr().err
    tiled = trained_with({"val_fraction": 0.25, "seed": 5}, name="others", sha256="0")
    tiled = replace(tiled, provenance={**tiled.provenance, "tile": 32})  # perhaps of this data, under another name
    assert len(read_split(undivided, [tiled])) == 1
    assert "--split all evaluates all" in capsys.readouterr().err
    read_split(undivided, [FACTS], split="val")
    assert capsys.readouterr().err == ""


def test_other_data_of_the_same_name_is_divided_with_a_warning(
    undivided: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    division = {"val_fraction": 0.25, "seed": 5}
    used = fingerprint(read_dataset(undivided, split="train", **division))
    words = "shapes has the name of data that a model was trained on, but not its images or labels"
    for sha256, warned in ((used, False), ("0", True)):
        model = trained_with(division, sha256=sha256)
        assert len(read_split(undivided, [model])) == 3
        told = capsys.readouterr().err
        assert (words in told, "--split all evaluates all" in told) == (warned, warned)
        read_split(undivided, [model], split="val")  # what was asked for
        tiled = replace(model, provenance={**model.provenance, "tile": 32})  # its hash is of tiles
        read_split(undivided, [tiled])
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("left_out", [0, 1])
def test_data_is_recognized_by_its_images_if_it_was_renamed(undivided: Path, left_out: int) -> None:
    used = read_dataset(undivided, split="train", val_fraction=0.25, seed=5)
    if left_out:  # by data.drop_empty
        file = undivided / "train.json"
        content = json.loads(file.read_text())
        image = next(row["id"] for row in content["images"] if row["file_name"].endswith(used.samples[0].image.name))
        content["annotations"] = [row for row in content["annotations"] if row["image_id"] != image]
        file.write_text(json.dumps(content))
        used = read_dataset(undivided, split="train", val_fraction=0.25, seed=5)
        used = replace(used, samples=[sample for sample in used.samples if len(sample.boxes)])
    model = trained_with({"val_fraction": 0.25, "seed": 5}, name="shapes v1", sha256=fingerprint(used))
    assert names(read_split(undivided, [model])) == names(
        read_split(undivided, [trained_with(model.division._asdict())])
    )


@pytest.mark.parametrize("name", ["val", "train"])
def test_a_file_that_is_a_split_is_not_divided_further(shapes: Path, name: str) -> None:
    file = shapes / f"{name}.json"
    trained = read_dataset(shapes, split="train")
    model = trained_with(None, sha256=fingerprint(trained))
    whole = read_split(file, [model, FACTS], split=name)
    assert (names(whole), whole.split) == (names(read_dataset(shapes, split=name)), name)
    divided = trained_with({"val_fraction": 0.5, "seed": 5}, name=file.name)
    assert len(read_split(file, [divided], split=name)) == len(whole) / 2


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
    assert "--split val evaluates only that part" in capsys.readouterr().err
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
    shutil.copy(undivided / "train.json", undivided / "val.json")
    assert split_held_out(undivided / "val.json", model) is None
    assert split_held_out(undivided, trained_with(division)) == split_held_out(undivided, FACTS) == "val"
    assert split_held_out(undivided / "train.json", FACTS) is None


def test_all_images_of_other_data_are_not_taken_for_training_images(undivided: Path) -> None:
    everything = read_dataset(undivided, split="all")
    assert may_be_training_images(everything, trained_with({"val_fraction": 0.25, "seed": 5}))
    other = Facts(FACTS.classes, FACTS.resize, provenance={"data": {"name": "others"}})
    assert not may_be_training_images(everything, other)
    assert not may_be_training_images(everything, FACTS)  # nothing is known of its training
    assert may_be_training_images(read_dataset(undivided, split="train"), other)
    assert may_be_training_images(read_dataset(undivided / "train.json"), FACTS)


def test_training_images_are_recognized_also_if_those_without_objects_were_left_out(undivided: Path) -> None:
    everything = read_dataset(undivided, split="all")
    objects = [sample for sample in everything.samples if len(sample.boxes)]
    empty = replace(objects[0], boxes=objects[0].boxes[:0])
    model = trained_with(None, name="others", sha256=fingerprint(replace(everything, samples=objects)))
    assert may_be_training_images(replace(everything, samples=[empty, *objects]), model)
    assert not may_be_training_images(replace(everything, samples=objects[1:]), model)


@pytest.mark.parametrize("split", [None, "val"])
def test_a_folder_of_labelme_files_that_is_a_val_split_is_used_as_a_whole(
    split: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        labelme_annotate(tmp_path / "val" / f"{name}.json", labelme_shape(), image=f"{name}.png")
    for model in (FACTS, trained_with(None, name="photos", sha256="0")):
        assert len(read_split(tmp_path / "val", [model], split=split)) == 3
        assert split_held_out(tmp_path / "val", model) is None
    assert capsys.readouterr().err == ""
    divided = trained_with({"val_fraction": 0.1, "seed": 0}, name="val")
    assert len(read_split(tmp_path / "val", [divided], split=split)) == (1 if split else 3)
    assert ("training held out a part of" in capsys.readouterr().err) == (split is None)
    assert split_held_out(tmp_path / "val", divided) == "val"
