"""The length of a run: epochs, or a time limit and the measured pace."""

from typing import Any

import pytest

from fcos_cli.train import pace
from fcos_cli.train.checkpoint import Progress
from fcos_cli.train.pace import AIM, FEW_STEPS, Clock, Pace, RunLength


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; tests set it."""
    clock = [1000.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock[0])
    return clock


def length_of(**changes: Any) -> RunLength:
    settings = {"epochs": 3, "steps_per_epoch": 10, "val_every": 1, "limit": None, "clock": Clock(), "pace": Pace(0.5)}
    return RunLength(**{**settings, **changes})


def test_a_run_of_epochs_counts_down_its_steps(now: list[float]) -> None:
    length = length_of()
    assert length.remaining(Progress()) == 30
    assert length.remaining(Progress(step=14, epoch=1, step_in_epoch=4)) == 16
    assert not length.is_over(Progress(step=29, epoch=2, step_in_epoch=9))
    assert length.is_over(Progress(step=30, epoch=2, step_in_epoch=10))


def test_a_time_limit_leaves_as_many_steps_as_fit(now: list[float]) -> None:
    length = length_of(limit=1000.0, validation_seconds=20.0)
    interval = max(10, 20 / 0.05 / 0.5)
    assert length.remaining(Progress()) == pytest.approx((1000 * AIM - 20) / (0.5 + 20 / interval))
    now[0] += 1000 * AIM - 20 - 0.1
    assert length.is_over(Progress(step=900))


def test_time_of_earlier_sessions_counts(now: list[float]) -> None:
    fresh, resumed = length_of(limit=100.0), length_of(limit=100.0, clock=Clock(used=60.0))
    assert resumed.remaining(Progress()) == pytest.approx(fresh.remaining(Progress()) * (100 - 60) / 100)


def test_the_margin_is_a_share_of_the_time_that_a_session_has(now: list[float]) -> None:
    longer = length_of(limit=28_200 + 600.0, clock=Clock(used=28_200.0))
    assert longer.remaining(Progress()) == pytest.approx(600 * AIM / 0.5)
    now[0] += 600 * AIM - 0.1
    assert longer.is_over(Progress())


def test_the_pace_follows_the_last_steps_without_pauses(now: list[float]) -> None:
    measured = Pace(0.5)
    assert measured.seconds_per_step == 0.5
    for _ in range(5):
        measured.tick()
        now[0] += 2
    assert measured.seconds_per_step == pytest.approx(2.0)
    measured.pause()
    now[0] += 500  # a validation
    measured.tick()
    assert measured.seconds_per_step == pytest.approx(2.0)


def test_slower_hours_leave_fewer_steps(now: list[float]) -> None:
    fast, slow = (length_of(limit=1000.0, pace=Pace(seconds)) for seconds in (0.5, 1.0))
    assert slow.remaining(Progress()) == pytest.approx(fast.remaining(Progress()) / 2)


def test_a_cool_down_ends_a_run_of_either_kind(now: list[float]) -> None:
    for limit in (None, 1000.0):
        assert length_of(limit=limit).remaining(Progress(step=5, step_in_epoch=5, end=8)) == 3


def test_with_epochs_every_validation_is_due(now: list[float]) -> None:
    length = length_of(val_every=2, epochs=3, validation_seconds=1e6)
    done = [length.validation_due(Progress(epoch=epoch, step_in_epoch=10)) for epoch in range(3)]
    assert done == [False, True, True]  # the last one always


def test_with_a_time_limit_validations_take_a_limited_share(now: list[float]) -> None:
    length = length_of(limit=10_000.0)
    length.validated(30.0)
    now[0] += 599
    assert not length.validation_due(Progress())
    now[0] += 2
    assert length.validation_due(Progress())


def test_no_validation_is_due_shortly_before_the_last_one(now: list[float]) -> None:
    length = length_of(limit=1000.0, validation_seconds=20.0)
    for left, due in ((20 + 20 + 0.5 * FEW_STEPS + 1, True), (20 + 20 + 0.5 * FEW_STEPS - 1, False), (19.0, True)):
        now[0] = 1000 + 1000 * AIM - left
        assert length.validation_due(Progress(epoch=9)) is due


def test_time_is_kept_to_validate_the_best_weights_of_an_earlier_session(now: list[float]) -> None:
    fresh, resumed = (length_of(limit=1000.0, validation_seconds=20.0, best_unseen=best) for best in (False, True))
    assert (fresh.seconds_at_end, resumed.seconds_at_end) == (20, 40)
    assert resumed.remaining(Progress()) < fresh.remaining(Progress())
    for length in (fresh, resumed):
        length.validated(20.0)
    assert resumed.remaining(Progress()) == fresh.remaining(Progress())


def test_time_is_kept_for_the_export_at_the_end(now: list[float]) -> None:
    with_export = length_of(limit=1000.0, export_seconds=100.0)
    assert with_export.remaining(Progress()) == pytest.approx((1000 * AIM - 100) / 0.5)
    assert with_export.seconds_left(Progress(end=4)) == pytest.approx(4 * 0.5 + 100)
    now[0] += 1000 * AIM - 100 - 0.1
    assert with_export.is_over(Progress(step=900))
    assert length_of(export_seconds=100.0).remaining(Progress()) == 30  # epochs are not cut
