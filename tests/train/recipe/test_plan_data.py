"""What a run says about its data before the first step, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.errors import DataError
from fcos_cli.train.recipe.plan import Plan, check_settings, make_plan
from fcos_cli.train.recipe.summary import print_data_summary


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "data", train=4, val=2, size=32)


def change(data: Path, split: str, edit: Callable[[dict[str, Any]], object]) -> None:
    file = data / f"{split}.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def plan(data: Path) -> Plan:
    return make_plan(data, file=None, assignments=[], flags={"train.batch": 2, "data.size": (64, 64)}, base={})


def test_annotations_that_are_a_link_belong_to_the_images_beside_it(data: Path, tmp_path: Path) -> None:
    labels = tmp_path / "store" / "version-2"
    labels.mkdir(parents=True)
    for split in ("train", "val"):
        (data / f"{split}.json").rename(labels / f"{split}.json")
        (data / f"{split}.json").symlink_to(labels / f"{split}.json")
    made = plan(data / "train.json")
    assert all(sample.image.is_relative_to(data) for sample in made.train.samples)


def without_boxes(content: dict[str, Any]) -> None:
    content["annotations"] = []


def all_crowds(content: dict[str, Any]) -> None:
    for row in content["annotations"]:
        row["iscrowd"] = 1


def of_unknown_classes(content: dict[str, Any]) -> None:
    for row in content["annotations"]:
        row["category_id"] = 99


def malformed(content: dict[str, Any]) -> None:
    for row in content["annotations"]:
        row["bbox"] = [1, 2, "x", None]


def lost(content: dict[str, Any]) -> None:
    for row in content["images"]:
        row["file_name"] = f"gone-{Path(row['file_name']).name}"


def test_data_without_problems_is_accepted(data: Path) -> None:
    check_settings(plan(data))


@pytest.mark.parametrize("edit", [without_boxes, all_crowds, of_unknown_classes, malformed])
def test_a_train_split_without_any_box_is_refused(data: Path, edit: Any) -> None:
    change(data, "train", edit)
    with pytest.raises(DataError, match="train split") as error:
        check_settings(plan(data))
    assert error.value.remedy


@pytest.mark.parametrize("edit", [of_unknown_classes, malformed, lost])
def test_errors_that_leave_nothing_of_val_are_refused(data: Path, edit: Any) -> None:
    change(data, "val", edit)
    with pytest.raises(DataError) as error:
        check_settings(plan(data))
    assert "val" in str(error.value)
    assert error.value.exit_code == 3


@pytest.mark.parametrize("edit", [without_boxes, all_crowds])
def test_a_val_split_without_boxes_is_told(data: Path, edit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    change(data, "val", edit)
    made = plan(data)
    check_settings(made)
    print_data_summary(made)
    assert "there will be no AP" in capsys.readouterr().err


def test_problems_of_val_are_printed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["annotations"][0]["category_id"] = 99

    change(data, "val", edit)
    findings = print_data_summary(plan(data))
    assert "unknown-category" in {finding.id for finding in findings}
    assert "val: unknown-category" in capsys.readouterr().err


def test_problems_of_a_file_that_is_divided_are_printed_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(data / "train.json", data / "all.json")
    change(data, "all", lambda content: content["annotations"][0].update(category_id=99))
    print_data_summary(plan(data / "all.json"))
    assert capsys.readouterr().err.count("unknown-category") == 1
