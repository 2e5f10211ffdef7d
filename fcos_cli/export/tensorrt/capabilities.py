"""The compute capabilities that a TensorRT-RTX engine is built for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fcos_cli.errors import MissingExtra, UsageError
from fcos_cli.runtime.tensorrt.package import Gpu, Package, find_gpu, find_package
from fcos_cli.runtime.tensorrt.sidecar import CURRENT_GPU


def check_capabilities(capabilities: Sequence[str]) -> None:
    """Raise UsageError if the TensorRT-RTX that is installed, if any, does not build for these."""
    with suppress(MissingExtra):
        capability_members(find_package("trt-rtx"), find_gpu(), capabilities)


def capability_members(package: Package, gpu: Gpu | None, capabilities: Sequence[str]) -> list[str]:
    """The names of these compute capabilities in `ComputeCapability` of TensorRT-RTX.

    Raises UsageError for those that it does not know, for doubles, and for `current` with others or without a GPU.
    """
    module: Any = package.module
    known = [name for name in module.ComputeCapability.__members__ if name.startswith("SM")]
    supported = ", ".join(map(dotted_name, known))
    chosen = [_member_name(capability) for capability in capabilities]
    unknown = [c for c, name in zip(capabilities, chosen, strict=True) if name not in (*known, "CURRENT")]
    if unknown:
        raise UsageError(
            f"{package.label} does not build for compute capability {unknown[0]}",
            remedy=f"choose from {supported}",
        )
    if len(set(chosen)) < len(chosen) or ("CURRENT" in chosen and (len(chosen) > 1 or gpu is None)):
        raise UsageError(
            f"invalid list of compute capabilities: {' '.join(capabilities)}",
            remedy=f"use each of {supported} at most once, or only {CURRENT_GPU} on a machine with a GPU",
        )
    return chosen


def _member_name(capability: str) -> str:
    """`8.6`, `86`, `sm86`, `SM_86` → `SM86`; `current` → `CURRENT`."""
    text = capability.strip().upper().replace(".", "").replace("_", "")
    return text if text == "CURRENT" else f"SM{text.removeprefix('SM')}"


def dotted_name(capability: str) -> str:
    """`SM86`, `sm86`, `86` → `8.6`; `CURRENT` → `current`."""
    text = _member_name(capability).removeprefix("SM")
    return CURRENT_GPU if text == "CURRENT" else f"{text[:-1]}.{text[-1:]}"
