"""The PyTorch detector: the reference that every other one is held to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fcos_cli.data.geometry import Pixels, ResizeRule
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.fcos import FCOS
from fcos_cli.runtime.batches import above
from fcos_cli.runtime.detector import RawDetections
from fcos_cli.runtime.facts import Facts


class PyTorchDetector:
    """Runs a network eagerly in float32 and channels_last. Build one from a file with `from_artifact`."""

    backend = "pytorch"
    precision = "fp32"

    def __init__(
        self, model: FCOS, facts: Facts, *, name: str, device: torch.device, score: float | None = None
    ) -> None:
        """score: lowest score to return, where that is not the network's own threshold."""
        self.model, self.facts, self.name, self.device, self.score = model, facts, name, device, score

    @classmethod
    def from_artifact(
        cls,
        artifact: Artifact,
        *,
        name: str,
        score: float | None = None,
        device: str = "auto",
        threads: int | None = None,
    ) -> PyTorchDetector:
        """score: lowest score to return (default: the artifact's own). device: `auto` is CUDA where present. threads:
        of the CPU, for all of torch in this process; None leaves them as they are."""
        if threads is not None:
            torch.set_num_threads(threads)
        picked = pick_device(device)
        model = artifact.build().to(picked).to(memory_format=torch.channels_last)
        if score is not None and artifact.config.conventions.threshold_on == "score":
            model.config = model.config.model_copy(update={"score_threshold": score})
            score = None
        return cls(model, facts_of(artifact), name=name, device=picked, score=score)

    def __call__(self, images: Pixels, sizes: npt.NDArray[np.int64] | None = None) -> RawDetections:
        inside = None if sizes is None else torch.from_numpy(sizes).to(self.device)
        with torch.inference_mode():
            found = self.model.detect(torch.from_numpy(images).to(self.device), inside)
        raw = RawDetections(*(tensor.cpu().numpy() for tensor in found))
        return raw if self.score is None else above(raw, self.score)


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
