"""fcos predict --label: a data set that the other commands read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.data.formats.read import read_dataset
from tests.cli_runner import Fcos
from tests.predict.clips import write_clip
from tests.predict.labels.made import FORMATS
from tests.runtime.onnx_files import FACTS, write_onnx


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "m.onnx")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Two pictures, in which the model finds 2 and 1 objects, and none in a third."""
    folder = tmp_path / "new"
    folder.mkdir()
    for name, red in (("a.png", 128), ("b.png", 40), ("c.png", 0)):
        pixels = np.zeros((32, 48, 3), np.uint8)
        pixels[0, 0, 0] = red
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_labels_are_the_detections_and_every_command_reads_them(
    fcos: Fcos, model: Path, new: Path, format: str
) -> None:
    result = fcos("predict", new, "--model", model, "--label", format, "--out", "more", "--json")
    assert result.code == 0
    dataset = read_dataset(Path("more"), split="all")
    assert dataset.format == format
    for sample, row in zip(dataset.samples, result.document["results"], strict=True):
        assert sample.image.name == Path(row["source"]).name
        found = [(dataset.classes.names[index], box) for index, box in zip(sample.classes, sample.boxes, strict=True)]
        wanted = [(item["class"], item["box"]) for item in row["detections"]]
        assert [name for name, _ in found] == [name for name, _ in wanted]
        np.testing.assert_allclose([b for _, b in found], [b for _, b in wanted], atol=0.01)
    assert [len(sample.boxes) for sample in dataset.samples] == [3, 1, 0]
    assert "more: 3 images with 4 labels added; look at" in result.err
    assert fcos("doctor", "more").code == 0
    evaluated = fcos("eval", model, "more", "--split", "all", "--json")
    assert evaluated.code == 0
    assert evaluated.document["metrics"]["AP"] == pytest.approx(1.0)


def test_label_score_is_for_labels_and_score_for_reports(fcos: Fcos, model: Path, new: Path) -> None:
    options = ("--label", "coco", "--out", "more", "--label-score", 0.2, "--score", 0.4, "--json")
    result = fcos("predict", new, "--model", model, *options)
    assert [len(row["detections"]) for row in result.document["results"]] == [1, 0, 0]
    assert [len(sample.boxes) for sample in read_dataset(Path("more"), split="all").samples] == [2, 0, 0]
    assert fcos("predict", new, "--model", model, *options[:3], "less", "--label-score", 0.2, "--jsonl").code == 0


@pytest.mark.parametrize("flags", ["--label coco --score", "--label coco --label-score", "--track --score"])
def test_a_score_below_that_of_an_exported_model_is_refused(fcos: Fcos, new: Path, tmp_path: Path, flags: str) -> None:
    strict = write_onnx(tmp_path / "strict.onnx", facts=replace(FACTS, score_threshold=0.3))
    source = write_clip(tmp_path / "clip.mp4", 2) if "--track" in flags else new
    result = fcos("predict", source, "--model", strict, "--out", "more", *flags.split(), 0.2)
    assert (result.code, Path("more").exists()) == (2, False)
    assert f"so {flags.split()[-1]} 0.2 is too low" in result.err


def test_a_folder_that_is_not_empty_is_exit_code_2_before_any_work(fcos: Fcos, new: Path) -> None:
    result = fcos("predict", new, "--model", "gone.onnx", "--label", "yolo", "--out", new)
    assert result.code == 2
    assert "not empty" in result.err
    assert "--merge" in result.err
    for flags in (["--viz", "--label", "yolo"], ["--merge"], ["--label", "nope"]):
        assert fcos("predict", new, "--model", "gone.onnx", *flags).code == 2


def test_merge_skips_what_is_there(fcos: Fcos, model: Path, new: Path) -> None:
    line = ("predict", new, "--model", model, "--label", "coco", "--out", "more")
    assert fcos(*line).code == 0
    before = Path("more/train.json").read_bytes()
    result = fcos(*line, "--merge")
    assert result.code == 0
    assert "already in the data set as more/images/a.png, whose labels are left alone" in result.err
    assert "more: 0 images with 0 labels added, 3 already there" in result.err
    assert Path("more/train.json").read_bytes() == before


def test_a_picture_that_cannot_be_read_is_exit_code_1_and_not_in_the_set(fcos: Fcos, model: Path, new: Path) -> None:
    (new / "aa.jpg").write_bytes(b"not an image")
    assert fcos("predict", new, "--model", model, "--label", "voc", "--out", "more").code == 1
    assert len(read_dataset(Path("more"), split="all")) == 3


def test_nothing_is_written_without_pictures(fcos: Fcos, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = fcos("predict", tmp_path / "empty", "--model", model, "--label", "yolo", "--out", "more")
    assert result.code == 3
    assert "0 images" not in result.err
    assert not Path("more").exists()


def test_frames_and_tiles(fcos: Fcos, model: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 6, size=(96, 64))
    options = ("--label", "yolo", "--out", "more", "--frames", 3, "--tile", 64, "--json")
    result = fcos("predict", clip, "--model", model, *options)
    assert result.code == 0
    dataset = read_dataset(Path("more"), split="all")
    assert [sample.image.name for sample in dataset.samples] == [f"clip-00000{n}.jpg" for n in range(3)]
    rows = json.loads(result.out)["results"]
    assert [len(sample.boxes) for sample in dataset.samples] == [len(row["detections"]) for row in rows]
    assert Path("more/review.csv").read_text().count("\n") == 4


def test_classes_and_max_detections_are_those_of_the_labels_too(fcos: Fcos, model: Path, new: Path) -> None:
    options = ("--label", "coco", "--classes", "b,c", "--max-detections", 1, "--out", "more", "--json")
    result = fcos("predict", new, "--model", model, *options)
    found = [[item["class"] for item in row["detections"]] for row in result.document["results"]]
    assert found == [["b"], [], []]  # of a, b and c in the first picture
    dataset = read_dataset(Path("more"), split="all")
    assert [[dataset.classes.names[index] for index in sample.classes] for sample in dataset.samples] == found


def test_labels_have_no_identities(fcos: Fcos, model: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 2)
    result = fcos("predict", clip, "--model", model, "--label", "coco", "--track", "--out", "more")
    assert (result.code, Path("more").exists()) == (2, False)
    assert "omit --track" in result.err
