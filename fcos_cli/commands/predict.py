"""The `fcos predict` command."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.command import Debug
from fcos_cli.commands.options import (
    MODEL_HELP,
    BackendFlag,
    DeviceFlag,
    Json,
    OverlapFlag,
    PrecisionFlag,
    TileFlag,
    make_tiling,
)


def predict(
    ctx: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Images, videos, folders, quoted glob patterns, .txt files that list paths, camera:0, http://, "
            "https:// or rtsp:// addresses of images and streams, or - for an image or a list on stdin. In lists, a "
            "line that starts with # is a comment, unless a file has that name.",
        ),
    ] = None,
    model: Annotated[str, typer.Option("--model", "--weights", help=MODEL_HELP)] = "default",
    viz: Annotated[
        bool, typer.Option("--viz", help="Write images and videos with boxes drawn on them to the output folder.")
    ] = False,
    crops: Annotated[
        bool, typer.Option("--crops", help="Save each detection as a separate image in OUT/crops/CLASS/.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Write an HTML page and figures that show how the boxes of each image were found."
        ),
    ] = False,
    targets: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="Write an HTML page and figures that show how training assigns the ground truth of the data set DATA. "
            "Without SOURCE: for the first 8 images of DATA.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder. With --engine ray also s3:// or gs://.")] = Path(
        "predictions"
    ),
    score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Lowest score to report. Default: the model's threshold for each class."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…",
            help="Report these classes only: names or data-set ids, separated by commas; can be repeated.",
        ),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            help="NMS: IoU above which the worse of two boxes of a class is removed. Default: the model's. In exported "
            "models it is fixed.",
        ),
    ] = None,
    max_detections: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Maximum number of detections per image or frame. Default: the model's, which an exported model "
            "cannot exceed.",
        ),
    ] = None,
    track: Annotated[
        bool,
        typer.Option(
            "--track", help="Give objects in videos, cameras and streams a number that they keep from frame to frame."
        ),
    ] = False,
    as_json: Json = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print one line of JSON per image or frame on stdout.")
    ] = False,
    save: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also write the results to a file; can be repeated. The format is set by the suffix: .json, .jsonl, "
            ".csv, .coco.json for COCO results, or with --track .mot.txt for MOTChallenge. In .csv, names that a "
            "spreadsheet would take for a formula begin with an apostrophe."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue an interrupted run: what is in FILE.jsonl.part is not done again. Needs --save FILE.jsonl "
            "as the only output, or --engine ray, which continues in the folder --out.",
        ),
    ] = False,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="Write the images and their detections to OUT as a data set to correct and train on: yolo, coco, "
            "voc or labelme. OUT must be empty, or see --merge. JPEG and PNG files are copied, other images and "
            "frames of videos converted. review.csv lists the most doubtful images first.",
        ),
    ] = None,
    label_score: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Lowest score of a detection that becomes a label. Default: the model's thresholds."
        ),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="With --label: add to the data set in OUT. Its images and labels stay as they are, and images "
            "that it already has are skipped.",
        ),
    ] = False,
    link: Annotated[
        bool,
        typer.Option(
            "--link",
            help="With --label: link to JPEG and PNG files instead of copying them. They must not be moved or deleted "
            "afterwards.",
        ),
    ] = False,
    tile: TileFlag = None,
    overlap: OverlapFlag = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of frames per video, camera or stream.")
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Use every N-th frame of videos, cameras and streams.")
    ] = 1,
    batch: Annotated[
        int, typer.Option(min=1, max=65_536, help="Number of images, or tiles with --tile, per batch.")
    ] = 1,
    engine: Annotated[
        str | None,
        typer.Option(
            help="What runs the detector: local, or ray for a collection larger than one machine: folders, lists, "
            "Parquet files and s3:// or gs:// addresses in, Parquet in the folder --out. Default: local."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="With --engine ray: the cluster to use, or auto for the one on this machine. Default: a cluster of "
            "its own on this machine.",
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --engine ray: SOURCE is Parquet, and this column holds images, paths or addresses. Default: "
            "image, in files called .parquet.",
        ),
    ] = None,
    device: DeviceFlag = None,
    backend: BackendFlag = None,
    precision: PrecisionFlag = None,
    _debug: Debug = False,
) -> None:
    """Detect objects in images, videos and streams.

    Files that cannot be read are skipped and reported; the exit code is then 1.

    Only the first page of a TIFF file and the first frame of an animation are used.
    """
    from fcos_cli.allocator import keep_freed_memory

    keep_freed_memory()
    from fcos_cli.commands.cluster import run_on_cluster
    from fcos_cli.predict.labels.plan import plan_labels
    from fcos_cli.predict.outputs import OutputNames, source_test
    from fcos_cli.predict.plan import Outputs, PredictOptions
    from fcos_cli.predict.resume import check_resume, is_resumable
    from fcos_cli.predict.run import check_outputs, run_predict, stdout_format
    from fcos_cli.predict.selection import candidate_score, parse_classes
    from fcos_cli.predict.sources.open import is_live, open_sources, readiness
    from fcos_cli.predict.sources.output_folder import OutputFolder
    from fcos_cli.predict.sources.stop import until_interrupted
    from fcos_cli.predict.tracking.track import check_tracking
    from fcos_cli.runtime.open import model_file, open_detector

    tiling = make_tiling(tile, overlap)
    if run_on_cluster(ctx, engine=engine, address=address, column=column, tiling=tiling):
        return
    stdout = stdout_format(as_json=as_json, jsonl=jsonl)
    sources, explanation = sources or [], None
    check_tracking(sources, save or [], wanted=track)
    drawn = viz or crops or explain or targets is not None
    labels = plan_labels(
        label, out, score=label_score, merge=merge, link=link, drawn=drawn, tracked=track, save=save or []
    )
    leave_out = OutputFolder(out, writes=bool(drawn or labels))
    check_outputs(save or [], folder=out if leave_out.writes else None)
    live = any(map(is_live, sources))
    resumable = is_resumable(save or [], drawn, labels, track, as_json, jsonl, live=live)
    if resume and not check_resume(save or [], resumable=resumable):
        return
    names = OutputNames(source_test(sources, leave_out=leave_out))
    if explain or targets is not None:
        from fcos_cli.explain.run import check_options, plan_explanation

        check_options(
            detections=explain,
            predicts=bool(sources or explain),
            tiled=tile is not None,
            filtered=bool(classes or iou is not None or max_detections is not None or track),
            needs_run=bool(stdout or save or viz or crops or score is not None or device or backend or precision)
            or (frames, every, batch) != (None, 1, 1),
            precision=precision,
        )
        explanation = plan_explanation(
            model, sources, detections=explain, targets=targets, backend=backend, leave_out=leave_out
        )
        backend = "pytorch" if explain else backend
        if not sources and not explain:
            unread = explanation.write(out, score=score, device=device or "auto", names=names, predicted=False)
            raise typer.Exit(min(unread, 1))
    lowest = score
    if labels or track:  # they need boxes with lower scores than those reported
        file = model_file(model, backend=backend, device=device or "auto")
        lowest = candidate_score(file, score=score, label_score=label_score)
    detector = open_detector(
        model,
        score=lowest,
        iou=iou,
        max_detections=max_detections,
        device=device or "auto",
        backend=backend,
        precision=precision,
    )
    chosen = parse_classes(classes or [], detector.facts.classes)
    with until_interrupted() if live else nullcontext() as stop:
        failed = run_predict(
            detector,
            explanation.pictures
            if explanation
            else open_sources(sources, frames=frames, every=every, stop=stop, leave_out=leave_out),
            PredictOptions(
                score=score,
                chosen=chosen,
                limit=max_detections,
                tracked=track,
                tiling=tiling,
                batch=batch,
                every=every,
                frames=frames,
                iou=iou,
            ),
            Outputs(
                stdout=stdout,
                save=save or [],
                viz_dir=out if viz else None,
                crops_dir=out / "crops" if crops else None,
                names=names,
                labels=labels,
            ),
            resumable=resumable,
            resume=resume,
            is_ready=readiness(sources),
        )
    if explanation:
        explanation.write(out, score=score, device=device or "auto", names=names, predicted=True)
    raise typer.Exit(1 if failed else 0)
