"""What labeling tools and users make of the three formats: names, folders and flags that are almost right."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset
from fcos_cli.errors import DataError

ROW = "0 0.5 0.5 0.2 0.4\n"


def draw(file: Path, size: tuple[int, int] = (100, 50)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(file)
    return file


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def coco(file: Path, images: dict[Any, str], boxes: list[dict[str, Any]]) -> Path:
    rows = [{"id": key, "file_name": name, "width": 100, "height": 50} for key, name in images.items()]
    annotations = [{"category_id": 1, "bbox": [10, 20, 30, 25], **box} for box in boxes]
    content = {"images": rows, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    return write(file, json.dumps(content))


def voc(file: Path, name: str, *, difficult: str | None = None) -> Path:
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    box = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    return write(
        file,
        f"<annotation><filename>{name}</filename><size><width>100</width><height>50</height></size>"
        f"<object><name>dog</name>{flag}{box}</object></annotation>",
    )


def ids(dataset: Dataset) -> dict[str, str]:
    """Finding → severity."""
    return {finding.id: finding.severity for finding in dataset.findings}


def counts(dataset: Dataset) -> dict[str, int]:
    return {sample.image.name: len(sample.boxes) for sample in dataset.samples}


# --- COCO ------------------------------------------------------------------------------------------------------------


def test_an_image_listed_twice_is_one_image_with_all_boxes(tmp_path: Path) -> None:
    draw(tmp_path / "images/a.png")
    second = {"image_id": 2, "bbox": [50, 10, 20, 20]}
    file = coco(tmp_path / "train.json", {1: "a.png", 2: "./a.png"}, [{"image_id": 1}, second])
    dataset = read_dataset(file)
    assert counts(dataset) == {"a.png": 2}
    assert ids(dataset) == {"image-listed-twice": "warning"}


def test_images_of_two_folders_that_would_become_one_file_are_an_error(tmp_path: Path) -> None:
    draw(tmp_path / "images/frame_0.png")
    names = {1: "/mnt/a/frame_0.png", 2: "/mnt/b/frame_0.png"}
    file = coco(tmp_path / "train.json", names, [{"image_id": 1}, {"image_id": 2}])
    with pytest.raises(DataError, match=r"same file name in different folders: /mnt/a/frame_0\.png"):
        read_dataset(file)


def test_base_names_are_found_in_subfolders(tmp_path: Path) -> None:
    for name in ("one/a.png", "two/b.png", "one/twice.png", "two/twice.png", ".ipynb_checkpoints/c.png"):
        draw(tmp_path / "images" / name)
    names = {1: "a.png", 2: "b.png", 3: "twice.png", 4: "c.png"}
    dataset = read_dataset(coco(tmp_path / "train.json", names, [{"image_id": key} for key in names]))
    assert counts(dataset) == {"a.png": 1, "b.png": 1}
    (missing,) = dataset.findings
    assert (missing.id, missing.place) == ("missing-image", "twice.png, c.png")


@pytest.mark.parametrize("on_disk", ["größe 1.png", "a b.png"])
@pytest.mark.parametrize("change", [quote, lambda name: unicodedata.normalize("NFD", name)], ids=["quoted", "NFD"])
def test_names_in_another_form_are_found(tmp_path: Path, on_disk: str, change: Any) -> None:
    draw(tmp_path / "images" / on_disk)
    dataset = read_dataset(coco(tmp_path / "train.json", {1: change(on_disk)}, [{"image_id": 1}]))
    assert counts(dataset) == {on_disk: 1}


def test_ids_as_text_and_as_numbers_are_matched(tmp_path: Path) -> None:
    draw(tmp_path / "images/a.png")
    assert counts(read_dataset(coco(tmp_path / "one.json", {7: "a.png"}, [{"image_id": "7"}]))) == {"a.png": 1}
    assert counts(read_dataset(coco(tmp_path / "two.json", {"7": "a.png"}, [{"image_id": 7}]))) == {"a.png": 1}


@pytest.mark.parametrize(
    ("flag", "ignored"),
    [("0", False), ("false", False), (None, False), (0, False), (1, True), ("1", True), ("Yes", True)],
)
def test_crowd_flags_may_be_text(tmp_path: Path, flag: Any, ignored: bool) -> None:
    draw(tmp_path / "images/a.png")
    dataset = read_dataset(coco(tmp_path / "train.json", {1: "a.png"}, [{"image_id": 1, "iscrowd": flag}]))
    assert dataset.samples[0].ignore.tolist() == [ignored]
    assert dataset.findings == []


def test_an_unclear_flag_is_no_and_noted(tmp_path: Path) -> None:
    draw(tmp_path / "images/a.png")
    dataset = read_dataset(coco(tmp_path / "train.json", {1: "a.png"}, [{"image_id": 1, "iscrowd": "perhaps"}]))
    assert dataset.samples[0].ignore.tolist() == [False]
    assert "'perhaps'" in dataset.findings[0].place


# --- VOC -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ignored"),
    [("Unspecified", False), ("False", False), ("no", False), ("0", False), ("1", True), ("true", True)],
)
def test_difficult_in_the_words_of_several_tools(tmp_path: Path, text: str, ignored: bool) -> None:
    draw(tmp_path / "JPEGImages/a.jpg")
    voc(tmp_path / "Annotations/a.xml", "a.jpg", difficult=text)
    dataset = read_dataset(tmp_path, split="all")
    assert dataset.samples[0].ignore.tolist() == [ignored]
    assert dataset.findings == []


def test_the_file_name_decides_between_an_image_and_its_mask(tmp_path: Path) -> None:
    for name in ("000.jpg", "000.png", "001.jpg", "001.png", "002.jpg", "002.png"):
        draw(tmp_path / "JPEGImages" / name)
    voc(tmp_path / "Annotations/000.xml", "000.jpg")
    voc(tmp_path / "Annotations/001.xml", "001.png")
    voc(tmp_path / "Annotations/002.xml", "an old name.jpg")
    names = [sample.image.name for sample in read_dataset(tmp_path, split="all").samples]
    assert names == ["000.jpg", "001.png", "002.jpg"]


def test_annotations_in_subfolders_and_in_capitals_are_read(tmp_path: Path) -> None:
    for stem in ("a", "b", "c d"):
        draw(tmp_path / "JPEGImages" / f"{stem}.jpg")
    voc(tmp_path / "Annotations/a.XML", "a.jpg")
    voc(tmp_path / "Annotations/deep/b.xml", "b.jpg")
    voc(tmp_path / "Annotations/.ipynb_checkpoints/b.xml", "b.jpg")
    voc(tmp_path / "Annotations/c d.xml", "c d.jpg")
    write(tmp_path / "ImageSets/Main/train.txt", "a\nb\n")
    write(tmp_path / "ImageSets/Main/val.txt", "c d  1\n")
    assert counts(read_dataset(tmp_path, split="train")) == {"a.jpg": 1, "b.jpg": 1}
    assert counts(read_dataset(tmp_path, split="val")) == {"c d.jpg": 1}


# --- YOLO ------------------------------------------------------------------------------------------------------------


def yolo(root: Path, labels: dict[str, str]) -> Path:
    """Images a, b, `c d` and é; labels: path → rows."""
    for stem in ("a", "b", "c d", "é"):
        draw(root / "images/train" / f"{stem}.png")
    draw(root / "images/val/v.png")
    write(root / "labels/val/v.txt", ROW)
    for name, rows in labels.items():
        write(root / name, rows)
    write(root / "data.yaml", "names: [cat]\ntrain: images/train\nval: images/val\n")
    return root


def test_label_files_in_every_spelling_are_read(tmp_path: Path) -> None:
    nfd = unicodedata.normalize("NFD", "é")
    names = ("a.TXT", "b.png.txt", "c%20d.txt", f"{nfd}.txt")
    dataset = read_dataset(yolo(tmp_path, {f"labels/train/{name}": ROW for name in names}), split="train")
    assert counts(dataset) == {"a.png": 1, "b.png": 1, "c d.png": 1, "é.png": 1}
    assert dataset.findings == []


def test_the_exact_name_wins(tmp_path: Path) -> None:
    dataset = read_dataset(yolo(tmp_path, {"labels/train/a.png.txt": "", "labels/train/a.txt": ROW}), split="train")
    assert counts(dataset)["a.png"] == 1


def test_labels_that_fit_no_image_are_a_warning(tmp_path: Path) -> None:
    labels = {"labels/train/a.txt": ROW, "labels/train/x1.txt": ROW, "labels/train/x2.txt": ROW}
    dataset = read_dataset(yolo(tmp_path, {**labels, "labels/train/classes.txt": "cat"}), split="train")
    (finding,) = (finding for finding in dataset.findings if finding.id == "label-without-image")
    assert finding.severity == "warning"
    assert finding.message.endswith(": 2")
    assert finding.place == "x1.txt, x2.txt"


def test_labels_in_folders_that_mirror_no_images_are_a_warning(tmp_path: Path) -> None:
    labels = {"labels/train/a.txt": ROW, "labels/batch1/b.txt": ROW}
    assert ids(read_dataset(yolo(tmp_path, labels), split="train"))["label-without-image"] == "warning"


def test_hidden_copies_are_not_images(tmp_path: Path) -> None:
    yolo(tmp_path, {"labels/train/a.txt": ROW})
    for folder in (".ipynb_checkpoints", "@eaDir"):
        draw(tmp_path / "images/train" / folder / "a-checkpoint.png")
    assert len(read_dataset(tmp_path, split="train")) == 4


def test_label_studio(tmp_path: Path) -> None:
    draw(tmp_path / "images/a.png")
    draw(tmp_path / "images/b.png")
    write(tmp_path / "labels/a.txt", ROW)
    write(tmp_path / "classes.txt", "cat\n")
    write(tmp_path / "notes.json", '{"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2026}}')
    dataset = read_dataset(tmp_path, split="all")
    assert (dataset.format, counts(dataset)) == ("yolo", {"a.png": 1, "b.png": 0})


@pytest.mark.parametrize("stray", ['{"info": {}}', "[]", "{", '{"images": 3, "annotations": {}}'])
def test_stray_json_files_are_not_coco(tmp_path: Path, stray: str) -> None:
    write(yolo(tmp_path, {"labels/train/a.txt": ROW}) / "train.json", stray)
    assert read_dataset(tmp_path, split="train").format == "yolo"


def test_a_damaged_coco_file_is_still_an_error_that_names_it(tmp_path: Path) -> None:
    write(tmp_path / "train.json", '{"images": [')
    draw(tmp_path / "images/a.png")
    with pytest.raises(DataError, match=r"cannot be read as JSON"):
        read_dataset(tmp_path, split="train")


def test_labelimg_flat_folder(tmp_path: Path) -> None:
    for stem in "abc":
        draw(tmp_path / f"{stem}.png")
        write(tmp_path / f"{stem}.txt", ROW)
    write(tmp_path / "classes.txt", "cat\n")
    dataset = read_dataset(tmp_path, split="all")
    assert counts(dataset) == {"a.png": 1, "b.png": 1, "c.png": 1}
    assert dataset.findings == []
    assert len(read_dataset(tmp_path, split="train")) == 2


@pytest.mark.parametrize("prefix", ["data/", ""])
def test_cvat_and_datumaro(tmp_path: Path, prefix: str) -> None:
    for stem in "ab":
        draw(tmp_path / "obj_train_data" / f"{stem}.png")
        write(tmp_path / "obj_train_data" / f"{stem}.txt", ROW)
    draw(tmp_path / "obj_valid_data/v.png")
    write(tmp_path / "obj_valid_data/v.txt", ROW)
    write(tmp_path / "obj.names", "cat\n")
    write(
        tmp_path / "obj.data",
        f"classes = 1\ntrain = {prefix}train.txt\nvalid = {prefix}valid.txt\nnames = {prefix}obj.names\n",
    )
    write(tmp_path / "train.txt", f"{prefix}obj_train_data/a.png\n{prefix}obj_train_data/b.png\n")
    write(tmp_path / "valid.txt", f"{prefix}obj_valid_data/v.png\n")
    train, val = (read_dataset(tmp_path, split=split) for split in ("train", "val"))
    assert counts(train) == {"a.png": 1, "b.png": 1}
    assert counts(val) == {"v.png": 1}
    assert train.classes.names == ("cat",)
    np.testing.assert_allclose(train.samples[0].boxes, [[40, 15, 60, 35]], atol=1e-4)


# --- Units and sizes -------------------------------------------------------------------------------------------------


def test_shares_instead_of_pixels_are_an_error(tmp_path: Path) -> None:
    draw(tmp_path / "images/a.png")
    boxes = [{"image_id": 1, "bbox": [0.1, 0.2, 0.5, 0.5]}, {"image_id": 1, "bbox": [0.4, 0.2, 0.6, 0.8]}]
    boxes += [{"image_id": 1, "bbox": [0.0, 0.0, 0.25, 1.0]}]
    with pytest.raises(DataError, match="fractions of the image") as error:
        read_dataset(coco(tmp_path / "train.json", {1: "a.png"}, boxes))
    assert "a.png [0.1, 0.2, 0.6, 0.7]" in str(error.value.where)
    assert "multiply" in str(error.value.remedy)


def test_corners_instead_of_sizes_are_guessed(tmp_path: Path) -> None:
    draw(tmp_path / "images/a.png")
    boxes = [{"image_id": 1, "bbox": [60 + i, 20, 90 + i, 45]} for i in range(10)]
    boxes += [{"image_id": 1, "bbox": [1 + i, 2, 3, 4]} for i in range(8)]
    dataset = read_dataset(coco(tmp_path / "train.json", {1: "a.png"}, boxes))
    (finding,) = dataset.findings
    assert (finding.id, finding.message[-3:]) == ("mostly-clipped", " 10")
    assert "corners" in finding.remedy


def test_images_that_were_shrunk_after_labeling_are_an_error(tmp_path: Path) -> None:
    for stem in "abc":
        draw(tmp_path / "images" / f"{stem}.png", (50, 25))
    names = {key: f"{stem}.png" for key, stem in enumerate("abc", start=1)}
    with pytest.raises(DataError, match=r"0\.5 times as large as their annotations say"):
        read_dataset(coco(tmp_path / "train.json", names, [{"image_id": key} for key in names]))


def test_images_of_various_other_sizes_are_a_warning(tmp_path: Path) -> None:
    for stem, size in (("a", (50, 25)), ("b", (120, 50)), ("c", (100, 50))):
        draw(tmp_path / "images" / f"{stem}.png", size)
    names = {key: f"{stem}.png" for key, stem in enumerate("abc", start=1)}
    dataset = read_dataset(coco(tmp_path / "train.json", names, [{"image_id": key} for key in names]))
    assert ids(dataset)["size-mismatch"] == "warning"
