"""Starting and resuming runs: settings, data and errors."""

from pathlib import Path
from typing import Any

import pytest

from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.errors import UsageError
from fcos_cli.train import start
from fcos_cli.train.checkpoint import Progress
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
    (tmp_path / "config.toml").write_text("")  # killed before the first save
    start.start(plan(shapes), folder=tmp_path)
    assert begun
    (tmp_path / "state.pt").write_bytes(b"")
    with pytest.raises(UsageError, match="already in use"):
        start.start(plan(shapes), folder=tmp_path)


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors"])
def test_a_detector_is_not_replaced_by_a_new_run(shapes: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(UsageError, match="holds a detector") as caught:
        start.start(plan(shapes), folder=tmp_path)
    assert caught.value.where == str(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"weights"


def test_a_run_finds_its_data_from_another_working_directory(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text(f"[data]\npath = '{shapes.name}'\n")
    monkeypatch.chdir(shapes.parent)
    options = {"assignments": [], "flags": {"train.batch": 2}, "time": None, "network": None, "demo": False}
    new, folder = start.plan_new(
        None, name=None, out=tmp_path / "run", file=tmp_path / "mine.toml", choose_batch=False, **options
    )
    assert (new.config.data.path, folder) == (str(shapes.resolve()), tmp_path / "run")
    own = (tmp_path / "mine.toml").rename(tmp_path / "config.toml")
    with pytest.raises(UsageError, match="would replace this file"):
        start.plan_new(None, name=None, out=tmp_path, file=own, choose_batch=False, **options)


def test_resume_refuses_other_settings(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"train\.lr"):
        start.resume(tmp_path, flags={"train.lr": 0.1})


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
