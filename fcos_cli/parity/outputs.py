"""The outputs of an exported file: whether they have the agreed form, and how they compare with the reference's.

No torch: the parity check and `fcos verify` share this.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcos_cli.parity.inputs import Size
from fcos_cli.parity.matching import ImageDetections, Limits, image_detections, match
from fcos_cli.parity.subgraphs import ModelOutput
from fcos_cli.parity.verdict import MatchRow
from fcos_cli.runtime.results import RawDetections


def match_row(
    case: str,
    reference: ImageDetections,
    exported: ModelOutput,
    limits: Limits,
    *,
    size: Size,
    index: int,
    exact: bool = False,
    image: npt.NDArray[np.uint8] | None = None,
) -> MatchRow:
    """Compare the detections of image `index` of a batch with the reference's."""
    detections = image_detections(exported.detections, index)
    return MatchRow(
        case=case,
        size=size,
        batch=len(exported.detections.counts),
        index=index,
        match=match(reference, detections, limits=limits),
        reference=reference,
        exported=detections,
        exact=exact,
        converged=exported.converged is None or bool(exported.converged[index]),
        image=image,
    )


def check_form(detections: RawDetections, batch: int, limits: Limits, *, classes: int) -> None:
    """Raise ValueError if an output violates the contract of `RawDetections`."""
    boxes, scores, labels, counts = detections
    slots = scores.shape[1] if scores.ndim == 2 else -1
    expected = ((batch, slots, 4), (batch, slots), (batch, slots), (batch,))
    if tuple(part.shape for part in detections) != expected:
        raise ValueError(f"outputs have shapes {[part.shape for part in detections]}, expected {expected}")
    if counts.min() < 0 or counts.max() > min(slots, limits.max_detections):
        raise ValueError(f"counts {counts.tolist()} are not in 0…{min(slots, limits.max_detections)}")
    valid = np.arange(slots)[None] < counts[:, None]
    for wrong, what in (
        (~np.isfinite(boxes).all(-1) | ~np.isfinite(scores), "values that are not finite"),
        (valid & ((labels < 0) | (labels >= classes)), f"classes outside 0…{classes - 1}"),
        (~valid & ((labels != -1) | (scores != 0)), "values in padding slots that should be empty"),
        (valid & (scores <= 0), "detections with a score of 0 or less"),
    ):
        if wrong.any():
            raise ValueError(f"the outputs contain {what}")
    if ((np.diff(scores, axis=1) > 0) & valid[:, 1:]).any():
        raise ValueError("scores are not in descending order")
