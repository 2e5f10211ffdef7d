"""`--engine KEY=VALUE`: how a TensorRT engine is built, from the command line's words. No TensorRT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fcos_cli.errors import UsageError
from fcos_cli.export.tensorrt.profile import Profile
from fcos_cli.runtime.tensorrt.sidecar import Shape

KEYS = ("min", "opt", "max", "workspace", "cache", "sm")


def engine_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments of `build_engine`: `min`, `opt` and `max` (BxHxW, all three or none) make the profile,
    `workspace` is in MB, `cache` a file of measured kernel times, `sm` compute capabilities, separated by commas.

    Raises UsageError naming the assignment.
    """
    given: dict[str, str] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or key not in KEYS or not value:
            raise UsageError(
                f"--engine {assignment!r} is not understood", remedy=f"use KEY=VALUE with one of {', '.join(KEYS)}"
            )
        given[key] = value
    settings: dict[str, Any] = {}
    ends = [key for key in ("min", "opt", "max") if key in given]
    if ends and len(ends) < 3:
        raise UsageError(
            f"--engine names {' and '.join(ends)} alone", remedy="name min, opt and max, for example min=1x320x320"
        )
    if ends:
        settings["profile"] = Profile(*(_shape(given[key]) for key in ends))
    if "workspace" in given:
        settings["workspace_mb"] = _number(given["workspace"], "workspace")
    if "cache" in given:
        settings["timing_cache"] = Path(given["cache"])
    if "sm" in given:
        settings["compute_capabilities"] = given["sm"].split(",")
    return settings


def _shape(text: str) -> Shape:
    """`4x320x416` → batch 4, height 320, width 416."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise UsageError(f"--engine: {text!r} is not BATCHxHEIGHTxWIDTH", remedy="for example 1x320x320")
    return Shape(*map(int, parts))


def _number(text: str, key: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"--engine: {key} {text!r} is not a whole number")
    return int(text)
