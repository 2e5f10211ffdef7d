"""What a benchmark found, for people on stderr or as the `fcos bench --json` document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fcos_cli.bench.results import BenchResult, pareto_front
from fcos_cli.console import emit_json, say, table, warn

Column = tuple[str, Sequence[str | None]]


def print_environment(facts: Mapping[str, Any]) -> None:
    """One line on the machine, and a warning where something else keeps it busy."""
    used = ", ".join(filter(None, (facts["cpu"], f"{facts['threads']} threads", *facts["gpus"])))
    say(f"{used}; {facts['pictures']} pictures, {facts['rounds']} rounds")
    if facts["load"] is not None and facts["load"] > 0.5 * facts["cores"]:
        warn(f"the machine is busy (load {facts['load']:g} on {facts['cores']} cores): times will be too long")


def print_results(rows: Sequence[BenchResult], facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Two tables, whole batches and single stages, or one JSON document; and what a reader of them must know."""
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
        _table(measured, _stages(measured), title="stages, median ms; start: a new process to its first answer")
    best = pareto_front(rows)
    if len(best) > 1:
        say("the front of AP and speed, fastest first: " + ", ".join(row.label for row in best))


def _table(rows: Sequence[BenchResult], columns: Sequence[Column], *, title: str) -> None:
    """Columns in which nothing stands are left out."""
    shown = [(name, values) for name, values in columns if any(value is not None for value in values)]
    names: list[Column] = [("model", short_names(rows)), ("runs by", [row.backend for row in rows])]
    names += [("precision", [row.precision for row in rows]), ("batch", [str(row.batch) for row in rows])]
    everything: list[Column] = [*names, *shown]
    lines = [tuple(values[place] for _, values in everything) for place in range(len(rows))]
    table(tuple(name for name, _ in everything), lines, title=title)


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
    """The rows' models without their folders, where that leaves them apart."""
    names = {row.model: Path(row.model).name for row in rows}
    return [names[row.model] if len(set(names.values())) == len(names) else row.model for row in rows]


def number(value: float | None) -> str | None:
    """Three digits are what a measurement of time is worth: 1234, 123, 12.3, 1.23, 0.12."""
    if value is None:
        return None
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
