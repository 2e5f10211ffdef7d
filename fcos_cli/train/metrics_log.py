"""Metrics of a run: metrics.jsonl, TensorBoard if installed, and the listener interface."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from fcos_cli.atomic import atomic_write

Row = dict[str, Any]


class Listener(Protocol):
    """Receives the events of a run."""

    def note(self, text: str) -> None:
        """Called with a message of one line."""

    def step(self, row: Row) -> None:
        """Called after each step. `row` is that of metrics.jsonl plus `steps` (total) and `seconds_left`."""

    def validating(self, done: int, total: int) -> None:
        """Called when `done` of `total` validation images have been processed."""

    def validated(self, row: Row) -> None:
        """Called after validation with the row of metrics.jsonl."""


class SilentListener:
    """Ignores all events. Used by the processes other than the main one, and in tests."""

    def note(self, text: str) -> None: ...
    def step(self, row: Row) -> None: ...
    def validating(self, done: int, total: int) -> None: ...
    def validated(self, row: Row) -> None: ...


class MetricsFile:
    """Writes `metrics.jsonl`: one JSON object per line, of `kind` train or val.

    resume_at: step at which the run is resumed; later rows are removed.
    """

    def __init__(self, path: Path, *, resume_at: int) -> None:
        kept = []
        if resume_at and path.is_file():
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            kept = [row for row in rows if row["step"] <= resume_at]
        with atomic_write(path) as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
        self.path = path
        self.board = _tensorboard(path.parent)

    def add(self, row: Row) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for key, value in row.items():
                if isinstance(value, int | float) and key not in ("step", "epoch"):
                    self.board.add_scalar(f"{row['kind']}/{key}", value, row["step"])

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def _tensorboard(folder: Path) -> Any:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard.writer import SummaryWriter

    return SummaryWriter(str(folder))


class Meter:
    """Mean loss terms since the last reading, and the speed of the run."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps = 0
        self.pictures = 0
        self.started = time.monotonic()

    def add(self, terms: dict[str, float], *, pictures: int) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.pictures += pictures

    @property
    def seconds_per_step(self) -> float:
        return (time.monotonic() - self.started) / max(1, self.steps)

    def read(self) -> Row:
        """Return the mean of each term, and images per second in this process."""
        steps = max(1, self.steps)
        speed = self.pictures / max(1e-9, time.monotonic() - self.started)
        return {**{name: round(total / steps, 5) for name, total in self.sums.items()}, "images_per_s": round(speed, 2)}
