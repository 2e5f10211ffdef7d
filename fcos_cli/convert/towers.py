"""Read from a checkpoint's tensors how its pyramid and its towers are built. The tensors have native names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from fcos_cli.model.config import REALTIME_STRIDES, STRIDES

_TOWERS = {"shared_convs": r"head\.shared_tower", "convs": r"head\.classification_head\.conv"}
"""Setting of ModelConfig → the tower whose convolutions it counts. The box tower has as many as the class tower."""

_ANY = r"head\.(shared_tower|\w+_head\.conv)"


def identify_towers(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return `convs`, `shared_convs` and `norm` of ModelConfig; nothing if there is no tower."""
    places = {name: _convolutions(weights, tower) for name, tower in _TOWERS.items()}
    if not any(places.values()):
        return {}
    return {**{name: len(found) for name, found in places.items()}, "norm": _norm(weights, places.values())}


def _convolutions(weights: Mapping[str, Tensor], tower: str) -> list[int]:
    """Places of the convolutions in a tower."""
    found = (re.fullmatch(rf"{tower}\.(\d+)\.weight", key) for key, value in weights.items() if value.ndim == 4)
    return sorted(int(match[1]) for match in found if match)


def _norm(weights: Mapping[str, Tensor], places: Iterable[list[int]]) -> str:
    """The kind of norm between the convolutions. Without one, every other layer is a convolution."""
    if _has(weights, rf"{_ANY}\.\d+\.\d+\.\w+"):
        return "batch-per-level"
    if _has(weights, rf"{_ANY}\.\d+\.running_var"):
        return "batch"
    alone = all(found == list(range(0, 2 * len(found), 2)) for found in places)
    normed = any(value.ndim == 1 and re.fullmatch(rf"{_ANY}\.\d+\.weight", key) for key, value in weights.items())
    return "none" if alone and not normed else "group"


def identify_pyramid(weights: Mapping[str, Tensor], *, realtime: bool) -> dict[str, Any]:
    """Return `strides` and `top_from` of ModelConfig. realtime: whether the family has models with three levels."""
    five = not realtime or _has(weights, r"backbone\.fpn\.extra_blocks\..*|head\.regression_head\.scales\.[34]")
    p6 = weights.get("backbone.fpn.extra_blocks.p6.weight")
    # with as many channels in C5 as in P5, every implementation takes P5
    from_c5 = p6 is not None and p6.ndim == 4 and p6.shape[0] != p6.shape[1]
    return {"strides": STRIDES if five else REALTIME_STRIDES, "top_from": "c5" if from_c5 else "p5"}


def _has(weights: Mapping[str, Tensor], pattern: str) -> bool:
    return any(re.fullmatch(pattern, key) for key in weights)
