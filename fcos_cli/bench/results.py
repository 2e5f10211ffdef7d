"""Benchmark results as rows: percentiles, ratios and the Pareto front. No timing code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fcos_cli.bench.protocol import STAGES, Job, Sample

PERCENTILES = (50, 95, 99)


@dataclass
class BenchResult:
    """One model with one backend, precision and batch size.

    asked: the requested precision, None for the file's own; precision: the precision that ran. Times are milliseconds
    per batch, from files to detections in source pixels. rounds: the samples of each turn (see `Sample`), in order.
    cold_start_ms: from process start to the first result, with the files in the page cache. peak_memory, model_bytes:
    bytes, of the process (not on a GPU) and of the model's files. ap: 0…1, None if not measured. ratio: speed relative
    to the first row, see `add_ratios`. skipped: why there are no results.
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
        """{"p50", "p95", "p99"} of a stage in milliseconds; None if it was not timed separately."""
        return percentiles([sample[name] for sample in self.samples if name in sample])

    @property
    def images_per_s(self) -> float | None:
        """Images per second over the total time, with batches run one after the other."""
        spent = sum(sample["total"] for sample in self.samples)
        return 1e3 * self.batch * len(self.samples) / spent if spent else None

    @property
    def ms_per_image(self) -> float | None:
        """Median time of a batch divided by the batch size."""
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
        """Return a row of the `fcos bench --json` document; values that were not measured are null."""
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
            "AP": self.ap,
            "AP_per_ms": self.ap_per_ms,
            "note": self.note,
        }
        if self.skipped is not None:
            row["skipped"] = self.skipped
        return row


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """{"p50", "p95", "p99"} with linear interpolation; None if there are no values."""
    if not values:
        return None
    result = np.percentile(values, PERCENTILES)
    return {f"p{percent}": round(float(value), 3) for percent, value in zip(PERCENTILES, result, strict=True)}


def add_ratios(rows: Sequence[BenchResult]) -> None:
    """Set each measured row's `ratio`: median over rounds of the first row's time per image / its own.

    Without measurements of the first row there are none. Within a round all rows run within moments of each other, so a
    temporary slowdown affects all of them.
    """
    first = rows[0]
    if not first.measured:
        return
    for row in rows:
        if row.measured:
            pairs = zip(first.rounds, row.rounds, strict=True)
            ratios = [_mean(base) / first.batch / (_mean(own) / row.batch) for base, own in pairs]
            row.ratio = float(np.median(ratios))


def pareto_front(rows: Sequence[BenchResult]) -> list[BenchResult]:
    """Return the rows not dominated in speed and AP, fastest first."""
    candidates = [
        (row.ms_per_image, -row.ap, index) for index, row in enumerate(rows) if row.ap is not None and row.measured
    ]
    front: list[BenchResult] = []
    for _, _, index in sorted(entry for entry in candidates if entry[0] is not None):
        if not front or (rows[index].ap or 0) > (front[-1].ap or 0):
            front.append(rows[index])
    return front


def _mean(turn: Sequence[Sample]) -> float:
    return sum(sample["total"] for sample in turn) / len(turn)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
