"""Which image on disk belongs to which row of a COCO file, also where others have the same name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset
from tests.data.formats.test_coco import coco, draw, write
from tests.data.formats.test_file_index import deny

NUMBERED = [f"{number:04}.png" for number in range(1, 31)]


def places(dataset: Dataset, root: Path) -> list[str]:
    return [sample.image.relative_to(root).as_posix() for sample in dataset.samples]


@pytest.mark.parametrize("missing", [0, 1, 4])
@pytest.mark.parametrize("folder", ["{}", "images/{}", "{}_images", "my-{}-2017", "img_{}/sub"])
def test_splits_that_number_their_images_alike_keep_to_their_folders(folder: str, missing: int, tmp_path: Path) -> None:
    counts = {"train": 30, "val": 5}
    for split, count in counts.items():
        write(tmp_path / f"annotations/instances_{split}.json", coco(*NUMBERED[:count]))
        for name in NUMBERED[:count]:
            draw(tmp_path / folder.format(split) / name)
    for name in NUMBERED[:missing]:
        (tmp_path / folder.format("val") / name).unlink()
    for split, count in counts.items():
        dataset = read_dataset(tmp_path, split=split)
        there = NUMBERED[missing if split == "val" else 0 : count]
        assert places(dataset, tmp_path) == [f"{folder.format(split)}/{name}" for name in there]


def test_a_folder_of_another_split_is_taken_if_there_is_no_other(tmp_path: Path) -> None:
    draw(tmp_path / "train" / "a.png")
    assert places(read_dataset(write(tmp_path / "val.json", coco("a.png"))), tmp_path) == ["train/a.png"]


def test_the_names_of_the_folders_around_the_file_say_nothing(tmp_path: Path) -> None:
    root = tmp_path / "training_data"
    draw(root / "a.png")
    draw(root / "thumbs" / "a.png")
    assert places(read_dataset(write(root / "val.json", coco("a.png"))), root) == ["a.png"]


def test_an_image_in_another_folder_does_not_stand_for_one_of_the_same_name(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "cam1" / "1.png")
    draw(tmp_path / "images" / "new" / "3.png")
    draw(tmp_path / "images" / "new" / "4.png")
    names = ("cam1/1.png", "cam2/1.png", "cam1/3.png", "cam2/3.png", "cam1/4.png")
    dataset = read_dataset(write(tmp_path / "all.json", coco(*names)))
    assert places(dataset, tmp_path / "images") == ["cam1/1.png", "new/4.png"]
    (finding,) = dataset.findings
    assert (finding.id, finding.message[-1]) == ("missing-image", "3")
    assert finding.place == "cam2/1.png, cam1/3.png, cam2/3.png"


def test_images_added_to_a_set_from_another_machine_do_not_hide_the_others(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "new.png"):
        draw(tmp_path / "images" / name)
    names = ("C:\\job\\images\\1.png", "C:\\job\\images\\2.png", "new.png")
    dataset = read_dataset(write(tmp_path / "train.json", coco(*names)))
    assert places(dataset, tmp_path / "images") == ["1.png", "2.png", "new.png"]
    assert dataset.findings == []


@pytest.mark.parametrize("names", [("IMG_1.JPG", "img_2.PNG"), ("img_1.jpg", "img_2.PNG")])
def test_names_in_another_case_are_found_at_last(names: tuple[str, str], tmp_path: Path) -> None:
    for name in ("img_1.jpg", "img_2.png"):
        draw(tmp_path / "images" / name)
    dataset = read_dataset(write(tmp_path / "train.json", coco(*names)))
    assert places(dataset, tmp_path / "images") == ["img_1.jpg", "img_2.png"]
    assert dataset.findings == []


def test_a_name_in_another_case_that_fits_two_files_or_the_file_of_another_image_is_missing(tmp_path: Path) -> None:
    for name in ("a.png", "B.png", "b.png"):
        draw(tmp_path / "images" / name)
    dataset = read_dataset(write(tmp_path / "train.json", coco("a.png", "A.png", "b.PNG")))
    assert places(dataset, tmp_path / "images") == ["a.png"]
    assert [(finding.id, finding.place) for finding in dataset.findings] == [("missing-image", "A.png, b.PNG")]


def test_images_in_a_folder_that_cannot_be_read_are_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "images" / "a.png")
    draw(tmp_path / "more" / "b.png")
    file = write(tmp_path / "train.json", coco("a.png"))
    deny(monkeypatch, tmp_path / "more")
    assert len(read_dataset(file).samples) == 1  # nothing is missing
    deny(monkeypatch, tmp_path / "images")
    with pytest.raises(PermissionError) as caught:
        read_dataset(file)
    assert Path(caught.value.filename) in (tmp_path / "images", tmp_path / "more")


@pytest.mark.parametrize("given", ["instances_default.json", "."])
def test_the_working_directory_may_be_the_folder_of_annotations(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "annotations" / "instances_default.json", coco("a.png"))
    draw(tmp_path / "images" / "a.png")
    monkeypatch.chdir(tmp_path / "annotations")
    assert places(read_dataset(Path(given), split="all"), tmp_path) == ["images/a.png"]


@pytest.mark.parametrize(
    ("place", "folder"),
    [
        ("annotations/instances_default.json", "images"),
        ("annotations/instances_default.json", "."),
        ("annotations.json", "images"),
        ("annotations.json", "."),
        ("train.json", "train"),
    ],
)
def test_masks_beside_the_images_are_not_taken_for_them(place: str, folder: str, tmp_path: Path) -> None:
    file = write(tmp_path / place, coco(*NUMBERED))
    for name in NUMBERED:
        draw(tmp_path / folder / name)
        draw(tmp_path / "masks" / name)
    (tmp_path / folder / NUMBERED[0]).unlink()
    dataset = read_dataset(file)
    assert {sample.image.parent for sample in dataset.samples} == {tmp_path / folder}
    assert dataset.findings[0].place == NUMBERED[0]
    assert dataset.findings[0].id == "missing-image"


@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize("folders", [("rgb", "depth"), ("train_images", "train_masks"), ("train_masks", "images")])
def test_two_folders_that_may_be_that_of_the_images_are_named(
    folders: tuple[str, str], missing: int, tmp_path: Path
) -> None:
    file = write(tmp_path / "train.json", coco(*NUMBERED))
    for name in NUMBERED:
        for folder in folders:
            draw(tmp_path / folder / name)
    for name in NUMBERED[:missing]:
        (tmp_path / folders[0] / name).unlink()
    (finding,) = (finding for finding in read_dataset(file).findings if finding.id != "missing-image")
    assert (finding.id, finding.severity) == ("unclear-image-folder", "warning")
    assert all(folder in finding.place for folder in folders)
    assert "train.json" in finding.place


def test_a_usual_folder_that_lacks_most_images_is_left_for_another_which_is_told(tmp_path: Path) -> None:
    file = write(tmp_path / "all.json", coco(*NUMBERED))
    for name in NUMBERED:
        draw(tmp_path / "photos" / name)
    assert read_dataset(file).findings == []
    for name in NUMBERED[:9]:
        draw(tmp_path / "images" / name)
    dataset = read_dataset(file)
    assert {sample.image.parent.name for sample in dataset.samples} == {"photos"}
    assert [(finding.id, finding.place) for finding in dataset.findings] == [
        ("unclear-image-folder", "photos, not images (all.json)")
    ]


@pytest.mark.parametrize("name", ["images/{}", "{}"])
def test_a_mask_in_a_subfolder_does_not_stand_for_a_missing_image(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / "train.json", coco(*(name.format(number) for number in NUMBERED)))
    for number in NUMBERED:
        draw(tmp_path / "images" / number)
        draw(tmp_path / "images/masks" / number)
    (tmp_path / "images" / NUMBERED[0]).unlink()
    dataset = read_dataset(file)
    assert places(dataset, tmp_path) == [f"images/{number}" for number in NUMBERED[1:]]
    assert [(finding.id, finding.place) for finding in dataset.findings] == [
        ("missing-image", name.format(NUMBERED[0]))
    ]


def test_images_in_a_subfolder_of_their_own_are_found(tmp_path: Path) -> None:
    file = write(tmp_path / "train.json", coco("a.png", "b.png"))
    draw(tmp_path / "images" / "a.png")
    draw(tmp_path / "images" / "later" / "b.png")
    dataset = read_dataset(file)
    assert places(dataset, tmp_path) == ["images/a.png", "images/later/b.png"]
    assert dataset.findings == []
