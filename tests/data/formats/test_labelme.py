"""LabelMe: shapes that are boxes or become one, images found beside the JSON, folders as splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.errors import DataError
from tests.cli_runner import Fcos


def shape(
    label: str = "dog", points: Any = ((10, 20), (30, 40)), kind: str | None = "rectangle", **more: Any
) -> dict[str, Any]:
    return {"label": label, "points": points, **({"shape_type": kind} if kind else {}), **more}


def annotate(file: Path, *shapes: dict[str, Any], image: str = "a.png", draw: bool = True, **more: Any) -> Path:
    """A JSON of these shapes, and a picture of 100 × 50 beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if draw:
        Image.new("L", (100, 50)).save(file.with_suffix(".png"))
    size = {"imageWidth": 100, "imageHeight": 50}
    file.write_text(json.dumps({"shapes": shapes, "imagePath": image, "imageData": "AAAA", **size, **more}))
    return file.parent


def ids(folder: Path) -> list[str]:
    return [finding.id for finding in read_dataset(folder, split="all").findings]


def test_rectangles_are_boxes_whichever_corners_they_name(tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", shape(), shape("cat", [[30, 20.5], [10, 40]]))
    dataset = read_dataset(tmp_path, split="all")
    (sample,) = dataset.samples
    assert (dataset.format, dataset.findings) == ("labelme", [])
    assert (sample.image.name, sample.width, sample.height) == ("a.png", 100, 50)
    assert sample.boxes.tolist() == [[10, 20, 30, 40], [10, 20.5, 30, 40]]
    assert dataset.classes.to_json() == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert sample.classes.tolist() == [1, 0]


def test_labels_of_different_case_are_different_classes(tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", shape("Dog"), shape("dog"))
    assert read_dataset(tmp_path, split="all").classes.names == ("Dog", "dog")


def test_polygons_and_circles_become_the_boxes_around_them(tmp_path: Path) -> None:
    circle = shape("sun", [[50, 20], [53, 24]], "circle")  # radius 5
    annotate(tmp_path / "a.json", circle, shape("hill", [[1, 40], [9, 30], [20, 45]], "polygon"))
    dataset = read_dataset(tmp_path, split="all")
    assert dataset.samples[0].boxes.tolist() == [[45, 15, 55, 25], [1, 30, 20, 45]]
    (finding,) = dataset.findings
    assert (finding.id, finding.severity) == ("shape-as-box", "info")
    assert finding.place == "a.json: shapes[0] (sun) circle, a.json: shapes[1] (hill) polygon"


def test_masks_and_rotated_boxes_become_the_boxes_around_them(tmp_path: Path) -> None:
    mask = shape("sun", [[10, 20], [19, 39]], "mask", mask="iVBORw0KGgo=")  # of 10 x 20 pixels
    turned = shape("hill", [[30, 10], [40, 20], [30, 30], [20, 20]], "rotation", direction=0.785)
    annotate(tmp_path / "a.json", mask, turned)
    dataset = read_dataset(tmp_path, split="all")
    assert dataset.samples[0].boxes.tolist() == [[10, 20, 20, 40], [20, 10, 40, 30]]
    assert dataset.classes.names == ("hill", "sun")
    (finding,) = dataset.findings
    assert (finding.id, finding.message[-1]) == ("shape-as-box", "2")


def test_a_shape_without_a_type_is_a_polygon(tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", shape(points=[[1, 1], [5, 1], [5, 9]], kind=None))
    assert read_dataset(tmp_path, split="all").samples[0].boxes.tolist() == [[1, 1, 5, 9]]


@pytest.mark.parametrize("kind", ["point", "line", "linestrip", "points", "cuboid"])
def test_other_shapes_are_a_finding_and_their_labels_no_class(kind: str, tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", shape(), shape("way", kind=kind))
    dataset = read_dataset(tmp_path, split="all")
    assert dataset.classes.names == ("dog",)
    (finding,) = dataset.findings
    assert (finding.id, finding.severity) == ("other-shape", "warning")
    assert finding.place == f"a.json: shapes[1] (way) {kind}"


def test_the_image_is_the_one_beside_the_json_whatever_image_path_says(tmp_path: Path) -> None:
    annotate(tmp_path / "new.json", shape(), image="old.png")
    annotate(tmp_path / "two.json", shape(), image="two.jpg")
    Image.new("L", (100, 50)).save(tmp_path / "two.jpg")
    names = [sample.image.name for sample in read_dataset(tmp_path, split="all").samples]
    assert names == ["new.png", "two.jpg"]


@pytest.mark.parametrize("path", ["../images/x.png", "..\\images\\x.png"])
def test_image_path_may_lead_to_another_folder(path: str, tmp_path: Path) -> None:
    annotate(tmp_path / "json/a.json", shape(), image=path, draw=False)
    (tmp_path / "images").mkdir()
    Image.new("L", (100, 50)).save(tmp_path / "images/x.png")
    (sample,) = read_dataset(tmp_path / "json", split="all").samples
    assert sample.image.resolve() == tmp_path / "images/x.png"


def test_a_missing_image_and_an_image_without_json_are_findings(tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", shape())
    annotate(tmp_path / "b.json", shape(), draw=False, image="gone.jpg")
    Image.new("L", (9, 9)).save(tmp_path / "later.png")
    assert ids(tmp_path) == ["missing-image", "not-labelled"]


def test_two_files_for_one_image_are_put_together(tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", shape())
    annotate(tmp_path / "b.json", shape("cat", [[1, 1], [5, 5]]), draw=False, image="a.png")
    (sample,) = read_dataset(tmp_path, split="all").samples
    assert len(sample.boxes) == 2
    assert ids(tmp_path) == ["image-listed-twice"]


def test_sizes_may_be_missing_and_are_compared(tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", shape(), imageWidth=None)
    annotate(tmp_path / "b.json", shape(), image="b.png", imageWidth=50, imageHeight=100)
    annotate(tmp_path / "c.json", shape(), image="c.png")
    assert ids(tmp_path) == ["size-mismatch"]
    assert [sample.width for sample in read_dataset(tmp_path, split="all").samples] == [100, 50, 100]


def test_folders_are_splits(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        annotate(tmp_path / split / f"{split}.json", shape(), image="")
    for split, stem in (("train", "train"), ("val", "valid")):
        assert [sample.image.stem for sample in read_dataset(tmp_path, split=split).samples] == [stem]


def test_one_folder_is_divided(tmp_path: Path) -> None:
    for name in "abc":
        annotate(tmp_path / f"{name}.json", shape(), image="")
    assert len(read_dataset(tmp_path, split="train")) == 2
    assert len(read_dataset(tmp_path, split="val")) == 1


def test_other_json_files_are_left_out(tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", shape())
    (tmp_path / "notes.json").write_text('{"by": "me"}')
    assert ids(tmp_path) == ["other-json"]


def test_errors_name_the_file_and_the_line(tmp_path: Path) -> None:
    annotate(tmp_path / "a.json", shape())
    (tmp_path / "b.json").write_text('{"shapes": [],\n"imagePath": }')
    with pytest.raises(DataError, match="not valid JSON") as caught:
        read_dataset(tmp_path, split="all")
    assert caught.value.where == f"{tmp_path}/b.json:2"


def test_the_doctor_reads_it(fcos: Fcos, tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        annotate(tmp_path / f"set/{name}.json", shape(), shape("way", kind="line"), image=f"{name}.png")
        Image.new("L", (100, 50), number).save(tmp_path / f"set/{name}.png")
    result = fcos("doctor", tmp_path / "set")
    assert result.code == 0
    assert "(labelme; " in result.err
    assert "other-shape in train" in result.err
