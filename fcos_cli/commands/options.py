"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from typing import Annotated

import typer

KINDS = (
    "A run folder, a .safetensors, .onnx, .xml (OpenVINO) or .engine file, `default`, the shipped detector, or `coco`, "
    "torchvision's FCOS, fetched once."
)
Model = Annotated[str, typer.Argument(help=KINDS)]
DeviceFlag = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 …")]
BackendFlag = Annotated[
    str | None, typer.Option("--backend", help="pytorch, onnxruntime, openvino, tensorrt; default by MODEL's kind.")
]
PrecisionFlag = Annotated[
    str | None,
    typer.Option(
        "--precision", help="bf16: let OpenVINO or PyTorch compute in it; fp16: PyTorch on a GPU; default as stored."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def parse_size(text: str) -> tuple[int, int]:
    """`320` → (320, 320); `320x416` → (320, 416), height by width. Raises UsageError."""
    from fcos_cli.errors import UsageError

    parts = text.lower().split("x")
    if len(parts) in (1, 2) and all(part.isdecimal() and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[-1])
    raise UsageError(f"--size {text!r} is not a size", remedy="--size 320, or --size 320x416 (height x width)")
