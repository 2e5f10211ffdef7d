"""The command line as a whole: help, version, exit codes and error messages."""

import os
import subprocess
import sys

import pytest

from fcos_cli import __version__
from fcos_cli.errors import UsageError
from tests.cli_runner import CliResult, Fcos

COMMANDS = {"train", "eval", "predict", "info", "doctor"}


def test_help_lists_the_commands(fcos: Fcos) -> None:
    result = fcos("--help")
    assert result.code == 0
    assert all(command in result.out for command in COMMANDS)
    from fcos_cli.cli import app

    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    assert names >= COMMANDS


def test_version_goes_to_stdout(fcos: Fcos) -> None:
    assert fcos("--version") == CliResult(0, f"fcos-cli {__version__}\n", "")


@pytest.mark.parametrize(
    "line",
    ["predikt x", "predict --nope x", "predict x --score 2", "predict x --batch 0", "train --epochs many", "eval x"],
)
def test_invalid_command_line_is_exit_code_2_with_empty_stdout(fcos: Fcos, line: str) -> None:
    result = fcos(*line.split())
    assert (result.code, result.out) == (2, "")
    assert result.err


def test_error_has_a_traceback_only_with_debug(fcos: Fcos) -> None:
    result = fcos("train")
    assert result.code == 2
    assert result.err.splitlines()[0] == "error: no data to train on"
    assert "Traceback" not in result.err
    with pytest.raises(UsageError):
        fcos("--debug", "train")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of sh in which $FCOS is the program."""
    environment = {**os.environ, "FCOS": f"{sys.executable} -m fcos_cli"}
    return subprocess.run(
        ["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("$FCOS info default --json | head -1 > /dev/null; exit ${PIPESTATUS[0]}", 0, ""),
        ("$FCOS --help | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("$FCOS info default --json > /dev/full", 1, "No space left on device"),
        ("$FCOS info default --json >&-", 0, ""),
        ("$FCOS info default 2>&-", 0, ""),
        ("$FCOS info default <&- > /dev/null", 0, ""),
        ("$FCOS info nowhere.onnx 2> /dev/full", 4, ""),
    ],
)
def test_streams_that_are_closed_or_full(line: str, code: int, words: str) -> None:
    done = shell(line)
    assert "Traceback" not in done.stderr
    assert words in done.stderr
    assert done.returncode == code


@pytest.mark.slow
@pytest.mark.parametrize("line", ["$FCOS --debug info nowhere.onnx", "$FCOS info nowhere.onnx --debug"])
def test_debug_may_come_before_and_after_the_command(line: str) -> None:
    assert "Traceback" in shell(line).stderr
