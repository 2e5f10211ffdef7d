"""Measure models side by side, one process each, in alternating turns so that disturbances affect all alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from fcos_cli.bench.process import RemoteDetector, Worker
from fcos_cli.bench.protocol import Job, JobSkipped, Sample
from fcos_cli.bench.results import BenchResult, add_ratios
from fcos_cli.bench.settings import Settings
from fcos_cli.console import progress, say, warn
from fcos_cli.errors import FcosError
from fcos_cli.runtime.detector import Detector

AccuracyFn = Callable[[Detector], float]
"""Computes the AP of a detector; raises JobSkipped or an FcosError if that fails."""


def run_benchmark(settings: Settings, *, accuracy: AccuracyFn | None = None) -> list[BenchResult]:
    """Measure all jobs and return one row per job; rows that cannot run have `skipped` set to the reason.

    Progress is logged on stderr. accuracy: computes the AP, once per model, backend and precision. All worker processes
    are ended, also after an error.
    """
    jobs = settings.jobs()
    rows = [BenchResult.of(job) for job in jobs]
    with ExitStack() as stack:
        workers: dict[int, Worker] = {}
        for index, (job, row) in enumerate(zip(jobs, rows, strict=True)):
            try:
                workers[index] = _start(job, row, stack)
            except JobSkipped as reason:
                _skip(row, reason)
        measure = {index: partial(worker.request, "turn") for index, worker in workers.items()}
        with progress("rounds", total=settings.rounds) as update:
            turns, failed = run_rounds(measure, settings.rounds, on_round=update)
        for index, worker in workers.items():
            try:
                if index in failed:
                    raise failed[index]
                rows[index].rounds, rows[index].peak_memory = turns[index], worker.request("peak_memory")
            except JobSkipped as reason:
                _skip(rows[index], reason)
        if accuracy is not None:
            _add_accuracy([(rows[index], worker) for index, worker in workers.items()], accuracy)
    add_ratios(rows)
    return rows


def run_rounds(
    measure: Mapping[int, Callable[[], list[Sample]]],
    rounds: int,
    *,
    on_round: Callable[[int], None] = lambda _done: None,
) -> tuple[dict[int, list[list[Sample]]], dict[int, JobSkipped]]:
    """Call each function once per round; return the samples per round, and the functions that raised JobSkipped.

    A failed function is not called again; the others continue, and no round takes place without any. The order differs
    from round to round, so that no model always runs after the same one, and is the same each time.
    """
    shuffler = random.Random(0)
    turns: dict[int, list[list[Sample]]] = {index: [] for index in measure}
    failed: dict[int, JobSkipped] = {}
    for number in range(rounds):
        active = [index for index in measure if index not in failed]
        if not active:
            break
        shuffler.shuffle(active)
        for index in active:
            try:
                turns[index].append(measure[index]())
            except JobSkipped as reason:
                failed[index] = reason
        on_round(number + 1)
    return turns, failed


def _start(job: Job, row: BenchResult, stack: ExitStack) -> Worker:
    """Start and warm up a worker for `job`; its description is stored in `row`. Raises JobSkipped.

    Two processes are started: the first finds a precision that works and brings the files into the page cache; the
    start of the second is timed.
    """
    say(f"starting {row.label}")
    first = Worker.start(job)
    first.close()
    worker = Worker.start(replace(job, attempts=(first.ready.attempt,)))
    stack.callback(worker.close)
    ready = first.ready
    row.backend, row.device, row.precision, row.note = ready.backend, ready.device, ready.precision, ready.note
    row.threads, row.cold_start_ms = worker.ready.threads, worker.start_ms
    row.model_bytes = worker.request("model_bytes")
    worker.request("warm_up")
    return worker


def _skip(row: BenchResult, reason: JobSkipped) -> None:
    row.rounds, row.skipped, row.exit_code = [], reason.refusal.reason, reason.refusal.exit_code


def _add_accuracy(entries: Sequence[tuple[BenchResult, Worker]], accuracy: AccuracyFn) -> None:
    """Set the AP, shared by all batch sizes. If it cannot be computed, the row keeps its times and a note."""
    results: dict[tuple[str, str | None, str | None], float | str] = {}
    for row, worker in entries:
        if not row.measured:
            continue
        key = row.model, row.backend, row.precision
        if key not in results:
            say(f"AP of {row.model} · {row.backend} · {row.precision}")
            try:
                results[key] = accuracy(RemoteDetector(worker, name=row.model))
            except (JobSkipped, FcosError) as reason:
                results[key] = reason.brief if isinstance(reason, FcosError) else str(reason)
                warn(f"{row.label}: no AP ({results[key]})")
        result = results[key]
        if isinstance(result, str):
            row.note = "; ".join(filter(None, (row.note, f"no AP: {result}")))
        else:
            row.ap = result


def exit_code(rows: Sequence[BenchResult]) -> int:
    """Return 0 if at least one row was measured, otherwise the exit code of the first failed row."""
    return 0 if any(row.measured for row in rows) else next((row.exit_code for row in rows if row.exit_code), 1)
