"""Runs that are resumed with another length, another precision or other validation data."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fcos_cli.config import with_values
from fcos_cli.data.samples import Dataset
from fcos_cli.errors import Stopped, UsageError
from fcos_cli.evaluate.coco import CocoResult, score
from fcos_cli.model.artifact import load, save
from fcos_cli.train.loop import train
from fcos_cli.train.pace import Clock
from fcos_cli.train.run import open_run, plan_schedule, training_set
from fcos_cli.train.tracking.listener import Evaluation
from tests.train.runs import Recorder, config_of, rows, splits, state

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(shapes: Path) -> tuple[Dataset, Dataset]:
    return splits(shapes)


class Watcher(Recorder):
    """Also records the best weights of an earlier session."""

    def __init__(self, **hooks: Any) -> None:
        super().__init__(**hooks)
        self.earlier: list[Evaluation] = []

    def resumed(self, evaluation: Evaluation) -> None:
        self.earlier.append(evaluation)


def work(
    folder: Path,
    data: tuple[Dataset, Dataset],
    *,
    resume: bool = False,
    listener: Watcher | None = None,
    **settings: Any,
) -> Watcher:
    listener = listener or Watcher()
    train(config_of(**settings), *data, folder=folder, resume=resume, listener=listener)
    return listener


def test_a_longer_time_without_room_for_a_step_is_told_and_changes_nothing(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clock, "seconds", property(lambda _: 100.0))
    work(tmp_path, data, epochs=1)
    before = state(tmp_path)["progress"]
    listener = work(tmp_path, data, resume=True, time=100.001)
    assert listener.steps == listener.validations == []
    (note,) = [note for note in listener.notes if "no time is left for a step" in note]
    assert "expected to take" in note
    assert state(tmp_path)["progress"] == before


def test_a_time_run_without_a_step_goes_on_with_more_time(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    assert [row["step"] for row in work(tmp_path, data, time=0.1).validations] == [0]
    listener = work(tmp_path, data, resume=True, epochs=2)  # the first one counts
    assert [row["step"] for row in listener.steps] == [1, 2, 3]


def with_progress(folder: Path, **changes: Any) -> None:
    """Change the progress in the saved state."""
    content = torch.load(folder / "state.pt", weights_only=True)
    content["progress"].update(changes)
    torch.save(content, folder / "state.pt")


def test_the_best_weights_of_an_earlier_session_are_validated_once_if_no_better_ones_are_found(
    data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    work(tmp_path, data, epochs=1)
    best = (tmp_path / "best.safetensors").read_bytes()
    with_progress(tmp_path, best=0.9)
    listener = work(tmp_path, data, resume=True, epochs=3)
    (earlier,) = listener.earlier
    assert (earlier.best, earlier.facts.provenance["step"], len(earlier.detections)) == (True, 3, len(data[1]))
    assert [row["best"] for row in listener.validations] == [False, False]
    assert (tmp_path / "best.safetensors").read_bytes() == best
    assert state(tmp_path)["progress"]["best"] == 0.9


def test_a_run_without_its_best_weights_goes_on(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    work(tmp_path, data, epochs=1)
    with_progress(tmp_path, best=0.9)
    (tmp_path / "best.safetensors").unlink()
    listener = work(tmp_path, data, resume=True, epochs=2)
    assert listener.earlier == []
    assert any("best weights of the earlier session cannot be validated" in note for note in listener.notes)
    assert state(tmp_path)["progress"]["finished"]


def test_a_stop_while_earlier_weights_are_validated_repeats_the_validation(
    data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    work(tmp_path, data, epochs=1)
    with_progress(tmp_path, best=0.9)
    calls: list[int] = []

    def strike(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == total + 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        work(tmp_path, data, resume=True, epochs=2, listener=Watcher(on_validating=strike))
    progress = state(tmp_path)["progress"]
    assert (progress["step"], progress["pending_validation"], progress["stale"]) == (6, True, 0)
    assert [row["step"] for row in rows(tmp_path) if row["kind"] == "val"] == [3]
    again = work(tmp_path, data, resume=True, epochs=2)
    assert (len(again.steps), len(again.earlier), [row["step"] for row in again.validations]) == (0, 1, [6])
    assert state(tmp_path)["progress"]["stale"] == 1


@pytest.mark.parametrize("kept", [True, False])
def test_other_val_data_is_told_and_the_best_weights_are_measured_on_it(
    data: tuple[Dataset, Dataset], tmp_path: Path, *, kept: bool
) -> None:
    work(tmp_path, data, epochs=1)
    with_progress(tmp_path, best=0.9)
    if not kept:
        (tmp_path / "best.safetensors").unlink()
    corrected = data[0], replace(data[1], samples=data[1].samples[1:])
    listener = work(tmp_path, corrected, resume=True, epochs=3)
    assert [note for note in listener.notes if "the val data has changed" in note]
    progress = state(tmp_path)["progress"]
    assert progress["best"] == listener.validations[-1]["AP"] == 0  # no longer the AP on other data
    assert [evaluation.result.images for evaluation in listener.earlier] == [3] * kept
    ended = work(tmp_path, data, resume=True, epochs=3)
    assert [note for note in ended.notes if "has changed: fcos eval measures the best weights" in note]
    again = work(tmp_path, corrected, resume=True, epochs=4)
    assert not [note for note in again.notes if "the val data has changed" in note]
    assert again.earlier == []


def test_weights_that_stay_the_best_on_other_val_data_store_their_new_metrics(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(tmp_path, data, epochs=1)
    aps = iter([0.3, 0.4])  # of the current weights, and of the best ones

    def scored(*arguments: Any, **options: Any) -> CocoResult:
        result = score(*arguments, **options)
        return replace(result, metrics={**result.metrics, "AP": next(aps)})

    monkeypatch.setattr("fcos_cli.train.validation.score", scored)
    corrected = data[0], replace(data[1], samples=data[1].samples[1:])
    listener = work(tmp_path, corrected, resume=True, epochs=2)
    assert [row["best"] for row in listener.validations] == [False]
    best = load(tmp_path / "best.safetensors").provenance
    assert (best["step"], best["metrics"]["AP"]) == (3, 0.4)
    progress = state(tmp_path)["progress"]
    assert (progress["best"], progress["best_epoch"]) == (0.4, 0)


def test_a_state_of_an_older_version_says_nothing_of_its_val_data(
    data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    work(tmp_path, data, epochs=1)
    with_progress(tmp_path, best=0.9, val_hash="")
    other = data[0], replace(data[1], samples=data[1].samples[1:])
    listener = work(tmp_path, other, resume=True, epochs=2)
    assert not [note for note in listener.notes if "the val data has changed" in note]
    assert state(tmp_path)["progress"]["best"] == 0.9


@pytest.mark.parametrize("step", [0, 3])
def test_all_processes_warm_up_for_as_many_steps_as_the_main_one(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with open_run(config_of(time=60.0, warmup=50), *data, tmp_path) as run:
        run.progress.step, run.length.pace.initial = step, 1.0  # at most 60 steps by the clock of this process
        monkeypatch.setattr("fcos_cli.train.run.from_main_process", lambda _: 230.0)
        plan_schedule(run)
        assert run.parts.schedule.warmup == 23


@pytest.mark.parametrize(("best", "kept"), [(0.0, False), (0.9, True)])
def test_an_export_is_removed_once_there_are_better_weights(
    data: tuple[Dataset, Dataset], tmp_path: Path, *, best: float, kept: bool
) -> None:
    work(tmp_path, data, epochs=1)
    with_progress(tmp_path, best=best)
    for name in ("best.onnx", "best.parity.json"):
        (tmp_path / name).write_text("of the weights so far")
    work(tmp_path, data, resume=True, epochs=2)
    assert [(tmp_path / name).exists() for name in ("best.onnx", "best.parity.json")] == [kept] * 2


def test_a_teacher_must_be_a_detector_that_takes_the_input_size(
    data: tuple[Dataset, Dataset], model_file: Path, tmp_path: Path
) -> None:
    with (
        pytest.raises(UsageError, match="'offline' is not a detector"),
        open_run(config_of(teacher="offline"), *data, tmp_path),
    ):
        pass
    artifact = load(model_file)
    fixed = replace(artifact, config=artifact.config.model_copy(update={"backbone": "dla34"}))
    save(tmp_path / "fixed.safetensors", fixed)
    config = with_values(config_of(teacher=str(tmp_path / "fixed.safetensors")), {"data.size": (72, 72)})
    with pytest.raises(UsageError, match="backbone dla34 does not take 72 x 72"), open_run(config, *data, tmp_path):
        pass


def test_portraits_are_trained_in_a_canvas_of_their_shape(data: tuple[Dataset, Dataset]) -> None:
    config = config_of()
    config = config.model_copy(update={"data": config.data.model_copy(update={"resize": "shortest", "size": (32, 64)})})
    for width, height, canvas in ((80, 60, (32, 64)), (60, 80, (64, 32))):
        samples = [replace(sample, width=width, height=height) for sample in data[0].samples]
        assert training_set(config, samples).augmentation.size == canvas
