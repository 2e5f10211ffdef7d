"""Options shared by several commands, and how their values are parsed."""

from __future__ import annotations

from typing import Annotated

import typer

KINDS = (
    "A run folder; a .safetensors, .onnx, .xml (OpenVINO) or .engine file; `default` for the bundled detector; or "
    "`coco` for torchvision's FCOS, which is downloaded once."
)
Model = Annotated[str, typer.Argument(help=KINDS)]
DeviceFlag = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 …")]
BackendFlag = Annotated[
    str | None, typer.Option("--backend", help="pytorch, onnxruntime, openvino or tensorrt. Default: by file type.")
]
PrecisionFlag = Annotated[
    str | None,
    typer.Option("--precision", help="bf16 with OpenVINO or PyTorch, fp16 with PyTorch on a GPU. Default: as stored."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def parse_size(text: str) -> tuple[int, int]:
    """Parse `320` as (320, 320) and `320x416` as (320, 416), height by width. Raises UsageError."""
    from fcos_cli.errors import UsageError

    parts = text.lower().split("x")
    if len(parts) in (1, 2) and all(part.isdecimal() and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[-1])
    raise UsageError(f"--size {text!r} is not a valid size", remedy="--size 320, or --size 320x416 (height x width)")
