"""The `fcos convert` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fcos_cli.commands.command import Debug
from fcos_cli.commands.options import Json, parse_size


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Checkpoint of another FCOS implementation (.pth, .pt or .safetensors). With --to: an fcos model.",
        ),
    ],
    source: Annotated[
        str,
        typer.Option(
            "--from", help="Implementation that wrote FILE: auto, torchvision, fcos, adelaidet, detectron2 or mmdet."
        ),
    ] = "auto",
    preset: Annotated[
        str | None,
        typer.Option(
            help="Variant of that implementation. Only needed if it cannot be detected from FILE; an error "
            "message then lists the choices."
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names: a text file with one name per line, or `coco`.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Network input size: shorter side x limit of the longer one, e.g. 800x1333. Default: from FILE, or "
            "else that of the published models."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="`torchvision`: convert a model that came from torchvision back to a state dict of fcos_resnet50_fpn.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output file. Default: next to FILE, if that name is free.")] = None,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Convert an FCOS checkpoint of another implementation to an fcos model, or a torchvision model back.

    Code stored in FILE is never run.
    """
    from fcos_cli.allocator import keep_freed_memory
    from fcos_cli.extras import require_train

    require_train("fcos convert")
    keep_freed_memory()
    from fcos_cli.atomic import check_writable
    from fcos_cli.console import emit_json, say
    from fcos_cli.errors import ModelError, UsageError

    if target not in (None, "torchvision"):
        raise UsageError(f"unknown --to {target!r}", remedy="use --to torchvision, or omit --to")
    if target is not None and (preset, classes, size, source) != (None, None, None, "auto"):
        remedy = "omit them, or --to"
        raise UsageError("--from, --preset, --classes and --size cannot be combined with --to", remedy=remedy)
    sides = None if size is None else parse_size(size, meaning="shorter x longer side")
    if target is None and file.is_dir():
        remedy = "name the checkpoint file in it; a run folder of fcos train needs no conversion"
        raise ModelError("this is a folder, not a checkpoint", where=file, remedy=remedy)
    path = out or _default_path(file, target)
    if out is None and path.exists():
        raise UsageError("this file exists, and is not replaced unless --out names it", where=path, remedy="use --out")
    suffixes = (".safetensors",) if target is None else (".pth", ".pt")
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"the output file must end in {' or '.join(suffixes)}", where=path, remedy="change --out")
    if path.exists() and file.exists() and path.samefile(file):
        raise UsageError("--out and FILE are the same file", where=path, remedy="choose another --out")
    check_writable(path)
    result = _import(file, path, source, preset, classes, sides) if target is None else _export(file, path)
    for note in result["notes"]:
        say(note)
    say(f"wrote {path}")
    if as_json:
        emit_json({"artifact": path, **result})


def _import(
    file: Path, out: Path, source: str, preset: str | None, classes: str | None, sides: tuple[int, int] | None
) -> dict[str, Any]:
    """Convert a checkpoint of another implementation to an artifact."""
    from fcos_cli.convert.labels import read_names
    from fcos_cli.convert.run import convert
    from fcos_cli.model.artifact import save

    size = None if sides is None else (min(sides), max(sides))
    converted = convert(file, source=source, preset=preset, names=read_names(classes), size=size)
    save(out, converted.artifact)
    return {"from": converted.family, "preset": converted.preset, "notes": converted.notes}


def _export(file: Path, out: Path) -> dict[str, Any]:
    """Convert an artifact to a torchvision state dict."""
    from fcos_cli.convert import torchvision
    from fcos_cli.errors import UsageError
    from fcos_cli.model.artifact import load
    from fcos_cli.runtime.open import find_artifact

    weights = find_artifact(file, backend="pytorch")
    if weights.suffix.lower() != ".safetensors":
        remedy = "give an fcos model; for an exported one, the weights that it was made from"
        raise UsageError("--to needs a .safetensors file", where=weights, remedy=remedy)
    state = torchvision.to_torchvision(load(weights), where=weights)
    torchvision.save(out, state)
    return {"to": "torchvision", "call": state.call, "notes": (f"for {state.call}", state.labels)}


def _default_path(file: Path, target: str | None) -> Path:
    """The default output file, next to `file` and always different from it."""
    if not file.name:  # `.`, a run folder
        file = file.resolve()
    if target is not None:
        return file.parent / f"{file.stem}-{target}.pth"
    return file.parent / f"{file.stem}{'-fcos' if file.suffix.lower() == '.safetensors' else ''}.safetensors"
