"""One XML file: VOC's, LabelMe's, and those that are neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.errors import DataError
from tests.data.formats.test_voc import annotate, devkit, draw, thing


def polygon(*points: tuple[object, object], name: str = "dog", deleted: int = 0) -> str:
    """An object as CVAT's LabelMe export has it."""
    rows = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in points)
    return f"<object><name>{name}</name><deleted>{deleted}</deleted><polygon>{rows}</polygon></object>"


RECTANGLE = ((10.5, 20), (30, 20), (30, 40), (10.5, 40))


def test_labelmes_rectangles_are_boxes_whose_pixels_count_from_zero(tmp_path: Path) -> None:
    draw(tmp_path / "default" / "a.jpg")
    annotate(tmp_path / "default" / "a.xml", polygon(*RECTANGLE), size=None, filename="a.jpg")
    dataset = read_dataset(tmp_path, split="all")
    assert dataset.format == "voc"
    assert dataset.samples[0].boxes.tolist() == [[10.5, 20, 30, 40]]
    assert dataset.findings == []


def test_labelmes_polygons_become_the_boxes_around_them(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    annotate(tmp_path / "a.xml", polygon((10, 20), (30, 25), (12, 40)), polygon(*RECTANGLE, name="cat", deleted=1))
    dataset = read_dataset(tmp_path, split="all")
    assert dataset.samples[0].boxes.tolist() == [[10, 20, 30, 40]]
    assert dataset.classes.names == ("dog",)  # what was deleted is no class either
    assert [(finding.id, finding.place) for finding in dataset.findings] == [("shape-as-box", "a.xml (dog) polygon")]


@pytest.mark.parametrize("bad", [polygon(), polygon(("", 3), (4, 5)), polygon(*RECTANGLE, name="")])
def test_a_polygon_that_cannot_be_read_is_reported(bad: str, tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    annotate(tmp_path / "a.xml", bad, polygon(*RECTANGLE))
    dataset = read_dataset(tmp_path, split="all")
    assert len(dataset.samples[0].boxes) == 1
    assert [finding.id for finding in dataset.findings] == ["malformed-row"]


def test_a_polygon_beside_a_box_says_nothing(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    outline = "<polygon><pt><x>1</x><y>2</y></pt><pt><x>3</x><y>9</y></pt></polygon>"
    annotate(tmp_path / "a.xml", thing(extra=outline), thing(box=(5, 5, "", 9), extra=outline))
    dataset = read_dataset(tmp_path, split="all")
    assert dataset.samples[0].boxes.tolist() == [[10, 20, 30, 40]]
    assert [finding.id for finding in dataset.findings] == ["malformed-row"]


@pytest.mark.parametrize(
    ("path", "file"),
    [(".", "annotations.xml"), ("annotations.xml", "annotations.xml"), (".", "annotations/default.xml")],
)
def test_cvats_own_xml_is_told(path: str, file: str, tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.jpg")
    image = (
        '<image id="0" name="a.jpg" width="100" height="50"><box label="dog" xtl="1" ytl="2" xbr="9" ybr="9"/></image>'
    )
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(f'<?xml version="1.0"?>\n<annotations>{image}</annotations>')
    with pytest.raises(DataError, match="CVAT's own format") as caught:
        read_dataset(tmp_path / path)
    assert "COCO, YOLO or Pascal VOC" in str(caught.value.remedy)


def test_the_error_for_broken_xml_has_file_and_line(tmp_path: Path) -> None:
    devkit(tmp_path)
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation>\n<object>\n</annotation>")
    with pytest.raises(DataError, match="not valid XML") as caught:
        read_dataset(tmp_path)
    assert str(caught.value.where).endswith("b.xml:3")
