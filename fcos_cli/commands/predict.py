"""`fcos predict`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.options import KINDS, BackendFlag, DeviceFlag, Json, PrecisionFlag


def predict(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Pictures, videos, folders, 'glob*' patterns, .txt lists of paths, camera:0, - for stdin."),
    ] = None,
    model: Annotated[str, typer.Option("--model", "--weights", help=KINDS)] = "default",
    viz: Annotated[bool, typer.Option("--viz", help="Write pictures and videos with boxes into --out.")] = False,
    crops: Annotated[bool, typer.Option("--crops", help="Cut out what is found, into --out/crops/CLASS/.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Write a page and figures of how the boxes of each picture came about.")
    ] = False,
    targets: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="The same for the truth that DATA holds; without SOURCES, of 8 pictures."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for what is written.")] = Path("predictions"),
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score shown; default: the model's own per class.")
    ] = None,
    as_json: Json = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON line per picture on stdout.")] = False,
    save: Annotated[
        list[Path] | None, typer.Option(help="Also write to a file: .json, .jsonl, .csv, or .coco.json for COCO.")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=32, help="Look at large pictures also in tiles of this many pixels a side.")
    ] = None,
    overlap: Annotated[
        float | None, typer.Option(min=0, help="Of neighbouring tiles: a fraction of --tile (0.2), or pixels.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Of each video or camera, at most.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures (with --tile: tiles) at a time.")] = 1,
    device: DeviceFlag = None,
    backend: BackendFlag = None,
    precision: PrecisionFlag = None,
) -> None:
    """Find objects in pictures and videos. One bad file does not stop the others (exit code 1 at the end)."""
    from fcos_cli.allocator import keep_freed_memory

    keep_freed_memory()
    from fcos_cli.errors import UsageError
    from fcos_cli.predict.run import run_predict
    from fcos_cli.predict.sources import open_sources
    from fcos_cli.predict.tiles import Tiling
    from fcos_cli.predict.video import is_camera, until_interrupted
    from fcos_cli.runtime.open import open_detector

    if as_json and jsonl:
        raise UsageError("--json and --jsonl both want stdout", remedy="choose one; --save writes the other")
    if overlap is not None and tile is None:
        raise UsageError("--overlap is of tiles, and there are none", remedy="give --tile too, such as --tile 640")
    tiling = None if tile is None else Tiling(tile, 0.2 if overlap is None else overlap)
    sources, explanation = sources or [], None
    if explain or targets is not None:
        from fcos_cli.explain.run import plan_explanation

        if tile is not None:
            raise UsageError("--explain and --targets look at whole pictures", remedy="leave --tile out")
        explanation = plan_explanation(model, sources, detections=explain, targets=targets, backend=backend)
        backend = "pytorch" if explain else backend
        if not sources and not explain:
            explanation.write(out, score=score, device=device or "auto")
            return
    detector = open_detector(model, score=score, device=device or "auto", backend=backend, precision=precision)
    live = any(is_camera(source) for source in sources)  # ends by Ctrl-C, and then its video is to be whole
    with until_interrupted() if live else nullcontext() as stop:
        failed = run_predict(
            detector,
            explanation.pictures if explanation else open_sources(sources, frames=frames, stop=stop),
            score=score,
            pictures=out if viz else None,
            crops=out / "crops" if crops else None,
            stdout="json" if as_json else "jsonl" if jsonl else None,
            files=save or [],
            batch=batch,
            tiling=tiling,
        )
    if explanation:
        explanation.write(out, score=score, device=device or "auto")
    if failed:
        raise typer.Exit(1)
