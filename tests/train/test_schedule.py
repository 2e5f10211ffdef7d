"""The learning rate over a run, against values worked out by hand; also when the length of the run changes."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD

from fcos_cli.train.schedule import Schedule


def schedule_of(*, warmup: int, lr: float = 1.0) -> Schedule:
    return Schedule(SGD([nn.Parameter(torch.zeros(1))], lr=lr), warmup=warmup)


def rate(schedule: Schedule) -> float:
    return float(schedule.optimizer.param_groups[0]["lr"])


def run(schedule: Schedule, remaining: list[float]) -> list[float]:
    """The learning rate of each step, and the one after them."""
    used = []
    for left in remaining:
        used.append(rate(schedule))
        schedule.advance(remaining=left)
    return [*used, rate(schedule)]


def count_down(steps: int) -> list[float]:
    return [float(left) for left in range(steps, 0, -1)]


def test_schedule_is_linear_warmup_then_half_a_cosine() -> None:
    used = run(schedule_of(warmup=4, lr=2.0), count_down(44))
    assert used[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert used[24] == pytest.approx(2 * (0.01 + 0.99 / 2))  # half way from 4 to 44
    assert used[14] == pytest.approx(2 * (0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2))  # a quarter
    assert used[43] == pytest.approx(2 * (0.01 + 0.99 * (1 + math.cos(math.pi * 39 / 40)) / 2))
    assert used[44] == pytest.approx(0.02)
    assert used[4:] == sorted(used[4:], reverse=True)


def test_the_rate_stays_at_one_percent_after_the_last_step() -> None:
    assert run(schedule_of(warmup=0), [*count_down(3), 0.0, 0.0])[3:] == pytest.approx([0.01] * 3)


def test_a_run_that_gets_shorter_falls_faster_and_still_ends_at_one_percent() -> None:
    plain = run(schedule_of(warmup=0), count_down(20))
    shorter = run(schedule_of(warmup=0), [*count_down(20)[:10], *count_down(4)])
    longer = run(schedule_of(warmup=0), [*count_down(20)[:10], *count_down(30)])
    assert shorter[:11] == plain[:11] == longer[:11]
    assert shorter[11] < plain[11] < longer[11]
    assert [used[-1] for used in (plain, shorter, longer)] == pytest.approx([0.01] * 3)


def test_a_restart_rises_from_the_current_rate_and_falls_again() -> None:
    schedule = schedule_of(warmup=0)
    before = run(schedule, count_down(10)[:5])[-1]
    schedule.restart(warmup=3)
    used = run(schedule, count_down(13))
    assert used[:4] == pytest.approx([before + (1 - before) * k / 4 for k in (1, 2, 3, 4)])
    assert used[-1] == pytest.approx(0.01)


def test_halving_lasts_and_the_state_comes_back() -> None:
    schedule = schedule_of(warmup=2, lr=0.4)
    run(schedule, count_down(12)[:6])
    expected = rate(schedule) / 2
    schedule.set_scale(0.5)
    assert rate(schedule) == pytest.approx(expected)
    again = schedule_of(warmup=0, lr=0.4)
    again.load_state_dict(schedule.state_dict())
    assert rate(again) == pytest.approx(expected)
    assert again.state_dict() == schedule.state_dict()
    with pytest.raises(ValueError, match="not the state"):
        again.load_state_dict({"step": 3})
