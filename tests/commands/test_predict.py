"""fcos predict: exit codes, JSON on stdout and the files it writes."""

import csv
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from fcos_cli.model.artifact import load
from fcos_cli.runtime.open import default_weights
from tests.cli_runner import Fcos, created_files
from tests.predict.clips import write_clip


def test_json_is_one_document(fcos: Fcos, model_file: Path, image_folder: Path) -> None:
    result = fcos("predict", image_folder, "--model", model_file, "--json")
    assert result.code == 0
    document = result.document
    assert set(document) == {"schema_version", "model", "results", "failed"}
    assert (document["schema_version"], document["model"], document["failed"]) == (1, str(model_file), [])
    assert [(Path(r["source"]).name, r["width"], r["height"]) for r in document["results"]] == [
        ("a.png", 40, 30),
        ("b.jpg", 64, 64),
    ]
    table = dict(zip(load(model_file).classes.names, load(model_file).classes.ids, strict=True))
    for result in document["results"]:
        assert len(result["detections"]) > 0
        scores = [found["score"] for found in result["detections"]]
        assert scores == sorted(scores, reverse=True)
        for found in result["detections"]:
            assert set(found) == {"box", "score", "class", "category_id"}
            x1, y1, x2, y2 = found["box"]
            assert 0 <= x1 <= x2 <= result["width"]
            assert 0 <= y1 <= y2 <= result["height"]
            assert 0.06 <= found["score"] <= 1
            assert table[found["class"]] == found["category_id"]
    assert created_files() == []


def test_jsonl_has_a_line_per_image(fcos: Fcos, model_file: Path, image_folder: Path) -> None:
    result = fcos("predict", image_folder, "--model", model_file, "--jsonl", "--batch", 2)
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["schema_version"] for line in lines] == [1, 1]
    assert [Path(line["source"]).name for line in lines] == ["a.png", "b.jpg"]


def test_messages_go_to_stderr(fcos: Fcos, model_file: Path, image_folder: Path) -> None:
    result = fcos("predict", image_folder, "--model", model_file)
    assert (result.code, result.out) == (0, "")
    assert "a.png" in result.err


def test_bad_image_is_reported_and_does_not_stop_the_others(
    fcos: Fcos, model_file: Path, image_folder: Path, tmp_path: Path
) -> None:
    (image_folder / "aa.jpg").write_bytes(b"not an image")
    result = fcos("predict", image_folder, "--model", model_file, "--json", "--save", tmp_path / "found.csv")
    assert result.code == 1
    document = result.document
    assert [Path(result["source"]).name for result in document["results"]] == ["a.png", "b.jpg"]
    (failed,) = document["failed"]
    assert Path(failed["source"]).name == "aa.jpg"
    assert failed["error"]
    assert "aa.jpg" in result.err
    assert (tmp_path / "found.csv").is_file()


def test_score_threshold_filters_detections(fcos: Fcos, model_file: Path, image_folder: Path) -> None:
    counts = {}
    for score in ("0.01", "0.07", "0.9"):
        result = fcos("predict", image_folder / "a.png", "--model", model_file, "--json", "--score", score)
        found = result.document["results"][0]["detections"]
        assert all(detection["score"] >= float(score) - 1e-4 for detection in found)
        counts[score] = len(found)
    assert counts["0.01"] >= counts["0.07"] > counts["0.9"] == 0


def test_format_of_saved_files_follows_their_suffix(
    fcos: Fcos, model_file: Path, image_folder: Path, tmp_path: Path
) -> None:
    names = ("all.json", "all.jsonl", "all.csv", "all.coco.json")
    saves = [part for name in names for part in ("--save", tmp_path / name)]
    result = fcos("predict", image_folder, "--model", model_file, *saves)
    assert (result.code, result.out) == (0, "")
    whole = json.loads((tmp_path / "all.json").read_text())
    count = sum(len(result["detections"]) for result in whole["results"])
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 2
    with (tmp_path / "all.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == count
    assert len(json.loads((tmp_path / "all.coco.json").read_text())) == count


def test_suffixes_may_be_upper_case(fcos: Fcos, model_file: Path, image_folder: Path, tmp_path: Path) -> None:
    saves = [part for name in ("R.COCO.JSON", "R.JSON") for part in ("--save", tmp_path / name)]
    assert fcos("predict", image_folder, "--model", model_file, *saves).code == 0
    kinds = [type(json.loads((tmp_path / name).read_text())) for name in ("R.COCO.JSON", "R.JSON")]
    assert kinds == [list, dict]


def test_annotated_images_are_written_to_the_out_folder(fcos: Fcos, model_file: Path, image_folder: Path) -> None:
    assert fcos("predict", image_folder, "--model", model_file, "--viz").code == 0
    assert [path.name for path in created_files()] == ["predictions", "a.png", "b.jpg"]
    assert fcos("predict", image_folder / "a.png", "--model", model_file, "--viz", "--out", "drawn").code == 0
    with Image.open("drawn/a.png") as drawn:
        assert drawn.size == (320, 240)  # 40 x 30, enlarged so that there is room for tags


def test_sources_can_be_lists_and_patterns(fcos: Fcos, model_file: Path, image_folder: Path) -> None:
    (image_folder / "list.txt").write_text("b.jpg\n")
    result = fcos("predict", image_folder / "list.txt", f"{image_folder}/*.png", "--model", model_file, "--json")
    assert [Path(result["source"]).name for result in result.document["results"]] == ["b.jpg", "a.png"]


def test_each_path_on_stdin_has_its_result_before_the_next_one_comes(model_file: Path, image_folder: Path) -> None:
    command = [sys.executable, "-m", "fcos_cli", "predict", "-", "--model", str(model_file), "--jsonl"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        end = threading.Timer(60, process.kill)
        end.start()
        for name in ("a.png", "b.jpg", "a.png"):
            process.stdin.write(f"{image_folder / name}\n")
            process.stdin.flush()
            assert name in process.stdout.readline()
        process.stdin.close()
        assert process.wait() == 0
        end.cancel()


def test_missing_source_does_not_stop_the_others(fcos: Fcos, model_file: Path, image_folder: Path) -> None:
    result = fcos("predict", "gone.jpg", image_folder, "--model", model_file, "--json")
    assert result.code == 1
    assert [row["source"] for row in result.document["failed"]] == ["gone.jpg"]
    assert len(result.document["results"]) == 2


def test_video_with_tiles_and_crops(fcos: Fcos, model_file: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 3, size=(96, 64))
    options = ("--viz", "--crops", "--tile", 64, "--overlap", 16, "--batch", 2, "--frames", 2, "--jsonl")
    result = fcos("predict", clip, "--model", model_file, *options)
    assert result.code == 0
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [(row["frame"], row["time"], row["width"]) for row in rows] == [(0, 0, 96), (1, 0.04, 96)]
    assert Path("predictions/clip.mp4").is_file()
    count = sum(len(row["detections"]) for row in rows)
    assert len(list(Path("predictions/crops").glob("*/clip-00000*.jpg"))) == count > 0


@pytest.mark.parametrize("flags", ["--overlap 0.2", "--tile 16", "--tile 640 --overlap 0.9", "--frames 0"])
def test_invalid_tiles_or_frames_are_exit_code_2(fcos: Fcos, image_folder: Path, flags: str) -> None:
    assert fcos("predict", image_folder, *flags.split()).code == 2


def test_source_without_images_is_exit_code_3(fcos: Fcos, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n")
    for source in (tmp_path / "gone", tmp_path / "empty", tmp_path / "empty.txt", "*.jpg"):
        result = fcos("predict", source, "--model", model_file, "--json")  # not half a document
        assert (result.code, result.out) == (3, ""), source
        assert str(source) in result.err


def test_json_and_jsonl_cannot_be_combined(fcos: Fcos, model_file: Path, image_folder: Path) -> None:
    assert fcos("predict", image_folder, "--model", model_file, "--json", "--jsonl").code == 2


@pytest.mark.skipif(not default_weights().is_file(), reason="the package has no default weights yet")
def test_default_model_is_the_bundled_one(fcos: Fcos, image_folder: Path) -> None:
    result = fcos("predict", image_folder, "--json")
    assert result.code == 0
    assert result.document["model"] == "default"
