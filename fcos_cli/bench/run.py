"""Models side by side: one process each, taking turns, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from fcos_cli.bench.messages import Job, JobSkipped, Sample
from fcos_cli.bench.process import RemoteDetector, Worker
from fcos_cli.bench.results import BenchResult, add_ratios
from fcos_cli.bench.settings import Settings
from fcos_cli.console import progress, say, warn
from fcos_cli.errors import FcosError
from fcos_cli.runtime.detector import Detector

AccuracyFn = Callable[[Detector], float]
"""The AP of a detector; raises Skipped or an FcosError where it has none."""


def run_benchmark(settings: Settings, *, accuracy: AccuracyFn | None = None) -> list[BenchResult]:
    """Measure; one row per job, those that cannot run `skipped` with the reason. Tells people on stderr how it goes.

    accuracy: gives the AP, of each model, backend and precision once. The processes are ended whatever happens.
    """
    jobs = settings.jobs()
    rows = [BenchResult.of(job) for job in jobs]
    with ExitStack() as stack:
        workers: dict[int, Worker] = {}
        for place, (job, row) in enumerate(zip(jobs, rows, strict=True)):
            try:
                workers[place] = _start(job, row, stack)
            except JobSkipped as reason:
                _skip(row, reason)
        players = {place: partial(worker.ask, "turn") for place, worker in workers.items()}
        with progress("rounds", total=settings.rounds) as update:
            turns, lost = take_turns(players, settings.rounds, on_round=update)
        for place, worker in workers.items():
            try:
                if place in lost:
                    raise lost[place]
                rows[place].rounds, rows[place].peak_memory = turns[place], worker.ask("peak_memory")
            except JobSkipped as reason:
                _skip(rows[place], reason)
        if accuracy is not None:
            _add_accuracy([(rows[place], worker) for place, worker in workers.items()], accuracy)
    add_ratios(rows)
    return rows


def take_turns(
    players: Mapping[int, Callable[[], list[Sample]]],
    rounds: int,
    *,
    on_round: Callable[[int], None] = lambda _done: None,
) -> tuple[dict[int, list[list[Sample]]], dict[int, JobSkipped]]:
    """Each player's turns, one per round, and who could not finish (raised Skipped), which does not stop the others.

    Every round begins one player later than the one before: nobody always follows the same other.
    """
    turns: dict[int, list[list[Sample]]] = {place: [] for place in players}
    lost: dict[int, JobSkipped] = {}
    for number in range(rounds):
        playing = [place for place in players if place not in lost]
        first = number % len(playing) if playing else 0
        for place in playing[first:] + playing[:first]:
            try:
                turns[place].append(players[place]())
            except JobSkipped as reason:
                lost[place] = reason
        on_round(number + 1)
    return turns, lost


def _start(job: Job, row: BenchResult, stack: ExitStack) -> Worker:
    """A warm worker for `job`; what it says of itself goes into `row`. Raises Skipped.

    It is started twice: the first process finds out which precision can be had, and brings the files into the system's
    cache; the second one's start is timed.
    """
    say(f"starting {row.label}")
    first = Worker.start(job)
    first.close()
    worker = Worker.start(replace(job, attempts=(first.ready.attempt,)))
    stack.callback(worker.close)
    ready = first.ready
    row.backend, row.device, row.precision, row.note = ready.backend, ready.device, ready.precision, ready.note
    row.threads, row.cold_start_ms = worker.ready.threads, worker.start_ms
    row.model_bytes = worker.ask("model_bytes")
    worker.ask("warm_up")
    return worker


def _skip(row: BenchResult, reason: JobSkipped) -> None:
    row.rounds, row.skipped, row.exit_code = [], reason.refused.reason, reason.refused.exit_code


def _add_accuracy(entries: Sequence[tuple[BenchResult, Worker]], accuracy: AccuracyFn) -> None:
    """The same figure for all batch sizes. A model that cannot be judged keeps its speed, and a note why."""
    verdicts: dict[tuple[str, str | None, str | None], float | str] = {}
    for row, worker in entries:
        if not row.measured:
            continue
        key = row.model, row.backend, row.precision
        if key not in verdicts:
            say(f"AP of {row.model} · {row.backend} · {row.precision}")
            try:
                verdicts[key] = accuracy(RemoteDetector(worker, name=row.model))
            except (JobSkipped, FcosError) as reason:
                verdicts[key] = str(reason).splitlines()[0]
                warn(f"{row.label}: no AP ({verdicts[key]})")
        verdict = verdicts[key]
        if isinstance(verdict, str):
            row.note = "; ".join(filter(None, (row.note, f"no AP: {verdict}")))
        else:
            row.ap = verdict


def exit_code(rows: Sequence[BenchResult]) -> int:
    """The exit code: 0 where at least one row was measured, else that of the first row's error."""
    return 0 if any(row.measured for row in rows) else next((row.exit_code for row in rows if row.exit_code), 1)
