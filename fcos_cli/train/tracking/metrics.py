"""Metrics of a run: the file metrics.jsonl, mean loss terms and speed."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from fcos_cli.atomic import atomic_write
from fcos_cli.train.tracking.listener import Row

LOG_EVERY = 20
"""Steps between two train rows of metrics.jsonl, and of an experiment tracker."""


class MetricsFile:
    """Writes `metrics.jsonl`: one JSON object per line, of `kind` train or val.

    resume_at: step at which the run is resumed; later rows are removed. pending: whether its validation is repeated.
    """

    def __init__(self, path: Path, *, resume_at: int, pending: bool = False) -> None:
        self.path = path
        self.rewind(resume_at, pending=pending)

    def rewind(self, step: int, *, pending: bool = False) -> None:
        """Remove the rows after `step`, and those of its validation if that is pending."""
        kept = []
        if step and self.path.is_file():
            kept = [row for row in read_rows(self.path) if row["step"] <= step]
        if pending:
            kept = [row for row in kept if (row["kind"], row["step"]) != ("val", step)]
        with atomic_write(self.path) as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)

    def add(self, row: Row) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Return the rows of metrics.jsonl, without a last line that is incomplete."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


class Meter:
    """Mean loss terms, and images per second. The gradient norm of a step that float16 leaves out is infinite: such
    values do not count.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.pictures = 0
        self.started = time.monotonic()

    def add(self, terms: dict[str, float], *, pictures: int) -> None:
        for name, value in terms.items():
            if math.isfinite(value):
                self.values.setdefault(name, []).append(value)
        self.pictures += pictures

    def read(self) -> Row:
        """Return the mean of each term, and images per second in this process."""
        speed = self.pictures / max(1e-9, time.monotonic() - self.started)
        means = {name: round(sum(values) / len(values), 5) for name, values in self.values.items()}
        return {**means, "images_per_s": round(speed, 2)}
