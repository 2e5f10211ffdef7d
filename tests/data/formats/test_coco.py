"""COCO files: all layouts are found, ids are kept, bad rows are counted and broken files reported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.errors import DataError

CATS = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]


def draw(file: Path, size: tuple[int, int] = (100, 50)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(file)
    return file


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def coco(*names: str, boxes: list[dict[str, Any]] | None = None, categories: Any = CATS, first: int = 1) -> dict:
    images = [{"id": i, "file_name": n, "width": 100, "height": 50} for i, n in enumerate(names, start=first)]
    if boxes is None:
        boxes = [{"image_id": row["id"], "category_id": 7, "bbox": [10, 20, 30, 25]} for row in images]
    return {"images": images, "annotations": boxes, "categories": categories}


def one_image(folder: Path, *boxes: dict[str, Any], **options: Any) -> Path:
    draw(folder / "images" / "a.png")
    return write(folder / "train.json", coco("a.png", boxes=[{"image_id": 1, **box} for box in boxes], **options))


def test_an_image_of_several_pages_is_noted(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (100, 50), colour) for colour in ("red", "blue")]
    file = write(tmp_path / "train.json", coco("a.tif", "b.tif"))
    pages[0].save(tmp_path / "a.tif")
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    (finding,) = read_dataset(file).findings
    assert (finding.id, finding.place) == ("more-frames", "b.tif")


def test_a_box_becomes_xyxy_with_the_class_index_of_its_id(tmp_path: Path) -> None:
    file = one_image(tmp_path, {"category_id": 3, "bbox": [10, 20, 30, 25], "area": 700.0})
    dataset = read_dataset(file)
    (sample,) = dataset.samples
    assert sample.boxes.tolist() == [[10, 20, 40, 45]]
    assert sample.boxes.dtype == np.float32
    assert sample.classes.tolist() == [1]
    assert sample.areas.tolist() == [700]
    assert (sample.width, sample.height, sample.image_id) == (100, 50, 1)
    assert sample.image == tmp_path / "images" / "a.png"
    assert dataset.classes.ids == (7, 3)
    assert dataset.classes.names == ("cat", "dog")
    assert dataset.findings == []


def test_area_defaults_to_width_times_height(tmp_path: Path) -> None:
    file = one_image(tmp_path, {"category_id": 3, "bbox": [10, 20, 30, 25]})
    assert read_dataset(file).samples[0].areas.tolist() == [750]


def test_crowds_are_ignored_and_images_without_objects_kept(tmp_path: Path) -> None:
    draw(tmp_path / "b.png")
    draw(tmp_path / "a.png")
    crowd = {"image_id": 2, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    dataset = read_dataset(write(tmp_path / "x.json", coco("b.png", "a.png", boxes=[crowd])))
    assert [s.image.name for s in dataset.samples] == ["b.png", "a.png"]
    assert dataset.samples[0].boxes.shape == (0, 4)
    assert dataset.samples[1].ignore.tolist() == [True]


LAYOUTS = {
    "official": ("annotations/instances_{}2017.json", "{}2017"),
    "official below images": ("annotations/instances_{}2017.json", "images/{}2017"),
    "official, one folder": ("annotations/instances_{}.json", "images"),
    "flat": ("{}.json", "images"),
    "beside": ("{}.json", "."),
    "a folder of any name": ("{}.json", "photos"),
    "roboflow": ("{}/_annotations.coco.json", "{}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_found(layout: str, tmp_path: Path) -> None:
    place, folder = LAYOUTS[layout]
    for number, split in enumerate(("train", "val")):
        draw(tmp_path / folder.format(split) / f"{split}.png")
        write(tmp_path / place.format(split), coco(f"{split}.png", first=10 + number))
    for number, split in enumerate(("train", "val")):
        dataset = read_dataset(tmp_path, split=split)
        assert [s.image.name for s in dataset.samples] == [f"{split}.png"]
        assert dataset.samples[0].image.exists()
        assert dataset.samples[0].image_id == 10 + number
        assert dataset.format == "coco"
        assert dataset.findings == []
    assert len(read_dataset(tmp_path, split="all")) == 2


def test_files_of_other_tasks_are_skipped(tmp_path: Path) -> None:
    draw(tmp_path / "train2017" / "a.png")
    draw(tmp_path / "val2017" / "b.png")
    for split, name in (("train", "a.png"), ("val", "b.png")):
        write(tmp_path / f"annotations/instances_{split}2017.json", coco(name))
        write(tmp_path / f"annotations/captions_{split}2017.json", coco(name, categories=[]))
        write(tmp_path / f"annotations/person_keypoints_{split}2017.json", coco(name, categories=[CATS[0]]))
    write(tmp_path / "package.json", {"name": "x"})
    assert read_dataset(tmp_path, split="train").origin == "the train split, instances_train2017.json"


@pytest.mark.parametrize("name", ["sub/deep/a.png", "sub\\deep\\a.png"])
def test_file_names_with_either_slash(name: str, tmp_path: Path) -> None:
    draw(tmp_path / "images" / "sub" / "deep" / "a.png")
    dataset = read_dataset(write(tmp_path / "train.json", coco(name)))
    assert dataset.samples[0].image.exists()


def test_paths_of_another_machine_are_found_by_their_names(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png")
    dataset = read_dataset(write(tmp_path / "train.json", coco("C:\\job\\42\\a.png")))
    assert dataset.samples[0].image == tmp_path / "images" / "a.png"


def test_sizes_missing_from_the_file_are_read_from_the_image(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", (33, 22))
    content = coco("a.png", boxes=[])
    del content["images"][0]["width"], content["images"][0]["height"]
    sample = read_dataset(write(tmp_path / "train.json", content)).samples[0]
    assert (sample.width, sample.height) == (33, 22)


def test_wrong_sizes_are_reported(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", (50, 100))
    (finding,) = read_dataset(write(tmp_path / "train.json", coco("a.png"))).findings
    assert finding.id == "size-mismatch"
    assert "EXIF" in finding.message
    assert "50x100" in finding.place


@pytest.mark.parametrize(
    ("row", "kind", "left"),
    [
        ({"bbox": [10, 10, 0, 5]}, "degenerate-box", None),
        ({"bbox": [10, 10, 5, -5]}, "degenerate-box", None),
        ({"bbox": [10, 10, float("nan"), 5]}, "non-finite-box", None),
        ({"bbox": [10, 10, float("inf"), 5]}, "non-finite-box", None),
        ({"bbox": [200, 10, 5, 5]}, "box-outside", None),
        ({"bbox": [90, 40, 50, 50]}, "box-clipped", [90, 40, 100, 50]),
        ({"bbox": [90, 40, 10.9, 10]}, None, [90, 40, 100, 50]),
        ({"bbox": [1, 2, 3]}, "malformed-row", None),
        ({"bbox": None}, "malformed-row", None),
        ({}, "malformed-row", None),
        ({"bbox": [1, 1, 1, 1], "category_id": 99}, "unknown-category", None),
        ({"bbox": [1, 1, 1, 1], "image_id": 99}, "unknown-image", None),
        ({"bbox": [1, 1, 1, 1], "image_id": [1]}, "malformed-row", None),
    ],
)
def test_a_bad_box_is_clipped_or_dropped_and_reported(row: dict, kind: str | None, left: list | None, tmp_path) -> None:
    good = {"category_id": 3, "bbox": [0, 0, 8, 8]}
    dataset = read_dataset(one_image(tmp_path, good, {"category_id": 7} | row))
    assert dataset.samples[0].boxes.tolist() == [[0, 0, 8, 8]] + ([left] if left else [])
    assert [finding.id for finding in dataset.findings] == ([kind] if kind else [])


def test_an_exact_copy_of_a_box_is_dropped_but_another_class_is_not(tmp_path: Path) -> None:
    box = {"category_id": 7, "bbox": [1, 2, 3, 4]}
    dataset = read_dataset(one_image(tmp_path, box, box, box | {"category_id": 3}, box))
    assert dataset.samples[0].classes.tolist() == [0, 1]
    (finding,) = dataset.findings
    assert finding.id == "duplicate-box"
    assert finding.message.endswith(": 2")


def test_ten_thousand_bad_boxes_are_one_finding_with_examples(tmp_path: Path) -> None:
    (finding,) = read_dataset(one_image(tmp_path, *[{"category_id": 7, "bbox": [1, 1, 0, 0]}] * 10_000)).findings
    assert finding.message.endswith(": 10000")
    assert finding.place.count("a.png") == 3
    assert finding.place.endswith("…")


def test_missing_images_are_skipped_with_an_error_finding(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    dataset = read_dataset(write(tmp_path / "train.json", coco("a.png", "gone.png")))
    assert len(dataset) == 1
    (finding,) = dataset.findings
    assert (finding.id, finding.severity, finding.place) == ("missing-image", "error", "gone.png")


def test_error_with_the_searched_folders_if_all_images_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the images is on disk, for example gone\.png") as caught:
        read_dataset(write(tmp_path / "train.json", coco("gone.png")))
    assert "train.json" in str(caught.value.where)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', "JSON"),
        ("[]", "no list of objects 'images'"),
        ("", "JSON"),
        ({"images": [], "annotations": [], "categories": CATS}, "no images"),
        ({"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}, "no classes"),
        ({"images": [{"id": 1}], "annotations": [], "categories": CATS}, "file_name"),
        ({"images": [{"id": 1, "file_name": "a.png"}] * 2, "annotations": [], "categories": CATS}, "the id 1"),
        ({"images": [5], "annotations": [], "categories": CATS}, "images"),
        ({"images": [], "annotations": [], "categories": [{"id": "x", "name": "y"}]}, "integer"),
        ({"images": [], "annotations": [], "categories": [CATS[0], CATS[0]]}, "duplicate category id"),
    ],
)
def test_a_broken_file_is_an_error_with_place_and_remedy(content: Any, message: str, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(write(tmp_path / "train.json", content))
    assert "train.json" in str(caught.value.where)
    assert caught.value.remedy


def test_odd_category_ids_keep_their_order_and_empty_classes_stay(tmp_path: Path) -> None:
    categories = [{"id": 90, "name": "z"}, {"id": 0, "name": "a"}, {"id": 13, "name": "m"}]
    dataset = read_dataset(one_image(tmp_path, {"category_id": 13, "bbox": [0, 0, 9, 9]}, categories=categories))
    assert dataset.classes.ids == (90, 0, 13)
    assert dataset.samples[0].classes.tolist() == [2]


def test_train_and_val_share_the_union_of_their_categories(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    write(tmp_path / "train.json", coco("a.png"))
    write(tmp_path / "val.json", coco("a.png", categories=[{"id": 1, "name": "cow"}, CATS[0]]))
    tables = {read_dataset(tmp_path, split=split).classes for split in ("train", "val", "all")}
    assert [table.to_json() for table in tables] == [
        [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 1, "name": "cow"}]
    ]


@pytest.mark.parametrize("other", [{"id": 7, "name": "lion"}, {"id": 8, "name": "cat"}])
def test_contradicting_categories_are_an_error(other: dict, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    write(tmp_path / "train.json", coco("a.png"))
    write(tmp_path / "val.json", coco("a.png", categories=[other]))
    with pytest.raises(DataError, match="contradict"):
        read_dataset(tmp_path, split="train")


def test_roboflows_root_category_is_dropped_for_the_class_of_the_same_name(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "cells", "supercategory": "cells"},
    ]
    dataset = read_dataset(one_image(tmp_path, {"category_id": 1, "bbox": [0, 0, 9, 9]}, categories=categories))
    assert dataset.classes.ids == (1,)


@pytest.mark.parametrize(("boxes_of", "ids"), [((1, 2), (1, 2)), ((1,), (1, 2)), ((0, 1), (0, 1, 2))])
def test_roboflows_root_category_is_no_class_unless_a_box_has_it(
    boxes_of: tuple[int, ...], ids: tuple[int, ...], tmp_path: Path
) -> None:
    categories = [{"id": 0, "name": "chess", "supercategory": "none"}]
    categories += [{"id": n, "name": name, "supercategory": "chess"} for n, name in enumerate(("king", "pawn"), 1)]
    boxes = [{"category_id": number, "bbox": [number, 0, 9, 9]} for number in boxes_of]
    dataset = read_dataset(one_image(tmp_path, *boxes, categories=categories))
    assert dataset.classes.ids == ids
    assert [dataset.classes.ids[index] for index in dataset.samples[0].classes] == list(boxes_of)
    assert dataset.findings == []


@pytest.mark.parametrize("other", [{"supercategory": "none"}, {"supercategory": "thing"}])
def test_a_category_that_is_not_above_all_others_is_a_class(other: dict[str, str], tmp_path: Path) -> None:
    rows = [{"id": 0, "name": "animal", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "animal"}]
    rows.append({"id": 2, "name": "car", **other})
    dataset = read_dataset(one_image(tmp_path, {"category_id": 1, "bbox": [0, 0, 9, 9]}, categories=rows))
    assert dataset.classes.ids == (0, 1, 2)


def test_non_integer_ids_are_renumbered(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    content = coco("a.png")
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = "frame-9"
    dataset = read_dataset(write(tmp_path / "train.json", content))
    assert dataset.samples[0].image_id == 1
    assert len(dataset.samples[0].boxes) == 1
    assert [finding.id for finding in dataset.findings] == ["ids-renumbered"]


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "train.json").write_text(json.dumps(coco("a.png")), encoding="utf-8-sig")
    assert len(read_dataset(tmp_path / "train.json")) == 1
