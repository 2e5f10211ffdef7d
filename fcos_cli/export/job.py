"""What is to be exported, and what can be known to be wrong with that before anything is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcos_cli.atomic import check_writable
from fcos_cli.errors import UsageError
from fcos_cli.export.compare import report_of
from fcos_cli.export.formats import FORMATS
from fcos_cli.export.options import ExportOptions
from fcos_cli.runtime.rewrite import check_is_ours, check_second_file


@dataclass(frozen=True)
class ExportJob:
    """One export.

    out: output file. data: the user's data set, for int8 calibration, the images of the parity check, and AP. limit:
    number of images of its val split for AP; None = all. verify: whether to check parity. engine: keyword arguments of
    `build_engine`. command: what finishes the job on another machine; default: the command line of the options.
    """

    options: ExportOptions
    out: Path
    data: Path | None = None
    limit: int | None = None
    verify: bool = True
    engine: dict[str, Any] = field(default_factory=dict)
    command: str = ""


def check_job(job: ExportJob) -> None:
    """Raise UsageError for options that do not fit together, and for files that have another suffix than the format,
    could not be written or are not a model's; MissingExtra without OpenVINO.
    """
    target = FORMATS[job.options.format]
    _check_data(job)
    if job.engine and not target.engine:
        engines = " and ".join(name for name, row in FORMATS.items() if row.engine)
        raise UsageError(f"--engine is for --format {engines}", remedy="omit --engine, or choose one of them")
    if target.engine:
        from fcos_cli.export.tensorrt.settings import check_settings

        check_settings(target.engine, job.engine)
    if job.options.format == "openvino":
        from fcos_cli.runtime.openvino import make_core

        make_core()
    if job.out.suffix != target.suffix:
        raise UsageError(
            f"{job.options.format} files end in {target.suffix}",
            where=job.out,
            remedy=f"use --out with a {target.suffix} file",
        )
    for file in filter(None, (job.out, report_of(job.out), job.engine.get("timing_cache"))):
        check_writable(file)
    check_is_ours(job.out)
    check_second_file(job.out)


def _check_data(job: ExportJob) -> None:
    """Raise UsageError if `data` or `limit` would not be used."""
    if job.limit is not None and job.data is None:
        raise UsageError("--limit is the number of images of --data", remedy="omit --limit, or add --data")
    if job.limit is not None and job.limit < 1:
        raise UsageError(f"limit is {job.limit}, not a number of images", remedy="use a number from 1, or None")
    if job.verify:
        return
    if job.limit is not None:
        raise UsageError("--limit is for the comparison that --no-verify leaves out", remedy="omit one of them")
    if job.data is not None and job.options.precision != "int8":
        what = "--data is for int8, and for the comparison that --no-verify leaves out"
        raise UsageError(what, remedy="omit one of them")
