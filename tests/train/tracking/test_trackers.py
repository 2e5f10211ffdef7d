"""Experiment trackers, each against the real package in its offline mode."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from fcos_cli.config import Config
from fcos_cli.errors import MissingExtra
from fcos_cli.train.tracking import trackers
from fcos_cli.train.tracking.listener import Listener, Listeners
from fcos_cli.train.tracking.trackers import Tracker, check_tracker, make_tracker, numbers
from tests.train.runs import Recorder, config_of

NOTHING: Any = None
TRAIN = {"kind": "train", "step": 20, "epoch": 1, "loss": 1.5, "lr": 0.01, "steps": 60, "seconds_left": 9.0}
VAL = {"kind": "val", "step": 30, "epoch": 1, "AP": 0.25, "seconds": 3.0, "best": True}


def tracked(folder: Path, name: str, *, resume: bool = False) -> Config:
    """Send two rows to a tracker, one of them between two logged steps."""
    config = config_of(tracker=name)
    tracker = make_tracker(folder, config, resume=resume)
    assert resume or not any(folder.iterdir())
    tracker.begun()
    tracker.step(TRAIN)
    tracker.step({**TRAIN, "step": 21, "loss": 99.0})
    tracker.validated(VAL, NOTHING)
    tracker.close()
    return config


def test_only_measurements_are_sent() -> None:
    assert numbers(TRAIN) == {"train/loss": 1.5, "train/lr": 0.01}
    assert numbers(VAL) == {"val/AP": 0.25, "val/seconds": 3.0}


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked(tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(20, 1.5)]
    assert [(event.step, event.value) for event in events.Scalars("val/AP")] == [(30, 0.25)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from its own dependencies
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow: Any = pytest.importorskip("mlflow", reason="needs the extra `mlflow`")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = mlflow.get_tracking_uri()
    try:
        (tmp_path / "run").mkdir()
        config = tracked(tmp_path / "run", "mlflow")
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
        (experiment,) = [e for e in client.search_experiments() if e.name == "fcos"]
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.data.metrics["train/loss"] == 1.5
        assert run.data.metrics["val/AP"] == 0.25
        assert run.data.params["train.lr"] == str(config.train.lr)
        assert run.info.status == "FINISHED"
        tracked(tmp_path / "run", "mlflow", resume=True)
        (resumed,) = client.search_runs([experiment.experiment_id])
        assert resumed.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "val/AP")) == 2
    finally:
        mlflow.set_tracking_uri(before)


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs the extra `wandb`")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracked(tmp_path, "wandb")
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    for _ in range(100):  # wandb's own process writes the file
        content = file.read_bytes()
        if b"train/loss" in content and b"val/AP" in content:
            return
        time.sleep(0.1)
    pytest.fail(f"{len(content)} bytes without the values that were logged")


def test_weights_and_biases_is_told_which_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb: Any = pytest.importorskip("wandb", reason="needs the extra `wandb`")
    monkeypatch.setenv("WANDB_MODE", "online")
    given = list[dict[str, Any]]()

    def init(**options: Any) -> Any:
        given.append(options)
        return Mock(id=options["id"] or f"run-{len(given)}")

    monkeypatch.setattr(wandb, "init", init)
    tracked(tmp_path, "wandb")
    for resume in (True, True, False):
        make_tracker(tmp_path, config_of(tracker="wandb"), resume=resume).begun()
    assert [options["id"] for options in given] == [None, "run-1", "run-1", None]
    assert {options["resume"] for options in given} == {"allow"}


def test_a_tracker_that_is_not_installed_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match="wandb is not installed"):
        check_tracker(config_of(tracker="wandb"))
    for name in ("auto", "none"):
        check_tracker(config_of(tracker=name))
        assert type(make_tracker(tmp_path, config_of(tracker=name))) is Listener
    for variable, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(variable, value)
    check_tracker(config_of(tracker="wandb"))  # the main process may be on another machine


class Away(Tracker):
    """A tracker whose server goes away after `rows` rows."""

    def __init__(self, rows: int) -> None:
        self.rows, self.sent = rows, list[int]()

    def log(self, values: dict[str, float], step: int) -> None:
        self.sent.append(step)
        if len(self.sent) > self.rows:
            raise ConnectionError("no answer\nfrom the server")

    def end(self) -> None:
        raise ConnectionError("not open")


def test_a_tracker_that_fails_is_told_once_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Away(rows=1)
    for step in (20, 40, 60):
        tracker.step({**TRAIN, "step": step})
    tracker.validated(VAL, NOTHING)
    tracker.close()
    assert tracker.sent == [20, 40]
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith("warning: Away failed (no answer from the server): the run goes on without it")
    assert told.count("warning") == 1
    Away(rows=1).close()
    assert "Away failed (not open)" in capsys.readouterr().err


def test_a_tracker_that_cannot_be_opened_is_told_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(_: object) -> None:
        raise ConnectionError("no answer")

    monkeypatch.setattr(trackers.MLflow, "open", away)
    tracker = make_tracker(tmp_path, config_of(tracker="mlflow"))
    tracker.begun()
    assert "MLflow failed (no answer)" in capsys.readouterr().err
    tracker.step(TRAIN)
    tracker.close()
    assert capsys.readouterr().err == ""


def test_every_listener_hears_every_event() -> None:
    recorders = [Recorder(), Recorder()]
    listeners = Listeners(*recorders)
    listeners.note("a")
    listeners.step({"step": 1})
    listeners.validating(1, 2)
    listeners.validated({"AP": 0.5}, NOTHING)
    listeners.close()
    for recorder in recorders:
        assert json.dumps([recorder.notes, recorder.steps, recorder.validations, recorder.closed]) == json.dumps(
            [["a"], [{"step": 1}], [{"AP": 0.5}], 1]
        )
