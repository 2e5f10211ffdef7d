"""Inputs and outputs of an exported graph: their names, and the smallest picture it takes. No torch.

Exporters write files to this interface; the backends and the parity check read it.
"""

from __future__ import annotations

from typing import Literal

INPUT, SIZES = "images", "sizes"
"""`sizes` is an input only of models that clip boxes at the picture before NMS, not at its padding."""

OUTPUTS = ("boxes", "scores", "classes", "counts")

CONVERGED = "converged"
"""A further output, bool [B], of models whose NMS runs a fixed number of sweeps: False where these were too few."""

LEVELS = ("p3", "p4", "p5", "p6", "p7")
RAW = tuple(f"{branch}_{level}" for branch in ("cls", "ltrb", "ctr") for level in LEVELS)
"""Names of the raw outputs inside an exported graph, in the order in which `export.graph.Graph` returns them."""

SMALLEST = 160
"""Smallest height and width of a dynamic input, pixels: below 129 the map of P7 would have a single row."""


def output_names(nms: Literal["op", "tensor"]) -> tuple[str, ...]:
    """Names of what a finished file returns, in order. nms: one NonMaxSuppression operation, or tensor operations."""
    return OUTPUTS if nms == "op" else (*OUTPUTS, CONVERGED)
