"""Where YOLO's label files are looked for, and what is said if they or their images are missing."""

from pathlib import Path

import pytest

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.errors import DataError
from tests.data.formats.test_yolo import NAMES, add, standard


def test_labels_next_to_the_images_are_found(tmp_path: Path) -> None:
    add(tmp_path, "photos/a.png", "photos/a.txt")
    add(tmp_path, "photos/b.png", "photos/b.txt")
    (tmp_path / "data.yaml").write_text(NAMES + "train: photos\n")
    assert sum(len(s.boxes) for s in read_dataset(tmp_path, split="all").samples) == 2


def test_the_last_images_folder_is_replaced_by_labels(tmp_path: Path) -> None:
    root = tmp_path / "images" / "set"
    standard(root)
    assert len(read_dataset(root, split="train").samples[0].boxes) == 1


def test_an_image_without_label_file_has_no_objects(tmp_path: Path) -> None:
    standard(tmp_path)
    add(tmp_path, "images/train/b.png", None)
    add(tmp_path, "images/train/c.png", "labels/train/c.txt", "")
    dataset = read_dataset(tmp_path, split="train")
    assert [len(s.boxes) for s in dataset.samples] == [1, 0, 0]
    assert [s.image_id for s in dataset.samples] == [1, 2, 3]
    assert [(f.id, f.severity, f.place) for f in dataset.findings] == [("no-label-file", "info", "b.png")]


def test_label_files_missing_for_most_images_are_a_warning(tmp_path: Path) -> None:
    standard(tmp_path)
    for name in "bc":
        add(tmp_path, f"images/train/{name}.png", None)
    (finding,) = read_dataset(tmp_path, split="train").findings
    assert (finding.id, finding.severity, finding.place) == ("mostly-unlabelled", "warning", "b.png, c.png")
    assert finding.message.endswith(": 2")


def test_no_label_file_at_all_is_an_error(tmp_path: Path) -> None:
    add(tmp_path, "images/train/a.png", None)
    (tmp_path / "data.yaml").write_text(NAMES + "train: images/train\nval: images/train\n")
    with pytest.raises(DataError, match="none of the 1 images") as caught:
        read_dataset(tmp_path, split="train")
    assert "labels" in str(caught.value.where)


def test_json_files_in_a_folder_labels_are_not_yolo(tmp_path: Path) -> None:
    for name in "ab":
        add(tmp_path, f"images/{name}.png", None)
        shape = '{"label": "cat", "shape_type": "rectangle", "points": [[1, 1], [9, 9]]}'
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / f"labels/{name}.json").write_text(f'{{"shapes": [{shape}], "imagePath": "../images/{name}.png"}}')
    dataset = read_dataset(tmp_path, split="all")
    assert (dataset.format, [len(s.boxes) for s in dataset.samples]) == ("labelme", [1, 1])


def test_label_folders_outside_the_data_set_are_not_searched(tmp_path: Path) -> None:
    root = tmp_path / "images" / "set"  # its labels lie beside the images, so `labels` outside is another data set's
    add(root, "photos/a.png", "photos/a.txt")
    (root / "data.yaml").write_text(NAMES + "train: photos\nval: photos\n")
    (tmp_path / "labels/other").mkdir(parents=True)
    (tmp_path / "labels/other/b.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    assert read_dataset(root, split="train").findings == []


def test_a_label_with_the_suffix_of_its_image_is_that_image_s_own(tmp_path: Path) -> None:
    for suffix, rows in (("png", "0 0.5 0.5 0.2 0.4\n"), ("jpg", "1 0.5 0.5 0.2 0.4\n")):
        add(tmp_path, f"images/a.{suffix}", f"labels/a.{suffix}.txt", rows)
    (tmp_path / "data.yaml").write_text(NAMES + "train: images\n")
    dataset = read_dataset(tmp_path, split="all")
    assert {sample.image.name: sample.classes.tolist() for sample in dataset.samples} == {"a.jpg": [1], "a.png": [0]}
    assert dataset.findings == []


def test_a_label_that_is_passed_over_for_another_is_told(tmp_path: Path) -> None:
    add(tmp_path, "images/a.png", "labels/a.txt")
    (tmp_path / "labels/a.png.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    (tmp_path / "data.yaml").write_text(NAMES + "train: images\n")
    (finding,) = read_dataset(tmp_path, split="all").findings
    assert (finding.id, finding.place) == ("label-without-image", "a.png.txt")


def test_images_that_share_a_label_file_are_a_warning(tmp_path: Path) -> None:
    for stem in "ab":
        add(tmp_path, f"images/{stem}.jpg", f"labels/{stem}.txt")
    add(tmp_path, "images/a.png", None)
    (tmp_path / "data.yaml").write_text(NAMES + "train: images\n")
    dataset = read_dataset(tmp_path, split="all")
    (finding,) = dataset.findings
    assert (finding.id, finding.severity, finding.place) == ("shared-label", "warning", "a.jpg and a.png (a.txt)")
    assert len(dataset) == 3


@pytest.mark.parametrize(("images", "labels"), [("Images", "Labels"), ("Images", "labels"), ("IMAGES", "LABELS")])
def test_the_folders_may_be_capitals(images: str, labels: str, tmp_path: Path) -> None:
    add(tmp_path, f"{images}/train/a.png", f"{labels}/train/a.txt")
    (tmp_path / labels / "other").mkdir()
    (tmp_path / labels / "other/b.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (tmp_path / "data.yaml").write_text(f"{NAMES}train: {images}/train\n")
    dataset = read_dataset(tmp_path, split="all")
    assert [len(sample.boxes) for sample in dataset.samples] == [1]
    assert [(finding.id, finding.place) for finding in dataset.findings] == [("label-without-image", "b.txt")]
