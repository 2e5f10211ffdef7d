"""The `fcos` command line: the app, and error handling common to all commands. Heavy imports happen inside commands."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from fcos_cli import __version__
from fcos_cli.commands import bench, convert, evaluate, export, info, predict, train
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
    debug = "--debug" in sys.argv[1:] or os.environ.get("FCOS_DEBUG", "") not in ("", "0")
    try:
        app()
    except FcosError as error:
        if debug:
            raise
        from fcos_cli.console import print_error

        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of stdout has closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


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
app.command()(convert.convert)
app.command()(bench.bench)
app.command("benchmark", hidden=True)(bench.bench)
