"""fcos doctor: findings, JSON and exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from fcos_cli.data.demo_shapes import write_shapes
from tests.cli_runner import Fcos, created_files


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
    """A data set with enough boxes of every class, and in every image."""
    folder = write_shapes(tmp_path_factory.mktemp("sound") / "data", train=60, val=10, size=64)
    change(folder, "train", drop_empty)
    return folder


def test_a_sound_data_set_has_no_findings(fcos: Fcos, sound: Path) -> None:
    document = fcos("doctor", sound, "--json").document
    assert document["findings"] == []
    assert document["classes"] == ["circle", "square", "triangle"]
    train, val = document["splits"]
    assert (train["split"], val["split"], val["images"], val["ignored"]) == ("train", "val", 10, 0)
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
