"""best.onnx: the best weights of a run, exported and compared with PyTorch at its end, so that they run without it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from shlex import quote

from fcos_cli.config import TrainConfig
from fcos_cli.console import say, warn
from fcos_cli.errors import FcosError
from fcos_cli.export.compare import remove_report
from fcos_cli.export.job import ExportJob
from fcos_cli.export.options import make_options
from fcos_cli.export.run import export, print_result
from fcos_cli.runtime.headers import read_header
from fcos_cli.train.checkpoint import Progress

TRACE_SECONDS, IMAGES = 40.0, 100
"""What an export takes: the graph, in seconds of one thread (20 to 35 were measured for networks of 0.1 to 4 M
parameters), and the comparison, in images that are detected."""

LARGEST_SHARE = 0.25
"""Largest share of a time limit for the export. A shorter run ends without it."""


def export_seconds(image_seconds: float, *, crowding: float = 1.0) -> float:
    """Estimated seconds of an export. image_seconds: of the network per image. crowding: how many times longer a single
    thread takes because the machine is busy; `image_seconds` contains it.
    """
    return TRACE_SECONDS * crowding + IMAGES * image_seconds


def has_time(config: TrainConfig, progress: Progress) -> bool:
    """Whether the export fits into the time limit, if there is one."""
    return not config.time or progress.export_seconds <= LARGEST_SHARE * config.time


def reserved_seconds(config: TrainConfig, progress: Progress) -> float:
    """Seconds to keep for the export at the end of a run; 0 if there will be none."""
    return progress.export_seconds if config.export and has_time(config, progress) else 0.0


def export_best(folder: Path, config: TrainConfig, progress: Progress) -> Path | None:
    """Export `folder`/best.safetensors to best.onnx with the defaults of `fcos export`, unless it is there already.

    One made from other weights is removed in any case. Return its path, or None, with a reason: an export that fails
    does not make a complete run fail.
    """
    weights, path = folder / "best.safetensors", folder / "best.onnx"
    again = f"fcos export {quote(str(folder))} writes it"
    current = _is_export_of(path, weights)
    if not current:
        remove_export(folder)
    if not config.export:
        return None
    if not has_time(config, progress):
        say(f"best.onnx was left out: it takes more than {LARGEST_SHARE:.0%} of the time limit; {again}")
        return None
    try:
        if not (current and read_header(path).facts.verified):
            print_result(export(weights, ExportJob(make_options("onnx"), out=path)), as_json=False)
    except Exception as error:  # torch and onnx raise many types
        reason = error.what if isinstance(error, FcosError) else f"{type(error).__name__}: {error}"
        warn(f"the run is complete, but best.onnx was not exported and verified ({reason}); {again}")
        return None
    return path


def remove_export(folder: Path) -> None:
    """Remove best.onnx and the report on it: better no file than one of earlier weights that looks current."""
    remove_report(folder / "best.onnx")
    (folder / "best.onnx").unlink(missing_ok=True)


def _is_export_of(path: Path, weights: Path) -> bool:
    """Whether `path` is an export of these weights, and can be read."""
    try:
        exported = read_header(path).facts.provenance["export"]["weights_sha256"]
        return bool(exported == hashlib.sha256(weights.read_bytes()).hexdigest())
    except Exception:  # it is missing, damaged or from another program
        return False
