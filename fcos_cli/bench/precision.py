"""The requested precision, the one a model can be opened with, and the one it actually computes in."""

from __future__ import annotations

import platform
from typing import NamedTuple

from fcos_cli.bench.protocol import Job
from fcos_cli.errors import UsageError
from fcos_cli.hardware import processor_flags
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.open import open_detector

FP16_FLAGS = {"avx512_fp16", "amx_fp16", "fphp", "asimdhp"}
"""Linux's CPU flags for native fp16 arithmetic: Intel, then Arm."""


class Opened(NamedTuple):
    """An open detector.

    attempt: the precision it was opened with. precision: the precision it computes in. note: remark on the row for the
    user.
    """

    detector: Detector
    attempt: str | None
    precision: str
    note: str | None


def precisions_to_try(requested: str | None) -> tuple[str | None, ...]:
    """Return the precisions to try when opening a model, best first; None (its own) is always last.

    Without fp16, bf16 is the other type of half the size.
    """
    return {None: (None,), "fp16": ("fp16", "bf16", None)}.get(requested, (requested, None))


def open_in_precision(job: Job) -> Opened:
    """Open the detector in the first of `job.attempts` that works.

    Raises the error of `open_detector` for the last attempt.
    """
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
        precision, reason = actual_precision(detector, processor_flags())
        return Opened(detector, attempt, precision, _note(job.asked, detector, precision, reason, refusal))
    raise AssertionError("the job has no attempts")


def actual_precision(detector: Detector, flags: set[str]) -> tuple[str, str | None]:
    """Return the precision `detector` computes in, and why it differs from that of an fp16 file, if it does.

    ONNX Runtime inserts casts around operators that its CPU provider cannot compute in fp16, which on x86 is the whole
    backbone and head (visible in the optimized graph it writes), but still reports the model as fp16.
    """
    fp16_on_cpu = detector.precision == "fp16" and detector.backend == "onnxruntime" and detector.device == "cpu"
    if fp16_on_cpu and (_is_x86() or not flags & FP16_FLAGS):
        return "fp32", "ONNX Runtime has no fp16 kernels for this processor"
    if detector.facts.precision == "fp16" and detector.precision == "fp32":
        return "fp32", f"{detector.backend} computes it in fp32 here"
    return detector.precision, None


def _note(
    requested: str | None, detector: Detector, precision: str, reason: str | None, refusal: UsageError | None
) -> str | None:
    if requested is None or requested == precision:
        return None if reason is None else f"the file is fp16, but {reason}; ran in {precision}"
    if reason is None or requested != "fp16":
        reason = refusal.what if refusal else None
    if requested == "fp16" and str(detector.device) == "cpu" and not processor_flags() & FP16_FLAGS:
        reason = "this processor has no fast fp16"
    return f"{requested} was requested{f', but {reason}' if reason else ''}; ran in {precision}"


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")
