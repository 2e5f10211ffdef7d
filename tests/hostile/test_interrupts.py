"""Ctrl-C and SIGTERM at random moments: no file is half written, nothing temporary stays, and old results survive."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.mark import REPORT_MARK
from tests.cli_runner import Fcos
from tests.runtime.onnx_files import FACTS, write_onnx

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
OLD = {
    "x.json": '{"schema_version": 1, "model": "old"}\n',
    "r.html": f"<!doctype html>{REPORT_MARK}\n",
    "c.coco.json": "[\n]\n",
}


@contextmanager
def signal_after(seconds: float, number: int) -> Iterator[None]:
    """Send this process a signal. If it comes too late, it is ignored."""
    gc.disable()  # an exception in a callback of the collector, such as hypothesis's, would be lost
    before = signal.signal(number, signal.SIG_IGN if number == signal.SIGTERM else signal.default_int_handler)
    alarm = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), number))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except KeyboardInterrupt:
        pass  # after the command had ended
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(number, before)
        gc.enable()


def check_files(folder: Path) -> None:
    """Each file is the old one, or complete."""
    for path in folder.rglob("*"):
        if path.is_dir():
            continue
        assert path.suffix != ".tmp", path
        if path.suffix in (".jpg", ".png"):
            with Image.open(path) as image:
                image.load()
        elif path.read_text(encoding="utf-8") != OLD.get(path.name):
            text = path.read_text(encoding="utf-8")
            assert json.loads(text) if path.suffix == ".json" else text.rstrip().endswith("</html>")


def with_old_results(folder: Path) -> Path:
    folder.mkdir()
    for name, text in OLD.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def pictures(folder: Path, count: int = 12) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (320, 240), (250, number, 0)).save(folder / f"{number}.jpg")
    return folder


# an exception just after a file was opened leaves it to the collector, which closes it with a warning
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
@pytest.mark.parametrize("command", ["predict", "eval"])
def test_signals(tmp_path: Path, shapes: Path, fcos: Fcos, command: str, number: signal.Signals) -> None:
    names = tuple(row["name"] for row in json.loads((shapes / "val.json").read_text(encoding="utf-8"))["categories"])
    model = write_onnx(tmp_path / "m.onnx", facts=replace(FACTS, classes=ClassTable(names, (10, 20, 30))))
    photos = pictures(tmp_path / "in")

    def run(folder: Path) -> int:
        files = ("--save", folder / "x.json", "--save", folder / "c.coco.json")
        if command == "predict":
            return fcos("predict", photos, "--model", model, "--viz", "--crops", "--out", folder, *files).code
        return fcos(
            "eval", model, shapes, "--split", "all", "--report", folder / "r.html", "--save", folder / "n.json"
        ).code

    assert run(with_old_results(tmp_path / "warm")) == 0
    started = time.monotonic()
    assert run(with_old_results(tmp_path / "whole")) == 0
    whole = time.monotonic() - started
    codes: list[int] = []
    for moment in range(20):
        if moment >= 5 and CODES[number] in codes:
            break
        folder = with_old_results(tmp_path / f"out-{moment}")
        share = random.Random(f"{command} {number} {moment}").uniform(0.05, 0.9)
        share /= 1 + moment // 5  # earlier, if this machine became faster and all signals came too late
        with signal_after(share * whole, number):
            codes.append(run(folder))
        check_files(folder)
    assert set(codes) <= {0, CODES[number]}
    assert CODES[number] in codes


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
def test_signals_during_an_export(tmp_path: Path, model_file: Path, number: signal.Signals) -> None:
    out = tmp_path / "out" / "x.onnx"
    out.parent.mkdir()
    old = write_onnx(out).read_bytes()
    line = [sys.executable, "-m", "fcos_cli", "export", str(model_file), "--out", str(out), "--no-verify"]
    running = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    assert running.stderr.readline().startswith("exporting")
    time.sleep(random.Random(int(number)).uniform(0, 1))
    running.send_signal(number)
    running.communicate(timeout=60)
    # CPython ends itself by the signal, which a shell shows as 130, if Ctrl-C came while it ran the text of an exec()
    assert running.returncode in (CODES[number], -number)
    assert [path.name for path in out.parent.iterdir()] == ["x.onnx"]
    assert out.read_bytes() == old
