"""The `fcos export` command."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.options import Json, parse_size


def export(
    model: Annotated[str, typer.Argument(help="A .safetensors file, a run folder, or `default`.")],
    format_: Annotated[
        str, typer.Option("--format", help="onnx, openvino, trt (TensorRT) or trt-rtx (TensorRT for RTX).")
    ] = "onnx",
    precision: Annotated[str, typer.Option(help="Precision of backbone and head: fp32, fp16 or int8.")] = "fp32",
    size: Annotated[str, typer.Option(help="Network input size: dynamic, 640 or HEIGHTxWIDTH.")] = "dynamic",
    batch: Annotated[str, typer.Option(help="Batch size: dynamic or a number.")] = "dynamic",
    out: Annotated[Path | None, typer.Option(help="File to write. Default: next to the weights.")] = None,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Drop detections below this score inside the model.")
    ] = None,
    iou: Annotated[float | None, typer.Option(min=0, max=1, help="IoU threshold of NMS.")] = None,
    max_detections: Annotated[int | None, typer.Option(min=1, help="Maximum number of detections per image.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data set. int8 is calibrated on its train split, and the AP of both models is measured on val."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure AP on the first N images only.")] = None,
    target: Annotated[str | None, typer.Option(help="Target of int8: cpu or tensorrt. Default: by --format.")] = None,
    winograd: Annotated[
        bool | None,
        typer.Option(
            help="Compute wide 3×3 convolutions by Winograd's method: faster on CPUs. Default: fp32 ONNX and OpenVINO."
        ),
    ] = None,
    verify: Annotated[bool, typer.Option(help="Compare the exported model with PyTorch.")] = True,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            metavar="KEY=VALUE",
            help="TensorRT build settings: min, opt, max (BxHxW), workspace, cache, sm.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export MODEL to another runtime, with decoding and NMS inside, and check that it gives the same results as
    PyTorch.
    """
    from fcos_cli.allocator import keep_freed_memory

    keep_freed_memory()
    from fcos_cli.export import run
    from fcos_cli.export.options import make_options
    from fcos_cli.export.tensorrt.settings import engine_settings

    options = make_options(
        format_,
        precision=precision,
        size=None if size == "dynamic" else parse_size(size),
        batch=batch,
        score=score,
        iou=iou,
        max_detections=max_detections,
        target=target,
        winograd=winograd,
    )
    weights = run.find_weights(model)
    job = run.ExportJob(
        options,
        out=out or run.default_out(weights, options),
        data=data,
        limit=limit,
        verify=verify,
        engine=engine_settings(engine or []),
        command=shlex.join(["fcos", *sys.argv[1:]]),
    )
    run.print_result(run.export(weights, job), as_json=as_json)
