from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr

import numpy as np
import pytest

from fcos_cli import console
from fcos_cli.errors import DataError, FcosError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def test_error_is_printed_to_stderr_in_three_parts(capsys):
    console.print_error(DataError("box has no area", where="val.json:7", remedy="run fcos doctor"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: box has no area\n  where: val.json:7\n  do:    run fcos doctor\n"


def test_details_of_an_error_have_a_line_each(capsys):
    names = [f"tensor {number}" for number in range(1000)]
    console.print_error(DataError("unknown tensors", where="x.pth", remedy="fix it", details=[*names, "\x1b[2J"]))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:3] == ["  where: x.pth", "    tensor 0"]
    assert lines[1001:] == ["    tensor 999", "    \\x1b[2J", "  do:    fix it"]


def test_missing_parts_are_omitted_and_markup_is_not_interpreted(capsys):
    long = "/data/[1]/:cat:/" + "x" * 300
    console.print_error(FcosError("[bold]gone[/]", where=long))
    assert capsys.readouterr().err == f"error: [bold]gone[/]\n  where: {long}\n"


def test_json_goes_to_stdout_with_the_schema_version_first(capsys):
    console.emit_json({"model": "m", "metrics": {"AP": np.float64(0.5), "bad": float("nan")}, "ids": (np.int64(3), 1)})
    out, err = capsys.readouterr()
    assert err == ""
    assert list(json.loads(out)) == ["schema_version", "model", "metrics", "ids"]
    assert json.loads(out)["metrics"] == {"AP": 0.5, "bad": None}
    assert json.loads(out)["ids"] == [3, 1]


def test_json_supports_arrays_paths_and_booleans(capsys, tmp_path):
    console.emit_json({"a": np.arange(2), "p": tmp_path, "t": True, "n": None})
    assert json.loads(capsys.readouterr().out) == {
        "schema_version": 1,
        "a": [0, 1],
        "p": str(tmp_path),
        "t": True,
        "n": None,
    }


def test_messages_go_to_stderr(capsys):
    console.say("hello [there]")
    console.warn("beware")
    assert capsys.readouterr() == ("", "hello [there]\nwarning: beware\n")


def test_table_has_three_decimals_and_dashes_for_missing_values(capsys):
    console.table(["class", "AP", "AP50"], [["[cat]", 0.12345, -1.0], ["dog", None, float("nan")]], title="classes")
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line.split() for line in err.splitlines() if line.strip()]
    assert ["[cat]", "0.123", "–"] in lines
    assert ["dog", "–", "–"] in lines


def test_wide_table_is_not_truncated_off_a_terminal(capsys):
    console.table([f"column{n}" for n in range(13)], [["a name of some length", *range(12)]])
    assert "a name of some length" in capsys.readouterr().err


def test_progress_off_a_terminal_is_a_line_per_n_steps(capsys):
    with console.progress("reading", total=10, every=4) as update:
        for done in range(1, 11):
            update(done, note=f"loss {done}")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == ["reading 4/10", "reading 8/10", "reading 10/10"]
    assert lines[-1].endswith("loss 10")
    assert "\x1b" not in "".join(lines)


def test_progress_prints_ten_lines_by_default_and_accepts_the_total_later(capsys):
    with console.progress("evaluating") as update:
        for done in range(1, 501):
            update(done, 500)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("evaluating 500/500")


def test_progress_with_large_steps_prints_every_line(capsys):
    with console.progress("predicting", every=100) as update:
        for done in range(64, 641, 64):
            update(done)
    assert len(capsys.readouterr().err.splitlines()) == 6


def test_progress_on_a_terminal_is_a_bar(terminal):
    with redirect_stderr(terminal), console.progress("reading [it]", total=4) as update:
        update(4, note="[x]")
    text = terminal.getvalue()
    assert "\x1b[" in text
    assert "reading [it]" in text
    assert "4/4" in text


def test_progress_on_a_dumb_terminal_is_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with redirect_stderr(terminal), console.progress("reading", total=1) as update:
        update(1)
    assert terminal.getvalue().startswith("reading 1/1")


def test_colours_on_a_terminal_unless_no_color_is_set(terminal, monkeypatch):
    with redirect_stderr(terminal):
        console.warn("careful")
    assert "\x1b[33m" in terminal.getvalue()
    terminal.truncate(0)
    monkeypatch.setenv("NO_COLOR", "1")
    with redirect_stderr(terminal):
        console.warn("careful")
    assert "\x1b[33m" not in terminal.getvalue()


def test_importing_console_does_not_import_rich():
    code = "import sys, fcos_cli.console; sys.exit('rich' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
