"""The `fcos` command line: the app, and error handling common to all commands. Heavy imports happen inside commands."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Annotated

import typer

from fcos_cli import __version__
from fcos_cli.atomic import FULL
from fcos_cli.commands import bench, convert, doctor, evaluate, export, info, predict, train, verify
from fcos_cli.commands.command import Command, Debug
from fcos_cli.errors import FcosError, Interrupted, UsageError

app = typer.Typer(
    name="fcos",
    help="Train, evaluate and run FCOS object detectors on your own images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


RUNTIMES = ("onnxruntime", "openvino", "torch", "torchvision", "tensorrt", "tensorrt-rtx-cu13-bindings", "av")
"""Packages whose version `--version` prints, because results and speed depend on it."""

TERMINATED = 143
"""Exit code after SIGTERM."""


def main() -> None:
    """Run the app and exit. Whatever ends a command becomes a message (see `print_error`) and an exit code."""
    _open_closed_streams()
    debug = "--debug" in sys.argv[1:] or os.environ.get("FCOS_DEBUG", "") not in ("", "0")
    signals: list[int] = []
    with _copy_of_stdout() as stdout:
        try:
            with _noting_interrupts(signals), _sigterm_as_exit(signals):
                _run()
        except BaseException as error:
            if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
                error = error.__context__  # click and rich turn it into a mere exit
            if signals and not _is_success(error):  # many libraries turn KeyboardInterrupt into another error
                error = Interrupted("interrupted") if signals[-1] == signal.SIGINT else SystemExit(TERMINATED)
            code = _exit_code(error, stdout, debug=debug)
            if code is None:
                raise error
            sys.exit(code)


def _run() -> None:
    """Run the app. What it printed is flushed, since a full disk could not be reported after the end."""
    try:
        app()
    except SystemExit:
        sys.stdout.flush()
        raise


@contextmanager
def _noting_interrupts(signals: list[int]) -> Iterator[None]:
    """Add each SIGINT to `signals`, and raise KeyboardInterrupt as usual."""

    def receive(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        signal.default_int_handler(number, frame)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # in another program, or ignored
        yield
        return
    signal.signal(signal.SIGINT, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_success(error: BaseException) -> bool:
    return isinstance(error, SystemExit) and not error.code


def _exit_code(error: BaseException, stdout: int | None, *, debug: bool) -> int | None:
    """Print what ended the command and return its exit code; None if Python is to handle the exception.

    stdout: a descriptor for it, None if it has none. debug: print a traceback instead of the message.
    """
    if isinstance(error, BrokenPipeError) and _has_no_reader(stdout):  # as after `| head`
        _discard_stdout()
        return 0
    if isinstance(error, Interrupted) and error.remedy is None:
        with suppress(OSError):
            sys.stderr.write(f"{error.what}\n")
        return error.exit_code
    shown = _explain(error) if isinstance(error, OSError) else error
    if not isinstance(shown, FcosError):
        return None
    if shown.elsewhere and not debug:
        return shown.exit_code
    from fcos_cli.console import print_error

    try:
        sys.stdout.flush()
    except OSError:
        _discard_stdout()
    with suppress(OSError):  # stderr may be full
        if debug:
            traceback.print_exception(error)
        else:
            print_error(shown)
    return shown.exit_code


def _explain(error: OSError) -> FcosError | None:
    """Our own error for a full disk, a broken pipe, a missing permission or a long name; None for others."""
    if error.errno == errno.ENAMETOOLONG:
        where = None if error.filename is None else f"{str(error.filename)[:40]}…"
        return UsageError("no file can have a name this long", where=where, remedy="check it, or use a shorter one")
    if isinstance(error, PermissionError) and error.filename is not None:
        remedy = "check its permissions, and those of the folders above it"
        return FcosError("no permission to read or write this", where=error.filename, remedy=remedy)
    if error.errno in FULL:
        _discard_stdout()
        return FcosError(f"writing failed ({error.strerror})", where=error.filename, remedy="free some space")
    if isinstance(error, BrokenPipeError):
        what = "a pipe or a connection was closed at its other end"
        return FcosError(what, where=error.filename, remedy="run it again; --debug shows where this happened")
    return None


@contextmanager
def _copy_of_stdout() -> Iterator[int | None]:
    """A second descriptor for stdout; None if it has none. Rich replaces the first one when its reader is gone."""
    try:
        copy = os.dup(sys.stdout.fileno())
    except (OSError, ValueError):
        yield None
        return
    try:
        yield copy
    finally:
        os.close(copy)


def _has_no_reader(pipe: int | None) -> bool:
    """Whether the reader of a pipe or a socket is gone. True where the system cannot tell, as on Windows."""
    if pipe is None or not hasattr(select, "poll"):
        return pipe is not None
    state = select.poll()
    state.register(pipe, 0)  # errors and hang-ups are reported in any case
    return bool(state.poll(0))


@contextmanager
def _sigterm_as_exit(signals: list[int]) -> Iterator[None]:
    """Let SIGTERM end the program like Ctrl-C, so that temporary files are removed. It is added to `signals`.

    `fcos train` handles it itself.
    """

    def receive(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        sys.exit(TERMINATED)

    try:
        before = signal.signal(signal.SIGTERM, receive)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_closed_streams() -> None:
    """Replace streams that the caller has closed (`>&-`). Otherwise the next file would get their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 (open until the end)


def _discard_stdout() -> None:
    """Discard what is left in the buffer of stdout; it could not be written."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _version(value: bool) -> None:
    if not value:
        return
    from platform import machine, python_version, system

    from fcos_cli.extras import versions

    typer.echo(f"fcos-cli {__version__}")
    typer.echo(f"Python {python_version()}, {system()} {machine()}")
    installed = versions(RUNTIMES)
    for name in RUNTIMES:
        typer.echo(f"{name} {installed.get(name, 'not installed')}")
    raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the versions of fcos and its runtimes, and exit."
        ),
    ] = False,
    _debug: Debug = False,
) -> None:
    pass


app.command(cls=Command)(train.train)
app.command("eval", cls=Command)(evaluate.evaluate)
app.command(cls=Command)(predict.predict)
app.command(cls=Command)(export.export)
app.command(cls=Command)(verify.verify)
app.command(cls=Command)(info.info)
app.command(cls=Command)(doctor.doctor)
app.command(cls=Command)(convert.convert)
app.command(cls=Command)(bench.bench)
app.command("benchmark", cls=Command, hidden=True)(bench.bench)
