"""A network with about 100,000 weights, for tests that need a real model."""

from __future__ import annotations

from typing import Any

import torch

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.config import STRIDES, ModelConfig
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.fcos import FCOS

CLASSES = ClassTable(("circle", "square", "triangle"), (1, 2, 3))

SHAPE: dict[str, Any] = {
    "backbone": "test_efficientnet",
    "channels": 16,
    "groups": 4,
    "convs": 1,
    "ranges": (16.0, 32.0, 64.0, 128.0),
    "candidates": 50,
}


def tiny_config(*, conventions: Conventions | None = None, **changes: Any) -> ModelConfig:
    ranges = SHAPE["ranges"][: len(changes.get("strides", STRIDES)) - 1]
    return ModelConfig(**{**SHAPE, "ranges": ranges, "conventions": conventions or Conventions(), **changes})


def tiny_model(*, classes: int = 3, seed: int = 0, conventions: Conventions | None = None, **changes: Any) -> FCOS:
    """Return the network in eval mode; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FCOS(tiny_config(conventions=conventions, **changes), classes=classes).eval()


def tiny_artifact(**changes: Any) -> Artifact:
    """Return an untrained detector of three shapes at 64 × 64; all its scores are near 0.07."""
    model = tiny_model()
    facts: dict[str, Any] = {
        "weights": model.state_dict(),
        "config": model.config,
        "classes": CLASSES,
        "geometry": ResizeRule("letterbox", (64, 64)).to_json(),
        "threshold": 0.06,
        "provenance": {"data": {"name": "shapes"}, "epoch": 3},
    }
    return Artifact(**{**facts, **changes})
