"""`fcos bench`, in full `fcos benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.options import KINDS, DeviceFlag, Json, parse_size


def bench(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help=f"{KINDS} Default: `default`.")
    ] = None,
    fp32: Annotated[bool, typer.Option("--fp32", help="Each model in fp32 …")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="… and in fp16 …")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="… and in bf16 …")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="… and in int8, or what comes nearest. Default: as the files are.")
    ] = False,
    batch: Annotated[str, typer.Option(help="Pictures at a time, e.g. 1,4.")] = "1",
    images: Annotated[
        list[str] | None, typer.Option(help="Pictures, folders, patterns to measure with; default two photos.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data set: AP beside the speed.")] = None,
    split: Annotated[str | None, typer.Option(help="Of the data set: train, val, test, all; default val.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="AP on the first N pictures only.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each model.")] = 20,
    size: Annotated[
        str | None, typer.Option(help="Network input, 640 or HEIGHTxWIDTH; default as in the model.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU; default all.")] = None,
    device: DeviceFlag = None,
    backend: Annotated[
        str | None,
        typer.Option(help="pytorch, onnxruntime, openvino, tensorrt, or several: openvino,onnxruntime."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Picture to draw: .png, .svg or .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """How fast models are, side by side: time per stage, throughput, start, memory, and AP with --data.

    Each model runs in a process of its own; they take turns. Times are milliseconds per batch, from files to boxes.
    """
    from fcos_cli.bench import plot, tables
    from fcos_cli.bench.environment import environment
    from fcos_cli.bench.run import exit_code, run_benchmark
    from fcos_cli.bench.settings import Settings, check_settings, choose_pictures, parse_batches

    if out is not None:
        plot.check_plot_path(out)
    asked = {"fp32": fp32, "fp16": fp16, "bf16": bf16, "int8": int8}
    settings = Settings(
        models=tuple(models or ["default"]),
        pictures=choose_pictures(images or []),
        backends=tuple(backend.split(",")) if backend else (None,),
        precisions=tuple(name for name, wanted in asked.items() if wanted) or (None,),
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

        accuracy = accuracy_on(data, split=split, limit=limit)
    facts = {**environment(threads=threads), "rounds": rounds, "pictures": len(settings.pictures), "data": data}
    tables.print_environment(facts)
    rows = run_benchmark(settings, accuracy=accuracy)
    tables.print_results(rows, facts, as_json=as_json)
    if out is not None:
        plot.draw_plot(rows, facts, out)
    if code := exit_code(rows):
        raise typer.Exit(code)
