"""The `fcos bench` command, also available as `fcos benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.options import KINDS, DeviceFlag, Json, parse_size


def bench(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help=f"{KINDS} Default: `default`.")
    ] = None,
    fp32: Annotated[
        bool, typer.Option("--fp32", help="Run each model in fp32. Can be combined with the other precisions.")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Run each model in fp16.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Run each model in bf16.")] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Run each model in int8. Without any precision flag, each file runs in its own precision."
        ),
    ] = False,
    batch: Annotated[str, typer.Option(help="Batch sizes to measure, e.g. 1,4.")] = "1",
    images: Annotated[
        list[str] | None, typer.Option(help="Images, folders or patterns to run on. Default: two demo photos.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data set on which to measure AP as well.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of --data: train, val, test or all. Default: val.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure AP on the first N images only.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds; each model is measured once per round.")] = 20,
    size: Annotated[
        str | None, typer.Option(help="Network input size, 640 or HEIGHTxWIDTH. Default: the model's own.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all.")] = None,
    device: DeviceFlag = None,
    backend: Annotated[
        str | None,
        typer.Option(help="pytorch, onnxruntime, openvino or tensorrt; or several, separated by commas."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Plot to write: .png, .svg or .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """Compare the speed of models: time per stage, throughput, start-up, memory, and AP with --data.

    Each model runs in its own process, and the models take turns. Times are milliseconds per batch, from image files to
    boxes.
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
