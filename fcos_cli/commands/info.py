"""The `fcos info` command."""

from __future__ import annotations

from fcos_cli.commands.options import Json, Model


def info(model: Model = "default", as_json: Json = False) -> None:
    """Show what a model file contains: classes, input size, thresholds, conventions and provenance."""
    from fcos_cli.runtime.headers import read_header
    from fcos_cli.runtime.info import print_info
    from fcos_cli.runtime.open import find_artifact

    path = find_artifact(model)
    print_info(read_header(path), path=path, as_json=as_json)
