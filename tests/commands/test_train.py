"""fcos train: exit codes, settings, runs and resuming."""

import json
import multiprocessing
import os
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fcos_cli.data.demo_shapes import write_shapes
from tests.cli_runner import Fcos, created_files
from tests.tiny import tiny_config


def test_training_evaluation_and_prediction(
    fcos: Fcos, shapes: Path, settings: Path, image_folder: Path, tmp_path: Path
) -> None:
    result = fcos("train", shapes, "--config", settings, "--name", "first", "--json")
    assert result.code == 0
    document = result.document
    assert document["schema_version"] == 1
    assert document["run"] == "runs/train/first"
    assert set(document["best"]) == {"AP", "epoch"}
    written = {path.name for path in Path("runs/train/first").iterdir()}
    assert written >= {"config.toml", "best.safetensors", "state.pt", "report.html"}
    assert fcos("eval", "runs/train/first", shapes, "--json").document["images"] == 4
    assert fcos("predict", image_folder, "--model", "runs/train/first", "--json").code == 0

    again = fcos("train", shapes, "--config", settings, "--name", "first")
    assert again.code == 2
    assert "--resume runs/train/first" in again.err
    Path("runs/train/first").rename("runs/train/my first")
    again = fcos("train", shapes, "--config", settings, "--name", "my first")
    assert "--resume 'runs/train/my first'," in again.err


def test_data_without_a_val_split_is_divided_in_the_same_way_by_eval(
    fcos: Fcos, shapes: Path, settings: Path, tmp_path: Path
) -> None:
    shutil.copytree(shapes, tmp_path / "undivided")
    (tmp_path / "undivided" / "val.json").unlink()
    flags = ("--set", "data.split_seed=3", "--set", "data.val_fraction=0.25")
    result = fcos("train", tmp_path / "undivided", "--config", settings, "--out", "run", *flags, "--json")
    assert result.code == 0
    measured = fcos("eval", "run", tmp_path / "undivided", "--json")
    assert "25 % of 12 images held out, seed 3" in measured.err
    assert measured.document["metrics"]["AP"] == pytest.approx(result.document["best"]["AP"], abs=1e-4)


def test_twenty_images_are_trained_on_with_a_warning_and_the_default_threshold(
    fcos: Fcos, settings: Path, tmp_path: Path
) -> None:
    data = write_shapes(tmp_path / "data", train=20, val=1, size=64) / "train.json"
    result = fcos("train", data, "--config", settings, "--set", "train.val_every=2", "--epochs", 3, "--out", "run")
    assert result.code == 0
    assert "18 images" in result.err
    assert "val: small-val: the val split is small " in result.err
    assert "--set data.val_fraction=0.3" in result.err
    facts = fcos("info", "run/best.safetensors", "--json").document
    assert (facts["threshold"], facts["class_thresholds"]) == (0.3, None)
    assert fcos("predict", data.parent / "images", "--model", "run", "--json").code == 0
    assert fcos("train", "--resume", "run", "--epochs", 4).code == 0


@pytest.mark.slow
def test_a_run_ends_with_an_export_that_needs_no_torch(
    fcos: Fcos, shapes: Path, settings: Path, image_folder: Path
) -> None:
    result = fcos("train", shapes, "--config", settings, "--out", "run", "--export", "--json")
    assert result.code == 0
    assert result.document["onnx"] == "run/best.onnx"
    assert "run/best.onnx: verified against PyTorch" in result.err
    document = fcos("info", "run/best.onnx", "--json").document
    assert document["verified"]
    assert document["provenance"]["export"]["weights"] == "best.safetensors"
    assert fcos("predict", image_folder, "--model", "run/best.onnx").code == 0

    again = fcos("train", "--resume", "run", "--no-export", "--json")
    assert (again.code, again.document["onnx"]) == (0, None)


def test_a_run_on_tiles_is_known_by_its_model(fcos: Fcos, shapes: Path, settings: Path, image_folder: Path) -> None:
    result = fcos("train", shapes, "--config", settings, "--tile", 40, "--out", "run")
    assert result.code == 0
    assert "tiles of 40 px that overlap by 8 px" in result.err
    assert "tile = 40" in Path("run/config.toml").read_text(encoding="utf-8")
    assert "64 × 64, letterbox, of the image and of tiles of 40 px" in Path("run/report.html").read_text("utf-8")
    assert fcos("info", "run", "--json").document["provenance"]["tile"] == 40
    assert "provenance.tile" in fcos("info", "run").err
    hint = "run was trained on tiles of 40 px: add --tile 40"
    for line in (("predict", image_folder, "--model", "run"), ("eval", "run", shapes)):
        assert fcos(*line).err.count(hint) == 1
        assert hint not in fcos(*line, "--tile", 48).err
    refused = fcos("train", "--resume", "run", "--tile", 48)
    assert refused.code == 2
    assert "data.tile" in refused.err
    assert fcos("train", "--resume", "run", "--epochs", 2).code == 0


def test_reasons_are_said_and_stored_and_survive_a_resumed_run(fcos: Fcos, shapes: Path, settings: Path) -> None:
    result = fcos("train", shapes, "--config", settings, "--set", "model.ranges=auto", "--lr", "0.003", "--out", "run")
    reason = "4 strides, for an input of 64 × 64 px"
    assert f"model.ranges = [32.0, 64.0, 128.0, 256.0] ({reason})" in result.err
    stored = json.loads(Path("run/origins.json").read_text(encoding="utf-8"))
    assert stored["model.ranges"] == f"auto: {reason}"
    assert stored["train.lr"] == "flag"
    Path("run/report.html").unlink()
    for flags in (("--epochs", 2), ()):
        assert fcos("train", "--resume", "run", *flags).code == 0
        again = json.loads(Path("run/origins.json").read_text(encoding="utf-8"))
        assert again == {**stored, "train.epochs": "--resume"}
    assert reason in Path("run/report.html").read_text(encoding="utf-8")


def test_run_is_named_after_its_data_and_numbered(fcos: Fcos, shapes: Path, settings: Path) -> None:
    for name in ("shapes", "shapes-2"):
        assert fcos("train", shapes, "--config", settings, "--json").document["run"] == f"runs/train/{name}"


def test_precedence_is_flag_set_environment_file(
    fcos: Fcos, shapes: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FCOS_TRAIN__LR", "0.5")
    monkeypatch.setenv("FCOS_TRAIN__SEED", "5")
    monkeypatch.chdir(settings.parent)  # a long path would be shortened in the table
    line = ("--set", "train.seed=6", "--set", "train.ema=0.5", "--epochs", 7, "--size", "64x96")
    result = fcos("train", shapes, "--config", settings.name, *line, "--dry-run")
    assert (result.code, result.out) == (0, "")
    rows = {line.split()[0]: line for line in result.err.splitlines() if line.strip().startswith(("train.", "data."))}
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


def test_named_network_is_a_layer_below_the_file(
    fcos: Fcos, shapes: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(settings.parent)
    Path("own.toml").write_text('[model]\nbackbone = "test_efficientnet"\n')
    line = ("--model", "nano", "--config", "own.toml", "--size", 64, "--batch", 4, "--dry-run")
    result = fcos("train", shapes, *line)
    assert result.code == 0
    rows = {line.split()[0]: line for line in result.err.splitlines() if line.strip().startswith(("model.", "data."))}
    for key, value, origin in (
        ("model.tower", "separable", "--model nano"),
        ("model.channels", "64", "--model nano"),
        ("model.backbone", "test_efficientnet", "own.toml"),
        ("data.size", "[64, 64]", "flag"),
    ):
        assert value in rows[key], key
        assert origin in rows[key], key


def test_dry_run_writes_nothing(fcos: Fcos, shapes: Path, settings: Path) -> None:
    result = fcos("train", shapes, "--config", settings, "--dry-run")
    assert result.code == 0
    assert "12 images" in result.err
    assert created_files() == []


def test_a_dry_run_of_several_processes_says_that_one_was_timed(
    fcos: Fcos, shapes: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("train", shapes, "--config", settings, "--dry-run")
    assert "in one process" not in fcos(*line).err
    facts = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}
    for name, value in facts.items():
        monkeypatch.setenv(name, value)
    assert " in one process; 2 of them share the steps\n" in fcos(*line).err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_dry_run_and_its_loaders(
    fcos: Fcos, shapes: Path, settings: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    loaders: list[Any] = []

    def strike(*_: object) -> None:
        loaders.extend(multiprocessing.active_children())
        os.kill(os.getpid(), number)

    monkeypatch.setattr("fcos_cli.train.speed.estimate.optimizer_step", strike)
    result = fcos("train", shapes, "--config", settings, "--workers", 1, "--dry-run")
    assert (result.code, result.out) == (code, "")
    assert "--resume" not in result.err
    assert len(loaders) == 1
    assert not loaders[0].is_alive()
    assert created_files() == []


def test_a_dry_run_as_json_has_every_setting_and_where_it_comes_from(fcos: Fcos, shapes: Path, settings: Path) -> None:
    document = json.loads(fcos("train", shapes, "--config", settings, "--batch", 3, "--dry-run", "--json").out)
    assert document["settings"]["train.batch"] == {"value": 3, "from": "flag"}
    assert document["settings"]["train.seed"] == {"value": 0, "from": str(settings)}


def test_a_dry_run_says_everything_before_it_fails_for_an_error_in_the_data(
    fcos: Fcos, shapes: Path, settings: Path
) -> None:
    shutil.copytree(shapes, "data")
    next(Path("data/images").glob("train*")).unlink()
    result = fcos("train", "data", "--config", settings, "--dry-run", "--json")
    assert result.code == 3
    assert "missing-image" in result.err
    assert "on this machine" in result.err
    assert "train.batch" in json.loads(result.out)["settings"]


@pytest.mark.parametrize(
    ("flags", "message"),
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
        (("--tile", "16"), "--tile"),
        (("--set", "data.tile=31"), "31"),
        (("--amp", "int4"), "train.amp"),
        (("--epochs", "0"), "train.epochs"),
        (("--backbone", "resnet5o"), "resnet50"),
        (("--config", "gone.toml"), "gone.toml"),
        (("--device", "warp"), "warp"),
        (("--model", "tiny"), "nano, small, medium"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_invalid_setting_is_exit_code_2_and_writes_nothing(
    fcos: Fcos, shapes: Path, settings: Path, flags: tuple[str, ...], message: str
) -> None:
    config = () if "--config" in flags else ("--config", settings)
    result = fcos("train", shapes, *config, *flags)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert created_files() == []


def test_a_run_that_cannot_start_leaves_no_events(
    fcos: Fcos, shapes: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    monkeypatch.setattr("fcos_cli.train.tracking.trackers.find_spec", find_spec)
    line = ("train", shapes, "--config", settings, "--set", "train.tracker=tensorboard")
    assert fcos(*line, "--device", "warp").code == 2
    assert created_files() == []
    assert fcos(*line, "--out", "run").code == 0
    assert fcos("train", "--resume", "run", "--epochs", 2).code == 0
    assert len(list(Path("run").glob("events.*"))) == 2


def test_unusable_data_is_exit_code_3(fcos: Fcos, settings: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for data in (tmp_path / "gone", tmp_path / "empty", settings):
        result = fcos("train", data, "--config", settings)
        assert result.code == 3
        assert str(data) in result.err
    assert created_files() == []


def test_missing_initial_weights_are_exit_code_4(fcos: Fcos, shapes: Path, settings: Path) -> None:
    result = fcos("train", shapes, "--config", settings, "--init", "gone.safetensors")
    assert result.code == 4
    assert "gone.safetensors" in result.err
    assert created_files() == []


def test_sigterm_is_exit_code_143_and_the_run_can_be_resumed(
    fcos: Fcos, shapes: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(_self: object, row: dict[str, Any]) -> None:
        if row["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("fcos_cli.train.tracking.terminal.TerminalReporter.step", strike)
        result = fcos("train", shapes, "--config", settings, "--out", "run")
    assert result.code == 143
    assert "fcos train --resume run" in result.err

    refused = fcos("train", "--resume", "run", "--lr", 0.5, "--model", "nano")
    assert refused.code == 2
    assert "train.lr" in refused.err
    assert "--model" in refused.err
    result = fcos("train", "--resume", "run", "--workers", 0, "--json")
    assert result.code == 0
    assert result.document["run"] == "run"


def test_sigterm_to_the_process_group_saves_the_state(
    fcos: Fcos, shapes: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(_self: object, row: dict[str, Any]) -> None:
        if row["step"] == 1:
            loaders = multiprocessing.active_children()
            assert loaders
            for process in loaders:
                os.kill(int(process.pid or 0), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("fcos_cli.train.tracking.terminal.TerminalReporter.step", strike)
    result = fcos("train", shapes, "--config", settings, "--out", "run", "--workers", 1)
    assert result.code == 143
    assert Path("run/state.pt").is_file()


@pytest.mark.parametrize("option", ["--dry-run", "--demo", "--batch auto", "--epochs 3 --dry-run"])
def test_what_belongs_to_a_new_run_is_refused_with_resume(fcos: Fcos, option: str) -> None:
    Path("my run").mkdir()
    Path("my run/state.pt").touch()
    result = fcos("train", "--resume", "my run", *option.split())
    assert result.code == 2
    assert f"{option.removeprefix('--epochs 3 ')} cannot be given" in result.err
    assert "omit them, or start a new run\n" in result.err  # it has no weights to start from
    Path("my run/last.safetensors").touch()
    assert "new run with --init 'my run/last.safetensors'" in fcos("train", "--resume", "my run", *option.split()).err


def test_resuming_a_folder_without_a_run_is_exit_code_2(fcos: Fcos) -> None:
    result = fcos("train", "--resume", "nowhere")
    assert result.code == 2
    assert "nowhere" in result.err


def test_settings_of_these_tests_match_tiny_config(settings: Path) -> None:
    from fcos_cli.config import resolve

    assert resolve(file=settings, environ={})[0].model == tiny_config()
