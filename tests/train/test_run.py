"""Runs that are resumed with another length, another precision or other validation data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fcos_cli.data.samples import Dataset
from fcos_cli.train.loop import train
from fcos_cli.train.pace import Clock
from tests.train.runs import Recorder, config_of, splits, state

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(shapes: Path) -> tuple[Dataset, Dataset]:
    return splits(shapes)


def work(folder: Path, data: tuple[Dataset, Dataset], *, resume: bool = False, **settings: Any) -> Recorder:
    listener = Recorder()
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
