"""The command line as a whole: help, version, exit codes and error messages."""

import io
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

from fcos_cli import __version__
from fcos_cli.cli import main
from fcos_cli.export.run import ExportResult
from fcos_cli.resources import ASSETS
from fcos_cli.train.checkpoint import Progress
from fcos_cli.train.start import Outcome
from tests.cli_runner import CliResult, Fcos
from tests.runtime.onnx_files import FACTS

COMMANDS = {"train", "eval", "predict", "export", "verify", "bench", "convert", "info", "doctor"}


def test_help_lists_the_commands(fcos: Fcos) -> None:
    result = fcos("--help")
    assert result.code == 0
    assert all(command in result.out for command in COMMANDS)
    from fcos_cli.cli import app

    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    assert names >= COMMANDS


def test_version_goes_to_stdout(fcos: Fcos) -> None:
    result = fcos("--version")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == f"fcos-cli {__version__}"
    assert f"onnxruntime {metadata.version('onnxruntime')}" in lines
    assert lines[1].startswith(f"Python {platform.python_version()}, ")


def test_version_names_what_is_not_installed(fcos: Fcos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcos_cli.cli.RUNTIMES", ("no-such-runtime",))
    assert "no-such-runtime not installed" in fcos("--version").out


@pytest.mark.parametrize(("words", "offered"), [("fcos tr", "train"), ("fcos predict --tra", "--track")])
def test_a_shell_completes_commands_and_options(
    fcos: Fcos, monkeypatch: pytest.MonkeyPatch, words: str, offered: str
) -> None:
    monkeypatch.setenv("_FCOS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    assert fcos().out.split() == [offered]


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


def test_debug_shows_a_traceback_and_keeps_the_exit_code(fcos: Fcos, monkeypatch: pytest.MonkeyPatch) -> None:
    result = fcos("--debug", "train")
    assert (result.code, result.out) == (2, "")
    assert "Traceback" in result.err
    assert "UsageError: no data to train on" in result.err
    monkeypatch.setenv("FCOS_DEBUG", "1")
    result = fcos("info", "nowhere.onnx")
    assert result.code == 4
    assert "Traceback" in result.err
    result = fcos("info", f"{'x' * 300}.onnx")
    assert result.code == 2


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
        ("$FCOS info default --json 2>&1 | true; exit ${PIPESTATUS[0]}", 0, ""),
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


def test_a_broken_pipe_is_no_error_only_if_it_is_stdout(fcos: Fcos, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_to_nobody(_model: object) -> None:
        ours, theirs = socket.socketpair()
        theirs.close()
        with ours:
            ours.send(b"x")

    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))  # click replaces them
    with monkeypatch.context() as patch:
        patch.setattr("fcos_cli.runtime.open.find_artifact", write_to_nobody)
        result = fcos("info", "x.onnx")
    assert result.code == 1
    assert "error: a pipe or a connection was closed at its other end" in result.err
    reader, writer = os.pipe()
    os.close(reader)
    stdout = open(writer, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - closing it fails
    assert run_with(monkeypatch, ["--version"], stdout=stdout) == 0
    with suppress(OSError):
        stdout.close()


def test_a_path_in_a_folder_of_somebody_else_is_one_error(fcos: Fcos, theirs: Path) -> None:
    result = fcos("info", theirs / "x.onnx")
    assert result.code == 1
    assert "error: no permission to read or write this" in result.err
    assert f"where: {theirs / 'x.onnx'}" in result.err


LINES = {
    "info": "info MODEL --json",
    "info nano": "info nano --json",
    "predict": "predict IMAGES --model MODEL --json",
    "predict lines": "predict IMAGES --model MODEL --jsonl",
    "predict people": "predict IMAGES --model MODEL",
    "predict files": "predict IMAGES --model MODEL --viz --crops --save x.csv",
    "explain": "predict ONE --model MODEL --explain --json",
    "targets": "predict ONE --targets DATA --model MODEL",
    "eval": "eval MODEL DATA --json",
    "report": "eval MODEL DATA --report r.html",
    "export": "export MODEL --out x.onnx --no-verify --json",
    "doctor": "doctor DATA --json",
    "convert": "convert TORCHVISION --preset torchvision --out x.safetensors --json",
    "bench": "bench MODEL --json",
    "train": "train DATA --init MODEL --batch 2 --out run --json",
    "dry run": "train DATA --init MODEL --batch 2 --dry-run",
    "help": "predict --help",
    "version": "--version",
    "error": "eval nowhere.onnx DATA",
}
FAILS = {"error": 4}
WRITES_TO_STDOUT = set(LINES) - {"predict people", "predict files", "targets", "report", "dry run", "error"}


@pytest.fixture
def photos() -> Path:
    return ASSETS / "photos"


@pytest.fixture
def line_of(
    monkeypatch: pytest.MonkeyPatch, shapes: Path, photos: Path, model_file: Path, fcos: Fcos
) -> Callable[[str], list[str]]:
    """The words of a command of the table. What takes time (convert, export, bench, train) is left out."""
    monkeypatch.setattr("fcos_cli.bench.run.run_benchmark", lambda *_, **__: [])
    monkeypatch.setattr("fcos_cli.bench.run.exit_code", lambda _: 0)
    notes = {"from": "torchvision", "preset": "torchvision", "notes": ("a note",)}
    monkeypatch.setattr("fcos_cli.commands.convert._import", lambda *_: notes)

    def start(plan: object, *, folder: Path, started: float) -> Outcome:
        return Outcome(folder, Progress(best=0.5, best_epoch=0), None)

    exported = ExportResult(Path("x.onnx"), FACTS, None)
    monkeypatch.setattr("fcos_cli.export.run.export", lambda *_: exported)
    monkeypatch.setattr("fcos_cli.train.start.start", start)
    monkeypatch.setattr("fcos_cli.train.recipe.summary.print_estimate", lambda *_, **__: None)
    one = next((shapes / "images").rglob("val*.*"))
    names = {"MODEL": model_file, "DATA": shapes, "IMAGES": photos, "ONE": one}

    def line(name: str) -> list[str]:
        return [str(names.get(word, word)) for word in LINES[name].split()]

    return line


def run_with(monkeypatch: pytest.MonkeyPatch, line: list[str], **streams: object) -> int:
    """The exit code of `fcos` with other standard streams. Any exception but SystemExit is a failure of the test."""
    monkeypatch.setattr(sys, "argv", ["fcos", *line])
    monkeypatch.setattr("fcos_cli.cli._discard_stdout", lambda: None)  # it would silence pytest's own stdout
    with monkeypatch.context() as patch:
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as end:
            main()
        for name in (name for name, stream in streams.items() if stream is None):
            getattr(sys, name).close()
    return int(end.value.code or 0)


@pytest.mark.parametrize("name", LINES)
def test_no_command_needs_any_stream(
    monkeypatch: pytest.MonkeyPatch, line_of: Callable[[str], list[str]], name: str
) -> None:
    """Python has None for a stream that its caller has closed (`>&-`)."""
    assert run_with(monkeypatch, line_of(name), stdin=None, stdout=None, stderr=None) == FAILS.get(name, 0)


@pytest.mark.parametrize("name", LINES)
def test_a_full_stdout_is_one_error(
    monkeypatch: pytest.MonkeyPatch, line_of: Callable[[str], list[str]], name: str
) -> None:
    messages = io.StringIO()
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 - closing it fails
    code = run_with(monkeypatch, line_of(name), stdout=full, stderr=messages)
    with suppress(OSError):
        full.close()
    if name in WRITES_TO_STDOUT:
        assert code == 1
        assert messages.getvalue().count("error: writing failed (No space left on device)") == 1
    else:
        assert code == FAILS.get(name, 0)


@pytest.mark.parametrize("name", LINES)
def test_a_full_stderr_gives_no_traceback(
    monkeypatch: pytest.MonkeyPatch, line_of: Callable[[str], list[str]], name: str
) -> None:
    full = Path("/dev/full").open("w", encoding="utf-8", buffering=1)  # noqa: SIM115 - closing it fails
    code = run_with(monkeypatch, line_of(name), stderr=full)
    with suppress(OSError):
        full.close()
    assert code in (0, 1, FAILS.get(name, 0))


@pytest.mark.parametrize(
    ("number", "result"),
    [(signal.SIGINT, CliResult(130, "", "interrupted\n")), (signal.SIGTERM, CliResult(143, "", ""))],
    ids=["int", "term"],
)
def test_signals_count_even_if_a_library_makes_another_error_of_them(
    fcos: Fcos, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, result: CliResult
) -> None:
    def hide(_model: object) -> None:
        try:
            signal.raise_signal(number)
        except (KeyboardInterrupt, SystemExit) as error:
            raise ImportError("numpy cannot be imported") from error

    before = signal.getsignal(number)
    monkeypatch.setattr("fcos_cli.runtime.open.find_artifact", hide)
    assert fcos("info", "x.onnx") == result
    monkeypatch.setattr("fcos_cli.runtime.open.find_artifact", lambda _: signal.raise_signal(number))
    assert fcos("info", "x.onnx") == result
    assert fcos("info", "x.onnx", "--debug") == result
    assert signal.getsignal(number) is before


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.0])  # during imports, and later
def test_a_signal_at_any_moment_is_one_line_and_exit_code_130(seconds: float) -> None:
    """`predict -` waits for stdin, so the command is still running."""
    command = [sys.executable, "-m", "fcos_cli", "predict", "-"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert (process.returncode, messages) == (130, "interrupted\n")


STUCK = """
import sys, threading
import fcos_cli.cli
from fcos_cli.__main__ import main

def run():
    threading.Thread(target=threading.Event().wait).start()
    print("flushed")
    sys.exit({code})

fcos_cli.cli.main = run
main()
"""


@pytest.mark.parametrize("code", [130, 143])
def test_after_a_signal_python_does_not_wait_for_threads_that_hang(code: int) -> None:
    process = subprocess.run(
        [sys.executable, "-c", STUCK.format(code=code)], stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert (process.returncode, process.stdout) == (code, "flushed\n")


@pytest.mark.slow
@pytest.mark.parametrize("line", ["$FCOS --debug info nowhere.onnx", "$FCOS info nowhere.onnx --debug"])
def test_debug_may_come_before_and_after_the_command(line: str) -> None:
    assert "Traceback" in shell(line).stderr
