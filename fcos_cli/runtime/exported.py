"""What exported models share when they are called: batches cut to what the file takes, answers checked and filtered.

Notable choices:
- The last part of a batch is filled up with copies of its last picture: nothing the network has not seen, so nothing
  can fail that would not have failed anyway. Their answers are dropped.
- A score above the file's own is applied to the answer. This is exactly what a higher threshold inside gives: the best
  candidates are chosen by score before any threshold, and in greedy NMS no box is removed by a worse one.
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
    """What one call of a model takes: `min_batch` … `max_batch` pictures of height × width pixels; None = any."""

    min_batch: int = 1
    max_batch: int | None = None
    height: int | None = None
    width: int | None = None

    @classmethod
    def of_shape(cls, batch: int | None, height: int | None, width: int | None) -> InputLimits:
        """By the dimensions of a graph's input, None = free."""
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
    """The answer for `images` [B, 3, H, W], any B ≥ 1, from calls of `run` with what `limits` allows.

    sizes: int64 [B, 2], (height, width) of the pictures inside them, None = all. run: inputs by name (a model
    takes those it has) → outputs by name, at least OUTPUTS. score: lowest score to return, None = all
    there are. Raises ModelError where the size of the pictures does not fit, FcosError where the suppression chain was
    cut off.
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
    boxes, scores, classes, counts = (
        values[0] if len(values) == 1 else np.concatenate(values) for values in zip(*parts, strict=True)
    )
    raw = RawDetections(
        boxes.astype(np.float32, copy=False),
        scores.astype(np.float32, copy=False),
        classes.astype(np.int64, copy=False),
        counts.astype(np.int64, copy=False),
    )
    return raw if score is None else drop_below(raw, score)


def _filled(rows: npt.NDArray[Any], missing: int) -> npt.NDArray[Any]:
    return np.ascontiguousarray(np.concatenate([rows, rows[-1:].repeat(missing, axis=0)]) if missing else rows)


def drop_below(raw: RawDetections, score: float) -> RawDetections:
    """`raw` without what scores less than `score`; places that fall empty are 0, 0, -1 as in any answer."""
    keep = raw.scores >= np.float32(score)  # float32, as the comparison inside a network is
    keep &= raw.classes >= 0
    return RawDetections(
        np.where(keep[..., None], raw.boxes, np.float32(0)),
        np.where(keep, raw.scores, np.float32(0)),
        np.where(keep, raw.classes, np.int64(-1)),
        keep.sum(axis=1, dtype=np.int64),
    )


def check_score(score: float | None, facts: Facts, where: Path) -> None:
    """UsageError where detections are asked for that the graph has already dropped."""
    if score is not None and score < facts.score_threshold and facts.conventions.threshold_on == "score":
        raise UsageError(
            f"this model drops what scores less than {facts.score_threshold:g}, so a score of {score:g} cannot be had",
            where=where,
            remedy=f"export it again with --score {score:g}, or use its .safetensors (of `default`: --backend pytorch)",
        )


def _check_size(size: tuple[int, ...], limits: InputLimits, where: Path) -> None:
    for given, wanted in zip(size, (limits.height, limits.width), strict=True):
        if wanted is not None and given != wanted:
            raise ModelError(
                f"the model takes pictures of {limits.height or 'any'} x {limits.width or 'any'} pixels (height x "
                f"width), not of {size[0]} x {size[1]}",
                where=where,
                remedy="export it again with --size dynamic, or with the size you need",
            )


def _check_converged(found: Outputs, where: Path) -> None:
    if CONVERGED in found and not np.asarray(found[CONVERGED]).all():
        raise FcosError(
            "this picture holds a longer chain of overlapping boxes than the model's NMS follows, so its answer would "
            "be wrong",
            where=where,
            remedy="use the .safetensors, or export with --format onnx, whose NMS has no limit",
        )
