"""Inputs and outputs of an exported graph: their names, and the smallest image it takes. No torch.

Exporters write files to this interface; the backends and the parity check read it.
"""

from __future__ import annotations

from typing import Literal

INPUT, SIZES = "images", "sizes"
"""`sizes` is an input only of models that clip boxes at the image before NMS, not at its padding."""

OUTPUTS = ("boxes", "scores", "classes", "counts")

CONVERGED = "converged"
"""Extra output, bool [B], of models whose NMS runs a fixed number of sweeps: False if these were not enough."""

LEVELS = ("p3", "p4", "p5", "p6", "p7")
RAW = tuple(f"{branch}_{level}" for branch in ("cls", "ltrb", "ctr") for level in LEVELS)
"""Names of the raw outputs inside an exported graph, in the order in which `export.graph.Graph` returns them."""

SMALLEST = 160
"""Smallest height and width of a dynamic input, pixels: below 129 the map of P7 would have a single row."""


def output_names(nms: Literal["op", "tensor"]) -> tuple[str, ...]:
    """Names of a finished file's outputs, in order. nms: one NonMaxSuppression operator, or tensor operations."""
    return OUTPUTS if nms == "op" else (*OUTPUTS, CONVERGED)
