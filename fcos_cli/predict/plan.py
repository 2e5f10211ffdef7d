"""What a run of `fcos predict` reports, and where its results go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fcos_cli.data.tiling import Tiling
from fcos_cli.predict.outputs import OutputNames

if TYPE_CHECKING:
    from fcos_cli.predict.labels.plan import LabelPlan


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What is detected and reported.

    score: lowest score; None uses the model's thresholds per class. chosen: indices of the classes; None = all. limit:
    number of detections per image; None = all. tracked: give objects identities; then all inputs must be frames.
    tiling: also run on tiles. batch: images (tiles) per network call. every, frames, iou: those that the inputs and the
    detector were opened with.
    """

    score: float | None = None
    chosen: Collection[int] | None = None
    limit: int | None = None
    tracked: bool = False
    tiling: Tiling | None = None
    batch: int = 1
    every: int = 1
    frames: int | None = None
    iou: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What must be the same in a resumed run, by the names of the command line."""
        return {
            "score": self.score,
            "classes": self.chosen and sorted(self.chosen),
            "iou": self.iou,
            "max_detections": self.limit,
            "every": self.every,
            "frames": self.frames,
            "batch": self.batch,
            "tile": self.tiling and [self.tiling.side, self.tiling.overlap],
        }


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where the results go.

    stdout: format printed on stdout. save: files to write, format by suffix. viz_dir: folder for annotated images and
    videos. crops_dir: folder for crops. names: free names for images, videos and crops. labels: the data set to write.
    """

    stdout: Literal["json", "jsonl"] | None = None
    save: Sequence[Path] = ()
    viz_dir: Path | None = None
    crops_dir: Path | None = None
    names: OutputNames = field(default_factory=OutputNames)
    labels: LabelPlan | None = None

    @property
    def draws(self) -> bool:
        return self.viz_dir is not None or self.crops_dir is not None
