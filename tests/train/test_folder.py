"""The folder of a run: its name, what is not replaced there, and that two runs cannot share it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fcos_cli.errors import UsageError
from fcos_cli.train.folder import BEGINNING, LOCK, OTHERS, WEIGHTS, hold_folder, new_folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_automatic_names_are_numbered() -> None:
    with new_folder(None, data=Path("data")) as first, new_folder(None, data=Path("data")) as second:
        assert (first, second) == (Path("runs/train/data"), Path("runs/train/data-2"))
        assert first.is_dir()
    Path("labels.json").touch()
    with new_folder(None, data=Path("labels.json")) as third:
        assert third == Path("runs/train/labels")


@pytest.mark.parametrize("name", [None, "made/here"])
def test_a_run_that_writes_nothing_leaves_nothing(name: str | None) -> None:
    with new_folder(None if name is None else Path(name), data=Path("data")):
        pass
    assert list(Path.cwd().iterdir()) == []


def test_what_was_there_stays() -> None:
    Path("mine").mkdir()
    with new_folder(Path("mine"), data=Path("data")):
        pass
    assert [path.name for path in Path.cwd().rglob("*")] == ["mine"]


@pytest.mark.parametrize("name", [*WEIGHTS, *OTHERS])
def test_files_of_others_are_not_replaced(name: str) -> None:
    Path(name).write_text("mine")
    what = "a detector" if name in WEIGHTS else "a file"
    refused = pytest.raises(UsageError, match=f"holds {what}, which a new run would replace")
    with refused as caught, new_folder(Path(), data=Path("data")):
        pass
    assert caught.value.where == name
    assert Path(name).read_text() == "mine"
    assert not Path(LOCK).exists()


def test_a_run_that_ended_before_its_first_save_can_be_started_again() -> None:
    for _ in range(2):
        with new_folder(Path("run"), data=Path("data")) as folder:
            for name in (*BEGINNING, "metrics.jsonl"):
                (folder / name).touch()


@pytest.mark.parametrize("name", sorted({*OTHERS} - {*BEGINNING}))
def test_the_results_of_a_run_whose_state_was_deleted_are_not_replaced(name: str) -> None:
    with new_folder(Path("run"), data=Path("data")) as folder:
        (folder / "config.toml").touch()
        (folder / name).write_text("results")
    refused = pytest.raises(UsageError, match="holds a file, which a new run would replace")
    with refused as caught, new_folder(Path("run"), data=Path("data")):
        pass
    assert caught.value.where == f"run/{name}"


KILLED = """
import os, time
from pathlib import Path
from fcos_cli.train.folder import hold_folder

with hold_folder(Path("run")):
    if os.fork() == 0:
        print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_lock_ends_with_a_killed_run_though_its_loaders_live_on() -> None:
    Path("run").mkdir()
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(UsageError, match="another run of fcos train is using this folder"),
            hold_folder(Path("run")),
        ):
            pass
        process.kill()
        process.wait()
        with hold_folder(Path("run")):  # the other process has not ended
            os.killpg(process.pid, signal.SIGKILL)
