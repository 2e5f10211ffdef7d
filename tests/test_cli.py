"""The command line as scripts meet it: exit codes, what goes to stdout, what is written."""

import csv
import json
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from PIL import Image

from fcos_cli import __version__
from fcos_cli.cli import main
from fcos_cli.commands.options import parse_size
from fcos_cli.config import Config, to_toml
from fcos_cli.errors import UsageError
from fcos_cli.evaluate.coco import METRICS
from fcos_cli.model.artifact import load
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.open import default_weights
from tests.predict.clips import write_clip
from tests.runtime.onnx_files import FACTS, write_onnx
from tests.tiny import tiny_config
from tests.train.runs import SETTINGS

COMMANDS = {"train", "eval", "predict", "info"}


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """stdout as the one JSON document it is."""
        content: dict[str, Any] = json.loads(self.out)
        return content


class Fcos(Protocol):
    def __call__(self, *arguments: object) -> Answer: ...


@pytest.fixture
def fcos(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Fcos:
    """Runs `fcos ARGUMENTS` in an empty folder."""
    for name in [name for name in os.environ if name.startswith("FCOS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("fcos_cli.allocator.keep_freed_memory", lambda: False)
    monkeypatch.setattr("fcos_cli.train.metrics_log.find_spec", lambda _: None)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["fcos", *map(str, arguments)])
        capfd.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return Answer(code, *capfd.readouterr())

    return run


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Settings of a training of seconds."""
    path = tmp_path / "tiny.toml"
    config = Config.model_validate({**SETTINGS, "train": {**SETTINGS["train"], "batch": 6, "epochs": 1}})
    path.write_text(to_toml(config), encoding="utf-8")
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 30)), ("b.jpg", (64, 64))):
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(folder / name)
    return folder


def here() -> list[Path]:
    return sorted(Path.cwd().rglob("*"))


# ---------------------------------------------------------------- fcos itself


def test_help_names_every_command_and_nothing_else(fcos: Fcos) -> None:
    answer = fcos("--help")
    assert answer.code == 0
    assert all(command in answer.out for command in COMMANDS)
    from fcos_cli.cli import app

    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    assert names >= COMMANDS


def test_the_version_is_data(fcos: Fcos) -> None:
    assert fcos("--version") == Answer(0, f"fcos-cli {__version__}\n", "")


@pytest.mark.parametrize(
    "line",
    ["predikt x", "predict --nope x", "predict x --score 2", "predict x --batch 0", "train --epochs many", "eval x"],
)
def test_a_wrong_command_line_is_exit_code_2_and_stdout_stays_empty(fcos: Fcos, line: str) -> None:
    answer = fcos(*line.split())
    assert (answer.code, answer.out) == (2, "")
    assert answer.err


def test_an_error_is_three_short_lines_and_a_traceback_only_with_debug(fcos: Fcos) -> None:
    answer = fcos("train")
    assert answer.code == 2
    assert answer.err.splitlines()[0] == "error: no data to train on"
    assert "Traceback" not in answer.err
    with pytest.raises(UsageError):
        fcos("--debug", "train")


# ---------------------------------------------------------------- predict


def test_predict_gives_one_json_document(fcos: Fcos, model_file: Path, pictures: Path) -> None:
    answer = fcos("predict", pictures, "--model", model_file, "--json")
    assert answer.code == 0
    document = answer.document
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
    assert here() == []


def test_predict_gives_a_json_line_per_picture(fcos: Fcos, model_file: Path, pictures: Path) -> None:
    answer = fcos("predict", pictures, "--model", model_file, "--jsonl", "--batch", 2)
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert [line["schema_version"] for line in lines] == [1, 1]
    assert [Path(line["source"]).name for line in lines] == ["a.png", "b.jpg"]


def test_predict_tells_people_on_stderr_only(fcos: Fcos, model_file: Path, pictures: Path) -> None:
    answer = fcos("predict", pictures, "--model", model_file)
    assert (answer.code, answer.out) == (0, "")
    assert "a.png" in answer.err


def test_predict_stops_for_no_bad_picture_but_says_so_at_the_end(
    fcos: Fcos, model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "aa.jpg").write_bytes(b"not a picture")
    answer = fcos("predict", pictures, "--model", model_file, "--json", "--save", tmp_path / "found.csv")
    assert answer.code == 1
    document = answer.document
    assert [Path(result["source"]).name for result in document["results"]] == ["a.png", "b.jpg"]
    (failed,) = document["failed"]
    assert Path(failed["source"]).name == "aa.jpg"
    assert failed["error"]
    assert "aa.jpg" in answer.err
    assert (tmp_path / "found.csv").is_file()


def test_predict_shows_what_reaches_the_score(fcos: Fcos, model_file: Path, pictures: Path) -> None:
    counts = {}
    for score in ("0.01", "0.07", "0.9"):
        answer = fcos("predict", pictures / "a.png", "--model", model_file, "--json", "--score", score)
        found = answer.document["results"][0]["detections"]
        assert all(detection["score"] >= float(score) - 1e-4 for detection in found)
        counts[score] = len(found)
    assert counts["0.01"] >= counts["0.07"] > counts["0.9"] == 0


def test_predict_writes_files_by_their_suffix(fcos: Fcos, model_file: Path, pictures: Path, tmp_path: Path) -> None:
    names = ("all.json", "all.jsonl", "all.csv", "all.coco.json")
    saves = [part for name in names for part in ("--save", tmp_path / name)]
    answer = fcos("predict", pictures, "--model", model_file, *saves)
    assert (answer.code, answer.out) == (0, "")
    whole = json.loads((tmp_path / "all.json").read_text())
    count = sum(len(result["detections"]) for result in whole["results"])
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 2
    with (tmp_path / "all.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == count
    assert len(json.loads((tmp_path / "all.coco.json").read_text())) == count


def test_predict_draws_into_the_out_folder(fcos: Fcos, model_file: Path, pictures: Path) -> None:
    assert fcos("predict", pictures, "--model", model_file, "--viz").code == 0
    assert [path.name for path in here()] == ["predictions", "a.png", "b.jpg"]
    assert fcos("predict", pictures / "a.png", "--model", model_file, "--viz", "--out", "drawn").code == 0
    with Image.open("drawn/a.png") as drawn:
        assert drawn.size == (320, 240)  # 40 x 30, enlarged so that there is room for tags


def test_predict_takes_lists_and_patterns(fcos: Fcos, model_file: Path, pictures: Path) -> None:
    (pictures / "list.txt").write_text("b.jpg\n")
    answer = fcos("predict", pictures / "list.txt", f"{pictures}/*.png", "--model", model_file, "--json")
    assert [Path(result["source"]).name for result in answer.document["results"]] == ["b.jpg", "a.png"]


def test_predict_goes_on_after_a_source_that_is_not_there(fcos: Fcos, model_file: Path, pictures: Path) -> None:
    answer = fcos("predict", "gone.jpg", pictures, "--model", model_file, "--json")
    assert answer.code == 1
    assert [row["source"] for row in answer.document["failed"]] == ["gone.jpg"]
    assert len(answer.document["results"]) == 2


def test_predict_looks_at_videos_in_tiles_and_cuts_out_what_it_finds(
    fcos: Fcos, model_file: Path, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 3, size=(96, 64))
    options = ("--viz", "--crops", "--tile", 64, "--overlap", 16, "--batch", 2, "--frames", 2, "--jsonl")
    answer = fcos("predict", clip, "--model", model_file, *options)
    assert answer.code == 0
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert [(row["frame"], row["time"], row["width"]) for row in rows] == [(0, 0, 96), (1, 0.04, 96)]
    assert Path("predictions/clip.mp4").is_file()
    count = sum(len(row["detections"]) for row in rows)
    assert len(list(Path("predictions/crops").glob("*/clip-00000*.jpg"))) == count > 0


@pytest.mark.parametrize("flags", ["--overlap 0.2", "--tile 16", "--tile 640 --overlap 0.9", "--frames 0"])
def test_predict_with_tiles_that_cannot_be_is_exit_code_2(fcos: Fcos, pictures: Path, flags: str) -> None:
    assert fcos("predict", pictures, *flags.split()).code == 2


def test_predict_without_a_picture_is_exit_code_3(fcos: Fcos, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n")
    for source in (tmp_path / "gone", tmp_path / "empty", tmp_path / "empty.txt", "*.jpg"):
        answer = fcos("predict", source, "--model", model_file)
        assert (answer.code, answer.out) == (3, ""), source
        assert str(source) in answer.err


def test_json_and_jsonl_cannot_both_have_stdout(fcos: Fcos, model_file: Path, pictures: Path) -> None:
    assert fcos("predict", pictures, "--model", model_file, "--json", "--jsonl").code == 2


@pytest.mark.parametrize("kind", ["missing", "broken", "other suffix", "empty folder"])
@pytest.mark.parametrize("command", ["predict", "eval", "info"])
def test_a_model_that_cannot_be_used_is_exit_code_4(
    fcos: Fcos, shapes: Path, pictures: Path, tmp_path: Path, command: str, kind: str
) -> None:
    path = tmp_path / {"missing": "gone.safetensors", "other suffix": "m.pth", "empty folder": "d"}.get(
        kind, "m.safetensors"
    )
    if kind == "empty folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"no weights in here")
    lines = {"predict": ("predict", pictures, "--model", path), "eval": ("eval", path, shapes), "info": ("info", path)}
    answer = fcos(*lines[command])
    assert (answer.code, answer.out) == (4, "")
    assert str(path) in answer.err


def test_a_device_that_is_not_there_is_exit_code_2(fcos: Fcos, model_file: Path, pictures: Path) -> None:
    answer = fcos("predict", pictures, "--model", model_file, "--device", "warp")
    assert answer.code == 2
    assert "--device cpu" in answer.err


@pytest.mark.skipif(not default_weights().is_file(), reason="the package has no default weights yet")
def test_predict_without_a_model_uses_the_one_that_ships(fcos: Fcos, pictures: Path) -> None:
    answer = fcos("predict", pictures, "--json")
    assert answer.code == 0
    assert answer.document["model"] == "default"


# ---------------------------------------------------------------- eval


@pytest.mark.parametrize("evaluator", ["hotcoco", "pycocotools"])
def test_eval_gives_one_json_document(fcos: Fcos, model_file: Path, shapes: Path, evaluator: str) -> None:
    answer = fcos("eval", model_file, shapes, "--json", "--evaluator", evaluator)
    assert answer.code == 0
    document = answer.document
    assert document["schema_version"] == 1
    assert (document["model"], document["data"], document["images"]) == (str(model_file), str(shapes), 4)
    assert list(document["metrics"]) == list(METRICS)
    assert [(row["name"], row["category_id"]) for row in document["per_class"]] == [
        ("circle", 1),
        ("square", 2),
        ("triangle", 3),
    ]
    keys = {"name", "category_id", "AP", "AP50", "best_threshold", "truths"}
    assert all(keys <= set(row) for row in document["per_class"])
    assert here() == []


def test_eval_shows_people_tables_on_stderr(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    answer = fcos("eval", model_file, shapes)
    assert (answer.code, answer.out) == (0, "")
    assert "AP50" in answer.err
    assert "triangle" in answer.err


def test_eval_takes_the_split_and_the_number_it_is_told(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    def images(*flags: object) -> int:
        count: int = fcos("eval", model_file, shapes, "--json", *flags).document["images"]
        return count

    assert images("--split", "train", "--limit", 5) == 5
    assert images("--split", "all") == 16


def test_eval_without_usable_data_is_exit_code_3(fcos: Fcos, model_file: Path, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments in ((tmp_path / "gone",), (tmp_path / "empty",), (shapes, "--split", "nope")):
        answer = fcos("eval", model_file, *arguments, "--json")
        assert (answer.code, answer.out) == (3, "")


def test_eval_with_an_unknown_evaluator_is_exit_code_2(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    assert fcos("eval", model_file, shapes, "--evaluator", "nope").code == 2


def test_eval_writes_a_report_beside_its_document(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    answer = fcos("eval", model_file, shapes, "--report", "out/report.html", "--json")
    assert (answer.code, answer.document["images"]) == (0, 4)
    assert [path.name for path in here()] == ["out", "report.html"]
    assert Path("out/report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert fcos("eval", model_file, shapes, "--report", "out").code == 2


def test_eval_of_two_models_gives_both_and_their_difference(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    document = fcos("eval", model_file, model_file, shapes, "--report", "r.html", "--json").document
    assert document.keys() == {"schema_version", "models", "data", "split", "comparison"}
    alone = fcos("eval", model_file, shapes, "--json").document
    assert [model["metrics"] for model in document["models"]] == [alone["metrics"]] * 2
    comparison = document["comparison"]
    assert list(comparison["metrics"]) == list(METRICS)
    assert comparison["metrics"]["AP"]["difference"] == comparison["metrics"]["AP"]["high"] == 0
    assert [row["name"] for row in comparison["per_class"]] == ["circle", "square", "triangle"]
    assert 'id="comparison"' in Path("r.html").read_text(encoding="utf-8")
    people = fcos("eval", model_file, model_file, shapes)
    assert (people.code, people.out) == (0, "")
    assert "B - A" in people.err


def test_eval_takes_one_or_two_models(fcos: Fcos, model_file: Path, shapes: Path) -> None:
    for models in ((), (model_file,) * 3):
        answer = fcos("eval", *models, shapes)
        assert (answer.code, answer.out) == (2, "")
        assert "MODEL [MODEL] DATA" in answer.err


# ---------------------------------------------------------------- exported models


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A stand-in for an exported model, of the classes of the drawn data set."""
    names = ClassTable(("circle", "square", "triangle"), (1, 2, 3))
    return write_onnx(tmp_path / "m.onnx", facts=replace(FACTS, classes=names))


def test_predict_and_eval_take_exported_models_by_any_backend(
    fcos: Fcos, exported: Path, shapes: Path, pictures: Path
) -> None:
    for command in (("predict", pictures, "--model", exported), ("eval", exported, shapes)):
        documents = [fcos(*command, "--json").document]
        if find_spec("openvino"):
            documents += [fcos(*command, "--json", "--backend", "openvino").document]
        assert documents[0]["model"] == str(exported)
        assert documents.count(documents[0]) == len(documents)


@pytest.mark.parametrize("flags", [("--backend", "pytorch"), ("--precision", "fp16"), ("--device", "cuda:7")])
def test_what_a_model_cannot_is_exit_code_2(
    fcos: Fcos, exported: Path, shapes: Path, pictures: Path, flags: tuple[str, str]
) -> None:
    for command in (("predict", pictures, "--model", exported), ("eval", exported, shapes)):
        answer = fcos(*command, *flags)
        assert (answer.code, answer.out) == (2, "")
        assert flags[1] in answer.err


# ---------------------------------------------------------------- info


def test_info_describes_a_file_for_programs_and_for_people(fcos: Fcos, model_file: Path) -> None:
    document = fcos("info", model_file, "--json").document
    assert document["schema_version"] == 1
    assert document["file"] == str(model_file)
    assert [row["name"] for row in document["classes"]] == ["circle", "square", "triangle"]
    assert document["geometry"]["size"] == [64, 64]
    assert document["parameters"] == sum(weight.numel() for weight in load(model_file).weights.values())
    assert document["conventions"]["score"] == "sqrt"
    answer = fcos("info", model_file)
    assert (answer.code, answer.out) == (0, "")
    assert "triangle" in answer.err
    assert "model.backbone" in answer.err


def test_info_describes_an_exported_model(fcos: Fcos, exported: Path) -> None:
    document = fcos("info", exported, "--json").document
    assert (document["format"], document["precision"], document["limits"]["score"]) == ("onnx", "fp32", 0.05)
    assert "triangle" in fcos("info", exported).err


# ---------------------------------------------------------------- train


def test_a_training_from_data_to_predictions(
    fcos: Fcos, shapes: Path, settings: Path, pictures: Path, tmp_path: Path
) -> None:
    answer = fcos("train", shapes, "--config", settings, "--name", "first", "--json")
    assert answer.code == 0
    document = answer.document
    assert document["schema_version"] == 1
    assert document["run"] == "runs/train/first"
    assert set(document["best"]) == {"AP", "epoch"}
    written = {path.name for path in Path("runs/train/first").iterdir()}
    assert written >= {"config.toml", "best.safetensors", "state.pt", "report.html"}
    assert fcos("eval", "runs/train/first", shapes, "--json").document["images"] == 4
    assert fcos("predict", pictures, "--model", "runs/train/first", "--json").code == 0

    again = fcos("train", shapes, "--config", settings, "--name", "first")
    assert again.code == 2
    assert "--resume runs/train/first" in again.err


def test_a_run_is_named_after_its_data_and_numbered(fcos: Fcos, shapes: Path, settings: Path) -> None:
    for name in ("shapes", "shapes-2"):
        assert fcos("train", shapes, "--config", settings, "--json").document["run"] == f"runs/train/{name}"


def test_flags_win_over_set_over_environment_over_file(
    fcos: Fcos, shapes: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FCOS_TRAIN__LR", "0.5")
    monkeypatch.setenv("FCOS_TRAIN__SEED", "5")
    monkeypatch.chdir(settings.parent)  # a long path would be shortened in the table
    line = ("--set", "train.seed=6", "--set", "train.ema=0.5", "--epochs", 7, "--size", "64x96")
    answer = fcos("train", shapes, "--config", settings.name, *line, "--dry-run")
    assert (answer.code, answer.out) == (0, "")
    rows = {line.split()[0]: line for line in answer.err.splitlines() if line.strip().startswith(("train.", "data."))}
    for key, value, origin in (
        ("train.lr", "0.5", "FCOS_TRAIN__LR"),
        ("train.seed", "6", "--set train.seed"),
        ("train.ema", "0.5", "--set"),
        ("train.epochs", "7", "flag"),
        ("data.size", "[64, 96]", "flag"),
        ("train.batch", "6", "tiny.toml"),
    ):
        assert value in rows[key], key
        assert origin in rows[key], key


def test_a_dry_run_writes_nothing(fcos: Fcos, shapes: Path, settings: Path) -> None:
    answer = fcos("train", shapes, "--config", settings, "--dry-run")
    assert answer.code == 0
    assert "12 pictures" in answer.err
    assert here() == []


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--size", "big"), "big"),
        (("--size", "0"), "--size"),
        (("--size", "320x320x3"), "--size"),
        (("--size", "²"), "--size"),
        (("--set", "data.size=[0, 320]"), "data.size"),
        (("--set", "data.size=[-64, 64]"), "data.size"),
        (("--set", "data.size=[96, 64]", "--set", "data.resize=shortest"), "data"),
        (("--set", "augment.scale=[0, 1]"), "augment.scale"),
        (("--set", "augment.scale=[1.2, 0.8]"), "augment.scale"),
        (("--set", "train.lrr=1"), "train.lr"),
        (("--amp", "int4"), "train.amp"),
        (("--epochs", "0"), "train.epochs"),
        (("--backbone", "resnet5o"), "resnet50"),
        (("--config", "gone.toml"), "gone.toml"),
        (("--device", "warp"), "warp"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_setting_that_cannot_be_is_exit_code_2_and_writes_nothing(
    fcos: Fcos, shapes: Path, settings: Path, flags: tuple[str, ...], told: str
) -> None:
    config = () if "--config" in flags else ("--config", settings)
    answer = fcos("train", shapes, *config, *flags)
    assert (answer.code, answer.out) == (2, "")
    assert told in answer.err
    assert here() == []


def test_train_without_usable_data_is_exit_code_3(fcos: Fcos, settings: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for data in (tmp_path / "gone", tmp_path / "empty", settings):
        answer = fcos("train", data, "--config", settings)
        assert answer.code == 3
        assert str(data) in answer.err
    assert here() == []


def test_initial_weights_that_are_not_there_are_exit_code_4(fcos: Fcos, shapes: Path, settings: Path) -> None:
    answer = fcos("train", shapes, "--config", settings, "--init", "gone.safetensors")
    assert answer.code == 4
    assert "gone.safetensors" in answer.err
    assert here() == []


def test_a_stopped_training_is_exit_code_143_and_can_be_resumed(
    fcos: Fcos, shapes: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(_self: object, row: dict[str, Any]) -> None:
        if row["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("fcos_cli.train.progress.TerminalReporter.step", strike)
        answer = fcos("train", shapes, "--config", settings, "--out", "run")
    assert answer.code == 143
    assert "fcos train --resume run" in answer.err

    refused = fcos("train", "--resume", "run", "--epochs", 5)
    assert refused.code == 2
    assert "train.epochs" in refused.err
    answer = fcos("train", "--resume", "run", "--workers", 0, "--json")
    assert answer.code == 0
    assert answer.document["run"] == "run"


def test_sigterm_to_the_whole_process_group_saves_the_state_too(
    fcos: Fcos, shapes: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(_self: object, row: dict[str, Any]) -> None:
        if row["step"] == 1:
            loaders = multiprocessing.active_children()
            assert loaders
            for process in loaders:
                os.kill(int(process.pid or 0), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("fcos_cli.train.progress.TerminalReporter.step", strike)
    answer = fcos("train", shapes, "--config", settings, "--out", "run", "--workers", 1)
    assert answer.code == 143
    assert Path("run/state.pt").is_file()


def test_there_is_nothing_to_resume_in_a_folder_without_a_run(fcos: Fcos) -> None:
    answer = fcos("train", "--resume", "nowhere")
    assert answer.code == 2
    assert "nowhere" in answer.err


@pytest.mark.parametrize(("text", "size"), [("320", (320, 320)), ("320x416", (320, 416)), ("64X32", (64, 32))])
def test_a_size_is_a_side_or_height_by_width(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


def test_the_tiny_network_of_these_tests_is_what_its_settings_say(settings: Path) -> None:
    from fcos_cli.config import resolve

    assert resolve(file=settings, environ={})[0].model == tiny_config()
