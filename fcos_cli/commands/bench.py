"""The `fcos bench` command, also available as `fcos benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.command import Debug
from fcos_cli.commands.options import MODEL_HELP, DeviceFlag, Json, parse_size


def bench(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", help=f"{MODEL_HELP} Default: `default`.")
    ] = None,
    fp32: Annotated[bool, typer.Option("--fp32", help="Run each model in fp32.")] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Run each model in fp16, else in bf16, else in its own precision.")
    ] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Run each model in bf16, else in its own precision.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Run each model in int8, else in its own precision.")] = False,
    batch: Annotated[str, typer.Option(help="Batch size, or several separated by commas, e.g. 1,4.")] = "1",
    images: Annotated[
        list[str] | None,
        typer.Option(help="Image files, folders or quoted glob patterns to run on. Default: the two bundled photos."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data set to measure AP on, in addition to speed.")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of --data: train, val, test or all. Default: val, or all images if it is a COCO file."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure AP on the first N images of --data only.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds. Each model runs once per round.")] = 20,
    size: Annotated[
        str | None, typer.Option(help="Network input size: 640, or HEIGHTxWIDTH. Default: the model's own size.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Number of CPU threads. Default: the backend's own.")
    ] = None,
    device: DeviceFlag = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="Inference backend: pytorch, onnxruntime, openvino or tensorrt, or several separated by commas. "
            "Default: chosen by the model's file type."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write a plot to this file: .png, .svg or .pdf. It replaces an earlier plot, but no other file."
        ),
    ] = None,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Compare models: time per stage, throughput, start-up time, memory, and AP if --data is given.

    Each model runs in its own process, and the models take turns. Precision flags can be combined.

    Times are in milliseconds per batch, from image files to final boxes.
    """
    from fcos_cli.bench import plot, tables
    from fcos_cli.bench.environment import environment
    from fcos_cli.bench.run import exit_code, run_benchmark
    from fcos_cli.bench.settings import Settings, check_settings, choose_pictures, parse_backends, parse_batches
    from fcos_cli.errors import UsageError

    if data is None and (split is not None or limit is not None):
        flag = "--split" if split is not None else "--limit"
        raise UsageError(f"{flag} needs --data", remedy="add the data set to measure AP on, or omit it")
    if out is not None:
        plot.check_plot_path(out)
    precisions = {"fp32": fp32, "fp16": fp16, "bf16": bf16, "int8": int8}
    settings = Settings(
        models=tuple(models or ["default"]),
        pictures=choose_pictures(images or []),
        backends=parse_backends(backend),
        precisions=tuple(name for name, selected in precisions.items() if selected) or (None,),
        batches=parse_batches(batch),
        rounds=rounds,
        device=device or "auto",
        threads=threads,
        size=None if size is None else parse_size(size),
    )
    check_settings(settings)
    accuracy = None
    if data is not None:
        from fcos_cli.bench.accuracy import accuracy_on

        accuracy = accuracy_on(data, models=settings.models, split=split, limit=limit)
    facts = {**environment(threads=threads), "rounds": rounds, "pictures": len(settings.pictures), "data": data}
    tables.print_environment(facts)
    rows = run_benchmark(settings, accuracy=accuracy)
    tables.print_results(rows, facts, as_json=as_json)
    if out is not None:
        plot.draw_plot(rows, facts, out)
    if code := exit_code(rows):
        raise typer.Exit(code)
