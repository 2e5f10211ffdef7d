"""The `fcos train` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.command import Debug
from fcos_cli.commands.options import DATA_HELP, DeviceFlag, Json, parse_size


def train(
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help=DATA_HELP)] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; its folder is runs/train/NAME. Default: the name of DATA.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to use instead of runs/train/NAME.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change any setting, e.g. train.lr=0.002; can be repeated."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Network: nano, small (the default) or medium. `fcos info NAME` describes it; other settings and "
            "flags change it.",
        ),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Backbone: the name of a timm model.")] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Initial weights: auto, offline, pretrained (downloaded), coco (downloaded), default, random, a "
            ".safetensors file or a run folder. Default: auto."
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Network input size: 320, or HEIGHTxWIDTH. Default: chosen from the data.")
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            min=32,
            help="Train and validate on overlapping tiles of this size in pixels, for small objects in large images.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Learn from this detector as well: a .safetensors file or run folder, trained on the same classes.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Number of epochs. With --resume: the new total, to make the run longer. Default: chosen from "
            "the data."
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="End within this time, e.g. 30m or 2h, instead of after a number of epochs. With --resume: the new "
            "total, or +20m for twenty minutes more from now.",
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="End early if the AP on val has not improved for this many validations.")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            help="Number of images per step and process, or auto: the largest that fits in memory and is not slower. "
            "Default: 8."
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate for 16 images per step; scaled to the actual batch size. Default: chosen from the data."
        ),
    ] = None,
    amp: Annotated[str | None, typer.Option(help="Mixed precision: auto, off, bf16 or fp16. Default: auto.")] = None,
    device: DeviceFlag = None,
    workers: Annotated[
        int | None, typer.Option(help="Number of data loader processes. Default: half the cores, at most 8.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed for data order, augmentation and new weights. Default: 0.")
    ] = None,
    export: Annotated[
        bool | None,
        typer.Option(
            "--export/--no-export",
            help="At the end, export the best weights to best.onnx and compare it with PyTorch. Default: yes, if it "
            "takes less than a quarter of --time.",
        ),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Train on a small synthetic data set; takes minutes on a CPU.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print all settings and check the data, without training.")
    ] = False,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Train a detector and write a run folder with the best and the last weights."""
    from time import monotonic

    started = monotonic()
    from fcos_cli.allocator import keep_freed_memory
    from fcos_cli.console import emit_json, say
    from fcos_cli.distributed.world import announced
    from fcos_cli.extras import require_train

    require_train("fcos train")
    keep_freed_memory()
    from fcos_cli.train import start
    from fcos_cli.train.recipe import summary

    flags = start.settings_of(
        backbone=backbone,
        init=init,
        size=None if size is None else parse_size(size),
        tile=tile,
        teacher=teacher,
        epochs=epochs,
        patience=patience,
        batch=batch,
        lr=lr,
        amp=amp,
        device=device,
        workers=workers,
        seed=seed,
        export=export,
    )
    if resume is not None:
        others = {
            "DATA": data,
            "--config": config,
            "--set": assignments,
            "--model": model,
            "--name": name,
            "--out": out,
            "--demo": demo,
            "--dry-run": dry_run,
            "--batch auto": batch == "auto",
        }
        flags |= {"train.time": time, **{name: value for name, value in others.items() if value}}
        folder, progress, onnx = start.resume(resume, flags=flags, started=started)
    else:
        plan, place = start.plan_new(
            data,
            name=name,
            out=out,
            file=config,
            assignments=assignments or [],
            flags=flags,
            time=time,
            network=model,
            demo=demo,
            choose_batch=batch == "auto",
            check=not dry_run,
        )
        if dry_run:
            if not announced().main:
                raise typer.Exit
            summary.print_config(plan)
            summary.print_classes(plan)
            findings = summary.print_data_summary(plan)
            summary.print_estimate(plan, started=started)
            if as_json:
                emit_json({"settings": summary.settings_document(plan)})
            raise typer.Exit(3 if any(finding.severity == "error" for finding in findings) else 0)
        folder, progress, onnx = start.start(plan, folder=place, started=started)
    if not announced().main:
        raise typer.Exit
    if as_json:
        ap = progress.best if progress.best >= 0 else None
        emit_json({"run": folder, "best": {"AP": ap, "epoch": progress.best_epoch + 1}, "onnx": onnx})
    if progress.best >= 0:
        say(f"best AP {progress.best:.3f} in epoch {progress.best_epoch + 1}: {folder / 'best.safetensors'}")
    else:
        say(f"no AP, since val has no boxes; the last weights: {folder / 'last.safetensors'}")
