"""When the state of a run is saved, and that a run which was killed in between is resumed exactly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset
from fcos_cli.data.training_set import TrainingSet
from fcos_cli.errors import Stopped
from fcos_cli.train import step as step_module
from fcos_cli.train.checkpoint import Progress, save_state
from fcos_cli.train.loop import train
from fcos_cli.train.pace import Clock
from fcos_cli.train.tracking.listener import Evaluation, Row
from tests.train.runs import Recorder, Spoiler, at, config_of, figures, measured, rows, same, splits, state

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(shapes: Path) -> tuple[Dataset, Dataset]:
    return splits(shapes)


def test_state_is_saved_within_an_epoch_after_save_minutes(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    seen: list[int] = []

    def look(step: int) -> None:
        file = tmp_path / "run" / "state.pt"
        seen.append(state(tmp_path / "run")["progress"]["step"] if file.exists() else 0)

    config = config_of(save_minutes=1e-9, epochs=1)
    train(config, *data, folder=tmp_path / "run", resume=False, listener=Recorder(on_step=look))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    ("step", "validation", "saved"),
    [
        (60, 0, [(0, 0), (1, 5), (2, 9, "before"), (4, 14), (5, 18, "before"), (6, 18)]),
        (60, 40, [(0, 0), (1, 5), (2, 9, "before"), (3, 9), (4, 14), (5, 18, "before"), (6, 18)]),
        (1, 1, [(0, 0), (6, 18)]),  # short epochs
    ],
)
def test_state_is_saved_around_validations_and_after_save_minutes_across_epochs(
    data: tuple[Dataset, Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    validation: int,
    saved: list[tuple[Any, ...]],
) -> None:
    """6 epochs of 3 steps. step: seconds of a step. validation: of a validation."""
    clock, found = [0.0], list[tuple[Any, ...]]()

    def save(folder: Path, parts: Any, progress: Progress, **options: Any) -> None:
        found.append((progress.epoch, progress.step, *["before"] * progress.pending_validation))
        save_state(folder, parts, progress, **options)

    class Slow(Recorder):
        def validated(self, row: Row, evaluation: Evaluation) -> None:
            clock[0] += validation

    def pass_time(_: int) -> None:
        clock[0] += step

    monkeypatch.setattr("fcos_cli.train.run.save_state", save)
    monkeypatch.setattr(Clock, "seconds", property(lambda _: clock[0]))
    config = config_of(epochs=6, val_every=3, save_minutes=4.5)
    train(config, *data, folder=tmp_path / "run", resume=False, listener=Slow(on_step=pass_time))
    assert found == saved


def test_a_run_that_is_killed_between_validations_is_resumed_exactly(
    data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    """The last save is two epochs back."""

    def crash(step: int) -> None:
        if step == 8:
            raise RuntimeError("power cut")

    config = config_of(epochs=4, val_every=4)
    whole, cut_off = tmp_path / "whole", tmp_path / "cut"
    train(config, *data, folder=whole, resume=False, listener=Recorder())
    with pytest.raises(RuntimeError):
        train(config, *data, folder=cut_off, resume=False, listener=Recorder(on_step=crash))
    assert state(cut_off)["progress"]["step"] == 0
    train(config, *data, folder=cut_off, resume=True, listener=Recorder())
    assert same(state(cut_off), state(whole))
    assert figures(cut_off) == figures(whole)


def test_a_validation_is_in_the_metrics_once_though_a_later_loss_leads_back_before_it(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of step 3 was saved before its validation, and not after it."""
    clock = [0.0]

    def pass_time(_: int) -> None:
        clock[0] += 20

    monkeypatch.setattr(Clock, "seconds", property(lambda _: clock[0]))
    monkeypatch.setattr(step_module, "compute_losses", Spoiler(measured(4)))
    listener = Recorder(on_step=pass_time)
    train(config_of(), *data, folder=tmp_path / "run", resume=False, listener=listener)
    assert any("back to step 3" in note for note in listener.notes)
    assert [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "val"] == [3, 5]


@pytest.mark.parametrize("stage", ["on_validating", "validated"])
def test_a_run_that_is_stopped_in_a_validation_soon_after_a_save_is_resumed_exactly(
    data: tuple[Dataset, Dataset], tmp_path: Path, stage: str
) -> None:
    """Nothing was saved before the validation, but the state is saved as it was then."""

    class Late(Recorder):
        def validated(self, row: Row, evaluation: Evaluation) -> None:
            if stage == "validated":
                at(3)(row["step"])

    whole, cut_off = tmp_path / "whole", tmp_path / "cut"
    train(config_of(), *data, folder=whole, resume=False, listener=Recorder())
    stopping = Late(on_validating=(lambda done, _: at(2)(done)) if stage == "on_validating" else None)
    with pytest.raises(Stopped):
        train(config_of(), *data, folder=cut_off, resume=False, listener=stopping)
    progress = state(cut_off)["progress"]
    assert (progress["step"], progress["pending_validation"], progress["best_epoch"]) == (3, True, -1)
    train(config_of(), *data, folder=cut_off, resume=True, listener=Recorder())
    assert same(state(cut_off), state(whole))
    assert figures(cut_off) == figures(whole)


def test_a_validation_that_was_stopped_is_repeated_with_a_time_limit(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = config_of(time=3600.0), tmp_path / "run"
    stopping = Recorder(on_validating=lambda *_: at(1)(1))
    with monkeypatch.context() as patch:
        patch.setattr("fcos_cli.train.pace.VALIDATION_SHARE", 1e6)  # after the first epoch, instead of many
        with pytest.raises(Stopped):
            train(config, *data, folder=folder, resume=False, listener=stopping)
    assert state(folder)["progress"]["pending_validation"]
    step = state(folder)["progress"]["step"]
    again = Recorder(on_step=at(step + 1))
    with pytest.raises(Stopped):
        train(config, *data, folder=folder, resume=True, listener=again)
    assert [row["step"] for row in again.validations] == [step]


@pytest.mark.parametrize("longer", [{"epochs": 4}, {"time": 400.0}], ids=lambda longer: next(iter(longer)))
def test_a_time_run_that_was_stopped_in_its_last_validation_trains_on_when_it_is_made_longer(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longer: dict[str, Any]
) -> None:
    """20 seconds per step: the limit ends the run within its second epoch."""
    clock = [0.0]

    def pass_time(_: int) -> None:
        clock[0] += 20

    monkeypatch.setattr(Clock, "seconds", property(lambda _: clock[0]))
    folder, stopping = tmp_path / "run", Recorder(on_step=pass_time, on_validating=lambda *_: at(1)(1))
    with pytest.raises(Stopped):
        train(config_of(time=100.0, val_every=2), *data, folder=folder, resume=False, listener=stopping)
    progress = state(folder)["progress"]
    assert (progress["step"], progress["step_in_epoch"], progress["pending_validation"]) == (5, 2, True)
    again = Recorder(on_step=pass_time)
    train(config_of(**longer, val_every=2), *data, folder=folder, resume=True, listener=again)
    assert [row["step"] for row in again.steps][:6] == list(range(6, 12))
    assert again.validations[0]["step"] == 5


def test_a_validation_stopped_with_two_processes_is_followed_by_the_next_epoch_with_one(
    shapes: Path, tmp_path: Path
) -> None:
    """10 images, 2 per step and process: 2 steps of 4 images, then 5 of 2."""
    whole = read_dataset(shapes, split="train")
    sets = replace(whole, samples=whole.samples[:10]), read_dataset(shapes, split="val")
    stopping = Recorder(on_validating=lambda *_: at(1)(1))
    with pytest.raises(Stopped):
        train(config_of(batch=4), *sets, folder=tmp_path, resume=False, listener=stopping)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    saved["progress"]["world"] = 2
    torch.save(saved, tmp_path / "state.pt")
    again = Recorder()
    train(config_of(batch=2), *sets, folder=tmp_path, resume=True, listener=again)
    assert [row["step"] for row in again.validations] == [2, 7]
    assert [row["step"] for row in again.steps] == [3, 4, 5, 6, 7]


def test_a_run_that_was_stopped_while_its_speed_was_measured_measures_it_when_it_is_resumed(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(time=3600.0)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingSet, "__getitem__", lambda *_: at(1)(1))
        with pytest.raises(Stopped):
            train(config, *data, folder=tmp_path, resume=False, listener=Recorder())
    assert torch.load(tmp_path / "state.pt", weights_only=True)["progress"]["validation_seconds"] == 0
    listener = Recorder(on_step=at(1))
    with pytest.raises(Stopped):
        train(config, *data, folder=tmp_path, resume=True, listener=listener)
    assert any("on this machine" in note for note in listener.notes)
    progress = torch.load(tmp_path / "state.pt", weights_only=True)["progress"]
    assert min(progress["step_seconds"], progress["validation_seconds"], progress["export_seconds"]) > 0


def test_a_recovery_after_a_change_of_processes_goes_back_to_the_place_in_the_epoch(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps of two processes are four of one, which leaves out the fifth; the sixth and an epoch are left."""
    with pytest.raises(Stopped):
        train(config_of(batch=1), *data, folder=tmp_path, resume=False, listener=Recorder(on_step=at(2)))
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    saved["progress"]["world"] = 2
    torch.save(saved, tmp_path / "state.pt")
    monkeypatch.setattr(step_module, "compute_losses", Spoiler(1))
    listener = Recorder()
    train(config_of(batch=1), *data, folder=tmp_path, resume=True, listener=listener)
    assert any("back to step 2" in note for note in listener.notes)
    assert [row["step"] for row in listener.steps] == list(range(3, 3 + 1 + 6))
