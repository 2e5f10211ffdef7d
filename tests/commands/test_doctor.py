"""fcos doctor: findings, JSON and exit codes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fcos_cli.data.demo_shapes import write_shapes
from tests.cli_runner import Fcos, created_files


def content(folder: Path, split: str) -> Any:
    return json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))


def change(folder: Path, split: str, edit: Any) -> None:
    file = folder / f"{split}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def drop_empty(content: Any) -> None:
    with_boxes = {annotation["image_id"] for annotation in content["annotations"]}
    content["images"] = [image for image in content["images"] if image["id"] in with_boxes]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with enough boxes of every class and in both splits, and in every image of train."""
    folder = write_shapes(tmp_path_factory.mktemp("sound") / "data", train=60, val=40, size=64)
    change(folder, "train", drop_empty)
    listed = {row["file_name"] for name in ("train", "val") for row in content(folder, name)["images"]}
    for file in (folder / "images").iterdir():
        if file.name not in listed:
            file.unlink()
    return folder


def test_a_sound_data_set_has_no_findings(fcos: Fcos, sound: Path) -> None:
    document = fcos("doctor", sound, "--json").document
    assert document["findings"] == []
    assert document["classes"] == ["circle", "square", "triangle"]
    train, val = document["splits"]
    assert (train["split"], val["split"], val["images"], val["ignored"]) == ("train", "val", 40, 0)
    assert 50 < train["images"] < train["boxes"]
    result = fcos("doctor", sound, "--strict")
    assert (result.code, result.out) == (0, "")
    assert "no problems found" in result.err
    assert created_files() == []


def test_warnings_are_listed_and_fail_only_if_strict(fcos: Fcos, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", train=6, val=2, size=64)
    result = fcos("doctor", data)
    assert result.code == 0
    line = next(line for line in result.err.splitlines() if line.startswith("warning: few-boxes in train: "))
    after = result.err.splitlines()[result.err.splitlines().index(line) + 1 :]
    assert after[0].startswith("  where: ")
    assert after[1].startswith("  do:    ")
    assert fcos("doctor", data, "--strict").code == 3
    document = fcos("doctor", data, "--strict", "--json").document
    finding = next(finding for finding in document["findings"] if finding["id"] == "few-boxes")
    assert set(finding) == {"id", "severity", "split", "place", "message", "remedy"}


def test_errors_are_exit_code_3(fcos: Fcos, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", train=6, val=2, size=64)
    change(data, "train", lambda content: content["annotations"].clear())
    result = fcos("doctor", data)
    assert result.code == 3
    assert "error: no-boxes in train" in result.err
    assert fcos("doctor", tmp_path / "gone").code == 3


def test_val_without_boxes_is_a_warning(fcos: Fcos, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", train=6, val=2, size=64)
    change(data, "val", lambda content: content["annotations"].clear())
    found = [(finding["id"], finding["split"]) for finding in fcos("doctor", data, "--json").document["findings"]]
    assert ("no-val-boxes", "val") in found


def test_boxes_are_judged_at_the_size_of_the_network_input(fcos: Fcos, sound: Path) -> None:
    assert "tiny-boxes" not in fcos("doctor", sound).err
    assert "at input size 32 x 32" in fcos("doctor", sound, "--size", 32).err
    assert fcos("doctor", sound, "--size", "small").code == 2


# --- one problem each -------------------------------------------------------------------------------------------------


def image_of(folder: Path, number: int = 0, split: str = "train") -> Path:
    return folder / "images" / str(content(folder, split)["images"][number]["file_name"])


def first_box(folder: Path, **values: Any) -> None:
    change(folder, "train", lambda content: content["annotations"][0].update(values))


def cut(folder: Path) -> None:
    file = image_of(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def copy_again(folder: Path) -> None:
    """The first image of train as the first of val, compressed again."""
    Image.open(image_of(folder)).save(image_of(folder, split="val"), quality=70)


def twice(content: Any) -> None:
    content["annotations"].append({**content["annotations"][0], "id": 99_999})


PROBLEMS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "damaged-image": ("error", cut),
    "leakage": ("error", lambda folder: shutil.copy(image_of(folder), image_of(folder, split="val"))),
    "missing-image": ("error", lambda folder: image_of(folder).unlink()),
    "near-duplicates": ("warning", copy_again),
    "size-mismatch": ("warning", lambda folder: Image.new("RGB", (40, 30)).save(image_of(folder, 1))),
    "box-clipped": ("warning", lambda folder: first_box(folder, bbox=[40, 40, 40, 20])),
    "box-outside": ("warning", lambda folder: first_box(folder, bbox=[70, 70, 9, 9])),
    "degenerate-box": ("warning", lambda folder: first_box(folder, bbox=[10, 10, 0, 9])),
    "duplicate-box": ("warning", lambda folder: change(folder, "train", twice)),
    "unlisted-image": ("info", lambda folder: shutil.copy(image_of(folder), folder / "images" / "new.jpg")),
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_problem_is_found_with_its_place_and_a_remedy(fcos: Fcos, sound: Path, tmp_path: Path, kind: str) -> None:
    severity, cause = PROBLEMS[kind]
    data = tmp_path / "data"
    shutil.copytree(sound, data)
    cause(data)
    result = fcos("doctor", data, "--json")
    found = [finding for finding in result.document["findings"] if finding["id"] == kind]
    assert [finding["severity"] for finding in found] == [severity]
    assert found[0]["place"]
    assert found[0]["remedy"]
    assert result.code == (3 if severity == "error" else 0)
    assert fcos("doctor", data, "--strict").code == (0 if severity == "info" else 3)


def test_yolo_labels_and_images_that_lack_each_other(fcos: Fcos, tmp_path: Path) -> None:
    for name in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / name).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(tmp_path / "images" / name / "a.png")
        (tmp_path / "labels" / name / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "train" / "b.png")
    (tmp_path / "labels" / "train" / "c.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("names: [x]\ntrain: images/train\nval: images/val\n")
    listed = {finding["id"]: finding for finding in fcos("doctor", tmp_path, "--json").document["findings"]}
    assert listed["no-label-file"]["place"] == "b.png"
    assert listed["label-without-image"]["place"] == "c.txt"
    assert all(finding["remedy"] for finding in listed.values())


def test_without_images_nothing_is_decoded(fcos: Fcos, sound: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(sound, data)
    copy_again(data)
    cut(data)
    result = fcos("doctor", data, "--no-images", "--json")
    assert (result.code, result.document["findings"]) == (0, [])
    assert "decoding" not in result.err
