"""Images that no annotation file names."""

from __future__ import annotations

import json
import shutil

from PIL import Image

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.unlisted import unlisted_images

XML = "<annotation><filename>{0}.png</filename><size><width>8</width><height>8</height></size><object><name>a</name>\
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object></annotation>"


def coco(folder, *splits: str):
    """One image per split, all of them in one folder."""
    (folder / "images").mkdir()
    for name in splits:
        Image.new("RGB", (8, 8)).save(folder / "images" / f"{name}.png")
        content = {
            "images": [{"id": 1, "file_name": f"{name}.png", "width": 8, "height": 8}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
            "categories": [{"id": 1, "name": "a"}],
        }
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def listed(path):
    datasets = [read_dataset(path, split=split) for split in ("train", "val")]
    return [(finding.id, finding.severity, finding.place) for finding in unlisted_images(path, datasets)]


def test_an_image_that_is_in_no_file_is_told(tmp_path):
    folder = coco(tmp_path, "train", "val", "test")
    assert listed(folder) == []  # that of test is listed too
    for name in ("new.png", ".hidden.png", "notes.txt"):
        shutil.copy(folder / "images" / "val.png", folder / "images" / name)
    assert listed(folder) == [("unlisted-image", "info", "new.png")]


def test_one_file_of_several_says_nothing_about_the_others(tmp_path):
    folder = coco(tmp_path, "all")
    data = json.loads((folder / "all.json").read_text())
    shutil.copy(folder / "images" / "all.png", folder / "images" / "b.png")
    data["images"].append({**data["images"][0], "id": 2, "file_name": "b.png"})
    (folder / "all.json").write_text(json.dumps(data))
    shutil.copy(folder / "images" / "all.png", folder / "images" / "c.png")
    assert listed(folder / "all.json") == []


def test_what_the_reader_of_labelme_notes_is_not_said_twice(tmp_path):
    shape = {"label": "a", "shape_type": "rectangle", "points": [[1, 1], [4, 4]]}
    for name in "abc":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(json.dumps({"shapes": [shape], "imagePath": f"{name}.png"}))
    assert listed(tmp_path) == []
    assert [finding.id for finding in read_dataset(tmp_path, split="train").findings] == ["not-labelled"]


def test_an_image_without_an_xml_file_is_told(tmp_path):
    for name in "abcd":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    for name in "abc":
        (tmp_path / f"{name}.xml").write_text(XML.format(name))
    assert listed(tmp_path) == [("unlisted-image", "info", "d.png")]
