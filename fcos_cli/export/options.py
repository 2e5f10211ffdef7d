"""The options of an export. No torch."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

from fcos_cli.errors import UsageError
from fcos_cli.export.formats import FORMATS, REPOSITORY
from fcos_cli.runtime.facts import Facts

Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["cpu", "tensorrt"]

SMALLEST_FIXED = 32
"""Smallest height and width of a fixed input, pixels: one cell of the backbone's coarsest map."""

MOST_NMS_BOXES = 5000
"""Boxes per image that TensorRT's NonMaxSuppression considers; it drops others without a word (limit of INMSLayer)."""


@dataclass(frozen=True)
class ExportOptions:
    """What to export, and how.

    size: fixed input size (height, width) in pixels; None = dynamic. batch: fixed batch size; None = dynamic. score,
    iou, max_detections: post-processing limits; None = the model's own. nms: one NonMaxSuppression operation, or plain
    tensor operations. target: the runtime that int8 is made for. winograd: use Winograd's algorithm for wide 3×3
    convolutions, for CPUs.
    """

    format: str = "onnx"
    precision: Precision = "fp32"
    size: tuple[int, int] | None = None
    batch: int | None = None
    score: float | None = None
    iou: float | None = None
    max_detections: int | None = None
    nms: Literal["op", "tensor"] = "op"
    target: Target = "cpu"
    winograd: bool = False

    def __post_init__(self) -> None:
        for flag, value, allowed in (
            ("--format", self.format, tuple(FORMATS)),
            ("--precision", self.precision, get_args(Precision)),
            ("--target", self.target, get_args(Target)),
        ):
            if value not in allowed:
                names = (*allowed, REPOSITORY) if flag == "--format" else allowed
                raise UsageError(f"unknown {flag} {value!r}", remedy=f"use one of {', '.join(names)}")
        if self.winograd and (self.precision != "fp32" or FORMATS[self.format].engine):
            raise UsageError(
                f"Winograd convolution is for float32 on CPUs, not for {self.precision} in {self.format}",
                where="--winograd",
                remedy="omit --winograd",
            )
        for flag, limit in (("--score", self.score), ("--iou", self.iou)):
            if limit is not None and not 0 <= limit <= 1:
                raise UsageError(f"{flag} {limit} is not between 0 and 1")
        if self.max_detections is not None and self.max_detections < 1:
            raise UsageError(f"--max-detections {self.max_detections} is not a number of boxes", remedy="use 1 or more")
        if self.size is not None and min(self.size) < SMALLEST_FIXED:
            raise UsageError(
                f"--size {self.size[0]}x{self.size[1]} is too small for the pyramid's levels",
                remedy=f"use at least {SMALLEST_FIXED}x{SMALLEST_FIXED}",
            )

    def for_candidates(self, count: int) -> ExportOptions:
        """The options with another form of NMS if TensorRT's would leave out some of `count` candidates per image."""
        return replace(self, nms="tensor") if FORMATS[self.format].engine and count > MOST_NMS_BOXES else self

    def command(self, weights: Path, *, out: Path, data: Path | None, limit: int | None) -> str:
        """The command line of this export."""
        flags = {
            "format": self.format,
            "precision": self.precision,
            "size": self.size and "x".join(map(str, self.size)),
            "batch": self.batch,
            "score": self.score,
            "iou": self.iou,
            "max-detections": self.max_detections,
            "target": self.target if self.precision == "int8" else None,
            "data": data,
            "limit": limit,
            "out": out,
        }
        words = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
        return shlex.join(["fcos", "export", str(weights), *words])

    def apply(self, facts: Facts) -> Facts:
        """Return the facts of the exported model: `facts` with these options applied and `verified` False.

        Raises UsageError if a score is given and the conventions' threshold is not on scores.
        """
        if self.score is not None and facts.conventions.threshold_on == "class":
            raise UsageError(
                "this model filters candidates by class probability, so the file cannot store a score threshold",
                where="--score",
                remedy="omit --score here and pass it to predict, eval or bench",
            )
        size = self.size
        resize = facts.resize
        if size is not None:
            resize = replace(resize, mode="letterbox", size=size)
        return replace(
            facts,
            resize=resize,
            score_threshold=facts.score_threshold if self.score is None else self.score,
            nms_iou=facts.nms_iou if self.iou is None else self.iou,
            max_detections=self.max_detections or facts.max_detections,
            precision=self.precision,
            verified=False,
        )


def make_options(
    format_: str,
    *,
    precision: str = "fp32",
    size: tuple[int, int] | None = None,
    batch: str = "dynamic",
    score: float | None = None,
    iou: float | None = None,
    max_detections: int | None = None,
    target: str | None = None,
    winograd: bool | None = None,
) -> ExportOptions:
    """Build the options from the command line: `batch` is `dynamic` or a number; defaults depend on the format.

    Raises UsageError naming the flag.
    """
    if batch != "dynamic" and not (batch.isdecimal() and len(batch) < 10 and int(batch) > 0):
        raise UsageError(f"--batch {batch!r} is not a batch size", remedy="use --batch 1 or --batch dynamic")
    if target is not None and precision != "int8":
        raise UsageError(
            f"--target is the hardware that int8 is quantized for; this export is in {precision}",
            remedy="omit --target, or add --precision int8",
        )
    is_engine = format_ in FORMATS and FORMATS[format_].engine
    if is_engine and target == "cpu":
        raise UsageError("TensorRT does not run the int8 of --target cpu", remedy="omit --target")
    return ExportOptions(
        format=format_,
        precision=cast("Precision", precision),
        size=size,
        batch=None if batch == "dynamic" else int(batch),
        score=score,
        iou=iou,
        max_detections=max_detections,
        nms="tensor" if format_ == "trt-rtx" else "op",  # TensorRT-RTX has no kernel for NonMaxSuppression
        target=cast("Target", target or ("tensorrt" if is_engine else "cpu")),
        winograd=precision == "fp32" and not is_engine if winograd is None else winograd,
    )
