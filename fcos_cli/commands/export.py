"""The `fcos export` command."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.command import Debug
from fcos_cli.commands.options import Json, parse_size


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A .safetensors file, a run folder, `default` (the bundled detector) or `coco` (torchvision's FCOS, "
            "downloaded once). With --format triton also a finished .onnx or .engine file.",
        ),
    ],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="Output format: onnx, openvino, trt (TensorRT), trt-rtx (TensorRT for RTX) or triton (a model "
            "repository of NVIDIA's Triton Inference Server).",
        ),
    ] = "onnx",
    precision: Annotated[
        str, typer.Option(help="Precision of the backbone and the head: fp32, fp16 or int8.")
    ] = "fp32",
    size: Annotated[str, typer.Option(help="Network input size: dynamic, 640, or HEIGHTxWIDTH.")] = "dynamic",
    batch: Annotated[str, typer.Option(help="Batch size: dynamic, or a number.")] = "dynamic",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output file (default: next to the weights); for triton, the model repository (default: models)."
        ),
    ] = None,
    score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Lowest score the exported model returns. Default: the model's own."),
    ] = None,
    iou: Annotated[
        float | None, typer.Option(min=0, max=1, help="IoU threshold of NMS. Default: the model's own.")
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of detections per image. Default: the model's own.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data set. int8 is calibrated on its train split; the exported model is compared with PyTorch, "
            "including AP, on its val split."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Measure AP on the first N images of the val split only.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Hardware that int8 is quantized for: cpu or tensorrt. Default: set by --format."),
    ] = None,
    winograd: Annotated[
        bool | None,
        typer.Option(
            help="Compute wide 3×3 convolutions with Winograd's method, which is faster on CPUs. Default: on for fp32 "
            "ONNX and OpenVINO."
        ),
    ] = None,
    verify: Annotated[bool, typer.Option(help="Compare the exported model with PyTorch.")] = True,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            metavar="KEY=VALUE",
            help="TensorRT build setting; can be repeated. min, opt, max: input shapes (BATCHxHEIGHTxWIDTH); "
            "workspace: memory limit in MiB; cache: timing cache file; sm: compute capabilities, separated by commas.",
        ),
    ] = None,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Export a model to ONNX, OpenVINO, TensorRT or Triton and compare it with PyTorch.

    The exported model includes decoding and NMS: it takes pixels and returns final boxes.
    """
    from fcos_cli.allocator import keep_freed_memory
    from fcos_cli.extras import require_train

    require_train("fcos export")
    keep_freed_memory()
    from fcos_cli.export import run
    from fcos_cli.export.formats import REPOSITORY
    from fcos_cli.export.job import ExportJob
    from fcos_cli.export.options import make_options
    from fcos_cli.export.tensorrt.settings import engine_settings
    from fcos_cli.export.triton.repository import export_repository

    options = make_options(
        "onnx" if format_ == REPOSITORY else format_,
        precision=precision,
        size=None if size == "dynamic" else parse_size(size),
        batch=batch,
        score=score,
        iou=iou,
        max_detections=max_detections,
        target=target,
        winograd=winograd,
    )
    job = ExportJob(
        options,
        out=out or Path("models"),
        data=data,
        limit=limit,
        verify=verify,
        engine=engine_settings(engine or []),
        command=shlex.join(["fcos", *sys.argv[1:]]),
    )
    try:
        if format_ == REPOSITORY:
            exported = export_repository(model, job)
        else:
            weights = run.find_weights(model)
            exported = run.export(weights, replace(job, out=out or run.default_out(weights, options)))
    except run.ExportDiffers as error:
        run.print_result(error.exported, as_json=as_json)
        raise
    run.print_result(exported, as_json=as_json)
