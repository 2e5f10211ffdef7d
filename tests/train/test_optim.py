"""Optimizer, schedule, averaging and precision against values worked out by hand."""

import pytest
import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD, AdamW

from fcos_cli.config import TrainConfig
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.fcos import FCOS
from fcos_cli.train import optim
from fcos_cli.train.optim import (
    Precision,
    build_average,
    build_optimizer,
    choose_precision,
    scaled_lr,
)
from tests.tiny import tiny_model

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def model() -> FCOS:
    return tiny_model(conventions=Conventions(scales=True))


@pytest.mark.parametrize(
    ("optimizer", "pictures", "factor"),
    [("sgd", 16, 1), ("sgd", 8, 0.5), ("sgd", 64, 4), ("adamw", 16, 1), ("adamw", 4, 0.5), ("adamw", 64, 2)],
)
def test_learning_rate_is_scaled_to_the_batch_size(optimizer: str, pictures: int, factor: float) -> None:
    config = TrainConfig(optimizer=optimizer, lr=0.01)  # type: ignore[arg-type]
    assert scaled_lr(config, pictures=pictures) == pytest.approx(0.01 * factor)


def test_parameter_groups_have_the_right_rate_and_decay(model: FCOS) -> None:
    config = TrainConfig(lr=0.01, backbone_lr=0.1, weight_decay=0.05)
    optimizer = build_optimizer(model, config, pictures=16)
    assert isinstance(optimizer, AdamW)
    settings = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert len(settings) == len(list(model.parameters())) == sum(len(g["params"]) for g in optimizer.param_groups)
    for name, parameter in model.named_parameters():
        lr = 0.001 if name.startswith("backbone.body.") else 0.01
        decay = 0.05 if parameter.ndim > 1 else 0.0
        assert settings[id(parameter)] == (pytest.approx(lr), decay), name
    for name in ("head.regression_head.scales.0", "head.classification_head.cls_logits.bias"):
        assert settings[id(model.get_parameter(name))][1] == 0


def test_backbone_rate_of_zero_freezes_the_backbone(model: FCOS) -> None:
    optimizer = build_optimizer(model, TrainConfig(backbone_lr=0), pictures=16)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("backbone.body.")}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters())) - len(frozen)


def test_sgd_has_nesterov_momentum(model: FCOS) -> None:
    optimizer = build_optimizer(model, TrainConfig(optimizer="sgd", lr=0.08), pictures=4)
    assert isinstance(optimizer, SGD)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["nesterov"]) == (pytest.approx(0.02), 0.9, True)


def test_a_first_step_left_out_because_of_an_overflow_sets_no_momentum(model: FCOS) -> None:
    config = TrainConfig(optimizer="sgd", weight_decay=0)
    optimizer, scaler = build_optimizer(model, config, pictures=16, scaled=True), GradScaler("cpu", init_scale=2.0)
    weight = model.get_parameter("head.classification_head.cls_logits.bias")
    momentum = []
    for slope in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(slope * weight.sum()).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        momentum.append(optimizer.state[weight].get("momentum_buffer"))
    assert momentum[0] is None
    assert momentum[1].tolist() == [1, 1, 1]


def test_averaged_weights_follow_the_formula(model: FCOS) -> None:
    average = build_average(model, TrainConfig(ema=0.5))
    assert average is not None
    key = "head.classification_head.cls_logits.bias"
    weight, averaged = model.get_parameter(key), average.module.get_parameter(key)
    by_hand = 0.0
    with torch.no_grad():
        for seen, value in enumerate((1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)):
            weight.fill_(value)
            average.update_parameters(model)
            decay = min(0.5, (1 + seen) / (10 + seen))  # grows to the configured one: the start is forgotten
            by_hand = value if seen == 0 else decay * by_hand + (1 - decay) * value
            assert averaged.tolist() == pytest.approx([by_hand] * 3)


def test_average_is_a_copy_without_gradients_in_eval_mode(model: FCOS) -> None:
    average = build_average(model.train(), TrainConfig())
    assert average is not None
    assert not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
    ours, theirs = model.state_dict(), average.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[key].data_ptr() != theirs[key].data_ptr() for key in ours if ours[key].numel())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_batch_norm_counters_are_copied_not_averaged() -> None:
    model = tiny_model(norm="batch")
    average = build_average(model, TrainConfig(ema=0.9))
    assert average is not None
    counters = [key for key in model.state_dict() if key.endswith("num_batches_tracked")]
    assert counters
    for count in (3, 11):
        for key in counters:
            model.state_dict()[key].fill_(count)
        average.update_parameters(model)
        assert {int(average.module.state_dict()[key]) for key in counters} == {count}


def test_decay_of_zero_disables_averaging(model: FCOS) -> None:
    assert build_average(model, TrainConfig(ema=0)) is None


@pytest.mark.parametrize(
    ("amp", "device", "native", "wanted"),
    [
        ("off", GPU, True, Precision(None, scaled=False)),
        ("off", CPU, True, Precision(None, scaled=False)),
        ("auto", CPU, True, Precision(torch.bfloat16, scaled=False)),
        ("auto", CPU, False, Precision(None, scaled=False)),
        ("auto", GPU, True, Precision(torch.bfloat16, scaled=False)),
        ("auto", GPU, False, Precision(torch.float16, scaled=True)),
        ("bf16", CPU, True, Precision(torch.bfloat16, scaled=False)),
        ("fp16", GPU, True, Precision(torch.float16, scaled=True)),
    ],
)
def test_auto_precision_is_the_fastest_of_the_hardware(
    monkeypatch: pytest.MonkeyPatch, amp: str, device: torch.device, native: bool, wanted: Precision
) -> None:
    monkeypatch.setattr(optim, "has_native_bf16", lambda _: native)
    assert choose_precision(TrainConfig(amp=amp), device) == wanted  # type: ignore[arg-type]


def test_slow_or_impossible_precision_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "has_native_bf16", lambda _: False)
    slow = choose_precision(TrainConfig(amp="bf16"), CPU)
    assert slow.dtype == torch.bfloat16
    assert "emulates" in slow.note
    impossible = choose_precision(TrainConfig(amp="fp16"), CPU)
    assert impossible.dtype is None
    assert "requires a GPU" in impossible.note
