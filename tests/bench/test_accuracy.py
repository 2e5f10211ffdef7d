"""AP in `fcos bench` is that of `fcos eval`."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fcos_cli.bench.accuracy import accuracy_on
from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import DataError
from fcos_cli.evaluate.coco import evaluate
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.open import open_detector
from tests.runtime.fakes import CornerDetector
from tests.runtime.onnx_files import FACTS, write_onnx
from tests.tiny import CLASSES


def test_ap_equals_that_of_eval(model_file: Path, shapes: Path) -> None:
    detector = open_detector(model_file)
    assert accuracy_on(shapes)(detector) == evaluate(detector, read_dataset(shapes)).metrics["AP"]


def test_models_that_were_trained_on_tiles_are_measured_with_tiles(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = CornerDetector(Facts(CLASSES, ResizeRule("letterbox", (32, 32)), provenance={"tile": 40}))
    accuracy_on(shapes)(detector)
    assert sum(detector.sizes) == 4 * 5  # each image, and its four tiles
    assert "trained on tiles of 40 px" in capsys.readouterr().err


def test_split_and_limit_are_applied(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy_on(shapes, split="train", limit=3)
    assert "AP on train: 3 images" in capsys.readouterr().err


def test_data_without_a_val_split_is_divided_as_for_training(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(shapes, tmp_path / "shapes")
    (tmp_path / "shapes" / "val.json").unlink()
    trained = {"data": {"name": "shapes", "division": {"val_fraction": 0.25, "seed": 3}}}
    model = write_onnx(tmp_path / "m.onnx", facts=replace(FACTS, classes=CLASSES, provenance=trained))
    accuracy_on(tmp_path / "shapes", models=("none.onnx", str(model)))
    assert "25 % of 12 images held out, seed 3" in capsys.readouterr().err


def test_data_without_boxes_raises(model_file: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes", train=1, val=1, size=64)
    annotations = next(tmp_path.rglob("*val*.json"))
    content = json.loads(annotations.read_text(encoding="utf-8"))
    annotations.write_text(json.dumps({**content, "annotations": []}), encoding="utf-8")
    with pytest.raises(DataError, match="no image has a box"):
        accuracy_on(tmp_path / "shapes", models=(str(model_file),))


def test_data_without_a_class_of_any_model_raises_before_measuring(
    model_file: Path, shapes: Path, tmp_path: Path
) -> None:
    zebras = write_onnx(tmp_path / "z.onnx", facts=replace(FACTS, classes=ClassTable.from_names(["zebra"])))
    with pytest.raises(DataError, match="no class in common"):
        accuracy_on(shapes, models=(str(zebras),))
    accuracy_on(shapes, models=(str(zebras), str(model_file)))


def test_missing_data_raises_before_measuring(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        accuracy_on(tmp_path / "none")
