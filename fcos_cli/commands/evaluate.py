"""The `fcos eval` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from fcos_cli.commands.command import Debug
from fcos_cli.commands.options import (
    DATA_HELP,
    MODEL_HELP,
    BackendFlag,
    DeviceFlag,
    Json,
    OverlapFlag,
    PrecisionFlag,
    TileFlag,
    make_tiling,
)

if TYPE_CHECKING:
    from fcos_cli.evaluate.coco import Evaluator

PATHS_HELP = f"One or two models, followed by the data set. MODEL: {MODEL_HELP} DATA: {DATA_HELP}"


def evaluate(
    paths: Annotated[list[str], typer.Argument(metavar="MODEL [MODEL] DATA", help=PATHS_HELP)],
    split: Annotated[
        str | None,
        typer.Option(
            help="Split to evaluate: train, val, test or all. Default: val; all images if DATA is a COCO file, or "
            "if it has no val split and no model was trained on it."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write an HTML report to FILE: curves, types of error, worst images, suspect labels."
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the detections to FILE (.json): COCO results with ids and file names of DATA."
        ),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=VALUE",
            help="Exit with code 6 if the (last) model does not reach VALUE; can be repeated. METRIC: one of the 12, "
            "precision or recall, or AP, AP50, precision or recall of a class, as in recall:cat=0.9.",
        ),
    ] = None,
    not_worse: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[METRIC=]MARGIN",
            help="With two models: exit with code 6 if the second is worse than the first by more than MARGIN, over "
            "the whole confidence interval; can be repeated. METRIC: one of the 12, or AP or AP50 of a class. "
            "Default: AP.",
        ),
    ] = None,
    promise: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=VALUE",
            help="Choose the score thresholds that keep recall=VALUE or precision=VALUE on new images of the same "
            "kind, with 90 % confidence; exit with code 6 if none can be shown to do so. For all classes, or one per "
            "class, as in recall:cat=0.9. Writes nothing without --out.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --promise: write a copy of the model with these thresholds to FILE, which may be the model "
            "itself.",
        ),
    ] = None,
    evaluator: Annotated[
        str, typer.Option(help="COCO evaluator: hotcoco or pycocotools. Both give the same metrics.")
    ] = "hotcoco",
    score: Annotated[
        float | None,
        typer.Option(help="Ignore detections with a lower score. Default: the candidate threshold of the model."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate the first N images only.")] = None,
    tile: TileFlag = None,
    overlap: OverlapFlag = None,
    batch: Annotated[
        int, typer.Option(min=1, max=65_536, help="Number of images, or tiles with --tile, per batch.")
    ] = 8,
    device: DeviceFlag = None,
    backend: BackendFlag = None,
    precision: PrecisionFlag = None,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Evaluate a model on a data set, or compare two models.

    Reports the 12 COCO metrics, and AP, AP50 and the best score threshold of each class.

    Requirements and promises end the command with exit code 6 if they are not met, after all results were written.
    """
    from fcos_cli.allocator import keep_freed_memory

    keep_freed_memory()
    from fcos_cli.distributed.world import threads_of
    from fcos_cli.errors import UsageError
    from fcos_cli.evaluate.demands import parse_demands
    from fcos_cli.evaluate.run import check_evaluator, check_outputs, run_eval
    from fcos_cli.evaluate.sharded import eval_processes
    from fcos_cli.evaluate.split import read_split
    from fcos_cli.runtime.open import open_detector

    with eval_processes() as world:
        check_evaluator(evaluator)
        tiling = make_tiling(tile, overlap)
        *models, data = paths
        if len(models) not in (1, 2):
            raise UsageError(
                f"expected one or two models and a data set, got {len(paths)} argument{'s' * (len(paths) > 1)}",
                remedy="use fcos eval MODEL [MODEL] DATA",
            )
        demands = parse_demands(
            require or [],
            not_worse or [],
            promise or [],
            out=out if world.main else None,
            models=models,
            score=score,
            backend=backend,
            device=device or "auto",
        )
        if world.main:
            check_outputs(report, save, models=len(models))
        detectors = [
            open_detector(
                model,
                score=score,
                device=device or "auto",
                backend=backend,
                precision=precision,
                threads=threads_of(world),
            )
            for model in models
        ]
        run_eval(
            detectors,
            read_split(Path(data), [detector.facts for detector in detectors], split=split),
            evaluator=cast("Evaluator", evaluator),
            batch=batch,
            limit=limit,
            as_json=as_json,
            report=report,
            save=save,
            tiling=tiling,
            demands=demands,
            world=world,
        )
