"""Metrics file, means and speed, terminal output, and signals."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from fcos_cli.errors import Interrupted, Stopped
from fcos_cli.train.signals import catching_signals, share_stop
from fcos_cli.train.tracking.metrics import Meter, MetricsFile, read_rows
from fcos_cli.train.tracking.terminal import TerminalReporter, format_duration, format_step

NOTHING: Any = None

ROW = {"kind": "train", "step": 50, "steps": 100, "epoch": 1, "loss": 1.21, "cls": 0.23, "box": 0.34}
ROW |= {"centerness": 0.64, "images_per_s": 6.9, "seconds_left": 720.0}


def test_metrics_file_is_new_or_keeps_rows_before_the_resumed_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("of an earlier run\n")
    file = MetricsFile(path, resume_at=0)
    for step in (20, 40, 60):
        file.add({"kind": "train", "step": step, "loss": 1.0})
    with path.open("a") as stream:
        stream.write('{"kind": "train", "st')  # killed while it wrote
    MetricsFile(path, resume_at=45).add({"kind": "val", "step": 50, "AP": 0.1})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [20, 40, 50]


def test_rewinding_removes_later_rows(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl", resume_at=0)
    for step in (20, 40, 60):
        file.add({"kind": "train", "step": step})
    file.rewind(40)
    file.add({"kind": "train", "step": 41})
    assert [json.loads(line)["step"] for line in file.path.read_text().splitlines()] == [20, 40, 41]


def test_a_pending_validation_has_no_rows_yet(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [("train", 20), ("val", 20), ("train", 40), ("val", 40), ("train", 60)]
    for pending, kept in ((False, rows[:4]), (True, rows[:3])):
        file = MetricsFile(path, resume_at=0)
        for kind, step in rows:
            file.add({"kind": kind, "step": step})
        MetricsFile(path, resume_at=40, pending=pending)
        assert [(row["kind"], row["step"]) for row in read_rows(path)] == kept


def test_meter_returns_mean_terms_and_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("fcos_cli.train.tracking.metrics.time.monotonic", lambda: now[0])
    meter = Meter()
    for loss in (1.0, 2.0, 6.0):
        now[0] += 2
        meter.add({"loss": loss, "box": loss / 2}, pictures=8)
    assert meter.read() == {"loss": 3.0, "box": 1.5, "images_per_s": 4.0}
    assert set(Meter().read()) == {"images_per_s"}


def test_meter_leaves_out_what_is_not_finite() -> None:
    meter = Meter()
    for norm in (2.0, float("inf"), float("nan"), 4.0):
        meter.add({"loss": 1.0, "grad_norm": norm}, pictures=8)
    read = meter.read()
    assert (read["loss"], read["grad_norm"]) == (1.0, 3.0)
    only = Meter()
    only.add({"loss": 1.0, "grad_norm": float("inf")}, pictures=8)
    assert "grad_norm" not in only.read()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (45, "45 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (11100, "3 h 05 min")],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_format_step_is_one_line() -> None:
    assert format_step(ROW) == "loss 1.210 (cls 0.230 box 0.340 centerness 0.640) 6.9 images/s, 12 min left"


def test_without_a_terminal_only_some_steps_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = TerminalReporter(interactive=False)
    for step in (1, 49, 50, 99, 100):
        terminal.step({**ROW, "step": step})
    terminal.validating(1, 2)
    terminal.validated({"epoch": 1, "AP": 0.5, "AP50": 0.75, "AP75": 0.25, "seconds": 3.0, "best": True}, NOTHING)
    terminal.close()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["50/100", "100/100"]
    assert lines[2] == "epoch 1 val AP 0.500 AP50 0.750 AP75 0.250 in 3 s (best so far)"
    assert len(lines) == 3


def test_no_ap_is_printed_for_val_without_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"epoch": 1, "AP": -1.0, "AP50": -1.0, "AP75": -1.0, "seconds": 3.0, "best": True}
    TerminalReporter(interactive=False).validated(row, NOTHING)
    assert capsys.readouterr().err == "epoch 1 val without boxes: no AP\n"


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Stopped), (signal.SIGINT, Interrupted)])
def test_signal_sets_the_stop_request(number: int, kind: type[Exception]) -> None:
    with catching_signals() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert not stop  # before all processes have agreed on it
        share_stop(stop)
        assert stop
        error = stop.error(remedy="go on")
    assert type(error) is kind
    assert error.remedy == "go on"


def test_second_ctrl_c_raises_keyboard_interrupt() -> None:
    with catching_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_signals_are_not_handled_outside_the_main_thread() -> None:
    seen: list[bool] = []

    def work() -> None:
        with catching_signals() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
