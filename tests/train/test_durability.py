"""A run survives kill -9 at any moment, a full disk and damaged files, and ends with the bits of an undisturbed run."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fcos_cli.data.samples import Dataset
from fcos_cli.errors import FcosError
from fcos_cli.model.artifact import load
from fcos_cli.train.checkpoint import PREVIOUS, STATE, has_state
from fcos_cli.train.loop import train
from tests.train.runs import Recorder, config_of, same, splits

EPOCHS = 4

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(shapes: Path) -> tuple[Dataset, Dataset]:
    return splits(shapes)


@pytest.fixture(scope="module")
def undisturbed(data: tuple[Dataset, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed, in a process of its own like the others."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = begin(data, folder)
    process.join()
    assert process.exitcode == 0
    return folder


def begin(data: tuple[Dataset, Dataset], folder: Path) -> Any:
    """Start or resume the run in a process that has everything imported; it saves after every step."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=work, args=(data, folder))
    process.start()
    return process


def work(data: tuple[Dataset, Dataset], folder: Path) -> None:
    config = config_of(epochs=EPOCHS, save_minutes=1e-9)
    train(config, *data, folder=folder, resume=has_state(folder), listener=Recorder())


def fit_together(folder: Path) -> None:
    """`state`, `last` and `best` of a finished run belong together."""
    content = torch.load(folder / STATE, weights_only=True)
    progress = content["progress"]
    assert progress["finished"]
    last, best = load(folder / "last.safetensors"), load(folder / "best.safetensors")
    assert last.provenance["step"] == progress["step"]
    assert best.provenance["epoch"] == progress["best_epoch"] + 1
    assert best.provenance["metrics"]["AP"] == pytest.approx(progress["best"], abs=1e-4)


def equal(a: Path, b: Path) -> bool:
    """Whether two runs ended with the same bits."""
    states = [torch.load(folder / STATE, weights_only=True) for folder in (a, b)]
    for content in states:
        for name in ("seconds", "step_seconds", "validation_seconds", "export_seconds"):
            del content["progress"][name]
    weights = [[load(folder / f"{name}.safetensors").weights for name in ("best", "last")] for folder in (a, b)]
    return same(*states) and same(*weights)


def test_twenty_kills_at_random_moments_cost_nothing(
    data: tuple[Dataset, Dataset], undisturbed: Path, tmp_path: Path
) -> None:
    folder, moments = tmp_path / "run", random.Random(5)
    kills = runs = 0
    while kills < 20:
        process = begin(data, folder)
        process.join(timeout=moments.uniform(0.2, 1.2))
        if process.exitcode == 0:  # finished: the next kills hit a run that starts anew
            fit_together(folder)
            assert equal(folder, undisturbed)
            runs += 1
            folder = tmp_path / f"run{runs}"
            continue
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    process = begin(data, folder)
    process.join()
    assert process.exitcode == 0
    fit_together(folder)
    assert equal(folder, undisturbed)


def stopped_at(data: tuple[Dataset, Dataset], folder: Path, step: int, disturb: Callable[[], None]) -> FcosError:
    """Run until `step`, disturb, and return the error that ends the run."""

    def hook(done: int) -> None:
        if done == step:
            disturb()

    config = config_of(epochs=EPOCHS, save_minutes=1e-9)
    with pytest.raises(FcosError) as caught:
        train(config, *data, folder=folder, resume=False, listener=Recorder(on_step=hook))
    return caught.value


def test_a_full_disk_ends_the_run_with_one_error_and_keeps_the_state(
    data: tuple[Dataset, Dataset], undisturbed: Path, tmp_path: Path
) -> None:
    folder, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        error = stopped_at(data, folder, 5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1])))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "writing failed" in str(error)
    assert "free some space" in str(error.remedy)
    assert torch.load(folder / STATE, weights_only=True)["progress"]["step"] == 4
    work(data, folder)
    fit_together(folder)
    assert equal(folder, undisturbed)


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "missing"])
def test_a_damaged_state_is_passed_over(
    data: tuple[Dataset, Dataset], undisturbed: Path, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        stopped_at(data, folder, 6, interrupt)
    path = folder / STATE
    if damage == "missing":  # killed between the two renames of a save
        path.unlink()
    else:
        path.write_bytes({"truncated": path.read_bytes()[:-1000], "empty": b"", "garbage": os.urandom(5000)}[damage])
    listener = Recorder()
    config = config_of(epochs=EPOCHS, save_minutes=1e-9)
    train(config, *data, folder=folder, resume=True, listener=listener)
    (note,) = [note for note in listener.notes if "cannot be read" in note]
    assert "continuing from the state before it, step 4" in note
    assert listener.steps[0]["step"] == 5
    fit_together(folder)
    assert equal(folder, undisturbed)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_both_states_damaged_is_one_clear_error(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        stopped_at(data, folder, 4, interrupt)
    for name in (STATE, PREVIOUS):
        (folder / name).write_bytes(b"no state")
    with pytest.raises(FcosError, match="cannot be read") as caught:
        work(data, folder)
    assert "--init" in str(caught.value.remedy)
