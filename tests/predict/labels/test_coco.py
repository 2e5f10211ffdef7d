"""COCO files that change, or stay as they are, while labels are added."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.labels.plan import plan_labels
from fcos_cli.predict.labels.writer import LabelWriter
from tests.predict.labels.made import CLASSES, LIMIT, facts, prediction, write
from tests.predict.labels.test_writer import everything, labels_of, picture

BOX = (1, 2, 9, 9, 0.9)


def open_writer(folder: Path) -> LabelWriter:
    plan = plan_labels("coco", folder, merge=True)
    assert plan is not None
    return LabelWriter(plan, facts(CLASSES), limits=LIMIT)


def test_labels_that_are_corrected_during_a_run_stay_corrected(tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "out/train.json"
    write("coco", out, prediction(picture(tmp_path / "in/a.jpg"), (*BOX, 0)))
    with open_writer(out) as writer:
        writer.write(prediction(picture(tmp_path / "in/b.jpg", shade=1), (*BOX, 1)))
        content = json.loads(file.read_text())
        content["categories"].append({"id": 18, "name": "cow"})
        content["annotations"] = [{**content["annotations"][0], "id": 7, "category_id": 18}]
        file.write_text(json.dumps(content))
    dataset = everything(out)
    assert labels_of(dataset, "a") == [("cow", [1, 2, 9, 9])]
    assert labels_of(dataset, "b") == [("cat", [1, 2, 9, 9])]
    assert [row["id"] for row in json.loads(file.read_text())["annotations"]] == [7, 8]


def test_a_new_file_has_the_keys_that_other_tools_want(tmp_path: Path) -> None:
    write("coco", tmp_path / "out", prediction(picture(tmp_path / "in/a.jpg"), (*BOX, 0)))
    content = json.loads((tmp_path / "out/train.json").read_text())
    assert list(content) == ["info", "licenses", "images", "annotations", "categories"]
    assert [row["segmentation"] for row in content["annotations"]] == [[]]  # CVAT's importer ends without it


def test_one_run_at_a_time_adds_to_a_data_set(tmp_path: Path) -> None:
    out, found = tmp_path / "out", prediction(picture(tmp_path / "in/a.jpg"), (*BOX, 0))
    with open_writer(out) as writer:
        with pytest.raises(UsageError, match="another run of fcos predict is adding labels here"), open_writer(out):
            pass
        writer.write(found)
    assert write("coco", out, found, merge=True) == [None]


def test_the_first_run_leaves_a_file_to_which_labels_are_added_if_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, found = tmp_path / "out", prediction(picture(tmp_path / "in/a.jpg"), (*BOX, 0))
    with monkeypatch.context() as patch:
        patch.setattr("fcos_cli.predict.labels.coco.CocoSet.end", lambda _: None)
        write("coco", out, found)
    assert write("coco", out, found, merge=True) == [out / "images/a.jpg"]
    assert labels_of(everything(out), "a") == [("dog", [1, 2, 9, 9])]


@pytest.mark.parametrize(("bird", "fish"), [(3, 4), (5, 6)])
def test_ids_of_new_classes_agree_with_those_of_other_splits(bird: int, fish: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for shade, (split, classes) in enumerate({"train": {"dog": 1, "cat": 2}, "val": {"dog": 1, "bird": bird}}.items()):
        image = picture(out / "images" / f"{split}.jpg", shade=shade)
        document = {
            "images": [{"id": 1, "file_name": image.name, "width": 40, "height": 30}],
            "annotations": [],
            "categories": [{"id": number, "name": name} for name, number in classes.items()],
        }
        (out / f"{split}.json").write_text(json.dumps(document))
    found = prediction(picture(tmp_path / "in/new.jpg", shade=3), (*BOX, 0), (*BOX, 1))
    write("coco", out, found, classes=ClassTable(("fish", "bird"), (1, 2)), merge=True)
    dataset = read_dataset(out, split="all")
    assert dataset.classes == ClassTable(("dog", "cat", "fish", "bird"), (1, 2, fish, bird))
    assert labels_of(read_dataset(out, split="train"), "new") == [("bird", [1, 2, 9, 9]), ("fish", [1, 2, 9, 9])]


def test_no_picture_is_put_into_a_folder_that_may_be_the_wrong_one(tmp_path: Path) -> None:
    out, found = tmp_path / "out", prediction(picture(tmp_path / "in/b.jpg", shade=1), (*BOX, 0))
    write("coco", out, prediction(picture(tmp_path / "in/a.jpg"), (*BOX, 0)))
    (out / "images").rename(out / "rgb")
    picture(out / "depth/a.jpg", shade=2)
    with pytest.raises(UsageError, match=r"unclear which folder .*: depth, not rgb \(train\.json\)") as caught:
        write("coco", out, found, merge=True)
    assert "rename the right one to `images`" in str(caught.value.remedy)
    (out / "rgb").rename(out / "images")
    assert write("coco", out, found, merge=True) == [out / "images/b.jpg"]
