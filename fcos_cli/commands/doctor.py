"""The `fcos doctor` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.command import Debug
from fcos_cli.commands.options import DATA_HELP, Json, parse_size


def doctor(
    data: Annotated[Path, typer.Argument(metavar="DATA", help=DATA_HELP)],
    size: Annotated[
        str | None,
        typer.Option(
            help="Network input size at which to look for boxes that are too small: 640, or HEIGHTxWIDTH. Default: "
            "judged in source pixels."
        ),
    ] = None,
    decode: Annotated[
        bool,
        typer.Option(
            "--images/--no-images",
            help="Decode every image, to find damaged files, wrong sizes, and images that look alike in train and val. "
            "Takes a few milliseconds per image, and more for large ones.",
        ),
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 3 for warnings too.")] = False,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Check a data set before training: list its problems, where they are and what to do.

    The exit code is 3 if there is an error.
    """
    from fcos_cli.data.checkup import check_data

    severities = check_data(data, size=None if size is None else parse_size(size), images=decode, as_json=as_json)
    if "error" in severities or (strict and "warning" in severities):
        raise typer.Exit(3)
