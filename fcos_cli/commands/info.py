"""The `fcos info` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.command import Debug
from fcos_cli.commands.options import MODEL_HELP, Json


def info(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help=f"{MODEL_HELP} Or a network of `fcos train --model`: nano, small or medium."
        ),
    ] = "default",
    speed: Annotated[
        bool,
        typer.Option(
            "--speed",
            help="Also time one image on this machine with one CPU thread: a file with its own backend (not a "
            "TensorRT engine: see fcos bench), a network by name with random weights in PyTorch. Takes about five "
            "seconds; without it, nothing is run.",
        ),
    ] = False,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Show what a model file contains: its work per image, classes, input size, thresholds, conventions and provenance.

    Or show a network by name: its settings, parameters and multiplications.
    """
    from difflib import get_close_matches

    from fcos_cli.errors import unknown_name
    from fcos_cli.extras import require_train
    from fcos_cli.model.networks.named import NETWORKS
    from fcos_cli.runtime.headers import read_header
    from fcos_cli.runtime.info import print_info, print_network
    from fcos_cli.runtime.open import find_artifact

    if model in NETWORKS:
        if speed:
            require_train("--speed of a network by name")
        print_network(model, as_json=as_json, speed=speed)
        return
    path = Path(model)
    is_word = path.name == model and not path.suffix  # not a file or folder that is missing
    if is_word and not path.exists() and get_close_matches(model, NETWORKS):
        raise unknown_name("network", model, NETWORKS, where="MODEL")
    path = find_artifact(model)
    print_info(read_header(path), path=path, as_json=as_json, speed=speed)
