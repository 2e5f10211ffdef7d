"""The Python interface: docs/python.md runs, nothing is printed, errors are exceptions, and nothing stays changed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import fcos_cli
from fcos_cli import api
from fcos_cli.console import say
from fcos_cli.errors import DataError, ModelError, UsageError
from fcos_cli.export.run import ExportJob, ExportResult
from fcos_cli.resources import ASSETS
from fcos_cli.runtime.headers import read_header
from tests.train.runs import SETTINGS

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
DEFAULT = ASSETS / "default.onnx"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes: Path) -> None:
    """An empty working folder with a data set in `data`, and settings for a training of seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fcos_cli.train.tracking.trackers.find_spec", lambda _: None)
    (tmp_path / "data").symlink_to(shapes)
    for table, values in SETTINGS.items():
        for key, value in values.items():
            monkeypatch.setenv(f"FCOS_{table}__{key}".upper(), json.dumps(value))
    monkeypatch.setenv("FCOS_TRAIN__BATCH", "6")


@pytest.fixture
def quick_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export without tracing the graph, which takes long: a copy of the bundled file."""

    def export(weights: Path, job: ExportJob) -> ExportResult:
        assert weights.is_file()
        shutil.copy(DEFAULT, job.out)
        return ExportResult(job.out, read_header(job.out).facts, None)

    monkeypatch.setattr("fcos_cli.export.run.export", export)


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_is_a_program_that_runs(
    quick_export: None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks()):
        exec(compile(block, f"python.md, block {number}", "exec"), names)
    out, err = capfd.readouterr()
    assert err == ""
    assert names["run"].folder == Path("run")
    assert set(names["run"].metrics) == {"AP", "AP50", "AP75", "APs", "APm", "APl", *[f"AR{k}" for k in COUNTS]}
    assert Path("report.html").is_file()
    assert [row.name for row in names["result"].per_class] == ["circle", "square", "triangle"]
    assert "detector.onnx True\nTrue\n" in out
    assert "nowhere" in out
    assert names["found"].boxes.shape[1] == 4


COUNTS = ("1", "10", "100", "s", "m", "l")


def test_a_run_is_made_resumed_and_evaluated_in_a_thread(capfd: pytest.CaptureFixture[str]) -> None:
    results: list[Any] = []

    def work() -> None:
        results.append(api.train("data", name="x", epochs=1))
        results.append(api.resume(results[0].folder, epochs=2))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    first, second = results
    assert first.folder == second.folder == Path("runs/train/x")
    assert first.weights.is_file()
    assert (first.onnx, first.epoch) == (None, 1)
    assert capfd.readouterr() == ("", "")
    again = api.evaluate(api.load(second.weights), "data", limit=2)
    assert again.images == 2


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_a_number_of_images(limit: int) -> None:
    with pytest.raises(UsageError, match=f"limit is {limit}"):
        api.evaluate("default", "data", limit=limit)


def test_a_run_is_resumed_with_another_device_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr("fcos_cli.train.start.resume", lambda *_, flags, **__: given.append(flags))
    monkeypatch.setattr(api, "_result", lambda _: None)
    api.resume("run", time=1800, device="cpu", workers=0, export=False)
    assert given == [{"train.time": 1800, "train.device": "cpu", "train.workers": 0, "train.export": False}]


def test_nothing_stays_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcos_cli.allocator.keep_freed_memory", lambda: pytest.fail("this lasts"))

    def state() -> tuple[object, ...]:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return (handlers, torch.get_rng_state().tolist(), torch.get_num_threads(), torch.is_grad_enabled())

    before, filters = state(), list(warnings.filters)
    api.train("data", out="run", epochs=1, seed=3)
    api.evaluate("run", "data")
    assert state() == before
    assert warnings.filters == filters


def test_cuda_is_left_alone_unless_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", read.append)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
    for used, expected in ((False, []), (True, [0, 1])):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda used=used: used)
        with api._same_random_numbers():
            assert read == expected


@pytest.mark.parametrize("progress", [False, True])
def test_what_opening_a_model_says_is_progress(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], progress: bool
) -> None:
    def download(*_: object, **__: object) -> Any:
        say("downloading weights")
        return fcos_cli.load("default")

    monkeypatch.setattr(api, "load", download)
    shutil.copy(Path(__file__).parent / "two_photos.json", "photos.json")
    shutil.copytree(ASSETS / "photos", "images")
    api.evaluate("coco", "photos.json", limit=1, progress=progress)
    assert ("downloading weights" in capfd.readouterr().err) == progress


def test_progress_prints_what_the_command_prints(capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copy(Path(__file__).parent / "two_photos.json", "photos.json")
    shutil.copytree(ASSETS / "photos", "images")
    api.evaluate("default", "photos.json", progress=True, batch=1)
    out, err = capfd.readouterr()
    assert out == ""
    assert "AP50" in err
    assert "evaluating 2/2" in err


def test_errors_are_exceptions(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="no data"):
        api.train()
    with pytest.raises(UsageError, match=r"train\.lrr"):
        api.train("data", settings={"train.lrr": 1})
    with pytest.raises(DataError):
        api.train("nowhere")
    with pytest.raises(UsageError, match="not a duration"):
        api.train("data", time="soon")
    with pytest.raises(ModelError, match="no such model"):
        api.evaluate("nowhere.onnx", "data")
    with pytest.raises(UsageError, match="unknown evaluator"):
        api.evaluate("default", "data", evaluator="mine")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="only PyTorch weights"):
        api.export(DEFAULT)
    with pytest.raises(UsageError, match="unknown --format"):
        api.export("default", format="pdf")
    Path("run").mkdir()
    Path("run/state.pt").touch()
    with pytest.raises(UsageError, match="already in use"):
        api.train("data", out="run")
    assert capfd.readouterr() == ("", "")


def test_an_export_has_the_options_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = onnx.load(DEFAULT)  # what tracing the bundled weights gave
    monkeypatch.setattr("fcos_cli.export.run.trace", lambda *_: graph)
    exported = api.export("default", out="x.onnx", score=0.2, winograd=False, verify=False)
    facts = read_header(Path("x.onnx")).facts
    assert (exported.path, exported.parity, facts.score_threshold) == (Path("x.onnx"), None, 0.2)
    assert exported.facts == facts
    assert capfd.readouterr() == ("", "")


def test_the_package_offers_it() -> None:
    assert fcos_cli.api is api
    assert api.load is fcos_cli.load
    assert all(getattr(api, name) for name in api.__all__)
