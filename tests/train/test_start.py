"""Starting and resuming runs: settings, data and errors."""

import os
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.errors import DataError, MissingExtra, UsageError
from fcos_cli.train import start
from fcos_cli.train.checkpoint import Progress
from fcos_cli.train.folder import hold_folder
from fcos_cli.train.recipe.plan import Plan, make_plan


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes") / "data", train=2, val=1, size=32)


def plan(data: Path, **flags: object) -> Plan:
    return make_plan(data, file=None, assignments=[], flags={"train.batch": 2, **flags}, base={})


def test_folder_with_a_saved_run_is_refused(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr(start, "train", lambda *_, **__: begun.append(True))
    monkeypatch.setattr(start, "export_best", lambda *_: None)
    for name in (".lock", "config.toml", "metrics.jsonl", "origins.json"):  # killed before the first save
        (tmp_path / name).write_text("")
    start.start(plan(shapes), folder=tmp_path)
    assert begun
    (tmp_path / "state.pt").write_bytes(b"")
    with pytest.raises(UsageError, match="already in use"):
        start.start(plan(shapes), folder=tmp_path)


def test_a_folder_in_use_is_refused(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, saved = tmp_path / "new", tmp_path / "saved"
    for folder in (new, saved):
        folder.mkdir()
    (saved / "state.pt").write_bytes(b"")
    (saved / "config.toml").write_text(f"[data]\npath = '{shapes}'\n")
    monkeypatch.setattr(start, "train", lambda *_, **__: pytest.fail("two runs in one folder"))
    with hold_folder(new), pytest.raises(UsageError, match="another run of fcos train") as caught:
        start.start(plan(shapes), folder=new)
    assert caught.value.where == str(new)
    with hold_folder(saved), pytest.raises(UsageError, match="another run of fcos train"):
        start.resume(saved, flags={})


def test_a_run_holds_its_folder_and_its_number(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def train(*_: object, folder: Path, **__: object) -> None:
        folders.append(folder)
        with pytest.raises(UsageError, match="another run of fcos train"), hold_folder(folder):
            pass
        if len(folders) == 1:  # a second run begins meanwhile
            start.start(plan(shapes), folder=None)
        else:
            raise UsageError("before the first step")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "train", train)
    with pytest.raises(UsageError, match="before the first step"):
        start.start(plan(shapes), folder=None)
    assert folders == [Path("runs/train/data"), Path("runs/train/data-2")]
    assert list(tmp_path.iterdir()) == []


def test_each_of_several_processes_sees_its_own_gpu(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def gpus(_: object) -> AbstractContextManager[None]:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        raise UsageError("seen")

    plan_of_two, facts = plan(shapes), {"WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}
    for name, value in {**facts, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(start, "with_chosen_batch", gpus)
    monkeypatch.setattr(start, "join_world", gpus)
    options = {"name": None, "out": None, "file": None, "assignments": [], "flags": {}, "time": None, "network": None}
    for begin in (
        lambda: start.plan_new(shapes, **options, demo=False, choose_batch=True, check=False),
        lambda: start.start(plan_of_two, folder=tmp_path),
        lambda: start.resume(tmp_path, flags={}),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
        with pytest.raises(UsageError, match="seen"):
            begin()
    assert seen == ["7"] * 3


def test_a_run_finds_its_data_and_its_teacher_from_another_working_directory(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text(f"[data]\npath = '{shapes.name}'\n")
    monkeypatch.chdir(shapes.parent)
    flags = {"train.batch": 2, "train.teacher": "large/best.safetensors"}
    options = {"assignments": [], "flags": flags, "time": None, "network": None, "demo": False}
    new, folder = start.plan_new(
        None, name=None, out=tmp_path / "run", file=tmp_path / "mine.toml", choose_batch=False, **options
    )
    assert (new.config.data.path, folder) == (str(shapes.resolve()), tmp_path / "run")
    assert new.config.train.teacher == str(shapes.parent / "large" / "best.safetensors")
    own = (tmp_path / "mine.toml").rename(tmp_path / "config.toml")
    with pytest.raises(UsageError, match="would replace this file"):
        start.plan_new(None, name=None, out=tmp_path, file=own, choose_batch=False, **options)


@pytest.mark.parametrize("name", ["default", "coco", "offline"])
def test_a_teacher_that_is_not_a_path_stays_what_it_is(name: str, shapes: Path, tmp_path: Path) -> None:
    flags = {"train.batch": 2, "train.teacher": name}
    options = {"file": None, "assignments": [], "time": None, "network": None, "demo": False, "choose_batch": False}
    new, _ = start.plan_new(shapes, name=None, out=tmp_path / "run", flags=flags, **options)
    assert new.config.train.teacher == name


def test_settings_have_a_time_limit_and_data_unless_they_are_given(shapes: Path, tmp_path: Path) -> None:
    flags = {"train.batch": 2, "train.time": 60.0, "data.path": str(shapes)}
    options = {"file": None, "assignments": [], "flags": flags, "network": None, "demo": False, "choose_batch": False}
    for data, time, seconds in ((None, None, 60), (shapes, "90s", 90)):
        new, _ = start.plan_new(data, name=None, out=tmp_path / "run", time=time, **options)
        assert (new.config.train.time, new.config.data.path) == (seconds, str(shapes))


def test_a_number_of_epochs_and_a_time_limit_exclude_each_other(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[train]\nbatch = 2\nepochs = 5\ntime = 60.0\n")
    (tmp_path / "state.pt").write_bytes(b"")
    options: dict[str, Any] = {"name": None, "out": tmp_path / "run", "file": tmp_path / "mine.toml"}
    options |= {"assignments": [], "network": None, "demo": False, "choose_batch": False}
    flags = {"train.epochs": 10}
    with pytest.raises(UsageError, match="epochs or within a time limit") as caught:
        start.plan_new(shapes, flags=flags, time="2h", **options)
    assert caught.value.where == "--epochs 10 --time 2h"
    with pytest.raises(UsageError, match="epochs or within a time limit"):
        start.resume(tmp_path, flags={**flags, "train.time": "+2h"})
    with pytest.raises(UsageError, match="epochs or within a time limit"):  # as `settings` of the Python interface
        start.plan_new(shapes, flags={**flags, "train.time": 60.0}, time=None, **options)
    off = {**flags, "train.time": 0}
    cases = ((flags, None, (10, 0.0)), (off, None, (10, 0.0)), ({}, "90s", (5, 90.0)), ({}, None, (5, 60.0)))
    for given, time, length in cases:
        new, _ = start.plan_new(shapes, flags=given, time=time, **options)
        assert (new.config.train.epochs, new.config.train.time) == length


def test_the_demo_is_named_and_numbered(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def train(*_: object, folder: Path, **__: object) -> None:
        folders.append(folder)
        (folder / "state.pt").touch()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "demo_data", lambda _: shapes)
    monkeypatch.setattr(start, "train", train)
    monkeypatch.setattr(start, "export_best", lambda *_: None)
    options: dict[str, Any] = {"name": None, "out": None, "file": None, "assignments": [], "time": None}
    options |= {"network": None, "choose_batch": False, "flags": {"train.batch": 2}, "demo": True}
    for _ in range(2):
        made, folder = start.plan_new(None, **options)
        start.start(made, folder=folder)
    assert folders == [Path("runs/train/demo"), Path("runs/train/demo-2")]
    with pytest.raises(UsageError, match="images of its own"):
        start.plan_new(shapes, **options)


@pytest.mark.parametrize("name", ["", "."])
def test_the_folder_of_all_runs_is_no_name(shapes: Path, name: str) -> None:
    options: dict[str, Any] = {"out": None, "file": None, "assignments": [], "flags": {}, "time": None}
    with pytest.raises(UsageError, match="cannot have the name"):
        start.plan_new(shapes, name=name, network=None, demo=False, choose_batch=False, **options)


def test_a_resumed_run_knows_where_its_settings_came_from(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state.pt").touch()
    (tmp_path / "config.toml").write_text(f"[data]\npath = '{shapes}'\n[train]\nbatch = 2\nepochs = 3\nworkers = 1\n")
    (tmp_path / "origins.json").write_text('{"train.epochs": "auto: a few images", "train.batch": "flag"}')
    found: list[dict[str, str]] = []
    monkeypatch.setattr(start, "_run", lambda plan, *_, **__: found.append(plan.origins))
    monkeypatch.setattr(start, "read_progress", lambda _: Progress(epoch=3))
    start.resume(tmp_path, flags={"train.epochs": 4, "train.workers": 1})
    assert found == [{"train.epochs": "--resume", "train.batch": "flag"}]


def test_a_tracker_that_is_not_installed_is_told_before_the_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state.pt").touch()
    (tmp_path / "config.toml").write_text(f"[data]\npath = '{tmp_path}'\n[train]\ntracker = 'wandb'\n")
    monkeypatch.setattr("fcos_cli.train.tracking.trackers.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match="wandb is not installed"):
        plan(tmp_path, **{"train.tracker": "wandb"})
    with pytest.raises(MissingExtra, match="wandb is not installed"):
        start.resume(tmp_path, flags={})


def test_resume_refuses_other_settings(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"train\.lr"):
        start.resume(tmp_path, flags={"train.lr": 0.1})


def test_a_resumed_run_says_where_the_place_of_its_data_is_set(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"")
    (tmp_path / "config.toml").write_text("[data]\npath = '/data/moved'\n")
    with pytest.raises(DataError, match="not there any more") as caught:
        start.resume(tmp_path, flags={})
    assert caught.value.where == "/data/moved"
    assert caught.value.remedy == f"if it was moved, set data.path in {tmp_path / 'config.toml'}"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("0.5h", 1800), (" 5M ", 300)]
)
def test_durations(text: str, seconds: float) -> None:
    assert start.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "30", "m", "-5m", "2d", "1m1h"])
def test_other_text_is_not_a_duration(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        start.parse_duration(text)


@pytest.mark.parametrize(
    ("flags", "words"),
    [({"train.epochs": 4}, "already done 4 epochs"), ({"train.time": "90s"}, "already used 2 min")],
)
def test_a_run_cannot_be_made_shorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], words: str
) -> None:
    (tmp_path / "state.pt").write_bytes(b"")
    monkeypatch.setattr(start, "read_progress", lambda _: Progress(epoch=4, seconds=100))
    with pytest.raises(UsageError, match=words):
        start.resume(tmp_path, flags=flags)


def test_more_time_from_now_on_that_is_less_in_all_is_said(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state.pt").write_bytes(b"")
    (tmp_path / "config.toml").write_text(f"[data]\npath = '{shapes}'\n[train]\nbatch = 2\n")
    limits: list[float] = []
    monkeypatch.setattr(start, "_run", lambda plan, *_, **__: limits.append(plan.config.train.time))
    monkeypatch.setattr(start, "read_progress", lambda _: Progress(epoch=4, seconds=1800, planned=[30, 7200.0]))
    for text, said in (("+20m", True), ("2h", False), ("+2h", False), (7200, False)):
        start.resume(tmp_path, flags={"train.time": text})
        assert ("the time limit is 50 min in all now, instead of 2 h 00 min" in capsys.readouterr().err) is said
    assert limits == [3000, 7200, 9000, 7200]


@pytest.mark.parametrize(
    ("planned", "flags", "words", "remedy"),
    [
        ([30, 0.0], {"train.epochs": 30}, "already done 12 epochs, and has ended", "more than 30 epochs"),
        ([30, 120.0], {"train.time": "2m"}, "already used 2 min, and has ended", r"\+20m"),
    ],
)
def test_a_run_that_has_ended_is_not_continued_with_the_length_that_it_had(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    planned: list[float],
    flags: dict[str, Any],
    words: str,
    remedy: str,
) -> None:
    (tmp_path / "state.pt").write_bytes(b"")
    done = Progress(epoch=12, seconds=117, finished=True, planned=planned)
    monkeypatch.setattr(start, "read_progress", lambda _: done)
    with pytest.raises(UsageError, match=words) as caught:
        start.resume(tmp_path, flags=flags)
    assert re.search(remedy, str(caught.value.remedy))


OWN = '{"train.val_every": "--set"}'


@pytest.mark.parametrize(
    ("planned", "origins", "expected"), [([30, 7200.0], "{}", 8), ([30, 0.0], "{}", 1), ([30, 7200.0], OWN, 1)]
)
def test_a_time_limited_run_that_is_continued_for_epochs_does_not_validate_after_each(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planned: list[float], origins: str, expected: int
) -> None:
    (tmp_path / "state.pt").write_bytes(b"")
    (tmp_path / "config.toml").write_text(f"[data]\npath = '{shapes}'\n[train]\nbatch = 2\n")
    (tmp_path / "origins.json").write_text(origins)
    found: list[int] = []
    monkeypatch.setattr(start, "_run", lambda plan, *_, **__: found.append(plan.config.train.val_every))
    monkeypatch.setattr(start, "read_progress", lambda _: Progress(epoch=4, seconds=1800, planned=planned))
    start.resume(tmp_path, flags={"train.epochs": 400})
    assert found == [expected]
