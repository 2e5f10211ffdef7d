"""YOLO data sets: relative coordinates become pixels, and paths are found where exporters put them."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.errors import DataError

NAMES = "names: [cat, dog]\n"


def add(root: Path, image: str, label: str | None, rows: str = "0 0.5 0.5 0.2 0.4\n") -> None:
    """Add a 100 x 50 image, and its label file if `label` is given."""
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (100, 50)).save(root / image)
    if label is not None:
        (root / label).parent.mkdir(parents=True, exist_ok=True)
        (root / label).write_text(rows)


def standard(root: Path, rows: str = "0 0.5 0.5 0.2 0.4\n", yaml: str = NAMES) -> Path:
    for split in ("train", "val"):
        add(root, f"images/{split}/a.png", f"labels/{split}/a.txt", rows)
    (root / "data.yaml").write_text(yaml + "train: images/train\nval: images/val\n")
    return root


def test_centre_and_size_become_pixel_corners(tmp_path: Path) -> None:
    # cx 0.5 of 100 = 50, w 0.2 = 20: 40…60; cy 0.5 of 50 = 25, h 0.4 = 20: 15…35.
    dataset = read_dataset(standard(tmp_path), split="train")
    (sample,) = dataset.samples
    np.testing.assert_allclose(sample.boxes, [[40, 15, 60, 35]], atol=1e-4)
    assert dataset.format == "yolo"
    assert dataset.classes.to_json() == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    assert (sample.image_id, sample.width, sample.height) == (1, 100, 50)
    assert dataset.findings == []


def test_pictures_in_unreadable_formats_are_counted(tmp_path: Path) -> None:
    root = standard(tmp_path)
    for name in ("b.heic", "sub/c.HEIC", "d.cr2", "e.md", ".f.heic"):
        (root / "images/train" / name).parent.mkdir(exist_ok=True)
        (root / "images/train" / name).touch()
    (finding,) = read_dataset(root, split="train").findings
    assert (finding.id, finding.severity) == ("unread-format", "warning")
    assert finding.message.endswith("left out: 3")
    assert sorted(finding.place.split(", ")) == ["b.heic", "c.HEIC", "d.cr2"]


def test_images_and_labels_behind_links_to_folders_are_read(tmp_path: Path) -> None:
    root = standard(tmp_path / "data")
    add(tmp_path, "elsewhere/images/b.png", "elsewhere/labels/b.txt", "1 0.5 0.5 0.2 0.4\n")
    for kind in ("images", "labels"):
        (root / kind / "train" / "more").symlink_to(tmp_path / "elsewhere" / kind)
    dataset = read_dataset(root, split="train")
    assert [sample.classes.tolist() for sample in dataset.samples] == [[0], [1]]
    assert dataset.findings == []


def test_an_image_of_several_frames_is_noted(tmp_path: Path) -> None:
    root = standard(tmp_path)
    frames = [Image.new("L", (100, 50), shade) for shade in (0, 255)]
    frames[0].save(root / "images/train/b.gif", save_all=True, append_images=frames[1:])
    (root / "labels/train/b.txt").touch()
    (finding,) = read_dataset(root, split="train").findings
    assert (finding.id, finding.severity, finding.place) == ("more-frames", "warning", "b.gif")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"), (None, "folder")]
)
def test_why_an_image_cannot_be_read_is_said(tmp_path: Path, content: bytes | None, reason: str) -> None:
    root = standard(tmp_path)
    bad = root / "images/train/b.jpg"
    if content is None:
        bad.mkdir()
        (root / "train.txt").write_text("images/train/a.png\nimages/train/b.jpg\n")
        (root / "data.yaml").write_text(NAMES + "train: train.txt\nval: images/val\n")
    else:
        bad.write_bytes(content)
    (finding,) = read_dataset(root, split="train").findings
    assert finding.id == "unreadable-image"
    assert finding.place.startswith("b.jpg (")
    assert reason in finding.place


def test_a_polygon_becomes_its_bounding_box(tmp_path: Path) -> None:
    rows = "1 0.1 0.2 0.5 0.2 0.3 0.8\n0 0.5 0.5 0.2 0.4\n"
    (sample,) = read_dataset(standard(tmp_path, rows), split="train").samples
    np.testing.assert_allclose(sample.boxes, [[10, 10, 50, 40], [40, 15, 60, 35]], atol=1e-4)
    assert sample.classes.tolist() == [1, 0]


def test_keypoints_after_the_box_are_not_a_polygon(tmp_path: Path) -> None:
    rows = "0 0.5 0.5 0.2 0.4 0.9 0.9 0.1 0.1\n"
    (sample,) = read_dataset(standard(tmp_path, rows, NAMES + "kpt_shape: [2, 2]\n"), split="train").samples
    np.testing.assert_allclose(sample.boxes, [[40, 15, 60, 35]], atol=1e-4)


def test_names_may_be_a_mapping_and_stay_strings(tmp_path: Path) -> None:
    dataset = read_dataset(standard(tmp_path, yaml="names:\n  1: no\n  0: 1e3\n"), split="train")
    assert dataset.classes.names == ("1e3", "no")


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("../train/images", "../valid/images"),
        ("train/images", "valid/images"),
        ("./train/images", "./valid/images"),
        ("/content/job-3/train/images", "/content/job-3/valid/images"),
        ("C:\\job 3\\train\\images", "c:/job 3/valid/images"),
        ("\\\\server\\share\\train\\images", "\\\\server\\share\\valid.txt"),
        ("[train/images]", "[valid/images]"),
        ("train", "valid"),
        ("train.txt", "valid.txt"),
    ],
)
def test_images_are_found_in_the_layouts_of_exporters(train: str, val: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "valid"):
        add(root, f"{split}/images/{split}.png", f"{split}/labels/{split}.txt")
        (root / f"{split}.txt").write_text(f"./{split}/images/{split}.png\n\n")
    (root / "data.yaml").write_text(f"{NAMES}train: {train}\nval: {val}\n")
    for path in (root, root / "data.yaml"):
        assert [s.image.name for s in read_dataset(path, split="train").samples] == ["train.png"]
        assert [s.image.name for s in read_dataset(path).samples] == ["valid.png"]
    assert len(read_dataset(root, split="train").samples[0].boxes) == 1


def test_the_path_key_is_relative_to_the_file_and_stale_paths_work(tmp_path: Path) -> None:
    standard(tmp_path / "inner")
    for said in ("inner", "/nowhere/inner"):
        (tmp_path / "data.yaml").write_text(f"{NAMES}path: {said}\ntrain: images/train\nval: images/val\ntest:\n")
        assert len(read_dataset(tmp_path / "data.yaml", split="train")) == 1


@pytest.mark.parametrize("path", ["", "path: .\n"])
def test_one_level_off_is_not_another_data_set_above(path: str, tmp_path: Path) -> None:
    for folder, stem in ((tmp_path, "other"), (tmp_path / "chess", "own")):
        add(folder, f"train/images/{stem}.png", f"train/labels/{stem}.txt")
        (folder / "data.yaml").write_text(f"{path}{NAMES}train: ../train/images\n")
    dataset = read_dataset(tmp_path / "chess", split="all")
    assert [sample.image.stem for sample in dataset.samples] == ["own"]
    (finding,) = dataset.findings
    assert (finding.id, finding.severity) == ("ambiguous-path", "warning")
    assert str(tmp_path / "chess/train/images") in finding.place
    assert f"not {tmp_path / 'train/images'}" in finding.place
    assert read_dataset(tmp_path, split="all").findings == []  # nothing is above it


def test_a_folder_above_is_used_if_there_is_none_beside_the_yaml(tmp_path: Path) -> None:
    add(tmp_path, "train/images/a.png", "train/labels/a.txt")
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/data.yaml").write_text(NAMES + "train: ../train/images\n")
    dataset = read_dataset(tmp_path / "settings", split="all")
    assert ([len(sample.boxes) for sample in dataset.samples], dataset.findings) == ([1], [])


@pytest.mark.parametrize("empty", ["[]", "", "''", "null"])
def test_a_split_without_entries_is_none(empty: str, tmp_path: Path) -> None:
    standard(tmp_path)
    add(tmp_path, "images/train/b.png", "labels/train/b.txt")
    (tmp_path / "data.yaml").write_text(f"{NAMES}train: images/train\nval: {empty}\n")
    assert "no val split found" in read_dataset(tmp_path, split="val").origin


def test_a_folder_with_classes_txt_needs_no_yaml(tmp_path: Path) -> None:
    standard(tmp_path)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(DataError, match="no class names"):
        read_dataset(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert len(read_dataset(tmp_path, split="train").samples[0].boxes) == 1


@pytest.mark.parametrize("path", ["photos", "./photos", "../set/photos"])
def test_without_a_yaml_the_path_may_be_relative(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "set" / "photos"
    standard(root)
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("cat\ndog\n")
    add(tmp_path / "set/flat", "a.png", "a.txt")
    (tmp_path / "set/flat/classes.txt").write_text("cat\n")
    monkeypatch.chdir(tmp_path / "set")
    assert len(read_dataset(Path(path), split="train").samples[0].boxes) == 1
    assert len(read_dataset(Path(path).parent / "flat", split="all").samples[0].boxes) == 1
    monkeypatch.chdir(root)
    assert len(read_dataset(Path(), split="train").samples[0].boxes) == 1


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("0 0.5 0.5 0.2", "malformed-row"),
        ("0 0.5 0.5 0.2 0.4 0.9", "malformed-row"),
        ("cat 0.5 0.5 0.2 0.4", "malformed-row"),
        ("2 0.5 0.5 0.2 0.4", "unknown-category"),
        ("0.5 0.5 0.5 0.2 0.4", "unknown-category"),
        ("0 nan 0.5 0.2 0.4", "non-finite-box"),
        ("nan 0.5 0.5 0.2 0.4", "unknown-category"),
        ("0 0.5 0.5 0 0.4", "degenerate-box"),
        ("0 5 0.5 0.2 0.4", "box-outside"),
        ("0 0.95 0.5 0.2 0.4", "box-clipped"),
    ],
)
def test_a_bad_row_is_reported_with_file_and_line_and_the_others_are_kept(row: str, kind: str, tmp_path: Path) -> None:
    dataset = read_dataset(standard(tmp_path, f"1 0.5 0.5 0.2 0.4\n{row}\n"), split="train")
    (finding,) = dataset.findings
    assert finding.id == kind
    assert dataset.samples[0].classes[0] == 1
    if kind in ("malformed-row", "unknown-category"):
        assert "a.txt:2" in finding.place


def test_missing_or_broken_listed_images_are_reported(tmp_path: Path) -> None:
    standard(tmp_path)
    (tmp_path / "images/train/bad.png").write_bytes(b"not an image")
    (tmp_path / "list.txt").write_text("images/train/a.png\nimages/train/bad.png\nimages/train/gone.png\n")
    (tmp_path / "data.yaml").write_text(NAMES + "train: list.txt\nval: images/val\n")
    dataset = read_dataset(tmp_path, split="train")
    assert len(dataset) == 1
    assert [f.id for f in dataset.findings] == ["missing-image", "unreadable-image"]


@pytest.mark.parametrize(
    "line",
    [
        unicodedata.normalize("NFD", "images/train/é 1.png"),
        "images/train/%C3%A9%201.png",
        unicodedata.normalize("NFD", "images\\train\\é 1.png"),
        unicodedata.normalize("NFD", "/mnt/job/images/train/é 1.png"),
        "set/images/train/é 1.png",
    ],
    ids=["NFD", "quoted", "backslashes", "absolute", "own-folder"],
)
def test_listed_names_in_another_form_are_found(line: str, tmp_path: Path) -> None:
    root = standard(tmp_path / "set")
    name = unicodedata.normalize("NFC", "é 1")
    add(root, f"images/train/{name}.png", f"labels/train/{name}.txt")
    (root / "list.txt").write_text(f"{line}\nimages/train/{name}.png\n", encoding="utf-8")
    (root / "data.yaml").write_text(NAMES + "train: list.txt\n")
    dataset = read_dataset(root, split="all")
    assert [(sample.image.stem, len(sample.boxes)) for sample in dataset.samples] == [(name, 1)]
    assert dataset.findings == []


def test_a_listed_name_may_hold_a_backslash(tmp_path: Path) -> None:
    root = standard(tmp_path)
    add(root, "images/train/a\\b.png", "labels/train/a\\b.txt")
    (root / "list.txt").write_text("images/train/a\\b.png\n")
    (root / "data.yaml").write_text(NAMES + "train: list.txt\n")
    assert [len(sample.boxes) for sample in read_dataset(root, split="all").samples] == [1]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [a\ntrain: x\n", "not valid YAML"),
        ("- a\n", "not a YOLO data set"),
        ("names: []\ntrain: images/train\n", "no classes"),
        ("train: images/train\n", "no classes"),
        ("names: [a, b]\nnc: 3\ntrain: images/train\n", "`nc` says 3"),
        ("names: [a, a]\ntrain: images/train\n", "duplicate name"),
        ("names: {x: a}\ntrain: images/train\n", "not a number"),
        ("names: [a]\n", "lists no images"),
        ("names: [a]\ntrain: elsewhere\n", "not at the path"),
    ],
)
def test_a_broken_data_yaml_is_an_error_with_place_and_remedy(yaml: str, message: str, tmp_path: Path) -> None:
    standard(tmp_path)
    (tmp_path / "data.yaml").write_text(yaml)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(tmp_path / "data.yaml", split="train")
    assert "data.yaml" in str(caught.value.where)
    assert caught.value.remedy


def test_a_data_yaml_in_a_code_page_is_told_to_be_utf_8(tmp_path: Path) -> None:
    standard(tmp_path)
    (tmp_path / "data.yaml").write_bytes("train: images/train\nnames: [Käse]\n".encode("cp1252"))
    with pytest.raises(DataError, match="not UTF-8") as caught:
        read_dataset(tmp_path)
    assert (caught.value.where, caught.value.remedy) == (f"{tmp_path / 'data.yaml'}:2", "save the file as UTF-8")


def test_the_error_for_a_missing_val_folder_proposes_to_do_without(tmp_path: Path) -> None:
    standard(tmp_path)
    add(tmp_path, "images/train/b.png", "labels/train/b.txt")
    (tmp_path / "data.yaml").write_text(NAMES + "train: images/train\nval: elsewhere\n")
    with pytest.raises(DataError, match="the val images are not at the path") as caught:
        read_dataset(tmp_path, split="val")
    proposal = "correct the path of `val`, or remove its line: 10 % of the train images are then held out"
    assert caught.value.remedy == proposal
    (tmp_path / "data.yaml").write_text(NAMES + "train: images/train\n")
    assert len(read_dataset(tmp_path, split="val")) == 1


def test_labels_without_images_are_told(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(DataError, match="YOLO labels but no images") as caught:
        read_dataset(tmp_path)
    assert "`images` beside `labels`" in str(caught.value.remedy)


@pytest.mark.parametrize("yaml", [True, False])
def test_names_of_splits_may_be_capitals(yaml: bool, tmp_path: Path) -> None:
    for split in ("Train", "Validation"):
        add(tmp_path, f"images/{split}/{split}.png", f"labels/{split}/{split}.txt")
    if yaml:
        (tmp_path / "data.yaml").write_text(NAMES + "Train: images/Train\nValidation: images/Validation\n")
    else:
        (tmp_path / "classes.txt").write_text("cat\n")
    for split, name in (("train", "Train"), ("val", "Validation")):
        dataset = read_dataset(tmp_path, split=split)
        assert [s.image.stem for s in dataset.samples] == [name]
        assert "held out" not in dataset.origin


def test_byte_order_marks_and_hidden_files_are_ignored(tmp_path: Path) -> None:
    standard(tmp_path)
    for file in (tmp_path / "data.yaml", tmp_path / "labels/train/a.txt"):
        file.write_text(file.read_text(), encoding="utf-8-sig")
    (tmp_path / "images/train/._a.png").write_bytes(b"resource fork")
    dataset = read_dataset(tmp_path, split="train")
    assert [len(s.boxes) for s in dataset.samples] == [1]
    assert dataset.findings == []
