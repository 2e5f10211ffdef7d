"""`fcos export`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.options import Json, parse_size


def export(
    model: Annotated[str, typer.Argument(help="A .safetensors file, a run folder, or `default`.")],
    format_: Annotated[str, typer.Option("--format", help="onnx, openvino, trt or trt-rtx.")] = "onnx",
    precision: Annotated[str, typer.Option(help="Of the network's body: fp32, fp16 or int8.")] = "fp32",
    size: Annotated[str, typer.Option(help="Network input: dynamic, 640, or HEIGHTxWIDTH.")] = "dynamic",
    batch: Annotated[str, typer.Option(help="Pictures at a time: dynamic, or a number.")] = "dynamic",
    out: Annotated[Path | None, typer.Option(help="File to write; default: beside the weights.")] = None,
    score: Annotated[float | None, typer.Option(min=0, max=1, help="Lowest score the file will return.")] = None,
    iou: Annotated[float | None, typer.Option(min=0, max=1, help="NMS threshold.")] = None,
    max_detections: Annotated[int | None, typer.Option(min=1, help="Most detections per picture.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set: int8 is calibrated on its train split, both APs are taken on val.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="AP on the first N pictures only.")] = None,
    target: Annotated[str | None, typer.Option(help="Whose int8: cpu or tensorrt; default by --format.")] = None,
    winograd: Annotated[
        bool | None,
        typer.Option(
            help="Wide 3×3 convolutions with a quarter of the multiplications, for CPUs; default: fp32 ONNX, OpenVINO."
        ),
    ] = None,
    verify: Annotated[bool, typer.Option(help="Compare the result with PyTorch.")] = True,
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", metavar="KEY=VALUE", help="TensorRT: min, opt, max (BxHxW), workspace, cache, sm."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write MODEL for another runtime, decoding and NMS inside, and prove that it answers as PyTorch does."""
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
