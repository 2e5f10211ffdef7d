"""The PyTorch detector: the reference that every other one is held to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.fcos import FCOS
from fcos_cli.runtime.detector import Facts, RawDetections


class PyTorchDetector:
    """Runs an `Artifact` eagerly, float32, channels_last, on `device` (`auto`: CUDA where present, else CPU)."""

    def __init__(self, artifact: Artifact, *, name: str, score: float | None = None, device: str = "auto") -> None:
        if score is not None:
            artifact = _with_score(artifact, score)
        self.device = pick_device(device)
        self.model = artifact.build().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.name = name
        self.facts = facts_of(artifact)

    def __call__(self, images: npt.NDArray[np.uint8]) -> RawDetections:
        return detect_with(self.model, images, device=self.device)


def detect_with(model: FCOS, images: npt.NDArray[np.uint8], *, device: torch.device) -> RawDetections:
    """Run a network on uint8 [B, 3, H, W] and bring its detections back as numpy."""
    with torch.inference_mode():
        found = model.detect(torch.from_numpy(images).to(device))
    return RawDetections(*(tensor.cpu().numpy() for tensor in found))


def facts_of(artifact: Artifact) -> Facts:
    return Facts(
        classes=artifact.classes,
        resize=ResizeRule.from_json(artifact.geometry),
        threshold=artifact.threshold,
        class_thresholds=artifact.class_thresholds,
        provenance=artifact.provenance,
    )


def pick_device(device: str) -> torch.device:
    """`auto`, or anything torch understands; UsageError where it is not there."""
    from fcos_cli.errors import UsageError

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device {device!r} cannot be used here ({str(error).splitlines()[0]})", remedy="--device cpu"
        ) from error
    return picked


def _with_score(artifact: Artifact, score: float) -> Artifact:
    from dataclasses import replace

    return replace(artifact, config=artifact.config.model_copy(update={"score_threshold": score}))
