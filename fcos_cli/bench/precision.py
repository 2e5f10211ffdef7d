"""The precision that was asked for, the one that can be had, and the one that really computes."""

from __future__ import annotations

import platform
from typing import NamedTuple

from fcos_cli.bench.environment import processor_flags
from fcos_cli.bench.messages import Job
from fcos_cli.errors import UsageError
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.open import open_detector

FP16_FLAGS = {"avx512_fp16", "amx_fp16", "fphp", "asimdhp"}
"""What Linux calls processors that compute in fp16: Intel's, then Arm's."""


class Opened(NamedTuple):
    """detector: open. attempt: the precision it was opened with. precision: what computes. note: what a reader of the
    row must know."""

    detector: Detector
    attempt: str | None
    precision: str
    note: str | None


def precisions_to_try(asked: str | None) -> tuple[str | None, ...]:
    """Precisions to open a model in, best first; None, its own, is always the last.

    Where there is no fp16, bf16 is the other type of half the size.
    """
    return {None: (None,), "fp16": ("fp16", "bf16", None)}.get(asked, (asked, None))


def open_in_precision(job: Job) -> Opened:
    """The detector in the first of `job.attempts` that can be had. Raises what `open_detector` raises for the last."""
    refusal: UsageError | None = None
    for attempt in job.attempts:
        try:
            detector = open_detector(
                job.model, device=job.device, backend=job.backend, precision=attempt, threads=job.threads
            )
        except UsageError as error:
            refusal = refusal or error
            if attempt == job.attempts[-1]:
                raise
            continue
        precision, why = actual_precision(detector, processor_flags())
        return Opened(detector, attempt, precision, _note(job.asked, detector, precision, why, refusal))
    raise AssertionError("no attempt")


def actual_precision(detector: Detector, flags: set[str]) -> tuple[str, str | None]:
    """What `detector` computes in, and why that is not what its file says.

    ONNX Runtime puts casts around what its CPU provider cannot compute in fp16, which on x86 is all of the body
    (found in the optimised graph it writes), and calls the model fp16 nevertheless.
    """
    fp16_by_cpu = detector.precision == "fp16" and detector.backend == "onnxruntime" and detector.device == "cpu"
    if fp16_by_cpu and (_is_x86() or not flags & FP16_FLAGS):
        return "fp32", "the file is fp16, but ONNX Runtime has no fp16 kernels for this processor"
    if detector.facts.precision == "fp16" and detector.precision == "fp32":
        return "fp32", f"the file is fp16, but {detector.backend} computes it in fp32 here"
    return detector.precision, None


def _note(
    asked: str | None, detector: Detector, precision: str, why: str | None, refusal: UsageError | None
) -> str | None:
    if asked is None or asked == precision:
        return None if why is None else f"{why}; it ran in {precision}"
    reason = why or (refusal.what if refusal else None)
    if asked == "fp16" and str(detector.device) == "cpu" and not processor_flags() & FP16_FLAGS:
        reason = "this processor has no fast fp16"
    return f"{asked} was asked for{f', but {reason}' if reason else ''}; it ran in {precision}"


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")
