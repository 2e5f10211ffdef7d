"""The networks that `fcos train --model` and `fcos info` know by name. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fcos_cli.errors import UsageError

CLASSES = 80
"""Number of classes that `parameters` and `macs` are given for, as in COCO."""


@dataclass(frozen=True)
class Network:
    """A network: settings of ModelConfig, and the input size (longer side, in pixels) it is made for.

    any_size: whether training chooses the input size from the data instead. parameters, macs: weights, and
    multiplications of a square image of that size, both with `CLASSES` classes. They are stored so that they can be
    shown without torch; the tests compare them with `network_cost`.
    """

    purpose: str
    backbone: str
    channels: int
    convs: int
    tower: Literal["full", "separable"]
    size: int
    any_size: bool
    parameters: int
    macs: int

    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings of a training run, as in its TOML file."""
        return {"model": {key: getattr(self, key) for key in ("backbone", "channels", "convs", "tower")}}


NETWORKS = {
    "nano": Network(
        "the smallest and fastest", "efficientnet_lite0", 64, 2, "separable", 320, False, 3_281_845, 974_564_608
    ),
    "small": Network("the default", "efficientnet_lite0", 96, 2, "full", 320, True, 3_865_557, 1_797_775_040),
    "medium": Network(
        "larger, for small objects", "efficientnet_lite2", 128, 2, "full", 512, False, 5_907_717, 7_499_216_896
    ),
}


def named_network(name: str) -> Network:
    """Return a network by its name. Raises UsageError listing the names."""
    if name in NETWORKS:
        return NETWORKS[name]
    raise UsageError(
        f"there is no network {name!r}",
        where="--model",
        remedy=f"choose one of {', '.join(NETWORKS)}; to start from a model file, use --init",
    )
