"""A job: pictures in, a folder of Parquet files out, on one machine or many, in one go or several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fcos_cli.console import print_error, progress, say
from fcos_cli.errors import DataError, FcosError, UsageError
from fcos_cli.extras import require_ray
from fcos_cli.predict.cluster.job import JobFolder
from fcos_cli.predict.cluster.listing import Listed
from fcos_cli.predict.cluster.model import ModelFiles, ModelOptions
from fcos_cli.predict.cluster.places import Place, locate
from fcos_cli.predict.cluster.schema import Counts
from fcos_cli.predict.cluster.sources import check_sources, list_sources
from fcos_cli.predict.cluster.worker import Report, Task
from fcos_cli.predict.run import hint_at_tiles
from fcos_cli.predict.selection import parse_classes
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.open import model_file

MAX_ERRORS = 20
"""Pictures that could not be read and are reported on a line of their own; later ones are only counted."""


@dataclass(frozen=True)
class Request:
    """What the user asked for. column: of Parquet files. classes: names or ids, as `parse_classes` takes them."""

    model: str
    sources: Sequence[str]
    out: str
    address: str | None
    column: str | None
    classes: Sequence[str]
    options: ModelOptions
    resume: bool


def run_job(request: Request) -> int:
    """Predict all pictures and write their rows. Returns the number of pictures that could not be read.

    Everything that can be wrong with the request is found before the cluster is used. Raises UsageError, DataError,
    ModelError, MissingExtra, and FcosError if the job could not be finished; what was finished is kept.
    """
    require_ray("--engine ray")
    _check_device(request.options.device)
    folder = JobFolder(locate(request.out))
    folder.check()
    path = model_file(request.model, backend=request.options.backend, device=request.options.device or "auto")
    options = _checked(request, path)
    model = ModelFiles.read(path, title=request.model)
    roots = check_sources(request.sources)
    settings = _settings(request, options, model, roots)
    listed = folder.open(settings, resume=request.resume)
    if listed is None:
        entries = list_sources(request.sources, roots, column=request.column, out=folder.place)
        listed = folder.begin(settings, entries, base=str(Path.cwd()))
        if not listed.pictures:
            folder.discard()
            raise DataError("these Parquet files have no rows", where=" ".join(root.name for root in roots))
    task = Task(folder.place, roots, listed.base, request.column, options, threads=1)
    return _finish(folder, listed, task, model, address=request.address)


def _check_device(device: str | None) -> None:
    kind, _, number = (device or "").partition(":")
    if number:
        what = "with --engine ray, each worker gets a GPU of its own"
        raise UsageError(what, where=f"--device {device}", remedy=f"use --device {kind}")


def _checked(request: Request, path: Path) -> ModelOptions:
    """The options with the classes as indices. The model is opened once, so that what is wrong is found here."""
    options = request.options
    facts = read_header(path).facts
    chosen = parse_classes(request.classes, facts.classes)
    if options.device in (None, "auto", "cpu") and path.suffix.lower() != ".engine":
        hint_at_tiles(replace(options, device="cpu").open(request.model), options.tiling)
    return replace(options, chosen=None if chosen is None else tuple(sorted(chosen)))


def _settings(request: Request, options: ModelOptions, model: ModelFiles, roots: Sequence[Place]) -> dict[str, Any]:
    """What a resumed job must have in common with the original one, as JSON values."""
    tiling = options.tiling
    return {
        "model": model.digest,
        "sources": [root.path if root.scheme is None else root.name for root in roots],
        "column": request.column,
        "score": options.score,
        "iou": options.iou,
        "max_detections": options.max_detections,
        "batch": options.batch,
        "classes": options.chosen and list(options.chosen),
        "tile": tiling and [tiling.side, tiling.overlap],
        "backend": options.backend,
        "precision": options.precision,
    }


def _finish(folder: JobFolder, listed: Listed, task: Task, model: ModelFiles, *, address: str | None) -> int:
    """Do what is left of a job."""
    done = folder.finished()
    todo = [number for number in range(listed.partitions) if number not in done]
    before = folder.counts(done)
    if done:
        say(f"{task.out.name}: {before.pictures:,} of {listed.pictures:,} images were done before")
    if not todo:
        return _finished_before(before, task.out)
    elsewhere = address is not None  # a worker there may still finish a part after Ctrl-C
    try:
        total = before + _run(todo, task, model, address, start=before.pictures, pictures=listed.pictures)
    except UsageError:  # there is no such cluster
        elsewhere = False
        raise
    finally:
        finished = folder.finished()
        if not elsewhere or len(finished) == listed.partitions:
            folder.tidy()
        if not finished and not elsewhere:
            folder.discard()
        elif len(finished) < listed.partitions:
            say(f"{task.out.name} keeps what was done: to continue, repeat the command with --resume")
    if missing := listed.partitions - len(finished):
        raise FcosError(f"{missing} of {listed.partitions} parts are missing", where=task.out.name)
    if total.noted:
        say(f"of {total.noted:,} files only the first page or frame was used")
    say(f"{total.pictures - total.failed:,} images processed, {total.failed:,} could not be read → {task.out.name}")
    return total.failed


def _finished_before(counts: Counts, out: Place) -> int:
    if counts.failed:
        what = f"the job is finished, and {counts.failed:,} of its {counts.pictures:,} rows are errors"
        raise FcosError(what, where=out.name, remedy="to run again, choose another --out")
    say(f"{out.name} is finished: nothing left to do")
    return 0


def _run(
    todo: Sequence[int], task: Task, model: ModelFiles, address: str | None, *, start: int, pictures: int
) -> Counts:
    """Run these partitions on the cluster, with progress. Returns their counts."""
    from fcos_cli.predict.cluster.engine import cluster, plan_pool, run_partitions

    with cluster(address):
        pool = plan_pool(task, model)
        each = "a GPU" if pool.gpus else "one core"
        where = f"on {pool.nodes} nodes" if pool.nodes > 1 else "on one machine"
        say(f"{pictures:,} images; {pool.workers} workers with {each} each, {where}")
        if pool.gpus:  # they would wait for pictures unless several cores open them
            task = replace(task, threads=None, openers=pool.cpus)
        with progress("pictures", total=pictures) as update:
            return _collect(run_partitions(todo, task, model, pool), lambda done: update(start + done))


def _collect(reports: Iterable[Report], update: Any) -> Counts:
    """Sum the counts, and print the first errors of pictures. Raises the error that ends a job."""
    total, shown = Counts(), 0
    for report in reports:
        if report.fatal is not None:
            raise report.fatal
        for error in report.errors[: MAX_ERRORS - shown]:
            shown += 1
            print_error(error)
        total += report.counts
        update(total.pictures)
    return total
