"""`--engine KEY=VALUE`: parse the settings of a TensorRT engine build. TensorRT need not be installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fcos_cli.errors import UsageError
from fcos_cli.export.tensorrt.capabilities import check_capabilities
from fcos_cli.export.tensorrt.profile import Profile
from fcos_cli.runtime.tensorrt.package import Flavour
from fcos_cli.runtime.tensorrt.sidecar import Shape

KEYS = ("min", "opt", "max", "workspace", "cache", "sm")


def engine_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse `--engine` assignments into keyword arguments of `build_engine`.

    `min`, `opt` and `max` (BxHxW, all three or none) make the profile; `workspace` is in MiB; `cache` is a file of
    kernel timings; `sm` is a comma-separated list of compute capabilities. Raises UsageError naming the assignment.
    """
    values: dict[str, str] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or key not in KEYS or not value:
            raise UsageError(
                f"invalid --engine {assignment!r}", remedy=f"use KEY=VALUE with one of the keys {', '.join(KEYS)}"
            )
        values[key] = value
    settings: dict[str, Any] = {}
    shapes = [key for key in ("min", "opt", "max") if key in values]
    if shapes and len(shapes) < 3:
        raise UsageError(
            f"--engine sets only {' and '.join(shapes)}", remedy="set min, opt and max, for example min=1x320x320"
        )
    if shapes:
        settings["profile"] = Profile(*(_shape(values[key]) for key in shapes))
    if "workspace" in values:
        settings["workspace_mb"] = _number(values["workspace"], "workspace")
    if "cache" in values:
        settings["timing_cache"] = Path(values["cache"])
    if "sm" in values:
        settings["compute_capabilities"] = values["sm"].split(",")
    return settings


def check_settings(flavour: Flavour, settings: Mapping[str, Any]) -> None:
    """Raise UsageError if a build of this flavour cannot have these keyword arguments of `build_engine`."""
    workspace = settings.get("workspace_mb")
    if workspace is not None and workspace < 1:
        raise UsageError(f"a workspace of {workspace} MiB is too small: use at least 1", where="workspace")
    capabilities = settings.get("compute_capabilities")
    if capabilities and flavour == "trt":
        raise UsageError(
            "TensorRT builds for the GPU of this machine; only TensorRT-RTX builds for chosen compute capabilities",
            remedy="use --format trt-rtx, or build on the GPU that will run the engine",
        )
    if capabilities:
        check_capabilities(capabilities)


def _shape(text: str) -> Shape:
    """`4x320x416` → batch 4, height 320, width 416."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise UsageError(f"--engine: {text!r} is not BATCHxHEIGHTxWIDTH", remedy="use a shape such as 1x320x320")
    return Shape(*map(int, parts))


def _number(text: str, key: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"--engine: {key} {text!r} is not a whole number")
    return int(text)
