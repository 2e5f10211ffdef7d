"""What all exported models share: batches split to what the file accepts, outputs checked and filtered.

Notable choices:

- An incomplete batch is padded with copies of its last image, and the extra outputs are dropped. Copies cannot trigger
  an error that the image itself would not.
- A score above the file's own threshold is applied to the output. The result is the same as with a higher threshold
  inside the model: top-k selects candidates by score before thresholding, and greedy NMS never removes a box because of
  a lower-scoring one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Pixels
from fcos_cli.errors import FcosError, ModelError, UsageError
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import CONVERGED, INPUT, OUTPUTS, SIZES
from fcos_cli.runtime.results import RawDetections

Inputs = Mapping[str, npt.NDArray[Any]]
Outputs = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class InputLimits:
    """What one call of a model accepts: `min_batch` to `max_batch` images of height × width pixels; None = any."""

    min_batch: int = 1
    max_batch: int | None = None
    height: int | None = None
    width: int | None = None

    @classmethod
    def of_shape(cls, batch: int | None, height: int | None, width: int | None) -> InputLimits:
        """From the dimensions of a graph input; None = dynamic."""
        return cls(1 if batch is None else batch, batch, height, width)


def run_in_batches(
    images: Pixels,
    sizes: npt.NDArray[np.int64] | None,
    run: Callable[[Inputs], Outputs],
    *,
    limits: InputLimits,
    score: float | None,
    where: Path,
) -> RawDetections:
    """Detections for `images` [B, 3, H, W], any B ≥ 1, from as many calls of `run` as `limits` require.

    sizes: int64 [B, 2], (height, width) of each image inside its input; None = all of it. run: inputs by name → outputs
    by name, at least OUTPUTS. score: minimum score to return; None = all. Raises ModelError if the image size does not
    fit, and FcosError if NMS did not converge.
    """
    _check_size(images.shape[2:], limits, where)
    if sizes is None:
        sizes = np.tile(np.array(images.shape[2:], np.int64), (len(images), 1))
    parts = []
    step = limits.max_batch or len(images)
    for begin in range(0, len(images), step):
        part = images[begin : begin + step]
        inside = sizes[begin : begin + step]
        missing = max(limits.min_batch - len(part), 0)
        found = run({INPUT: _filled(part, missing), SIZES: _filled(inside, missing)})
        _check_converged(found, where)
        parts.append([np.asarray(found[name])[: len(part)] for name in OUTPUTS])
    whole = (values[0] if len(values) == 1 else np.concatenate(values) for values in zip(*parts, strict=True))
    raw = RawDetections.of(*whole)
    return raw if score is None else drop_below(raw, score)


def _filled(rows: npt.NDArray[Any], missing: int) -> npt.NDArray[Any]:
    return np.ascontiguousarray(np.concatenate([rows, rows[-1:].repeat(missing, axis=0)]) if missing else rows)


def drop_below(raw: RawDetections, score: float) -> RawDetections:
    """Remove detections scoring less than `score`; freed places become 0, 0, -1 like any padding."""
    keep = raw.scores >= np.float32(score)  # compare in float32, as inside a network
    keep &= raw.classes >= 0
    return RawDetections(
        np.where(keep[..., None], raw.boxes, np.float32(0)),
        np.where(keep, raw.scores, np.float32(0)),
        np.where(keep, raw.classes, np.int64(-1)),
        keep.sum(axis=1, dtype=np.int64),
    )


def check_score(score: float | None, facts: Facts, where: Path, *, flag: str = "--score") -> None:
    """Raise UsageError if the score requested by `flag` is below the threshold inside the graph."""
    if score is not None and score < facts.score_threshold and facts.conventions.threshold_on == "score":
        raise UsageError(
            f"this model drops detections below {facts.score_threshold:g}, so {flag} {score:g} is too low",
            where=where,
            remedy=f"export it again with --score {score:g}, or use its .safetensors "
            "(for `default`: --backend pytorch)",
        )


def check_limits(iou: float | None, max_detections: int | None, facts: Facts, where: Path) -> None:
    """Raise UsageError if the graph's own NMS cannot give what is asked for: another threshold, or more detections.

    Fewer detections are the first of those that it returns. A lower IoU cannot be applied to what it returns: a box
    that the lower threshold removes may itself have removed a third one inside the graph, which is lost.
    """
    instead = "use its .safetensors (for `default`: --backend pytorch)"
    if iou is not None and iou != facts.nms_iou:
        raise UsageError(
            f"NMS with an IoU of {facts.nms_iou:g} is built into this model, so --iou {iou:g} is not possible",
            where=where,
            remedy=f"export it again with fcos export --iou {iou:g}, or {instead}",
        )
    if max_detections is not None and max_detections > facts.max_detections:
        raise UsageError(
            f"this model returns at most {facts.max_detections} detections, so --max-detections {max_detections} is "
            "too many",
            where=where,
            remedy=f"export it again with fcos export --max-detections {max_detections}, or {instead}",
        )


def _check_size(size: tuple[int, ...], limits: InputLimits, where: Path) -> None:
    for given, wanted in zip(size, (limits.height, limits.width), strict=True):
        if wanted is not None and given != wanted:
            raise ModelError(
                f"the model takes images of {limits.height or 'any'} x {limits.width or 'any'} pixels (height x "
                f"width), not {size[0]} x {size[1]}",
                where=where,
                remedy="export it again with --size dynamic, or with the size you need",
            )


def _check_converged(found: Outputs, where: Path) -> None:
    if CONVERGED in found and not np.asarray(found[CONVERGED]).all():
        raise FcosError(
            "NMS did not converge on this image: it has a longer chain of overlapping boxes than this model supports",
            where=where,
            remedy="use the .safetensors file, or export with --format onnx, whose NMS has no such limit",
        )
