"""Accuracy beside speed is `fcos eval`'s."""

import json
from pathlib import Path

import pytest

from fcos_cli.bench.accuracy import accuracy_on
from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.data.formats import read_dataset
from fcos_cli.errors import DataError
from fcos_cli.evaluate.coco import evaluate
from fcos_cli.runtime.open import open_detector


def test_it_is_the_ap_of_eval(model_file: Path, shapes: Path) -> None:
    detector = open_detector(model_file)
    assert accuracy_on(shapes)(detector) == evaluate(detector, read_dataset(shapes)).metrics["AP"]


def test_it_takes_the_split_and_the_number_of_pictures(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy_on(shapes, split="train", limit=3)
    assert "AP on train: 3 pictures" in capsys.readouterr().err


def test_pictures_without_a_box_give_no_ap(model_file: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes", train=1, val=1, size=64)
    annotations = next(tmp_path.rglob("*val*.json"))
    content = json.loads(annotations.read_text(encoding="utf-8"))
    annotations.write_text(json.dumps({**content, "annotations": []}), encoding="utf-8")
    with pytest.raises(DataError, match="no box"):
        accuracy_on(tmp_path / "shapes")(open_detector(model_file))


def test_data_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        accuracy_on(tmp_path / "none")
