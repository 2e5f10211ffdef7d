"""What is refused before any work, with exit code 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fcos_cli.errors import UsageError
from fcos_cli.predict.labels.plan import plan_labels
from tests.predict.labels.made import FORMATS, prediction, write
from tests.predict.labels.test_writer import files, picture


def test_without_label_there_is_no_plan(tmp_path: Path) -> None:
    assert plan_labels(None, tmp_path, drawn=True) is None


@pytest.mark.parametrize("options", [{"score": 0.3}, {"merge": True}, {"link": True}])
def test_options_require_label(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="requires --label"):
        plan_labels(None, tmp_path, **options)


def test_unknown_formats_and_drawings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown format 'csv'"):
        plan_labels("csv", tmp_path / "out")
    with pytest.raises(UsageError, match="cannot be combined with --viz"):
        plan_labels("coco", tmp_path / "out", drawn=True)


@pytest.mark.parametrize("name", ["out/train.json", "out/review.csv", "out/deep/found.jsonl", "in/../out/a.json"])
def test_no_other_file_is_written_among_the_labels(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--save cannot write there"):
        plan_labels("coco", tmp_path / "out", save=[tmp_path / "found.csv", tmp_path / name])
    assert plan_labels("coco", tmp_path / "out", save=[tmp_path / "found.csv", tmp_path / "out.json"]) is not None


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_that_is_not_empty_needs_merge_and_the_same_format(format: str, tmp_path: Path) -> None:
    write("yolo", tmp_path / "out", prediction(picture(tmp_path / "in/a.jpg"), (1, 2, 9, 9, 0.9, 0)))
    before = files(tmp_path / "out")
    with pytest.raises(UsageError, match="not empty"):
        plan_labels(format, tmp_path / "out")
    if format != "yolo":
        with pytest.raises(UsageError, match=f"holds a yolo data set, so {format} labels cannot be added"):
            plan_labels(format, tmp_path / "out", merge=True)
    assert files(tmp_path / "out") == before


def test_merge_into_an_empty_folder_makes_a_new_set_and_into_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert plan_labels("coco", tmp_path / "out", merge=True) is not None
    (tmp_path / "out/notes.md").write_text("mine")
    with pytest.raises(UsageError, match="no data set found here"):
        plan_labels("coco", tmp_path / "out", merge=True)


def test_a_review_that_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    write("yolo", tmp_path / "out", prediction(picture(tmp_path / "in/a.jpg"), (1, 2, 9, 9, 0.9, 0)))
    (tmp_path / "out/review.csv").write_text("mine")
    with pytest.raises(UsageError, match="not a review"):
        plan_labels("yolo", tmp_path / "out", merge=True)


@pytest.mark.parametrize(
    ("files", "format", "reason"),
    [
        ({"data.yaml": "names: [a]\ntrain: list.txt\n", "list.txt": "a.jpg\n"}, "yolo", "listed in a file"),
        ({"data.yaml": "names: [a]\ntrain: .\nkpt_shape: [1, 2]\n"}, "yolo", "keypoints"),
        ({"classes.txt": "a\n", "labels/a.txt": "", "images/a.txt": ""}, "yolo", "no data.yaml"),
        ({"a.xml": "<annotation></annotation>"}, "voc", "not in a folder Annotations"),
        ({"x/a.json": '{"shapes": []}', "y/a.json": '{"shapes": []}'}, "labelme", "no train split, only x, y"),
    ],
)
def test_layouts_to_which_nothing_is_added(files: dict[str, str], format: str, reason: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=reason):
        plan_labels(format, tmp_path, merge=True)
