"""The order of turns, rows that cannot run, accuracy beside speed: with made workers, no process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fcos_cli.bench import run as module
from fcos_cli.bench.messages import Job, JobSkipped, Ready, Refusal, Sample
from fcos_cli.bench.results import BenchResult
from fcos_cli.bench.run import exit_code, run_benchmark, take_turns
from fcos_cli.bench.settings import Settings
from fcos_cli.errors import DataError
from fcos_cli.runtime.detector import Detector
from tests.runtime.fakes import CornerDetector

REFUSED = Refusal("an engine runs on a GPU", 4)


def player(name: str, log: list[str], *, until: int | None = None) -> Callable[[], list[Sample]]:
    def play() -> list[Sample]:
        log.append(name)
        if until is not None and log.count(name) > until:
            raise JobSkipped(Refusal("died"))
        return [{"total": float(len(log))}]

    return play


def test_everybody_plays_once_a_round_and_each_round_begins_one_later() -> None:
    log: list[str] = []
    turns, lost = take_turns({place: player("abc"[place], log) for place in range(3)}, 4)
    assert "".join(log) == "abcbcacababc"
    assert [len(turn) for turn in turns.values()] == [4, 4, 4]
    assert not lost


def test_who_fails_drops_out_and_the_others_go_on() -> None:
    log: list[str] = []
    rounds: list[int] = []
    players = {5: player("a", log), 7: player("b", log, until=1)}
    turns, lost = take_turns(players, 3, on_round=rounds.append)
    assert set(lost) == {7}
    assert len(turns[5]) == 3
    assert log.count("b") == 2
    assert rounds == [1, 2, 3]


def test_nobody_to_play_is_no_error() -> None:
    assert take_turns({}, 2) == ({}, {})


@dataclass
class Made:
    """What the made workers of a test do: ms by model; models that refuse, die in their first turn, or were closed."""

    ms: dict[str, float] = field(default_factory=dict)
    refuse: set[str] = field(default_factory=set)
    die: set[str] = field(default_factory=set)
    open: list[Any] = field(default_factory=list)
    started: list[Job] = field(default_factory=list)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    world = Made()

    class Worker:
        def __init__(self, job: Job) -> None:
            self.job, self.start_ms = job, 100.0 * len(world.started)
            self.ready = Ready("numpy", "cpu", "fp32", job.attempts[-1], CornerDetector().facts)

        @classmethod
        def start(cls, job: Job) -> "Worker":
            world.started.append(job)
            if job.model in world.refuse:
                raise JobSkipped(REFUSED)
            worker = cls(job)
            world.open.append(worker)
            return worker

        def ask(self, name: str, *arguments: Any) -> Any:
            if name == "turn" and self.job.model in world.die:
                raise JobSkipped(Refusal("its process was ended by signal 9"))
            answers = {"turn": [{"total": world.ms.get(self.job.model, 10.0)}], "peak_memory": 3, "model_bytes": 2}
            return CornerDetector()(arguments[0]) if name == "detect" else answers.get(name)

        def close(self) -> None:
            world.open.remove(self)

    monkeypatch.setattr(module, "Worker", Worker)
    return world


def test_each_model_precision_and_batch_is_a_row(made: Made) -> None:
    settings = Settings(("a", "b"), ("p",), precisions=("fp32", "bf16"), batches=(1, 4), rounds=3)
    rows = run_benchmark(settings)
    assert [(row.model, row.asked, row.batch) for row in rows] == [
        (model, asked, batch) for model in "ab" for asked in ("fp32", "bf16") for batch in (1, 4)
    ]
    assert all(row.measured and len(row.rounds) == 3 for row in rows)
    assert made.open == []


def test_the_timed_start_is_the_second_one_in_the_precision_that_was_found(made: Made) -> None:
    (row,) = run_benchmark(Settings(("a",), ("p",), precisions=("fp16",), rounds=1))
    assert [job.attempts for job in made.started] == [("fp16", "bf16", None), (None,)]
    assert row.cold_start_ms == 200.0
    assert (row.precision, row.asked, row.peak_memory, row.model_bytes) == ("fp32", "fp16", 3, 2)


def test_what_cannot_run_is_a_row_with_the_reason(made: Made) -> None:
    made.refuse, made.die, made.ms = {"x.engine"}, {"y.onnx"}, {"a": 20.0, "b": 10.0}
    rows = run_benchmark(Settings(("a", "x.engine", "y.onnx", "b"), ("p",), rounds=2))
    reasons = [None, "an engine runs on a GPU", "its process was ended by signal 9", None]
    assert [row.skipped for row in rows] == reasons
    assert [row.ratio for row in rows] == [1.0, None, None, 2.0]
    assert exit_code(rows) == 0
    assert made.open == []


def test_the_exit_code_is_that_of_the_first_error_where_nothing_ran() -> None:
    rows = [BenchResult("a", None, 1, skipped="?"), BenchResult("b", None, 1, skipped="no such model", exit_code=4)]
    assert exit_code(rows) == 4
    assert exit_code(rows[:1]) == 1


def test_workers_are_ended_when_the_benchmark_is_interrupted(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        assert len(made.open) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "take_turns", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(Settings(("a", "b"), ("p",)))
    assert made.open == []


def test_accuracy_is_taken_once_for_all_batch_sizes_by_the_worker_that_was_timed(made: Made) -> None:
    measured_models: list[str] = []

    def accuracy(detector: Detector) -> float:
        measured_models.append(detector.name)
        answer = detector(np.zeros((2, 3, 32, 32), np.uint8))
        assert answer.counts.tolist() == [2, 2]
        return 0.25

    rows = run_benchmark(Settings(("a", "b"), ("p",), batches=(1, 2), rounds=1), accuracy=accuracy)
    assert measured_models == ["a", "b"]
    assert [row.ap for row in rows] == [0.25] * 4


def test_a_model_that_cannot_be_judged_keeps_its_speed(made: Made) -> None:
    def accuracy(_: Detector) -> float:
        raise DataError("no class in common", remedy="another data set")

    (row,) = run_benchmark(Settings(("a",), ("p",), rounds=1), accuracy=accuracy)
    assert row.measured
    assert row.ap is None
    assert row.note == "no AP: no class in common"
