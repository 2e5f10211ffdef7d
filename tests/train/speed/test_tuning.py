"""Choosing the method of each convolution by measuring: what is measured, what is chosen, and that it can be stored."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fcos_cli.train.speed import tuning
from fcos_cli.train.speed.convolution import Geometry, Method, TunedConv2d
from fcos_cli.train.speed.group_norm import TunedGroupNorm
from fcos_cli.train.speed.tuning import ConvCase, LayerTimer, NormCase, Tuning, apply_tuning, record_calls, tune
from tests.tiny import tiny_model

DEPTHWISE = ConvCase((2, 8, 12, 12), (8, 1, 5, 5), Geometry((1, 1), (2, 2), (1, 1), 8), True, True)

BF16 = torch.bfloat16


def timer_of(case: ConvCase | NormCase = DEPTHWISE, dtype: torch.dtype = BF16) -> LayerTimer:
    return LayerTimer(case.passes(dtype, 1.0))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Milliseconds that a method takes; 1.0 unless set."""
    costs: dict[str, float] = {}
    monkeypatch.setattr(tuning, "_timed", lambda _call, method: costs.get(method, 1.0) / 1000)
    return costs


def try_all(timer: LayerTimer) -> None:
    for method in tuning.METHODS:
        timer.try_method(method)


def test_the_fastest_method_of_each_pass_is_chosen(clock: dict[str, float]) -> None:
    clock.update({"fp32": 0.5, "nchw": 2.0, "split": 0.1})
    timer = timer_of()
    assert timer.plan == ("default", "default", "default")
    try_all(timer)
    assert timer.plan == ("fp32", "fp32", "split")
    assert timer.default_seconds == pytest.approx(3e-3)
    assert timer.best_seconds == pytest.approx(1.1e-3)


@pytest.mark.parametrize(("method", "milliseconds"), [("fp32", 0.95), ("nchw", 0.8)])
def test_a_small_gain_is_not_worth_a_change(clock: dict[str, float], method: str, milliseconds: float) -> None:
    clock[method] = milliseconds
    timer = timer_of()
    try_all(timer)
    assert set(timer.plan) == {"default"}


def test_a_default_that_was_slowed_down_once_stays_after_all(clock: dict[str, float]) -> None:
    clock.update({"default": 3.0, "nchw": 0.9, "split": 0.1})  # another program ran while the default was timed
    timer = timer_of()
    try_all(timer)
    assert timer.plan == ("nchw", "nchw", "split")
    clock["default"] = 1.0
    timer.confirm()
    assert timer.plan == ("default", "default", "split")
    assert timer.default_seconds == pytest.approx(3e-3)


def test_in_float32_only_layouts_and_parts_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Method] = []

    def timed(_call: Callable[..., Any], method: Method) -> float:
        tried.append(method)
        return 1.0

    monkeypatch.setattr(tuning, "_timed", timed)
    try_all(timer_of(dtype=torch.float32))
    assert set(tried) == {"default", "nchw", "split"}


def test_gradients_that_training_does_not_need_are_not_timed(clock: dict[str, float]) -> None:
    clock["fp32"] = 0.5
    first = timer_of(DEPTHWISE._replace(needs_input_grad=False))
    frozen = timer_of(DEPTHWISE._replace(needs_input_grad=False, needs_weight_grad=False))
    for timer in (first, frozen):
        try_all(timer)
    assert first.plan == ("fp32", "default", "fp32")
    assert frozen.plan == ("fp32", "default", "default")
    assert (first.best_seconds, frozen.best_seconds) == pytest.approx((1e-3, 0.5e-3))


def test_a_group_norm_is_timed_in_both_layouts(clock: dict[str, float]) -> None:
    clock["nchw"] = 0.5
    timer = timer_of(NormCase((2, 8, 6, 6), 4))
    try_all(timer)
    assert timer.plan == ("nchw",)


def test_every_pass_can_really_be_run() -> None:
    for case in (DEPTHWISE, NormCase((2, 8, 6, 6), 4)):
        for dtype in (BF16, torch.float32):
            timer = timer_of(case, dtype)
            try_all(timer)
            assert all(seconds > 0 for times in timer.times.values() for seconds in times.values())


def test_every_layer_is_recorded_with_the_size_of_its_input() -> None:
    model = tiny_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calls = record_calls(model, batch=4, size=(64, 96))
    assert calls[0].size == "64x96"
    assert calls[0].case.input == (4, 3, 64, 96)
    assert isinstance(calls[0].case, ConvCase)
    assert (calls[0].case.needs_input_grad, calls[0].case.needs_weight_grad) == (False, True)
    for name in ("cls_logits", "conv.1"):  # a convolution and a GroupNorm: once per level
        sizes = [call.size for call in calls if call.name == f"head.classification_head.{name}"]
        assert sizes == ["8x12", "4x6", "2x3", "1x2", "1x1"]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_network_is_tuned_and_the_choice_survives_json(clock: dict[str, float]) -> None:
    clock.update({"fp32": 0.5, "nchw": 0.6})
    model = tiny_model().train()
    found = tune(model, batch=2, size=(64, 64), dtype=torch.bfloat16)
    assert found.default_ms / 2 <= found.tuned_ms < found.default_ms
    assert "in float32" in found.describe()
    assert "in channels first" in found.describe()
    again = Tuning.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    names = list(model.state_dict())
    apply_tuning(model, again)
    kinds = (TunedConv2d, TunedGroupNorm)
    tuned: dict[str, Any] = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    assert set(tuned) == set(found.plans)
    assert list(model.state_dict()) == names
    assert tuned["head.classification_head.cls_logits"].plans[8, 8].weight_grad == "fp32"
    assert tuned["head.classification_head.conv.1"].layouts[8, 8] == "nchw"


def test_where_nothing_gains_nothing_changes(clock: dict[str, float]) -> None:
    model = tiny_model().train()
    found = tune(model, batch=2, size=(64, 64), dtype=torch.bfloat16)
    assert (found.plans, found.describe()) == ({}, "")
    apply_tuning(model, found)
    assert not any(isinstance(module, TunedConv2d) for module in model.modules())


def test_the_budget_ends_the_search(clock: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    clock["fp32"] = 0.5
    monkeypatch.setattr(tuning, "BUDGET", 0.0)
    assert tune(tiny_model().train(), batch=2, size=(64, 64), dtype=torch.bfloat16).plans == {}
