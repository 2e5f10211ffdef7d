"""Order of turns, failed rows and accuracy, with fake workers instead of processes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fcos_cli.bench import run as module
from fcos_cli.bench.protocol import Job, JobSkipped, Ready, Refusal, Sample
from fcos_cli.bench.results import BenchResult
from fcos_cli.bench.run import exit_code, run_benchmark, run_rounds
from fcos_cli.bench.settings import Settings
from fcos_cli.errors import DataError
from fcos_cli.runtime.detector import Detector
from tests.runtime.fakes import CornerDetector

REFUSED = Refusal("an engine runs on a GPU", 4)


def make_turn(name: str, log: list[str], *, until: int | None = None) -> Callable[[], list[Sample]]:
    def run() -> list[Sample]:
        log.append(name)
        if until is not None and log.count(name) > until:
            raise JobSkipped(Refusal("died"))
        return [{"total": float(len(log))}]

    return run


def test_each_function_runs_once_per_round_and_not_always_after_the_same_one() -> None:
    log: list[str] = []
    turns, failed = run_rounds({index: make_turn("abc"[index], log) for index in range(3)}, 20)
    rounds = ["".join(log[start : start + 3]) for start in range(0, 60, 3)]
    assert {"".join(sorted(order)) for order in rounds} == {"abc"}
    assert [len(turn) for turn in turns.values()] == [20, 20, 20]
    assert not failed
    before = {
        name: {order[place - 1] for order in rounds for place in (1, 2) if order[place] == name} for name in "abc"
    }
    assert before == {"a": {"b", "c"}, "b": {"a", "c"}, "c": {"a", "b"}}


def test_the_order_is_the_same_in_every_run() -> None:
    logs: tuple[list[str], list[str]] = ([], [])
    for log in logs:
        run_rounds({index: make_turn("abc"[index], log) for index in range(3)}, 20)
    assert logs[0] == logs[1]


def test_failed_functions_drop_out_and_the_others_continue() -> None:
    log: list[str] = []
    rounds: list[int] = []
    functions = {5: make_turn("a", log), 7: make_turn("b", log, until=1)}
    turns, failed = run_rounds(functions, 3, on_round=rounds.append)
    assert set(failed) == {7}
    assert len(turns[5]) == 3
    assert log.count("b") == 2
    assert rounds == [1, 2, 3]


def test_rounds_without_functions() -> None:
    rounds: list[int] = []
    assert run_rounds({}, 2, on_round=rounds.append) == ({}, {})
    assert rounds == []


@dataclass
class FakeWorkers:
    """State of the fake workers: ms per model; models that refuse to open, or die in their first turn; open workers."""

    ms: dict[str, float] = field(default_factory=dict)
    refuse: set[str] = field(default_factory=set)
    die: set[str] = field(default_factory=set)
    open: list[Any] = field(default_factory=list)
    started: list[Job] = field(default_factory=list)


@pytest.fixture
def fake_workers(monkeypatch: pytest.MonkeyPatch) -> FakeWorkers:
    state = FakeWorkers()

    class Worker:
        def __init__(self, job: Job) -> None:
            self.job, self.start_ms = job, 100.0 * len(state.started)
            self.ready = Ready("numpy", "cpu", "fp32", job.attempts[-1], CornerDetector().facts)

        @classmethod
        def start(cls, job: Job) -> "Worker":
            state.started.append(job)
            if job.model in state.refuse:
                raise JobSkipped(REFUSED)
            worker = cls(job)
            state.open.append(worker)
            return worker

        def request(self, name: str, *arguments: Any) -> Any:
            if name == "turn" and self.job.model in state.die:
                raise JobSkipped(Refusal("the worker process was killed by signal 9"))
            answers = {"turn": [{"total": state.ms.get(self.job.model, 10.0)}], "peak_memory": 3, "model_bytes": 2}
            return CornerDetector()(arguments[0]) if name == "detect" else answers.get(name)

        def close(self) -> None:
            state.open.remove(self)

    monkeypatch.setattr(module, "Worker", Worker)
    return state


def test_each_model_precision_and_batch_is_a_row(fake_workers: FakeWorkers) -> None:
    settings = Settings(("a", "b"), ("p",), precisions=("fp32", "bf16"), batches=(1, 4), rounds=3)
    rows = run_benchmark(settings)
    assert [(row.model, row.asked, row.batch) for row in rows] == [
        (model, asked, batch) for model in "ab" for asked in ("fp32", "bf16") for batch in (1, 4)
    ]
    assert all(row.measured and len(row.rounds) == 3 for row in rows)
    assert fake_workers.open == []


def test_the_second_start_is_timed_with_the_precision_of_the_first(fake_workers: FakeWorkers) -> None:
    (row,) = run_benchmark(Settings(("a",), ("p",), precisions=("fp16",), rounds=1))
    assert [job.attempts for job in fake_workers.started] == [("fp16", "bf16", None), (None,)]
    assert row.cold_start_ms == 200.0
    assert (row.precision, row.asked, row.peak_memory, row.model_bytes) == ("fp32", "fp16", 3, 2)


def test_failed_models_are_rows_with_the_reason(fake_workers: FakeWorkers) -> None:
    fake_workers.refuse, fake_workers.die, fake_workers.ms = {"x.engine"}, {"y.onnx"}, {"a": 20.0, "b": 10.0}
    rows = run_benchmark(Settings(("a", "x.engine", "y.onnx", "b"), ("p",), rounds=2))
    reasons = [None, "an engine runs on a GPU", "the worker process was killed by signal 9", None]
    assert [row.skipped for row in rows] == reasons
    assert [row.ratio for row in rows] == [1.0, None, None, 2.0]
    assert exit_code(rows) == 0
    assert fake_workers.open == []


def test_exit_code_is_that_of_the_first_error_if_nothing_ran() -> None:
    rows = [BenchResult("a", None, 1, skipped="?"), BenchResult("b", None, 1, skipped="no such model", exit_code=4)]
    assert exit_code(rows) == 4
    assert exit_code(rows[:1]) == 1


def test_workers_are_ended_when_the_benchmark_is_interrupted(
    fake_workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        assert len(fake_workers.open) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_rounds", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(Settings(("a", "b"), ("p",)))
    assert fake_workers.open == []


def test_accuracy_is_measured_once_for_all_batch_sizes_by_the_timed_worker(fake_workers: FakeWorkers) -> None:
    measured_models: list[str] = []

    def accuracy(detector: Detector) -> float:
        measured_models.append(detector.name)
        answer = detector(np.zeros((2, 3, 32, 32), np.uint8))
        assert answer.counts.tolist() == [2, 2]
        return 0.25

    rows = run_benchmark(Settings(("a", "b"), ("p",), batches=(1, 2), rounds=1), accuracy=accuracy)
    assert measured_models == ["a", "b"]
    assert [row.ap for row in rows] == [0.25] * 4


def test_a_model_without_accuracy_keeps_its_times(fake_workers: FakeWorkers) -> None:
    def accuracy(_: Detector) -> float:
        raise DataError("no class in common", where="data/1.jpg", remedy="another data set")

    (row,) = run_benchmark(Settings(("a",), ("p",), rounds=1), accuracy=accuracy)
    assert row.measured
    assert row.ap is None
    assert row.note == "no AP: no class in common: data/1.jpg"
