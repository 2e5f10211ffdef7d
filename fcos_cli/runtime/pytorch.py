"""The PyTorch backend: the reference for all others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.backends import cudnn

from fcos_cli.data.geometry import Pixels, ResizeRule
from fcos_cli.errors import UsageError, first_line
from fcos_cli.hardware import has_native_bf16
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.optimize.fuse import fold_batch_norm
from fcos_cli.model.optimize.halve import halve
from fcos_cli.model.optimize.winograd import use_winograd
from fcos_cli.runtime.exported import drop_below
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import RawDetections

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class PyTorchDetector:
    """Runs a network in eager mode. `from_artifact` opens a file and optimizes the network for inference."""

    backend = "pytorch"

    def __init__(
        self,
        model: FCOS,
        facts: Facts,
        *,
        name: str,
        device: torch.device,
        score: float | None = None,
        precision: str = "fp32",
    ) -> None:
        """score: minimum score to return, if it is not the network's own threshold. precision: of backbone and head."""
        self.model, self.facts, self.name, self.device, self.score = model, facts, name, device, score
        self.precision = precision

    @classmethod
    def from_artifact(
        cls,
        artifact: Artifact,
        *,
        name: str,
        score: float | None = None,
        device: str = "auto",
        precision: str | None = None,
        threads: int | None = None,
    ) -> PyTorchDetector:
        """Open an artifact.

        score: minimum score to return (default: the artifact's own). device: `auto` is CUDA if available. precision: of
        backbone and head: `fp32` (None), `bf16` or `fp16`; decode and NMS always run in float32. threads: CPU threads
        for all of torch in this process; None leaves them unchanged. Raises UsageError if the device is not available
        or slow in that precision.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        picked = pick_device(device)
        precision = precision or "fp32"
        check_precision(precision, picked)
        model = optimized(artifact.build().to(picked), precision=precision)
        if score is not None and artifact.config.conventions.threshold_on == "score":
            model.config = model.config.model_copy(update={"score_threshold": score})
            score = None
        return cls(model, facts_of(artifact), name=name, device=picked, score=score, precision=precision)

    def set_limits(self, *, iou: float | None, max_detections: int | None) -> None:
        """Use another IoU threshold of NMS, and return at least `max_detections` per image if there are so many.

        None leaves the network's own. A smaller number is for the caller to apply, as with other backends.
        """
        changes: dict[str, Any] = {} if iou is None else {"nms_iou": iou}
        if max_detections is not None:
            changes["max_detections"] = max(max_detections, self.facts.max_detections)
        self.model.config = self.model.config.model_copy(update=changes)
        self.facts = replace(self.facts, **changes)

    def __call__(self, images: Pixels, sizes: npt.NDArray[np.int64] | None = None) -> RawDetections:
        inside = None if sizes is None else torch.from_numpy(sizes).to(self.device)
        with torch.inference_mode(), _no_tf32() if self.precision == "fp32" else nullcontext():
            found = self.model.detect(torch.from_numpy(images).to(self.device), inside)
        raw = RawDetections(*(tensor.cpu().numpy() for tensor in found))
        return raw if self.score is None else drop_below(raw, self.score)


@contextmanager
def _no_tf32() -> Iterator[None]:
    """Convolutions on a GPU in float32; torch's default is TF32, with 11 bits. (`cudnn.flags` would reset the rest.)"""
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def optimized(model: FCOS, *, precision: str = "fp32") -> FCOS:
    """Optimize a network in eval mode for inference, in place. It can no longer be trained.

    BatchNorm is folded into convolutions; `bf16` and `fp16` networks compute in that type; wide 3×3 convolutions on a
    CPU use Winograd's method; memory is channels_last. In float32 the raw outputs stay within a relative error of 1e-5.
    """
    fold_batch_norm(model)
    if precision in HALVES:
        halve(model, HALVES[precision])
    if model.mean.device.type == "cpu":
        use_winograd(model)
    return model.to(memory_format=torch.channels_last)


def check_precision(precision: str, device: torch.device) -> None:
    """Raise UsageError if the device does not support the precision, or only emulates it."""
    able = ["fp32", *(["bf16"] if has_native_bf16(device) else []), *(["fp16"] if device.type == "cuda" else [])]
    if precision not in able:
        raise UsageError(
            f"PyTorch does not support {precision} on this {device.type}, or only emulates it",
            where="--precision",
            remedy=f"leave it out, or use one of {', '.join(able)}",
        )


def facts_of(artifact: Artifact) -> Facts:
    config = artifact.config
    return Facts(
        classes=artifact.classes,
        resize=ResizeRule.from_json(artifact.geometry),
        conventions=config.conventions,
        threshold=artifact.threshold,
        class_thresholds=artifact.class_thresholds,
        score_threshold=config.score_threshold,
        nms_iou=config.nms_iou,
        max_detections=config.max_detections,
        model=config.model_dump(mode="json", exclude={"conventions"}),
        provenance=artifact.provenance,
    )


def pick_device(device: str) -> torch.device:
    """`auto`, or any device name of torch. Raises UsageError if it is not available."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {device!r} is not available ({first_line(error)})", remedy="--device cpu") from error
    return picked
