"""The `fcos verify` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcos_cli.commands.command import Debug
from fcos_cli.commands.options import BackendFlag, DeviceFlag, Json, PrecisionFlag


def verify(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An exported file (.onnx, OpenVINO .xml or TensorRT .engine), a run folder (its best.onnx) or "
            "`default` (the bundled detector).",
        ),
    ] = "default",
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Also write the images to FOLDER, as raw network inputs, with the expected detections as JSON, to "
            "check programs in other languages.",
        ),
    ] = None,
    device: DeviceFlag = None,
    backend: BackendFlag = None,
    precision: PrecisionFlag = None,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Check on this machine that an exported file gives PyTorch's results. Needs no torch and no data.

    `fcos export` and `fcos train` store small images with PyTorch's detections in the files they write. Exit code 5
    if a detection differs by more than the precision explains.
    """
    from fcos_cli.parity.check import check_file

    check_file(
        model,
        save=save,
        device=device or "auto",
        backend=backend,
        precision=precision,
        as_json=as_json,
    )
