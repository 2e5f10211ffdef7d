"""What was measured, as rows: percentiles, ratios, the front of accuracy and speed. Numbers only, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fcos_cli.bench.messages import STAGES, Job, Sample

PERCENTILES = (50, 95, 99)


@dataclass
class BenchResult:
    """One model by one backend in one precision at one batch size.

    asked: the precision asked for, None = the file's own; precision: what ran. Times are milliseconds per batch, from
    files to detections in source pixels. rounds: the samples of each turn (see `Sample`), the first round first.
    cold_start_ms: from the start of a process to its first answer, the files being in the system's cache.
    peak_memory, model_bytes: bytes, of the process and of the model's files. ap: 0…1, None where not measured.
    ratio: how many times as fast as the first measured row, see `add_ratios`. skipped: why there are no figures.
    """

    model: str
    backend: str | None
    batch: int
    asked: str | None = None
    precision: str | None = None
    device: str | None = None
    threads: int | None = None
    rounds: list[list[Sample]] = field(default_factory=list)
    cold_start_ms: float | None = None
    peak_memory: int | None = None
    model_bytes: int | None = None
    ap: float | None = None
    ratio: float | None = None
    note: str | None = None
    skipped: str | None = None
    exit_code: int = 0

    @classmethod
    def of(cls, job: Job) -> BenchResult:
        return cls(job.model, job.backend, job.batch, asked=job.asked)

    @property
    def samples(self) -> list[Sample]:
        return [sample for turn in self.rounds for sample in turn]

    @property
    def measured(self) -> bool:
        return self.skipped is None and bool(self.rounds)

    def stage(self, name: str) -> dict[str, float] | None:
        """{"p50", "p95", "p99"} of a stage in milliseconds; None where it could not be timed by itself."""
        return percentiles([sample[name] for sample in self.samples if name in sample])

    @property
    def images_per_s(self) -> float | None:
        """Pictures over the time spent on them, one batch after the other."""
        spent = sum(sample["total"] for sample in self.samples)
        return 1e3 * self.batch * len(self.samples) / spent if spent else None

    @property
    def ms_per_image(self) -> float | None:
        """The median of a batch's time, per picture."""
        total = self.stage("total")
        return total["p50"] / self.batch if total else None

    @property
    def ap_per_ms(self) -> float | None:
        return None if self.ap is None or not self.ms_per_image else self.ap / self.ms_per_image

    @property
    def label(self) -> str:
        """`best.onnx · onnxruntime · int8 · batch 4`."""
        return " · ".join(filter(None, (self.model, self.backend, self.precision or self.asked, f"batch {self.batch}")))

    def to_json(self) -> dict[str, Any]:
        """A row of the `fcos bench --json` document; what was not measured is null."""
        total = self.stage("total") or {}
        row: dict[str, Any] = {
            "model": self.model,
            "backend": self.backend,
            "precision": self.precision,
            "asked": self.asked,
            "batch": self.batch,
            "device": self.device,
            "threads": self.threads,
            **{f"p{percent}_ms": total.get(f"p{percent}") for percent in PERCENTILES},
            "images_per_s": _rounded(self.images_per_s),
            "ratio": _rounded(self.ratio),
            "stages_ms": {name: self.stage(name) for name in STAGES},
            "samples": len(self.samples),
            "cold_start_ms": _rounded(self.cold_start_ms),
            "peak_memory_mb": _rounded(self.peak_memory and self.peak_memory / 1e6),
            "size_mb": _rounded(self.model_bytes and self.model_bytes / 1e6),
            "note": self.note,
        }
        if self.ap is not None:
            row |= {"AP": self.ap, "AP_per_ms": self.ap_per_ms}
        if self.skipped is not None:
            row["skipped"] = self.skipped
        return row


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """{"p50", "p95", "p99"}, linear between neighbours; None of nothing."""
    if not values:
        return None
    found = np.percentile(values, PERCENTILES)
    return {f"p{percent}": round(float(value), 3) for percent, value in zip(PERCENTILES, found, strict=True)}


def add_ratios(rows: Sequence[BenchResult]) -> None:
    """Each measured row's `ratio` to the first: the median over the rounds of first's / own time per picture.

    Within a round all rows ran moments apart, so that a machine that slows down for a while slows all of them.
    """
    measured = [row for row in rows if row.measured]
    for row in measured:
        pairs = zip(measured[0].rounds, row.rounds, strict=True)
        first, size = measured[0].batch, row.batch
        row.ratio = float(np.median([_mean(base) / first / (_mean(own) / size) for base, own in pairs]))


def pareto_front(rows: Sequence[BenchResult]) -> list[BenchResult]:
    """The Pareto front, fastest first: rows that no other row equals in one of speed and AP and beats in the other."""
    known = [
        (row.ms_per_image, -row.ap, place) for place, row in enumerate(rows) if row.ap is not None and row.measured
    ]
    best: list[BenchResult] = []
    for _, _, place in sorted(entry for entry in known if entry[0] is not None):
        if not best or (rows[place].ap or 0) > (best[-1].ap or 0):
            best.append(rows[place])
    return best


def _mean(turn: Sequence[Sample]) -> float:
    return sum(sample["total"] for sample in turn) / len(turn)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
