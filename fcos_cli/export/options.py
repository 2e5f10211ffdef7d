"""What the user wants of an export. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from fcos_cli.errors import UsageError
from fcos_cli.export.formats import FORMATS
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import SMALLEST

Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["cpu", "tensorrt"]


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and how.

    size: (height, width) of a fixed input in pixels, None = any size. batch: pictures of a fixed batch, None = any
    number. score, iou, max_detections: of post-processing, None = the model's own. nms: one NonMaxSuppression
    operation, or plain tensor operations. target: whose int8 is made. winograd: wide 3×3 convolutions in Winograd's
    form, for CPUs.
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
                raise UsageError(f"{flag} {value!r} is not known", remedy=f"use one of {', '.join(allowed)}")
        if self.winograd and (self.precision != "fp32" or FORMATS[self.format].engine):
            raise UsageError(
                f"Winograd's form is for float32 on CPUs, not for {self.precision} in {self.format}",
                where="--winograd",
                remedy="leave it out",
            )
        if self.size is not None and min(self.size) < SMALLEST:
            raise UsageError(
                f"--size {self.size[0]}x{self.size[1]} is too small for the pyramid's five levels",
                remedy=f"use at least {SMALLEST}x{SMALLEST}",
            )

    def apply(self, facts: Facts) -> Facts:
        """The facts of the exported model: the given ones with what these options change. `verified` is still False.

        Raises UsageError for a score where the conventions' threshold is not on scores.
        """
        if self.score is not None and facts.conventions.threshold_on == "class":
            raise UsageError(
                "this model's candidates pass by class probability, so the file cannot hold a lowest score",
                where="--score",
                remedy="leave it out, and give --score to predict, eval or bench",
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
    """Options as the command line gives them: `batch` is `dynamic` or a number, what the format implies is filled in.

    Raises UsageError naming the flag.
    """
    if batch != "dynamic" and not (batch.isdecimal() and int(batch) > 0):
        raise UsageError(f"--batch {batch!r} is not a number of pictures", remedy="--batch 1, or --batch dynamic")
    on_tensorrt = format_ in FORMATS and FORMATS[format_].engine
    return ExportOptions(
        format=format_,
        precision=cast("Precision", precision),
        size=size,
        batch=None if batch == "dynamic" else int(batch),
        score=score,
        iou=iou,
        max_detections=max_detections,
        nms="tensor" if format_ == "trt-rtx" else "op",  # TensorRT-RTX has no kernel for NonMaxSuppression
        target=cast("Target", target or ("tensorrt" if on_tensorrt else "cpu")),
        winograd=precision == "fp32" and not on_tensorrt and target in (None, "cpu") if winograd is None else winograd,
    )
