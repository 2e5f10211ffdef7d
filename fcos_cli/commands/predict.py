"""`fcos predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.options import KINDS, BackendFlag, DeviceFlag, Json, PrecisionFlag


def predict(
    sources: Annotated[list[str], typer.Argument(help="Pictures, folders, 'glob*' patterns, .txt lists of paths.")],
    model: Annotated[str, typer.Option(help=KINDS)] = "default",
    viz: Annotated[bool, typer.Option("--viz", help="Write pictures with boxes into --out.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for what is written.")] = Path("predictions"),
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score shown; default: the model's own per class.")
    ] = None,
    as_json: Json = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON line per picture on stdout.")] = False,
    save: Annotated[
        list[Path] | None, typer.Option(help="Also write to a file: .json, .jsonl, .csv, or .coco.json for COCO.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 1,
    device: DeviceFlag = None,
    backend: BackendFlag = None,
    precision: PrecisionFlag = None,
) -> None:
    """Find objects in pictures. One bad file does not stop the others (exit code 1 at the end)."""
    from fcos_cli.allocator import keep_freed_memory

    keep_freed_memory()
    from fcos_cli.errors import UsageError
    from fcos_cli.runtime.deliver import deliver
    from fcos_cli.runtime.detector import open_detector
    from fcos_cli.runtime.sources import expand

    if as_json and jsonl:
        raise UsageError("--json and --jsonl both want stdout", remedy="choose one; --save writes the other")
    detector = open_detector(model, score=score, device=device or "auto", backend=backend, precision=precision)
    failed = deliver(
        detector,
        expand(sources),
        score=score,
        pictures=out if viz else None,
        stdout="json" if as_json else "jsonl" if jsonl else None,
        files=save or [],
        batch=batch,
    )
    if failed:
        raise typer.Exit(1)
