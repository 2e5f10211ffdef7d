"""Synthetic data sets, in memory only, for the rules that choose settings from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.model.classes import ClassTable


def sample(
    width: int, height: int, *, sides: Sequence[float] = (), classes: Sequence[int] | None = None, ignore: bool = False
) -> Sample:
    """An image with a square box of each side in its corner."""
    boxes = np.array([[0, 0, side, side] for side in sides], np.float32).reshape(-1, 4)
    return Sample(
        image=Path("made.png"),
        image_id=1,
        width=width,
        height=height,
        boxes=boxes,
        classes=np.array(classes or [0] * len(boxes), np.int64),
        ignore=np.full(len(boxes), ignore),
        areas=(boxes[:, 2] * boxes[:, 3]).astype(np.float64),
    )


def dataset(samples: list[Sample], *, classes: int = 1) -> Dataset:
    """A train split with classes `a`, `b`, …"""
    names = tuple("abcdefghij"[:classes])
    return Dataset(samples, ClassTable(names, tuple(range(classes))), "coco", "train", Path("made.json"), "made")
