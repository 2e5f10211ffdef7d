"""Inputs and outputs of an exported graph: their names, and the smallest image it takes. No torch.

Exporters write files to this interface; the backends and the parity check read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

INPUT, SIZES = "images", "sizes"
"""`sizes` is an input only of models that clip boxes at the image before NMS, not at its padding."""

OUTPUTS = ("boxes", "scores", "classes", "counts")

CONVERGED = "converged"
"""Extra output, bool [B], of models whose NMS runs a fixed number of sweeps: False if these were not enough."""

SMALLEST = 160
"""Smallest height and width of a dynamic input, pixels: below 129 a map of stride 128 would have a single row."""


def raw_names(strides: Sequence[int]) -> tuple[str, ...]:
    """Names of the raw outputs inside an exported graph, in the order in which `export.graph.Graph` returns them.

    strides: of the model's levels; `cls_p3` is the class logits of stride 8.
    """
    from fcos_cli.model.config import level_name  # loads pydantic, which running a model does not need

    levels = [level_name(stride).lower() for stride in strides]
    return tuple(f"{branch}_{level}" for branch in ("cls", "ltrb", "ctr") for level in levels)


def output_names(nms: Literal["op", "tensor"]) -> tuple[str, ...]:
    """Names of a finished file's outputs, in order. nms: one NonMaxSuppression operator, or tensor operations."""
    return OUTPUTS if nms == "op" else (*OUTPUTS, CONVERGED)
