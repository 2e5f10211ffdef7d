"""Promises stored in a model file: what recall or precision its score thresholds keep, and how that was shown.

`fcos eval --promise` makes them (`evaluate.promise`), `fcos info` shows them. They belong to this file alone: an export
of it gives other scores, so it gets the thresholds, but not the promises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

KEY = "promises"
"""Of the file's metadata: a list of `Promise.to_json`. Files without promises do not have it."""


@dataclass(frozen=True)
class Promise:
    """On new images of the same kind, `metric` at `threshold` is at least `level`, with confidence `confidence`.

    metric: `recall` or `precision` at IoU 0.5, pooled over images. class_name: None: over all classes, with one
    threshold. level, confidence, threshold, measured: 0…1; measured: the metric on the images that were used. images:
    number of those that have such boxes, which decided. boxes: in them. most: an image with more boxes counts as one
    with this many. method: of the proof. data: name, split, number of images and hash of the data set. runs_on:
    backend, precision and tiles with which the detections were made.
    """

    metric: str
    class_name: str | None
    level: float
    confidence: float
    threshold: float
    measured: float
    images: int
    boxes: int
    most: int
    method: str
    data: dict[str, Any]
    runs_on: str

    def __str__(self) -> str:
        subject = self.metric if self.class_name is None else f"{self.metric} of {self.class_name}"
        return f"{subject} ≥ {self.level:g} on new images of the same kind, with {self.confidence:.0%} confidence"

    def details(self) -> str:
        """One line on how it was shown."""
        data = ", ".join(str(self.data[key]) for key in ("name", "split") if key in self.data)
        return (
            f"threshold {self.threshold:.3f}; {self.measured:.4f} measured in {self.images:,} images with"
            f" {self.boxes:,} boxes of {data} (hash {self.data.get('sha256')}); an image counts for at most {self.most}"
            f" {'box' if self.most == 1 else 'boxes'}; {self.runs_on}; {self.method}"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_promises(metadata: Mapping[str, str]) -> tuple[Promise, ...]:
    """Read the promises of a file's metadata. Raises KeyError, TypeError or ValueError if they are not valid."""
    rows = json.loads(metadata.get(KEY, "[]"))
    if not isinstance(rows, list):
        raise ValueError("promises is not a list")
    return tuple(_promise(row) for row in rows)


def _promise(row: Any) -> Promise:
    promise = Promise(**{entry.name: row[entry.name] for entry in fields(Promise)})
    shares = (promise.level, promise.confidence, promise.threshold, promise.measured)
    counts = (promise.images, promise.boxes, promise.most)
    texts = (promise.metric, promise.method, promise.runs_on, "" if promise.class_name is None else promise.class_name)
    if not all(type(value) in (int, float) and 0 <= value <= 1 for value in shares):
        raise ValueError("a promise has a number that is not from 0 to 1")
    if not all(type(value) is int and 0 <= value < 2**63 for value in counts):
        raise ValueError("a promise has a count that is not a whole number from 0")
    if not all(isinstance(text, str) for text in texts) or not isinstance(promise.data, dict):
        raise ValueError("a promise has a value of another type")
    return promise
