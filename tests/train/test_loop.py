"""The training loop: the files of a run, and that stopping anywhere and resuming changes nothing."""

import math
import os
import re
import shutil
import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fcos_cli.config import AugmentConfig, Config, resolve
from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.data.tiling import Tiling, cut
from fcos_cli.data.training_set import EpochBatches
from fcos_cli.errors import DataError, FcosError, Interrupted, ModelError, Stopped
from fcos_cli.evaluate.coco import collect_detections
from fcos_cli.model.artifact import load
from fcos_cli.runtime.pytorch import PyTorchDetector
from fcos_cli.train import loop
from fcos_cli.train import step as step_module
from fcos_cli.train.checkpoint import Progress
from fcos_cli.train.loop import train
from fcos_cli.train.pace import Clock
from fcos_cli.train.tracking.listener import Evaluation, Row
from tests.train.runs import SETTINGS, Recorder, Spoiler, at, config_of, figures, measured, rows, same, splits, state

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _each_save() -> Iterator[None]:
    """Save around every validation, however short the epochs are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SAVES_APART", 0.0)
        yield


@pytest.fixture(scope="module")
def data(shapes: Path) -> tuple[Dataset, Dataset]:
    return splits(shapes)


@pytest.fixture(scope="module")
def whole(data: tuple[Dataset, Dataset], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder, Progress]:
    """A run without interruption."""
    folder, listener = tmp_path_factory.mktemp("whole") / "run", Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_EVERY", 2)
        progress = train(config_of(), *data, folder=folder, resume=False, listener=listener)
    return folder, listener, progress


def run(
    folder: Path, data: tuple[Dataset, Dataset], *, resume: bool = False, epochs: int = 2, **hooks: Any
) -> Recorder:
    listener = Recorder(**hooks)
    train(config_of(epochs=epochs), *data, folder=folder, resume=resume, listener=listener)
    return listener


def test_run_writes_settings_metrics_weights_and_state(whole: tuple[Path, Recorder, Progress]) -> None:
    folder, _, progress = whole
    names = {"config.toml", "metrics.jsonl", "best.safetensors", "last.safetensors", "state.pt", "state.previous.pt"}
    assert {file.name for file in folder.iterdir()} == names
    assert resolve(file=folder / "config.toml", environ={})[0] == config_of()
    assert tomllib.loads((folder / "config.toml").read_text())["train"]["epochs"] == 2
    assert (progress.step, progress.epoch, progress.step_in_epoch, progress.pending_validation) == (6, 2, 0, False)


def test_metrics_are_one_json_object_per_line(whole: tuple[Path, Recorder, Progress]) -> None:
    folder, listener, progress = whole
    kinds = [(row["kind"], row["step"], row["epoch"]) for row in rows(folder)]
    assert kinds == [("train", 2, 1), ("val", 3, 1), ("train", 4, 2), ("train", 6, 2), ("val", 6, 2)]
    first = rows(folder)[0]
    assert first.keys() >= {"loss", "cls", "box", "centerness", "grad_norm", "lr", "images_per_s"}
    assert first["loss"] == pytest.approx(first["cls"] + first["box"] + first["centerness"], abs=1e-4)
    assert rows(folder)[1].keys() >= {"AP", "AP50", "AR100", "seconds"}
    assert max(row["AP"] for row in rows(folder) if row["kind"] == "val") == pytest.approx(progress.best, abs=1e-5)
    assert [row["step"] for row in listener.steps] == [1, 2, 3, 4, 5, 6]
    assert {row["steps"] for row in listener.steps} == {6}


def test_weights_store_their_provenance(whole: tuple[Path, Recorder, Progress]) -> None:
    folder, _, progress = whole
    last, best = load(folder / "last.safetensors"), load(folder / "best.safetensors")
    assert last.classes.names == ("circle", "square", "triangle")
    assert last.geometry["size"] == [64, 64]
    assert last.provenance["data"]["pictures"] == 6
    assert (last.provenance["epoch"], last.provenance["step"]) == (2, 6)
    assert best.provenance["epoch"] == progress.best_epoch + 1
    assert best.provenance["metrics"]["AP"] == pytest.approx(progress.best, abs=1e-4)
    assert last.provenance["initial_weights"] == "random weights"
    assert last.provenance["cost"]["parameters"] == sum(weight.numel() for weight in last.weights.values())
    average = {k.removeprefix("module."): v for k, v in state(folder)["average"].items() if k != "n_averaged"}
    assert same(last.weights, average)
    last.build()


def test_loss_falls(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    listener = Recorder()
    config = config_of(epochs=6, val_every=6, lr=0.02)
    train(config, *data, folder=tmp_path / "run", resume=False, listener=listener)
    losses = [row["loss"] for row in listener.steps if row["step"] % 3 == 0]  # means over an epoch
    assert losses[-1] < 0.9 * losses[0]
    assert len(listener.validations) == 1


def test_run_does_not_depend_on_earlier_random_state(
    whole: tuple[Path, Recorder, Progress], data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    torch.manual_seed(12345)
    run(tmp_path / "again", data)
    assert same(state(whole[0]), state(tmp_path / "again"))


@pytest.mark.parametrize("steps", [(2,), (3,), (1, 5), (6,)], ids=str)
def test_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    whole: tuple[Path, Recorder, Progress], data: tuple[Dataset, Dataset], tmp_path: Path, steps: tuple[int, ...]
) -> None:
    folder = tmp_path / "run"
    for number, step in enumerate(steps):
        with pytest.raises(Stopped, match="state is saved") as caught:
            run(folder, data, resume=number > 0, on_step=at(step))
        assert caught.value.exit_code == 143
        assert f"--resume {folder}" in str(caught.value.remedy)
        assert state(folder)["progress"]["step"] == step
        torch.manual_seed(77)  # another process starts elsewhere
    listener = run(folder, data, resume=True)
    assert [row["step"] for row in listener.steps] == list(range(steps[-1] + 1, 7))
    assert same(state(folder), state(whole[0]))
    for name in ("best.safetensors", "last.safetensors"):
        assert same(load(folder / name).weights, load(whole[0] / name).weights)
    assert figures(folder) == figures(whole[0])


def test_a_run_is_resumed_without_the_weights_that_it_started_from(
    whole: tuple[Path, Recorder, Progress], data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    first, folder = tmp_path / "first.safetensors", tmp_path / "run"
    shutil.copy(whole[0] / "last.safetensors", first)
    config = config_of(init=str(first))
    with pytest.raises(Stopped):
        train(config, *data, folder=folder, resume=False, listener=Recorder(on_step=at(4)))
    origin = load(folder / "last.safetensors").provenance["initial_weights"]
    assert origin.startswith(f"{tmp_path.name}/first.safetensors (96 of 96 tensors fit, 3 of 3 classes")
    first.unlink()
    train(config, *data, folder=folder, resume=True, listener=Recorder())
    last = load(folder / "last.safetensors").provenance
    assert (last["step"], last["initial_weights"]) == (6, origin)


def test_a_run_with_a_teacher_is_resumed_exactly_and_needs_it_again(
    whole: tuple[Path, Recorder, Progress], data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    teacher, config = tmp_path / "teacher.safetensors", config_of(teacher=str(tmp_path / "teacher.safetensors"))
    shutil.copy(whole[0] / "last.safetensors", teacher)
    listener = Recorder()
    train(config, *data, folder=tmp_path / "whole", resume=False, listener=listener)
    assert all(row["teacher"] > 0 for row in listener.steps)
    assert f"learning from {teacher} too" in listener.notes
    assert load(tmp_path / "whole" / "best.safetensors").provenance["teacher"] == f"{tmp_path.name}/teacher.safetensors"
    assert not same(state(tmp_path / "whole"), state(whole[0]))
    with pytest.raises(Stopped):
        train(config, *data, folder=tmp_path / "run", resume=False, listener=Recorder(on_step=at(4)))
    teacher.rename(tmp_path / "moved.safetensors")
    with pytest.raises(ModelError, match="no such model file") as caught:
        train(config, *data, folder=tmp_path / "run", resume=True, listener=Recorder())
    assert caught.value.where == str(teacher)
    shutil.copy(whole[0] / "best.safetensors", teacher)
    with pytest.raises(ModelError, match="not the one this run started with") as caught:
        train(config, *data, folder=tmp_path / "run", resume=True, listener=Recorder())
    assert caught.value.where == str(teacher)
    (tmp_path / "moved.safetensors").rename(teacher)
    train(config, *data, folder=tmp_path / "run", resume=True, listener=Recorder())
    assert same(state(tmp_path / "run"), state(tmp_path / "whole"))


def test_ctrl_c_saves_and_raises_interrupted(
    whole: tuple[Path, Recorder, Progress], data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted) as caught:
        run(tmp_path / "run", data, on_step=at(2, signal.SIGINT))
    assert caught.value.exit_code == 130
    run(tmp_path / "run", data, resume=True)
    assert same(state(tmp_path / "run"), state(whole[0]))


def test_stop_during_validation_repeats_the_validation_on_resume(
    whole: tuple[Path, Recorder, Progress], data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        run(tmp_path / "run", data, on_validating=lambda done, _: at(2)(done))
    assert state(tmp_path / "run")["progress"]["pending_validation"] is True
    assert not (tmp_path / "run" / "last.safetensors").exists()
    listener = run(tmp_path / "run", data, resume=True)
    assert [row["step"] for row in listener.validations] == [3, 6]
    assert same(state(tmp_path / "run"), state(whole[0]))
    assert figures(tmp_path / "run") == figures(whole[0])


def test_stop_after_validation_repeats_it_without_a_second_row(
    whole: tuple[Path, Recorder, Progress], data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    class Late(Recorder):
        """Is stopped while it handles a validation, as it could be while the report is written."""

        def validated(self, row: Row, evaluation: Evaluation) -> None:
            super().validated(row, evaluation)
            at(3)(row["step"])

    with pytest.raises(Stopped):
        train(config_of(), *data, folder=tmp_path / "run", resume=False, listener=Late())
    assert [row["step"] for row in figures(tmp_path / "run")] == [3]
    run(tmp_path / "run", data, resume=True)
    assert figures(tmp_path / "run") == figures(whole[0])
    assert same(state(tmp_path / "run"), state(whole[0]))


def test_crash_loses_only_the_steps_since_the_last_save(
    whole: tuple[Path, Recorder, Progress], data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    def crash(step: int) -> None:
        if step == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "run", data, on_step=crash)
    assert state(tmp_path / "run")["progress"]["step"] == 3
    listener = run(tmp_path / "run", data, resume=True)
    assert [row["step"] for row in listener.steps] == [4, 5, 6]
    assert same(state(tmp_path / "run"), state(whole[0]))
    assert figures(tmp_path / "run") == figures(whole[0])


def test_resuming_a_finished_run_does_nothing(
    whole: tuple[Path, Recorder, Progress], data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    before = state(whole[0])
    listener = run(whole[0], data, resume=True)
    assert listener.steps == listener.validations == []
    assert same(state(whole[0]), before)


def changed(dataset: Dataset, **changes: Any) -> Dataset:
    first = replace(dataset.samples[0], **changes)
    return replace(dataset, samples=[first, *dataset.samples[1:]])


def test_resuming_with_other_data_is_an_error(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Stopped):
        run(folder, data, on_step=at(1))
    before = state(folder)
    train_set, val_set = data
    sample = next(s for s in train_set.samples if len(s.boxes))
    others = [
        replace(train_set, samples=train_set.samples[1:]),
        replace(train_set, samples=train_set.samples[::-1]),
        replace(train_set, samples=[replace(s, boxes=s.boxes + 1) if s is sample else s for s in train_set.samples]),
        replace(train_set, samples=[replace(s, classes=s.classes * 0) for s in train_set.samples]),
        replace(train_set, classes=replace(train_set.classes, names=("a", "b", "c"))),
    ]
    for other in others:
        with pytest.raises(DataError, match="not what this run started with") as caught:
            run(folder, (other, val_set), resume=True)
        assert "state.pt" in str(caught.value.where)
    assert same(state(folder), before)
    moved = [replace(s, image=tmp_path / ".." / s.image.parent / s.image.name) for s in train_set.samples]
    run(folder, (replace(train_set, samples=moved), val_set), resume=True)  # the same data elsewhere is the same


def without_boxes(dataset: Dataset) -> Dataset:
    empty = {"boxes": np.zeros((0, 4), np.float32), "classes": np.zeros(0, np.int64)}
    empty |= {"ignore": np.zeros(0, np.bool_), "areas": np.zeros(0)}
    return replace(dataset, samples=[replace(sample, **empty) for sample in dataset.samples])  # type: ignore[arg-type]


def test_images_without_objects_can_be_trained_on(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    listener = run(tmp_path / "run", (without_boxes(data[0]), data[1]), epochs=1)
    assert len(listener.steps) == 3
    assert all(np.isfinite(row["loss"]) for row in listener.steps)
    assert listener.steps[-1]["box"] == 0


def test_validation_set_without_objects_is_no_error(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    listener = run(tmp_path / "run", (data[0], without_boxes(data[1])), epochs=1)
    assert [row["AP"] for row in listener.validations] == [-1]
    assert load(tmp_path / "run" / "best.safetensors").class_thresholds is None


def test_without_images_there_is_no_run(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no images to train on"):
        run(tmp_path / "run", (replace(data[0], samples=[]), data[1]))


def test_unreadable_image_is_skipped_with_a_note(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    listener = run(tmp_path / "run", (changed(data[0], image=broken), data[1]), epochs=1)
    (skipped,) = [note for note in listener.notes if "skipped an image" in note]
    assert str(broken) in skipped
    assert len(listener.steps) == 3


def test_an_unreadable_val_image_is_noted_in_one_line(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    gone = tmp_path / "gone.jpg"
    listener = run(tmp_path / "run", (data[0], changed(data[1], image=gone)), epochs=1)
    assert f"no detections in a val image: the image does not exist: {gone}" in listener.notes


def test_step_without_readable_images_is_skipped(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    gone = [replace(sample, image=tmp_path / "gone.jpg") for sample in data[0].samples]
    listener = run(tmp_path / "run", (replace(data[0], samples=gone), data[1]), epochs=1)
    assert listener.steps == []
    assert len(listener.validations) == 1


def test_crowds_and_images_of_any_size_can_be_trained_on(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    samples = []
    for number, (width, height) in enumerate([(1, 1), (300, 2), (640, 480), (64, 64)]):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (width, height)).save(path)
        box = np.array([[0, 0, width, height]] * 2, np.float32)
        flags = np.array([True, False])
        samples.append(Sample(path, number, width, height, box, np.array([0, 1]), flags, np.ones(2)))
    config = config_of(epochs=1).model_copy(update={"augment": AugmentConfig(crop=1.0, zoom_out=1.0, colour=1.0)})
    listener = Recorder()
    odd = replace(data[0], samples=samples)
    train(config, odd, data[1], folder=tmp_path / "run", resume=False, listener=listener)
    assert all(np.isfinite(row["loss"]) for row in listener.steps)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "ema": 0, "class_loss": "logistic", "box_loss": "iou"},
        {"backbone_lr": 0, "box_loss": "l1"},
        {"amp": "bf16"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_recipe_runs_stops_and_resumes(
    data: tuple[Dataset, Dataset], tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = config_of(**settings, val_every=2)
    if "amp" in settings:  # at 64 px, P6 is one cell: there torch's bf16 gradient of so narrow a P7 reads stray memory
        config = config.model_copy(update={"data": config.data.model_copy(update={"size": (96, 96)})})
    train(config, *data, folder=tmp_path / "a", resume=False, listener=Recorder())
    with pytest.raises(Stopped):
        train(config, *data, folder=tmp_path / "b", resume=False, listener=Recorder(on_step=at(4)))
    train(config, *data, folder=tmp_path / "b", resume=True, listener=Recorder())
    assert same(state(tmp_path / "a"), state(tmp_path / "b"))


def tiled(data: tuple[Dataset, Dataset]) -> tuple[Config, Dataset, Dataset]:
    """Settings and data of a run on tiles of 40 px."""
    config = Config.model_validate({**SETTINGS, "data": {**SETTINGS["data"], "tile": 40}})
    return config, cut(data[0], Tiling(40), seed=0), data[1]


def test_a_run_on_tiles_validates_with_them_and_says_so_in_its_weights(
    data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    config, *sets = tiled(data)
    listener = Recorder()
    train(config, *sets, folder=tmp_path / "run", resume=False, listener=listener)
    steps = len(sets[0]) // 2
    assert [row["step"] for row in listener.validations] == [steps, 2 * steps]
    last = load(tmp_path / "run" / "last.safetensors")
    assert (last.provenance["tile"], last.provenance["data"]["pictures"]) == (40, len(sets[0]))
    detector = PyTorchDetector.from_artifact(last, name="last", device="cpu")
    assert detector.facts.tile == 40
    found, _ = collect_detections(detector, data[1], tiling=Tiling(40))
    whole, _ = collect_detections(detector, data[1])
    seen = listener.evaluations[-1].detections
    assert [len(rows) for rows in seen] == [len(rows) for rows in found] != [len(rows) for rows in whole]


@pytest.mark.parametrize("step", [2, 7])
def test_a_resumed_run_on_tiles_is_bit_equal_to_an_uninterrupted_one(
    data: tuple[Dataset, Dataset], tmp_path: Path, step: int
) -> None:
    config, *sets = tiled(data)
    train(config, *sets, folder=tmp_path / "a", resume=False, listener=Recorder())
    with pytest.raises(Stopped):
        train(config, *sets, folder=tmp_path / "b", resume=False, listener=Recorder(on_step=at(step)))
    torch.manual_seed(77)
    _, *again = tiled(data)  # read and cut anew
    train(config, *again, folder=tmp_path / "b", resume=True, listener=Recorder())
    assert same(state(tmp_path / "a"), state(tmp_path / "b"))


def test_other_tiles_are_other_data(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    config, *sets = tiled(data)
    with pytest.raises(Stopped):
        train(config, *sets, folder=tmp_path / "run", resume=False, listener=Recorder(on_step=at(1)))
    index = next(number for number, sample in enumerate(sets[0].samples) if sample.part is not None)
    tile = sets[0].samples[index]
    moved = [replace(tile, part=(1, 1, 41, 41)) if sample is tile else sample for sample in sets[0].samples]
    with pytest.raises(DataError, match="not what this run started with"):
        train(
            config, replace(sets[0], samples=moved), sets[1], folder=tmp_path / "run", resume=True, listener=Recorder()
        )


def test_batch_norm_can_be_trained(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    model = {**SETTINGS["model"], "norm": "batch", "backbone_norm": "trained"}
    config = Config.model_validate({**SETTINGS, "model": model})
    train(config, *data, folder=tmp_path / "run", resume=False, listener=Recorder())
    load(tmp_path / "run" / "best.safetensors").build()
    means = {key: value for key, value in state(tmp_path / "run")["model"].items() if key.endswith("running_mean")}
    for part in ("backbone.body.", "head.classification_head.", "head.regression_head."):
        moved = [bool(mean.any()) for key, mean in means.items() if key.startswith(part)]  # from 0
        assert moved, part
        assert all(moved), part


def test_signal_handlers_are_restored(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Stopped):
        run(tmp_path / "run", data, on_step=at(1))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_loss_that_is_not_finite_is_left_out_and_the_run_goes_on(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "compute_losses", Spoiler(measured(5)))
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    folder = tmp_path / "run"
    listener = run(folder, data)
    (note,) = [note for note in listener.notes if "not finite" in note]
    assert "at step 5" in note
    assert "box nan" in note
    assert "back to step 3" in note
    assert "1 of 3 times" in note
    named = EpochBatches(6, batch=2, seed=0, epoch=1).batches[1]
    assert all(str(data[0].samples[key.number].image) in note for key in named)
    saved = state(folder)["progress"]
    assert (saved["recoveries"], saved["skipped"], saved["finished"], saved["step"]) == (1, [[1, 1]], True, 5)
    assert [row["step"] for row in rows(folder) if row["kind"] == "train"] == [1, 2, 3, 4, 5]
    full = [row["lr"] for row in rows(folder) if row["kind"] == "train"]
    assert full[3] < 0.6 * full[2]  # halved after step 3
    for name in ("best", "last"):
        weights = load(folder / f"{name}.safetensors").weights
        assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())


def test_a_loss_that_is_not_finite_does_not_disturb_the_estimate(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "compute_losses", Spoiler(1, 3, measured(0)))
    listener = run(tmp_path / "run", data)
    assert [row["step"] for row in listener.steps] == [1, 2, 3, 4, 5, 6]
    assert "on this machine" in " ".join(listener.notes)


def test_after_a_recovery_a_run_still_resumes_exactly(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        monkeypatch.setattr(step_module, "compute_losses", Spoiler(measured(2)))
        hooks = {"on_step": at(4)} if name == "b" else {}
        with pytest.raises(Stopped) if name == "b" else nullcontext():
            run(tmp_path / name, data, **hooks)
        monkeypatch.undo()
    run(tmp_path / "b", data, resume=True)
    assert same(state(tmp_path / "a"), state(tmp_path / "b"))


def test_every_batch_that_fails_is_left_out(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "compute_losses", Spoiler(measured(5), measured(7)))  # then the one after it
    run(tmp_path / "run", data)
    saved = state(tmp_path / "run")["progress"]
    assert (saved["recoveries"], saved["skipped"]) == (2, [[1, 1], [1, 2]])
    assert (saved["finished"], saved["step"]) == (True, 4)


def test_the_first_step_after_a_recovery_has_half_the_rate_also_if_it_is_resumed(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    true = loop.optimizer_step

    def spy(run: Any, batch: Any) -> Any:
        rates.append(run.parts.optimizer.param_groups[0]["lr"])
        return true(run, batch)

    def crash(step: int) -> None:
        if step == 4 and len(rates) == 6:
            raise RuntimeError("power cut")  # just after the recovery

    monkeypatch.setattr(loop, "optimizer_step", spy)
    monkeypatch.setattr(step_module, "compute_losses", Spoiler(measured(5)))
    run(tmp_path / "a", data)
    assert rates[5] == pytest.approx(rates[3] / 2)  # steps 1 to 4, the one that fails, and step 4 again
    rates.clear()
    monkeypatch.setattr(step_module, "compute_losses", Spoiler(measured(5)))
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "b", data, on_step=crash)
    run(tmp_path / "b", data, resume=True)
    assert rates[6] == rates[5]
    assert same(state(tmp_path / "a"), state(tmp_path / "b"))


def test_the_fourth_loss_that_is_not_finite_ends_the_run(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "compute_losses", Spoiler(*range(measured(1), 99)))
    with pytest.raises(FcosError, match=r"not finite.*box nan.*fourth time") as caught:
        run(tmp_path / "run", data, epochs=3)
    assert caught.value.exit_code == 1
    named = str(caught.value.where).split(", ")
    assert set(named) <= {str(sample.image) for sample in data[0].samples}
    assert all(bool(torch.isfinite(value).all()) for value in state(tmp_path / "run")["model"].values())


def test_warm_up_begins_with_the_first_step(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_step: int) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    config = config_of(epochs=10, val_every=10)  # 30 steps, 3 of them warm-up
    listener = Recorder(on_step=crash)
    with pytest.raises(RuntimeError, match="power cut"):
        train(config, *data, folder=tmp_path / "run", resume=False, listener=listener)
    again = Recorder()
    train(config, *data, folder=tmp_path / "run", resume=True, listener=again)  # from step 0
    rates = [row["lr"] for row in again.steps]
    assert [rates[0] / rates[3], rates[1] / rates[3]] == pytest.approx([0.5, 0.75], abs=0.01)
    assert rates[0] == listener.steps[0]["lr"]


def test_a_finished_run_goes_on_with_more_epochs(
    whole: tuple[Path, Recorder, Progress],
    data: tuple[Dataset, Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    folder = tmp_path / "run"
    run(folder, data, epochs=2)
    listener = run(folder, data, epochs=4, resume=True)
    assert [row["step"] for row in listener.steps] == [7, 8, 9, 10, 11, 12]
    assert "going on after step 6" in " ".join(listener.notes)
    rates = [row["lr"] for row in listener.steps]
    assert rates[0] > 0.5 * 0.01 / math.sqrt(8)  # anew, not the one percent that was left
    assert rates == sorted(rates, reverse=True)
    assert state(folder)["progress"]["finished"]
    assert tomllib.loads((folder / "config.toml").read_text())["train"]["epochs"] == 4
    assert [row["step"] for row in rows(folder) if row["kind"] == "val"] == [3, 6, 9, 12]


def test_an_extension_that_is_interrupted_goes_on_without_flags(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, data, epochs=1)
    run(tmp_path / "a", data, epochs=3, resume=True)
    with pytest.raises(Stopped):
        run(tmp_path / "b", data, epochs=3, resume=True, on_step=at(5))
    listener = run(tmp_path / "b", data, epochs=3, resume=True)
    assert not [note for note in listener.notes if "going on after" in note]
    assert same(state(tmp_path / "a"), state(tmp_path / "b"))


def test_without_a_better_ap_a_run_cools_down_and_ends(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    listener = Recorder()  # AP stays 0: none of these is better
    config = config_of(epochs=30, patience=3, warmup=6)
    progress = train(config, *data, folder=tmp_path / "run", resume=False, listener=listener)
    (note,) = [note for note in listener.notes if "no better AP" in note]
    assert note == "no better AP for 3 validations: cooling down for 1 steps, then the end"
    assert progress.finished
    assert progress.step < 20
    assert listener.validations[-1]["step"] == progress.step
    assert state(tmp_path / "run")["schedule"]["progress"] == pytest.approx(1.0)


def test_patience_counts_from_the_end_of_the_warm_up_on_if_nothing_was_found(
    data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    listener = Recorder()  # AP stays 0
    train(config_of(epochs=30, patience=1), *data, folder=tmp_path / "run", resume=False, listener=listener)
    assert [row["AP"] for row in listener.validations] == [0, 0, 0, 0]
    assert [row["step"] for row in listener.validations] == [3, 6, 9, 10]  # 9 of 90 steps are warm-up


@pytest.mark.parametrize("seconds", [12.0, 25.0])
def test_a_run_with_a_time_limit_ends_in_time(data: tuple[Dataset, Dataset], tmp_path: Path, seconds: float) -> None:
    listener, started = Recorder(), time.monotonic()
    config = config_of(time=seconds)
    progress = train(config, *data, folder=tmp_path / "run", resume=False, listener=listener)
    took = time.monotonic() - started
    assert 0.75 * seconds < took < 1.05 * seconds  # the machine may be busy with other tests
    assert progress.finished
    rates = [row["lr"] for row in listener.steps]
    assert rates[-1] < 0.03 * max(rates)  # the cosine came to its end, whatever the pace was
    assert listener.validations[-1]["step"] == progress.step
    assert "on this machine" in " ".join(listener.notes)


def test_a_validation_that_takes_the_rest_of_the_time_is_the_last_one(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    class Slow(Recorder):
        def step(self, row: Row) -> None:
            super().step(row)
            clock[0] += 1

        def validated(self, row: Row, evaluation: Evaluation) -> None:
            super().validated(row, evaluation)
            clock[0] += 95

    monkeypatch.setattr(Clock, "seconds", property(lambda _: clock[0]))
    monkeypatch.setattr("fcos_cli.train.pace.VALIDATION_SHARE", 1e6)
    listener = Slow()
    progress = train(config_of(time=100.0, epochs=1), *data, folder=tmp_path, resume=False, listener=listener)
    assert [row["step"] for row in listener.validations] == [3]
    assert [row["step"] for row in rows(tmp_path) if row["kind"] == "val"] == [3]
    assert progress.finished
    assert state(tmp_path)["progress"]["finished"]


def test_time_of_an_earlier_session_counts(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    config, folder = config_of(time=16.0), tmp_path / "run"

    def stop_after(seconds: float) -> Callable[[int], None]:
        end = time.monotonic() + seconds
        return lambda _: os.kill(os.getpid(), signal.SIGTERM) if time.monotonic() > end else None

    started = time.monotonic()
    with pytest.raises(Stopped):
        train(config, *data, folder=folder, resume=False, listener=Recorder(on_step=stop_after(8)))
    used = time.monotonic() - started
    started = time.monotonic()
    train(config, *data, folder=folder, resume=True, listener=Recorder())
    assert 0.8 * 16 < used + time.monotonic() - started < 1.1 * 16


def test_the_pace_is_measured_across_epochs_of_one_step(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcos_cli.train.speed.estimate.step_seconds", lambda _: 1000.0)
    train(config_of(batch=6, epochs=8, val_every=8), *data, folder=tmp_path, resume=False, listener=Recorder())
    progress = torch.load(tmp_path / "state.pt", weights_only=True)["progress"]
    assert progress["step"] == 8
    assert 0 < progress["step_seconds"] < 100


def test_a_new_run_says_how_long_it_will_take(whole: tuple[Path, Recorder, Progress]) -> None:
    (note,) = [note for note in whole[1].notes if "on this machine" in note]
    assert re.fullmatch(r"2 epochs of 3 steps: about \d+ s on this machine, \d\.\d GB", note)
    assert whole[1].closed == 1


def test_a_tuned_run_resumes_with_its_own_tuning(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(_call: Callable[..., Any], method: str) -> float:
        return 0.001 if method == "default" else 0.0005

    def again(*_: Any, **__: Any) -> None:
        raise AssertionError("a resumed run must not measure again")

    monkeypatch.setattr("fcos_cli.train.speed.tuning._timed", timed)
    config = config_of(tune=True)
    train(config, *data, folder=tmp_path / "a", resume=False, listener=Recorder())
    listener = Recorder(on_step=at(2))
    with pytest.raises(Stopped):
        train(config, *data, folder=tmp_path / "b", resume=False, listener=listener)
    assert [note for note in listener.notes if note.startswith("tuned ")]
    assert state(tmp_path / "b")["tuning"]["plans"]
    monkeypatch.setattr("fcos_cli.train.speed.prepare.tune", again)
    train(config, *data, folder=tmp_path / "b", resume=True, listener=Recorder())
    assert same(state(tmp_path / "a"), state(tmp_path / "b"))
