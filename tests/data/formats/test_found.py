"""Which data set is found in a folder, and where it has no splits of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from fcos_cli.data.formats.read import is_divided, read_dataset
from fcos_cli.data.samples import Dataset
from fcos_cli.errors import DataError
from tests.data.formats.test_voc import annotate, devkit, draw, thing


def names(dataset: Dataset) -> set[str]:
    return {sample.image.name for sample in dataset.samples}


def labelme(file: Path) -> None:
    """One JSON with a dog, and its picture beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (100, 50)).save(file.with_suffix(".png"))
    shape = {"label": "dog", "shape_type": "rectangle", "points": [[1, 1], [9, 9]]}
    file.write_text(json.dumps({"shapes": [shape], "imagePath": file.with_suffix(".png").name}))


def yolo(root: Path) -> None:
    """A data.yaml with a train and a val split, and their pictures."""
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        Image.new("L", (100, 50)).save(root / f"images/{split}/{split}.png")
        (root / f"labels/{split}/{split}.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (root / "data.yaml").write_text("names: [cat]\ntrain: images/train\nval: images/val\n")


@pytest.mark.parametrize("inner", ["original/Annotations", "backup/original/Annotations", "original"])
@pytest.mark.parametrize("format", ["yolo", "labelme"])
def test_labels_in_the_folder_itself_come_before_voc_files_below(format: str, inner: str, tmp_path: Path) -> None:
    for number in range(4):
        draw(tmp_path / inner / f"{number}.jpg")
        annotate(tmp_path / inner / f"{number}.xml", thing())
    assert read_dataset(tmp_path, split="train").format == "voc"
    if format == "yolo":
        yolo(tmp_path)
    else:
        labelme(tmp_path / "a.json")
        labelme(tmp_path / "b.json")
    dataset = read_dataset(tmp_path, split="train")
    assert (dataset.format, len(dataset)) == (format, 1)


@pytest.mark.parametrize("folders", [("train", "valid"), ("test",), ("Train", "more")])
def test_voc_files_in_folders_of_the_splits_are_read_whatever_else_is_there(
    folders: tuple[str, ...], tmp_path: Path
) -> None:
    for name in folders:
        for number in range(2):
            draw(tmp_path / name / f"{name}{number}.jpg")
            annotate(tmp_path / name / f"{name}{number}.xml", thing())
            (tmp_path / name / f"{name}{number}.txt").write_text("0 0.5 0.5 0.2 0.4\n")
        (tmp_path / name / "classes.txt").write_text("dog\n")
    labelme(tmp_path / "a.json")
    dataset = read_dataset(tmp_path, split="all")
    assert (dataset.format, len(dataset)) == ("voc", 2 * len(folders))


@pytest.mark.parametrize("labels", ["VOC2007/labels", "labels"])
def test_voc_files_below_come_before_yolo_labels_without_class_names(labels: str, tmp_path: Path) -> None:
    devkit(tmp_path / "VOC2007")
    (tmp_path / labels).mkdir()
    (tmp_path / labels / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    assert read_dataset(tmp_path, split="all").format == "voc"


def test_voc_files_below_come_before_labelme_files_below(tmp_path: Path) -> None:
    for number in range(2):
        draw(tmp_path / "data_dataset_voc/JPEGImages" / f"{number}.jpg")
        annotate(tmp_path / "data_dataset_voc/Annotations" / f"{number}.xml", thing())
        labelme(tmp_path / "data_annotated" / f"{number}.json")
    assert read_dataset(tmp_path, split="all").format == "voc"


@pytest.mark.parametrize("name", ["test", "val", "Valid", "validation"])
@pytest.mark.parametrize("format", ["voc", "labelme"])
def test_a_folder_of_one_split_is_divided_only_if_train_or_val_is_requested(
    format: str, name: str, tmp_path: Path
) -> None:
    for number in range(4):
        if format == "voc":
            draw(tmp_path / name / f"{number}.png")
            annotate(tmp_path / name / f"{number}.xml", thing())
        else:
            labelme(tmp_path / name / f"{number}.json")
    parts = [names(read_dataset(tmp_path / name, split=split)) for split in ("train", "val")]
    assert [len(part) for part in parts] == [3, 1]
    assert len(set.union(*parts)) == 4
    assert "divided: 10 % of 4 images held out" in read_dataset(tmp_path / name, split="train").origin
    assert not is_divided(tmp_path / name)
    assert is_divided(tmp_path / name, split="val")
    assert len(read_dataset(tmp_path / name)) == len(read_dataset(tmp_path / name, split="all")) == 4
    if name != "val":
        assert len(read_dataset(tmp_path / name, split=name.lower())) == 4


def test_a_folder_of_a_train_split_is_divided_as_others_are(tmp_path: Path) -> None:
    for number in range(4):
        labelme(tmp_path / "train" / f"{number}.json")
    assert len(read_dataset(tmp_path / "train", split="train")) == 3
    assert len(read_dataset(tmp_path / "train")) == 1


def test_a_data_yaml_with_a_val_split_alone_is_not_divided(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [cat]\nval: images/val\n")
    assert len(read_dataset(tmp_path / "data.yaml")) == 1
    with pytest.raises(DataError, match="no train split, only val"):
        read_dataset(tmp_path / "data.yaml", split="train")


@pytest.mark.parametrize("inner", [".", "set"])
def test_one_devkit_for_each_split_is_one_data_set(inner: str, tmp_path: Path) -> None:
    for number, split in enumerate(("Train", "valid", "test")):
        draw(tmp_path / inner / split / "JPEGImages" / "1.jpg")
        annotate(tmp_path / inner / split / "Annotations" / "1.xml", thing(f"{number}"))
    for split, number in (("train", "0"), ("val", "1"), ("test", "2")):
        dataset = read_dataset(tmp_path, split=split)
        (sample,) = dataset.samples
        assert dataset.classes.names[int(sample.classes[0])] == number
        assert sample.image.parent.parent.name.lower().startswith(split)


@pytest.mark.parametrize(("one", "other"), [("train", "VOC2012"), ("a/train", "b/val"), ("train", "Train")])
def test_other_devkits_stay_ambiguous(one: str, other: str, tmp_path: Path) -> None:
    devkit(tmp_path / one)
    devkit(tmp_path / other)
    with pytest.raises(DataError, match="2 VOC data sets here"):
        read_dataset(tmp_path)


def test_devkits_with_lists_of_their_own_stay_ambiguous(tmp_path: Path) -> None:
    devkit(tmp_path / "train", train="a\n")
    devkit(tmp_path / "val")
    with pytest.raises(DataError, match="2 VOC data sets here"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("folder", [".", "train"])
def test_images_with_yolo_labels_among_others_with_xml_are_an_error(folder: str, tmp_path: Path) -> None:
    for stem in "abcd":
        draw(tmp_path / folder / f"{stem}.png")
    for stem in "ab":
        annotate(tmp_path / folder / f"{stem}.xml", thing())
    (tmp_path / folder / "classes.txt").write_text("dog\n")
    for name in ("a.txt", "notes.txt"):
        (tmp_path / folder / name).write_text("0 0.5 0.5 0.2 0.4\n")
    assert len(read_dataset(tmp_path, split="all")) == 2  # one image has both
    for name in ("c.txt", "d.txt"):
        (tmp_path / folder / name).write_text("0 0.5 0.5 0.2 0.4\n")
    with pytest.raises(DataError, match=r"others only YOLO labels, such as c\.txt \(2 in all\)") as caught:
        read_dataset(tmp_path, split="all")
    assert caught.value.where == str(tmp_path / folder)
