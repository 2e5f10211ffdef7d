"""Which images belong to a split, and how that is reported, the same for every format."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset, fingerprint
from fcos_cli.errors import DataError, UsageError
from fcos_cli.model.classes import ClassTable


def coco_set(file: Path, count: int, *, prefix: str = "p", turned: bool = False) -> Path:
    """A COCO file of `count` tiny images in images/, one box each of class `thing` (id 5)."""
    folder = file.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{prefix}{number}.png" for number in range(count)]
    for name in names:
        Image.new("L", (8, 8)).save(folder / name)
    images = [{"id": i, "file_name": n, "width": 8, "height": 8} for i, n in enumerate(names)]
    boxes = [{"image_id": i, "category_id": 5, "bbox": [1, 1, 4, 4]} for i in range(count)]
    categories = [{"id": 5, "name": "thing"}]
    file.write_text(
        json.dumps({"images": images[::-1] if turned else images, "annotations": boxes, "categories": categories})
    )
    return file


def names(dataset: Dataset) -> set[str]:
    return {sample.image.name for sample in dataset.samples}


@pytest.mark.parametrize("stand_in", ["valid", "validation", "test"])
def test_val_falls_back_to_other_names_and_says_so(stand_in: str, tmp_path: Path) -> None:
    coco_set(tmp_path / "train.json", 3)
    coco_set(tmp_path / f"{stand_in}.json", 2, prefix="v")
    dataset = read_dataset(tmp_path, split="val")
    assert names(dataset) == {"v0.png", "v1.png"}
    assert dataset.split == "val"
    assert stand_in in dataset.origin
    assert len(read_dataset(tmp_path, split="train")) == 3


def test_val_is_preferred_to_test_and_both_can_be_requested(tmp_path: Path) -> None:
    for count, split in enumerate(("train", "val", "test"), start=1):
        coco_set(tmp_path / f"{split}.json", count, prefix=split)
    assert len(read_dataset(tmp_path, split="val")) == 2
    assert len(read_dataset(tmp_path)) == 2
    assert len(read_dataset(tmp_path, split="test")) == 3
    assert len(read_dataset(tmp_path, split="all")) == 6


def test_train_falls_back_to_trainval_without_the_val_images(tmp_path: Path) -> None:
    coco_set(tmp_path / "trainval.json", 4)
    coco_set(tmp_path / "val.json", 1)
    dataset = read_dataset(tmp_path, split="train")
    assert names(dataset) == {"p1.png", "p2.png", "p3.png"}
    assert dataset.origin == "no train split found: using trainval (trainval.json), without the images of val"
    assert len(read_dataset(tmp_path, split="trainval")) == 4


def test_a_split_without_a_usable_image_says_what_is_wrong_with_them(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
    (tmp_path / "images/train/a.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "images/val/a.heic").touch()
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: images/train\nval: images/val\n")
    with pytest.raises(DataError, match=r"images that cannot be read: 1 \(a.jpg .*Git LFS pointer") as caught:
        read_dataset(tmp_path, split="train")
    assert "replace them" in str(caught.value.remedy)
    with pytest.raises(DataError, match=r"formats that cannot be read, left out: 1 \(a.heic\)") as caught:
        read_dataset(tmp_path, split="val")
    assert caught.value.remedy == "convert them to JPEG or PNG"


def test_a_tenth_is_held_out_without_a_val_split_and_the_origin_says_so(tmp_path: Path) -> None:
    coco_set(tmp_path / "train.json", 20)
    train, val = read_dataset(tmp_path, split="train"), read_dataset(tmp_path, split="val")
    assert (len(train), len(val)) == (18, 2)
    assert not names(train) & names(val)
    assert train.origin == val.origin == "no val split found: 10 % of 20 images held out, seed 0"
    assert train.classes == val.classes


@pytest.mark.parametrize(("count", "fraction", "expected"), [(2, 0.1, 1), (25, 0.1, 2), (15, 0.1, 2), (4, 0.99, 3)])
def test_the_held_out_count_is_rounded_and_neither_part_is_empty(count, fraction, expected, tmp_path) -> None:
    coco_set(tmp_path / "train.json", count)
    assert len(read_dataset(tmp_path, split="val", val_fraction=fraction)) == expected


def test_the_division_depends_on_seed_and_names_only(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    coco_set(tmp_path / "a" / "train.json", 30)
    held = names(read_dataset(tmp_path / "a", split="val"))
    coco_set(tmp_path / "a" / "train.json", 30, turned=True)
    assert names(read_dataset(tmp_path / "a", split="val")) == held
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert names(read_dataset(tmp_path / "b", split="val")) == held
    assert names(read_dataset(tmp_path / "b", split="val", seed=1)) != held


def test_the_division_is_the_same_however_the_path_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = coco_set(tmp_path / "a" / "train.json", 30)
    held = names(read_dataset(file, split="val"))
    for folder, path in ((tmp_path, "a/train.json"), (tmp_path / "a", "train.json"), (tmp_path / "a", ".")):
        monkeypatch.chdir(folder)
        assert names(read_dataset(Path(path), split="val")) == held


@pytest.mark.parametrize("folder", ["annotations", "labels", "Ann"])
def test_a_file_in_a_folder_of_annotations_is_divided_as_the_data_set_is(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = coco_set(tmp_path / "data" / "instances_default.json", 30)
    (tmp_path / "data" / folder).mkdir()
    file = file.rename(tmp_path / "data" / folder / file.name)
    trained = read_dataset(tmp_path / "data", split="train")
    held = names(read_dataset(tmp_path / "data", split="val"))
    for path in (file, file.parent):
        assert names(read_dataset(path, split="val")) == held
        assert fingerprint(read_dataset(path, split="train")) == fingerprint(trained)
    monkeypatch.chdir(file.parent)
    for typed in (file.name, "."):
        assert names(read_dataset(Path(typed), split="val")) == held


def test_a_file_is_read_whole_unless_train_or_val_is_requested(tmp_path: Path) -> None:
    file = coco_set(tmp_path / "val.json", 10)
    assert len(read_dataset(file)) == len(read_dataset(file, split="all")) == 10
    assert len(read_dataset(file, split="val")) == 1
    train = read_dataset(file, split="train")
    assert len(train) == 9
    assert train.origin.startswith("val.json divided")


def test_the_only_set_of_a_folder_is_divided_whatever_its_name(tmp_path: Path) -> None:
    coco_set(tmp_path / "export_17.json", 10)
    assert len(read_dataset(tmp_path, split="train")) == 9
    assert len(read_dataset(tmp_path)) == 1


def test_a_lone_val_split_is_not_used_for_training(tmp_path: Path) -> None:
    coco_set(tmp_path / "val.json", 10)
    assert len(read_dataset(tmp_path)) == 10
    with pytest.raises(DataError, match="no train split, only val"):
        read_dataset(tmp_path, split="train")


def test_what_the_error_about_a_split_proposes_works(tmp_path: Path) -> None:
    for name in ("monday", "tuesday"):
        coco_set(tmp_path / f"{name}.json", 5, prefix=name)
    for split in ("train", "val"):
        with pytest.raises(DataError, match=f"no {split} split, only monday, tuesday") as caught:
            read_dataset(tmp_path, split=split)
        assert f"rename one of them to {split}, or give the folder or file of one" in str(caught.value.remedy)
    assert len(read_dataset(tmp_path / "monday.json", split="train")) == 4
    assert len(read_dataset(tmp_path, split="monday")) == 5
    (tmp_path / "monday.json").rename(tmp_path / "train.json")
    assert len(read_dataset(tmp_path, split="train")) == 4


def test_a_single_image_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="single image"):
        read_dataset(coco_set(tmp_path / "x.json", 1), split="train")


def test_the_error_for_an_unknown_split_lists_the_splits(tmp_path: Path) -> None:
    coco_set(tmp_path / "train.json", 2)
    coco_set(tmp_path / "val.json", 2)
    with pytest.raises(DataError, match="no night split, only train, val"):
        read_dataset(tmp_path, split="night")


def test_all_of_two_files_with_the_same_ids_is_renumbered(tmp_path: Path) -> None:
    coco_set(tmp_path / "train.json", 2)
    coco_set(tmp_path / "val.json", 2, prefix="v")
    dataset = read_dataset(tmp_path, split="all")
    assert [sample.image_id for sample in dataset.samples] == [1, 2, 3, 4]
    assert [finding.id for finding in dataset.findings] == ["ids-renumbered"]


def test_two_sets_of_one_split_name_are_not_confused(tmp_path: Path) -> None:
    coco_set(tmp_path / "train2014.json", 2)
    coco_set(tmp_path / "train2017.json", 3)
    with pytest.raises(DataError, match=r"train2014.*train2017"):
        read_dataset(tmp_path, split="train")


def test_a_given_class_table_is_matched_by_name(tmp_path: Path) -> None:
    file = coco_set(tmp_path / "x.json", 2)
    dataset = read_dataset(file, classes=ClassTable(("other", "thing"), (1, 9)))
    assert dataset.classes.ids == (1, 9)
    assert dataset.samples[0].classes.tolist() == [1]
    with pytest.raises(DataError, match="no class of the data set"):
        read_dataset(file, classes=ClassTable(("other",), (1,)))


def test_boxes_of_classes_outside_the_given_table_are_dropped_and_told(tmp_path: Path) -> None:
    file = coco_set(tmp_path / "x.json", 2)
    content = json.loads(file.read_text())
    content["categories"].append({"id": 6, "name": "other"})
    content["annotations"][1]["category_id"] = 6
    file.write_text(json.dumps(content))
    dataset = read_dataset(file, classes=ClassTable(("thing",), (1,)))
    assert [len(sample.boxes) for sample in dataset.samples] == [1, 0]
    (finding,) = [finding for finding in dataset.findings if finding.id == "class-not-in-table"]
    assert finding.place == "p1.png (other)"


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_an_invalid_fraction_is_a_usage_error(fraction: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="val_fraction"):
        read_dataset(coco_set(tmp_path / "x.json", 2), val_fraction=fraction)


def test_the_error_for_other_paths_says_what_a_data_set_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set") as caught:
        read_dataset(tmp_path)
    assert "data.yaml" in str(caught.value.remedy)
    with pytest.raises(DataError, match="does not exist"):
        read_dataset(tmp_path / "none")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="not a data set"):
        read_dataset(tmp_path / "a.txt")


def test_a_folder_of_images_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set found here"):
        read_dataset(tmp_path)
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday/a.JPG").touch()
    with pytest.raises(DataError, match="these images have no labels"):
        read_dataset(tmp_path)
