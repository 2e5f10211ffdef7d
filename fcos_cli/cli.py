"""The `fcos` command line: the app, and error handling common to all commands. Heavy imports happen inside commands."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from fcos_cli import __version__
from fcos_cli.atomic import FULL
from fcos_cli.commands import bench, convert, doctor, evaluate, export, info, predict, train
from fcos_cli.errors import FcosError

app = typer.Typer(
    name="fcos",
    help="Train, evaluate and run FCOS object detectors on your own images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the app. FcosError becomes a message of up to three lines and an exit code."""
    _open_closed_streams()
    debug = "--debug" in sys.argv[1:] or os.environ.get("FCOS_DEBUG", "") not in ("", "0")
    try:
        app(args=[argument for argument in sys.argv[1:] if argument != "--debug"])  # it may also follow the command
    except FcosError as error:
        if debug:
            raise
        from fcos_cli.console import print_error

        with suppress(OSError):  # stderr may be full
            print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # the reader of stdout has left, as `| head` does
            _discard_stdout()
            sys.exit(0)
        raise error
    except BrokenPipeError:
        _discard_stdout()
        sys.exit(0)
    except OSError as error:
        if debug or error.errno not in FULL:
            raise
        _discard_stdout()
        with suppress(OSError):
            sys.stderr.write(f"error: writing failed ({error.strerror})\n")
        sys.exit(1)


def _open_closed_streams() -> None:
    """Replace streams that the caller has closed (`>&-`). Otherwise the next file would get their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 (open until the end)


def _discard_stdout() -> None:
    """Send what is left in the buffer of stdout to nowhere; it could not be written."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fcos-cli {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback for errors.")] = False,
) -> None:
    pass


app.command()(train.train)
app.command("eval")(evaluate.evaluate)
app.command()(predict.predict)
app.command()(export.export)
app.command()(info.info)
app.command()(doctor.doctor)
app.command()(convert.convert)
app.command()(bench.bench)
app.command("benchmark", hidden=True)(bench.bench)
