"""Options shared by several commands, and how their values are parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fcos_cli.data.tiling import Tiling

MODEL_HELP = (
    "A model file (.safetensors, .onnx, OpenVINO .xml or TensorRT .engine), a run folder, `default` (the bundled "
    "detector) or `coco` (torchvision's FCOS, downloaded once)."
)
DATA_HELP = "Data set: a folder or annotation file in COCO, YOLO, Pascal VOC or LabelMe format."
DeviceFlag = Annotated[str | None, typer.Option("--device", help="Device: auto, cpu, cuda, cuda:1, ... Default: auto.")]
BackendFlag = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="Inference backend: pytorch, onnxruntime, openvino or tensorrt. Default: chosen by the model's file type.",
    ),
]
PrecisionFlag = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Compute precision: bf16 (OpenVINO, PyTorch) or fp16 (PyTorch on a GPU). Default: the precision the model "
        "is stored in.",
    ),
]
TileFlag = Annotated[
    int | None,
    typer.Option(
        "--tile",
        min=32,
        help="Also run on overlapping tiles of this size in pixels, to find small objects in large images.",
    ),
]
OverlapFlag = Annotated[
    float | None,
    typer.Option(
        "--overlap",
        min=0,
        help="Overlap of neighbouring tiles: a fraction of --tile if below 1, else pixels. Default: 0.2.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document on stdout.")]


def make_tiling(tile: int | None, overlap: float | None) -> Tiling | None:
    """Return the tiles of --tile and --overlap. Raises UsageError."""
    from fcos_cli.data.tiling import Tiling
    from fcos_cli.errors import UsageError

    if tile is not None:
        return Tiling(tile) if overlap is None else Tiling(tile, overlap)
    if overlap is not None:
        raise UsageError("--overlap requires --tile", remedy="add --tile, for example --tile 640")
    return None


def parse_size(text: str, *, meaning: str = "height x width") -> tuple[int, int]:
    """Parse `320` as (320, 320) and `320x416` as (320, 416). meaning: of the two numbers. Raises UsageError."""
    from fcos_cli.data.geometry import MAX_SIDE
    from fcos_cli.errors import UsageError

    parts = text.lower().split("x")
    if len(parts) in (1, 2) and all(
        part.isdecimal() and len(part) < 10 and 0 < int(part) <= MAX_SIDE for part in parts
    ):
        return int(parts[0]), int(parts[-1])
    raise UsageError(f"--size {text!r} is not a valid size", remedy=f"use --size 320 or --size 320x416 ({meaning})")
