"""YOLO labels without a data.yaml: in which folders they count, and where the class names come from."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.errors import DataError
from tests.data.formats.test_yolo import add


def counts(path: Path, split: str) -> dict[str, int]:
    return {sample.image.name: len(sample.boxes) for sample in read_dataset(path, split=split).samples}


def labelme(root: Path, *stems: str) -> None:
    """Images with a LabelMe JSON beside each."""
    shape = {"label": "cat", "shape_type": "rectangle", "points": [[1, 1], [9, 9]]}
    for stem in stems:
        add(root, f"{stem}.png", None)
        (root / f"{stem}.json").write_text(json.dumps({"shapes": [shape], "imagePath": f"{Path(stem).name}.png"}))


# --- Beside other formats --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["classes.txt", "dataset.txt"])
@pytest.mark.parametrize("folder", ["YOLODataset/labels/train", "predictions/labels", "labels"])
def test_yolo_labels_in_a_labelme_folder_are_not_the_data_set(folder: str, names: str, tmp_path: Path) -> None:
    labelme(tmp_path, "a", "b")
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (tmp_path / names).write_text("cat\n")
    dataset = read_dataset(tmp_path, split="all")
    assert (dataset.format, len(dataset)) == ("labelme", 2)


def test_labelme_in_folders_of_splits_wins_over_text_files_beside_them(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        labelme(tmp_path, f"{split}/a")
        (tmp_path / split / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (tmp_path / "classes.txt").write_text("dog\n")
    assert read_dataset(tmp_path, split="train").format == "labelme"


def test_a_data_set_in_a_subfolder_is_named(tmp_path: Path) -> None:
    add(tmp_path, "set/images/a.png", "set/labels/a.txt")
    with pytest.raises(DataError, match="in a subfolder") as caught:
        read_dataset(tmp_path)
    assert caught.value.where == str(tmp_path / "set")


# --- Layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [".", "images"])
@pytest.mark.parametrize("names", ["classes.txt", "train/classes.txt", "val/obj.names", "train/_darknet.labels"])
def test_images_and_labels_side_by_side_in_a_folder_per_split(top: str, names: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        add(tmp_path, f"{top}/{split}/{split}.png", f"{top}/{split}/{split}.txt", "1 0.5 0.5 0.2 0.4\n")
    (tmp_path / names if "/" not in names else tmp_path / top / names).write_text("cat\ndog\n")
    for split in ("train", "val"):
        dataset = read_dataset(tmp_path, split=split)
        assert [(s.image.stem, s.classes.tolist()) for s in dataset.samples] == [(split, [1])]
        assert (dataset.classes.names, dataset.findings) == (("cat", "dog"), [])


def test_folders_of_splits_in_capitals_and_a_val_folder_without_labels(tmp_path: Path) -> None:
    add(tmp_path, "Train/a.png", "Train/a.txt")
    add(tmp_path, "Val/b.png", None)
    (tmp_path / "classes.txt").write_text("cat\n")
    assert counts(tmp_path, "train") == {"a.png": 1}
    with pytest.raises(DataError, match="none of the 1 images of the val split has a label file"):
        read_dataset(tmp_path, split="val")


def test_one_folder_of_roboflow_s_darknet(tmp_path: Path) -> None:
    add(tmp_path, "a.png", "a.txt")
    (tmp_path / "_darknet.labels").write_text("cat\n")
    assert counts(tmp_path, "all") == {"a.png": 1}


def test_images_and_labels_in_capitals(tmp_path: Path) -> None:
    for split in ("train", "val"):
        add(tmp_path, f"Images/{split}/{split[0]}.png", f"Labels/{split}/{split[0]}.txt")
    (tmp_path / "classes.txt").write_text("cat\n")
    assert (counts(tmp_path, "train"), counts(tmp_path, "val")) == ({"t.png": 1}, {"v.png": 1})


@pytest.mark.parametrize("place", ["labels/train", "labels/val"])
def test_the_names_may_lie_deep_in_the_labels(place: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        add(tmp_path, f"images/{split}/{split[0]}.png", f"labels/{split}/{split[0]}.txt")
    (tmp_path / place / "classes.txt").write_text("cat\n")
    assert (counts(tmp_path, "train"), counts(tmp_path, "val")) == ({"t.png": 1}, {"v.png": 1})


@pytest.mark.parametrize("folder", [".", "train", "photos"])
def test_labels_beside_images_without_names_are_told(folder: str, tmp_path: Path) -> None:
    add(tmp_path, f"{folder}/a.png", f"{folder}/a.txt")
    with pytest.raises(DataError, match="YOLO labels but no class names") as caught:
        read_dataset(tmp_path)
    assert "classes.txt" in str(caught.value.remedy)


@pytest.mark.parametrize("text", ["a cat on a mat", "2 cats, 1 dog", "2024 01 02", ""])
def test_captions_are_no_labels(text: str, tmp_path: Path) -> None:
    add(tmp_path, "a.png", "a.txt", f"{text}\n")
    with pytest.raises(DataError, match="these images have no labels"):
        read_dataset(tmp_path)


# --- Class names -----------------------------------------------------------------------------------------------------


Make = Callable[[Path, bytes], Path]


def flat(root: Path, names: bytes) -> Path:
    add(root, "a.png", "a.txt")
    (root / "classes.txt").write_bytes(names)
    return root


def darknet(root: Path, names: bytes) -> Path:
    add(root, "obj_train_data/a.png", "obj_train_data/a.txt")
    (root / "obj.names").write_bytes(names)
    (root / "obj.data").write_text("train = train.txt\nnames = obj.names\n")
    (root / "train.txt").write_text("obj_train_data/a.png\n")
    return root


@pytest.mark.parametrize("make", [flat, darknet])
@pytest.mark.parametrize(
    ("names", "line"), [(b"cat\n\ndog\n", 2), (b"cat\n \r\ndog", 2), (b"\ncat\ndog\n", 1), (b"cat\ndog\n\n\nbird\n", 3)]
)
def test_an_empty_line_among_the_names_is_an_error(make: Make, names: bytes, line: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class name") as caught:
        read_dataset(make(tmp_path, names), split="all")
    assert str(caught.value.where).endswith(f":{line}")


@pytest.mark.parametrize("make", [flat, darknet])
@pytest.mark.parametrize("names", ["cat\nKäse\n", "cat\r\nKäse\r\n\r\n", " cat \nKäse\n \n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_names_are_read_as_they_are(make: Make, names: str, encoding: str, tmp_path: Path) -> None:
    dataset = read_dataset(make(tmp_path, names.encode(encoding)), split="all")
    assert dataset.classes.names == ("cat", "Käse")


@pytest.mark.parametrize("make", [flat, darknet])
@pytest.mark.parametrize(
    ("names", "encoding"),
    [("cat\nKäse\n", "cp1252"), ("Öl\nÄl\n", "cp1252"), ("cat\ndog\n", "utf-16-le"), ("cat\ndog\n", "utf-16-be")],
)
def test_names_in_another_encoding_are_an_error(make: Make, names: str, encoding: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the class names are not UTF-8") as caught:
        read_dataset(make(tmp_path, names.encode(encoding)), split="all")
    assert caught.value.remedy == "save the file as UTF-8"


def test_a_name_twice_and_no_name_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the class name cat is also in line 1") as caught:
        read_dataset(flat(tmp_path, b"cat\ndog\ncat\n"), split="all")
    assert str(caught.value.where).endswith("classes.txt:3")
    with pytest.raises(DataError, match="declares no classes"):
        read_dataset(flat(tmp_path, b"\n\n"), split="all")


def test_lists_of_several_folders_must_agree(tmp_path: Path) -> None:
    for split in ("train", "val"):
        add(tmp_path, f"{split}/{split}.png", f"{split}/{split}.txt")
    (tmp_path / "train/classes.txt").write_text("cat\ndog\n")
    (tmp_path / "val/classes.txt").write_text("cat\n")  # as labelImg leaves it before the first dog
    assert read_dataset(tmp_path, split="val").classes.names == ("cat", "dog")
    (tmp_path / "val/classes.txt").write_text("dog\ncat\n")
    with pytest.raises(DataError, match=r"class 0 is dog here, but cat in .*train/classes\.txt") as caught:
        read_dataset(tmp_path, split="val")
    assert caught.value.where == f"{tmp_path / 'val/classes.txt'}:1"
