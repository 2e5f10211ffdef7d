"""`fcos predict --explain` and `--targets`: output files, selected images, and errors."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcos_cli.cli import main
from fcos_cli.model.artifact import save
from fcos_cli.model.config import FINE_STRIDES, REALTIME_STRIDES, STRIDES
from tests.explain.test_page import facts
from tests.model.test_artifact import change_metadata
from tests.tiny import tiny_artifact, tiny_model

FIGURES = {"classes.png", "detection.png", "centerness.png", "model.png"}


@pytest.fixture
def fcos(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run `fcos ARGUMENTS` in an empty folder. Returns exit code, stdout, stderr."""
    monkeypatch.setattr("fcos_cli.allocator.keep_freed_memory", lambda: False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fcos", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capfd.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


def picture(path: Path, *, width: int = 32, height: int = 24) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_explain_writes_a_page_and_four_figures_beside_the_predictions(fcos, tmp_path, model_file):
    picture(tmp_path / "a.png")
    (tmp_path / "sub").mkdir()
    picture(tmp_path / "sub" / "a.png", width=12)
    code, out, err = fcos("predict", "a.png", "sub/a.png", "--explain", "--model", model_file, "--out", "o", "--json")
    assert code == 0, err
    assert files(tmp_path / "o") == {f"{name}.{kind}" for name in ("a", "a-2") for kind in (*FIGURES, "explain.html")}
    document = facts((tmp_path / "o" / "a.explain.html").read_text(encoding="utf-8"))
    predicted = json.loads(out)["results"][0]["detections"]
    shown = [row for row in document["detections"] if row["score"] >= 0.06]
    assert [round(row["score"], 4) for row in shown] == [row["score"] for row in predicted] != []
    halved = [np.divide(row["box"], 2) for row in shown]  # of the input's 64 px
    np.testing.assert_allclose(halved, [row["box"] for row in predicted], atol=0.05)
    assert "a.png: explained → o/a.explain.html and a.classes.png, a.detection.png," in err
    assert "o/a-2.explain.html and a-2.classes.png," in err


def test_an_unreadable_image_is_reported_once_and_the_others_are_explained(fcos, tmp_path, model_file):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    picture(tmp_path / "good.png")
    code, _, err = fcos("predict", "bad.png", "good.png", "--explain", "--model", model_file, "--out", "o")
    assert code == 1
    assert err.count("error:") == 1
    assert "good.explain.html" in files(tmp_path / "o")


def test_an_image_from_stdin_is_predicted_and_explained(fcos, tmp_path, model_file, monkeypatch):
    content = picture(tmp_path / "a.png").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
    code, _, err = fcos("predict", "-", "--explain", "--model", model_file, "--out", "o")
    assert code == 0, err
    assert "stdin.explain.html" in files(tmp_path / "o")


def test_targets_alone_explain_the_first_images_of_the_data_set_without_predicting(
    fcos, tmp_path, model_file, shapes, monkeypatch
):
    code, out, err = fcos("predict", "--targets", shapes, "--model", model_file, "--out", "o")
    assert (code, out) == (0, "")
    names = {path.stem for path in (tmp_path / "o").glob("*.png")}
    assert len(names) == 4  # the val split
    assert err.count("positive points") == 4
    assert files(tmp_path / "o") == {f"{name}.{kind}" for name in names for kind in ("png", "html")}

    monkeypatch.setattr("fcos_cli.explain.run.MAX_SAMPLES", 2)
    code, _, err = fcos("predict", "--targets", shapes / "train.json", "--model", model_file, "--out", "few")
    assert code == 0
    assert len(list((tmp_path / "few").glob("*.html"))) == 2
    assert "the first 2 of 12 images" in err


@pytest.mark.parametrize("kind", ["strides from 4", "three levels", "file without strides"])
def test_targets_follow_the_strides_of_the_model(fcos, tmp_path, shapes, kind):
    model = tiny_model(strides={"strides from 4": FINE_STRIDES, "three levels": REALTIME_STRIDES}.get(kind, STRIDES))
    save(tmp_path / "m.safetensors", tiny_artifact(weights=model.state_dict(), config=model.config))
    if kind == "file without strides":
        older = model.config.model_dump(mode="json", exclude={"conventions", "strides"})
        change_metadata(tmp_path / "m.safetensors", model=json.dumps(older))
    image = sorted((shapes / "images").glob("*.jpg"))[0]
    code, _, err = fcos("predict", image, "--targets", shapes, "--model", "m.safetensors", "--out", "o")
    assert code == 0, err
    document = facts((tmp_path / "o" / f"{image.stem}.targets.html").read_text(encoding="utf-8"))
    assert [level["stride"] for level in document["levels"]] == list(model.config.strides)


def test_targets_of_given_images_are_found_in_any_split(fcos, tmp_path, model_file, shapes):
    image = sorted((shapes / "images").glob("*.jpg"))[0]
    other = picture(tmp_path / "other.png")
    code, _, err = fcos("predict", image, other, "--targets", shapes, "--model", model_file, "--out", "o")
    assert code == 0
    assert files(tmp_path / "o") == {f"{image.stem}.targets.html", f"{image.stem}.targets.png"}
    assert "other.png is not in" in err
    truth = json.loads((shapes / "train.json").read_text())
    number = next(row["id"] for row in truth["images"] if row["file_name"].endswith(image.name))
    boxes = [row for row in truth["annotations"] if row["image_id"] == number]
    document = facts((tmp_path / "o" / f"{image.stem}.targets.html").read_text(encoding="utf-8"))
    assert len(document["boxes"]) == len(boxes)


def test_explain_and_targets_together_write_both(fcos, tmp_path, model_file, shapes):
    image = sorted((shapes / "images").glob("*.jpg"))[0]
    code, _, _ = fcos("predict", image, "--explain", "--targets", shapes, "--model", model_file, "--out", "o")
    assert code == 0
    assert {f"{image.stem}.explain.html", f"{image.stem}.targets.html"} <= files(tmp_path / "o")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a.png", "--explain", "--model", "m.onnx"], 2, "requires a .safetensors file"),
        (["a.png", "--explain", "--backend", "onnxruntime"], 2, "omit --backend"),
        (["a.png", "--explain", "--tile", "64"], 2, "cannot be combined with --tile"),
        (["--explain"], 2, "no images given"),
        (["a.png", "--explain", "--precision", "bf16"], 2, "computes in fp32"),
        (["--targets", "x", "--json"], 2, "predicts nothing"),
        (["--targets", "x", "--save", "r.json"], 2, "predicts nothing"),
        (["--targets", "x", "--viz"], 2, "predicts nothing"),
        (["--targets", "x", "--score", "0"], 2, "predicts nothing"),
        (["--targets", "x", "--backend", "pytorch"], 2, "predicts nothing"),
        (["--targets", "x", "--precision", "bf16"], 2, "predicts nothing"),
        (["--targets", "x", "--every", "2"], 2, "predicts nothing"),
        (["a.png", "--targets", "nowhere"], 3, "does not exist"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_a_remedy(fcos, tmp_path, arguments, code, words):
    picture(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "m.onnx")
    found, out, err = fcos("predict", *arguments)
    assert (found, out) == (code, "")
    assert words in err


def test_targets_leave_out_images_that_cannot_be_read(fcos, tmp_path, shapes, model_file):
    data = shutil.copytree(shapes, tmp_path / "shapes")
    names = [Path(row["file_name"]).stem for row in json.loads((data / "val.json").read_text())["images"]]
    bad = next(data.rglob(f"{names[0]}.jpg"))
    bad.write_bytes(bad.read_bytes()[:200])
    code, _, err = fcos("predict", "--targets", data, "--model", model_file, "--out", "o")
    assert (code, err.count("error:"), err.count("positive points")) == (1, 1, 3)
    assert bad.name in err
    good = next(data.rglob(f"{names[1]}.jpg"))
    code, _, err = fcos("predict", bad, good, "--targets", data, "--model", model_file, "--out", "p")
    assert (code, err.count("error:"), err.count("positive points")) == (1, 1, 1)


def test_a_score_below_the_candidate_threshold_is_explained_as_it_is_predicted(fcos, tmp_path):
    artifact = tiny_artifact()
    config = artifact.config.model_copy(update={"score_threshold": 0.5})  # all scores are near 0.07
    save(tmp_path / "m.safetensors", tiny_artifact(config=config))
    picture(tmp_path / "a.png")
    flags = ("--explain", "--model", "m.safetensors", "--json")
    code, out, err = fcos("predict", "a.png", *flags, "--score", 0.01, "--out", "low")
    assert code == 0, err
    document = facts((tmp_path / "low" / "a.explain.html").read_text(encoding="utf-8"))
    assert len(document["detections"]) == len(json.loads(out)["results"][0]["detections"]) > 0
    assert document["lowest"] == 0.01
    fcos("predict", "a.png", *flags, "--score", 0.9, "--out", "high")
    assert facts((tmp_path / "high" / "a.explain.html").read_text(encoding="utf-8"))["lowest"] == 0.5


def test_the_figures_show_what_is_predicted(fcos, tmp_path, model_file):
    picture(tmp_path / "a.png")
    for flags in (("--out", "own"), ("--out", "none", "--score", 0.9)):
        code, _, err = fcos("predict", "a.png", "--explain", "--model", model_file, *flags)
        assert code == 0, err
    pictures = [(tmp_path / folder / "a.model.png").read_bytes() for folder in ("own", "none")]
    assert pictures[0] != pictures[1]


def test_images_that_are_not_in_the_data_set_are_an_error(fcos, tmp_path, shapes, model_file):
    picture(tmp_path / "a.png")
    code, _, err = fcos("predict", "a.png", "--targets", shapes, "--model", model_file)
    assert code == 3
    assert "has none of these images" in err
