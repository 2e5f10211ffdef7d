"""Benchmark output: tables on stderr or the `fcos bench --json` document."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fcos_cli.bench.results import BenchResult, pareto_front
from fcos_cli.console import emit_json, say, table, warn

Column = tuple[str, Sequence[str | None]]


def print_environment(facts: Mapping[str, Any]) -> None:
    """Print a line about the machine, and a warning if it is already busy."""
    machine = ", ".join(filter(None, (facts["cpu"], threads_text(facts), *facts["gpus"])))
    say(f"{machine}; {facts['pictures']} images, {facts['rounds']} rounds")
    if facts["load"] is not None and facts["load"] > 0.5 * facts["cores"]:
        warn(f"the machine is busy (load {facts['load']:g} on {facts['cores']} cores): times will be too high")


def threads_text(facts: Mapping[str, Any]) -> str:
    """`2 threads`. Without --threads, each backend has a default of its own: physical cores, or all."""
    return f"{facts['threads']} threads" if facts["threads"] else "default threads"


def print_results(rows: Sequence[BenchResult], facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print two tables (batches and stages) or one JSON document, then notes on the rows."""
    if as_json:
        emit_json({"environment": dict(facts), "rows": [row.to_json() for row in rows]})
    else:
        _tables(rows)
    for row in rows:
        if row.skipped is not None:
            say(f"{row.label}: not measured: {row.skipped}")
        elif row.note:
            say(f"{row.label}: {row.note}")


def _tables(rows: Sequence[BenchResult]) -> None:
    measured = [row for row in rows if row.measured]
    if measured:
        _table(measured, _batches(measured), title="ms per batch, from files to boxes")
        _table(measured, _stages(measured), title="median ms per stage; start: from process start to first result")
    front = pareto_front(rows)
    if len(front) > 1:
        say("Pareto front of AP and speed, fastest first: " + ", ".join(row.label for row in front))


def _table(rows: Sequence[BenchResult], columns: Sequence[Column], *, title: str) -> None:
    """Print a table without its empty columns."""
    shown = [(name, values) for name, values in columns if any(value is not None for value in values)]
    labels: list[Column] = [("model", short_names(rows)), ("backend", [row.backend for row in rows])]
    labels += [("precision", [row.precision for row in rows]), ("batch", [str(row.batch) for row in rows])]
    all_columns: list[Column] = [*labels, *shown]
    lines = [tuple(values[index] for _, values in all_columns) for index in range(len(rows))]
    table(tuple(name for name, _ in all_columns), lines, title=title)


def _batches(rows: Sequence[BenchResult]) -> list[Column]:
    totals = [row.stage("total") or {} for row in rows]
    columns: list[Column] = [(name, [number(total.get(name)) for total in totals]) for name in ("p50", "p95", "p99")]
    columns.append(("images/s", [number(row.images_per_s) for row in rows]))
    if len(rows) > 1:
        columns.append(("× first", [None if row.ratio is None else f"{row.ratio:.2f}" for row in rows]))
    columns.append(("AP", [None if row.ap is None else f"{row.ap:.3f}" for row in rows]))
    columns.append(("AP/ms", [None if row.ap_per_ms is None else f"{row.ap_per_ms:.4f}" for row in rows]))
    return columns


def _stages(rows: Sequence[BenchResult]) -> list[Column]:
    names = {
        "open": "open file",
        "preprocess": "resize, pad",
        "network": "network",
        "decode_nms": "decode+NMS",
        "network_decode_nms": "network+decode+NMS",
    }
    columns: list[Column] = [
        (title, [number((row.stage(stage) or {}).get("p50")) for row in rows]) for stage, title in names.items()
    ]
    columns.append(("start", [number(row.cold_start_ms) for row in rows]))
    columns.append(("memory MB", [number(row.peak_memory and row.peak_memory / 1e6) for row in rows]))
    columns.append(("file MB", [number(row.model_bytes and row.model_bytes / 1e6) for row in rows]))
    return columns


def short_names(rows: Sequence[BenchResult]) -> list[str]:
    """Return the models without their folders, if the names stay unique."""
    names = {row.model: Path(os.path.abspath(row.model)).name for row in rows}  # noqa: PTH100 (a link keeps its name)
    return [names[row.model] if len(set(names.values())) == len(names) else row.model for row in rows]


def number(value: float | None) -> str | None:
    """Format with about three digits, the accuracy of a time measurement: 1234, 123, 12.3, 1.23, 0.12."""
    if value is None:
        return None
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
