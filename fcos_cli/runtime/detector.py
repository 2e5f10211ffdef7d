"""The one face of every model: batches of pixels in, detections out, and the facts that travel with the weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Geometry
from fcos_cli.errors import ModelError
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.facts import Facts


class RawDetections(NamedTuple):
    """What a detector answers for a batch of B pictures, padded to D places each.

    boxes: float32 [B, D, 4], xyxy in pixels of the network input, exclusive ends.
    scores: float32 [B, D], 0…1, descending. classes: int64 [B, D], -1 where empty. counts: int64 [B].
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, best first.

    boxes: float32 [N, 4], xyxy in pixels of the source picture, clipped to it. scores: float32 [N], 0…1.
    classes: int64 [N], class indices (names and data-set ids: `ClassTable`).
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float | npt.NDArray[np.float32]) -> Detections:
        """Those with score ≥ threshold: one number, or one per class [C]."""
        limits = np.asarray(threshold, np.float32)
        keep = self.scores >= (limits[self.classes] if limits.ndim else limits)
        return Detections(self.boxes[keep], self.scores[keep], self.classes[keep])

    def to_json(self, classes: ClassTable) -> list[dict[str, Any]]:
        """The `detections` rows of `fcos predict --json`."""
        return [
            {
                "box": [round(float(v), 2) for v in box],
                "score": round(float(score), 4),
                "class": classes.names[index],
                "category_id": classes.ids[index],
            }
            for box, score, index in zip(self.boxes, self.scores, self.classes.tolist(), strict=True)
        ]


class Detector(Protocol):
    """Anything that maps a batch of pictures to detections.

    Calling it: `images` uint8 [B, 3, H, W], RGB, as `ResizeRule.batch` makes them. `score`: keep candidates whose
    final score is at least this (float 0…1).
    """

    name: str
    facts: Facts

    def __call__(self, images: npt.NDArray[np.uint8]) -> RawDetections: ...


def to_source(raw: RawDetections, geometries: list[Geometry]) -> list[Detections]:
    """Raw detections of a batch → one `Detections` per picture, in pixels of its source, empty boxes dropped."""
    answers = []
    for index, geometry in enumerate(geometries):
        count = int(raw.counts[index])
        boxes = geometry.inverse(raw.boxes[index, :count])
        keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        answers.append(Detections(boxes[keep], raw.scores[index, :count][keep], raw.classes[index, :count][keep]))
    return answers


def default_weights() -> Path:
    """The detector that ships in the package."""
    return Path(__file__).resolve().parent.parent / "assets" / "default.safetensors"


def find_artifact(model: str | Path) -> Path:
    """The file behind what a user calls a model: a file, a run folder (its best weights), or `default`.

    Raises ModelError naming what is there instead.
    """
    if str(model) == "default":
        return default_weights()
    path = Path(model)
    if path.is_dir():
        for name in ("best.safetensors", "last.safetensors"):
            if (path / name).is_file():
                return path / name
        raise ModelError(
            "this folder holds neither best.safetensors nor last.safetensors",
            where=path,
            remedy="name a run folder that `fcos train` wrote, or a model file",
        )
    if not path.is_file():
        raise ModelError("there is no such model", where=path, remedy="name a .safetensors file or a run folder")
    return path


def open_detector(model: str | Path = "default", *, score: float | None = None, device: str = "auto") -> Detector:
    """A detector from any artifact: a `.safetensors` file, a run folder, or a name from the zoo (`default`).

    score: lowest score to return (default: the artifact's own candidate threshold). Raises ModelError.
    """
    path = find_artifact(model)
    if path.suffix != ".safetensors":
        raise ModelError(
            f"{path.suffix or 'files without a suffix'} cannot be run by this version",
            where=path,
            remedy="use a .safetensors file",
        )
    from fcos_cli.model.artifact import load
    from fcos_cli.runtime.pytorch import PyTorchDetector

    return PyTorchDetector.from_artifact(load(path), name=str(model), score=score, device=device)
