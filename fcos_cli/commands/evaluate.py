"""The `fcos eval` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from fcos_cli.commands.options import KINDS, BackendFlag, DeviceFlag, Json, PrecisionFlag

if TYPE_CHECKING:
    from fcos_cli.evaluate.coco import Evaluator

PATHS = (
    f"One or two models, then the data. MODEL: {KINDS} DATA: a folder or annotation file in COCO, YOLO or VOC format."
)


def evaluate(
    paths: Annotated[list[str], typer.Argument(metavar="MODEL [MODEL] DATA", help=PATHS)],
    split: Annotated[
        str | None, typer.Option(help="train, val, test or all. Default: val, or the whole file if DATA is a file.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write an HTML report: curves, errors, worst images, suspect labels."),
    ] = None,
    evaluator: Annotated[str, typer.Option(help="hotcoco or pycocotools; both give the same numbers.")] = "hotcoco",
    score: Annotated[float | None, typer.Option(help="Ignore detections below this score.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate the first N images only.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 8,
    device: DeviceFlag = None,
    backend: BackendFlag = None,
    precision: PrecisionFlag = None,
    as_json: Json = False,
) -> None:
    """Compute COCO's 12 metrics of MODEL on DATA, AP per class and the best thresholds. Two models are compared."""
    from fcos_cli.allocator import keep_freed_memory

    keep_freed_memory()
    from fcos_cli.data.formats import read_dataset
    from fcos_cli.errors import UsageError
    from fcos_cli.evaluate.run import run_eval
    from fcos_cli.runtime.open import open_detector

    if evaluator not in ("hotcoco", "pycocotools"):
        raise UsageError(f"unknown evaluator {evaluator!r}", where="--evaluator", remedy="use hotcoco or pycocotools")
    *models, data = paths
    if len(models) not in (1, 2):
        raise UsageError(
            f"expected one or two models and a data set, got {len(paths)} arguments",
            remedy="fcos eval MODEL [MODEL] DATA",
        )
    detectors = [
        open_detector(model, score=score, device=device or "auto", backend=backend, precision=precision)
        for model in models
    ]
    run_eval(
        detectors,
        read_dataset(Path(data), split=split),
        evaluator=cast("Evaluator", evaluator),
        batch=batch,
        limit=limit,
        as_json=as_json,
        report=report,
    )
