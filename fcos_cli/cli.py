"""The `fcos` command line: thin commands over the package. Heavy imports happen inside the commands."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fcos_cli import __version__
from fcos_cli.errors import FcosError

if TYPE_CHECKING:
    from fcos_cli.evaluate.coco import Evaluator

app = typer.Typer(
    name="fcos",
    help="Train, measure and run FCOS object detectors on your own pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

KINDS = "A run folder, a .safetensors, .onnx, .xml (OpenVINO) or .engine file, or `default`, the shipped detector."
Model = Annotated[str, typer.Argument(help=KINDS)]
DeviceFlag = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 …")]
BackendFlag = Annotated[
    str | None, typer.Option("--backend", help="pytorch, onnxruntime, openvino, tensorrt; default by MODEL's kind.")
]
PrecisionFlag = Annotated[
    str | None, typer.Option("--precision", help="bf16: let OpenVINO compute in it; default as MODEL is stored.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def main() -> None:
    """Run the app; errors of ours become three short lines and an exit code."""
    debug = "--debug" in sys.argv[1:] or os.environ.get("FCOS_DEBUG", "") not in ("", "0")
    try:
        app()
    except FcosError as error:
        if debug:
            raise
        from fcos_cli.console import print_error

        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our stdout has left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fcos-cli {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    pass


@app.command()
def train(
    data: Annotated[Path | None, typer.Argument(help="Folder or annotation file: COCO, YOLO or VOC.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run: runs/train/NAME.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder, instead of runs/train/NAME.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. train.lr=0.002.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="A timm model by name.")] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Initial weights: auto, offline, pretrained (network), default, random, or a file."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Network input: 320, or HEIGHTxWIDTH.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pictures.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate for 16 pictures a step; scaled to --batch.")] = None,
    amp: Annotated[str | None, typer.Option(help="auto, off, bf16, fp16.")] = None,
    device: DeviceFlag = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of order, augmentation and new weights.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Train on a small drawn data set, minutes on a CPU.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check data and settings, train nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Train a detector on DATA; writes a run folder with the best and the last weights."""
    from fcos_cli.allocator import keep_freed_memory

    keep_freed_memory()
    from fcos_cli.train import start

    flags: dict[str, Any] = {
        "model.backbone": backbone,
        "train.init": init,
        "data.size": None if size is None else parse_size(size),
        "train.epochs": epochs,
        "train.batch": batch,
        "train.lr": lr,
        "train.amp": amp,
        "train.device": device,
        "train.workers": workers,
        "train.seed": seed,
    }
    if resume is not None:
        others = {"DATA": data, "--config": config, "--set": assignments, "--name": name, "--out": out}
        folder, progress = start.resume(resume, flags={**flags, **{k: v for k, v in others.items() if v}})
    else:
        folder = out or start.new_folder("demo" if demo and name is None else name, data)
        if demo:
            data = start.demo_data(Path("runs/demo-data"))
        base = start.DEMO if demo else {}
        plan = start.plan(data, file=config, assignments=assignments or [], flags=flags, base=base)
        if dry_run:
            start.tell_config(plan)
            findings = start.tell_data(plan)
            raise typer.Exit(3 if any(finding.severity == "error" for finding in findings) else 0)
        folder, progress = start.begin(plan, folder=folder)
    from fcos_cli.console import emit_json, say

    if as_json:
        emit_json({"run": folder, "best": {"AP": progress.best, "epoch": progress.best_epoch + 1}})
    say(f"best AP {progress.best:.3f} in epoch {progress.best_epoch + 1}: {folder / 'best.safetensors'}")


@app.command("eval")
def evaluate(
    model: Model,
    data: Annotated[Path, typer.Argument(help="Folder or annotation file: COCO, YOLO or VOC.")],
    split: Annotated[str | None, typer.Option(help="train, val, test, all; default val, of a file all of it.")] = None,
    evaluator: Annotated[str, typer.Option(help="hotcoco or pycocotools; both give the same figures.")] = "hotcoco",
    score: Annotated[float | None, typer.Option(help="Lowest score of a detection that counts.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pictures.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 8,
    device: DeviceFlag = None,
    backend: BackendFlag = None,
    precision: PrecisionFlag = None,
    as_json: Json = False,
) -> None:
    """COCO's 12 numbers of MODEL on DATA, per class AP, AP50 and best threshold."""
    from fcos_cli.allocator import keep_freed_memory

    keep_freed_memory()
    from fcos_cli.data.formats import read_dataset
    from fcos_cli.errors import UsageError
    from fcos_cli.evaluate.show import show
    from fcos_cli.runtime.detector import open_detector

    if evaluator not in ("hotcoco", "pycocotools"):
        raise UsageError(f"unknown evaluator {evaluator!r}", where="--evaluator", remedy="use hotcoco or pycocotools")
    detector = open_detector(model, score=score, device=device or "auto", backend=backend, precision=precision)
    dataset = read_dataset(data, split=split)
    show(detector, dataset, evaluator=cast("Evaluator", evaluator), batch=batch, limit=limit, as_json=as_json)


@app.command()
def predict(
    sources: Annotated[list[str], typer.Argument(help="Pictures, folders, 'glob*' patterns, .txt lists of paths.")],
    model: Annotated[str, typer.Option(help=KINDS)] = "default",
    viz: Annotated[bool, typer.Option("--viz", help="Write pictures with boxes into --out.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for what is written.")] = Path("predictions"),
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score shown; default: the model's own per class.")
    ] = None,
    as_json: Json = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON line per picture on stdout.")] = False,
    save: Annotated[
        list[Path] | None, typer.Option(help="Also write to a file: .json, .jsonl, .csv, or .coco.json for COCO.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 1,
    device: DeviceFlag = None,
    backend: BackendFlag = None,
    precision: PrecisionFlag = None,
) -> None:
    """Find objects in pictures. One bad file does not stop the others (exit code 1 at the end)."""
    from fcos_cli.allocator import keep_freed_memory

    keep_freed_memory()
    from fcos_cli.errors import UsageError
    from fcos_cli.runtime.deliver import deliver
    from fcos_cli.runtime.detector import open_detector
    from fcos_cli.runtime.sources import expand

    if as_json and jsonl:
        raise UsageError("--json and --jsonl both want stdout", remedy="choose one; --save writes the other")
    detector = open_detector(model, score=score, device=device or "auto", backend=backend, precision=precision)
    failed = deliver(
        detector,
        expand(sources),
        score=score,
        pictures=out if viz else None,
        stdout="json" if as_json else "jsonl" if jsonl else None,
        files=save or [],
        batch=batch,
    )
    if failed:
        raise typer.Exit(1)


@app.command()
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
    from fcos_cli.export.engine_settings import engine_settings
    from fcos_cli.export.options import make_options

    options = make_options(
        format_,
        precision=precision,
        size=None if size == "dynamic" else parse_size(size),
        batch=batch,
        score=score,
        iou=iou,
        max_detections=max_detections,
        target=target,
    )
    weights = run.find_weights(model)
    job = run.Job(
        options,
        out=out or run.default_out(weights, options),
        data=data,
        limit=limit,
        verify=verify,
        engine=engine_settings(engine or []),
        command=shlex.join(["fcos", *sys.argv[1:]]),
    )
    run.tell(run.export(weights, job), as_json=as_json)


@app.command()
def info(model: Model = "default", as_json: Json = False) -> None:
    """What a model file says of itself: classes, input, thresholds, conventions, provenance."""
    from fcos_cli.runtime.describe import describe
    from fcos_cli.runtime.detector import find_artifact
    from fcos_cli.runtime.headers import read_header

    path = find_artifact(model)
    describe(read_header(path), path=path, as_json=as_json)


def parse_size(text: str) -> tuple[int, int]:
    """`320` → (320, 320); `320x416` → (320, 416), height by width. Raises UsageError."""
    from fcos_cli.errors import UsageError

    parts = text.lower().split("x")
    if len(parts) in (1, 2) and all(part.isdecimal() and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[-1])
    raise UsageError(f"--size {text!r} is not a size", remedy="--size 320, or --size 320x416 (height x width)")
