"""Optimizer, averaged weights, precision, and the parts of a run with them, built from TrainConfig."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from fcos_cli.config import TrainConfig
from fcos_cli.hardware import has_native_bf16
from fcos_cli.model.fcos import FCOS
from fcos_cli.train.checkpoint import Parts
from fcos_cli.train.schedule import Schedule

REFERENCE_BATCH = 16


def scaled_lr(config: TrainConfig, *, pictures: int) -> float:
    """Return the learning rate for `pictures` images per step in all processes; `config.lr` is meant for 16.

    SGD scales linearly (Goyal et al. 2017). AdamW scales with the square root, since it normalizes its steps (Malladi
    et al. 2022).
    """
    factor = pictures / REFERENCE_BATCH
    return config.lr * (factor if config.optimizer == "sgd" else math.sqrt(factor))


def build_optimizer(model: FCOS, config: TrainConfig, *, pictures: int, scaled: bool = False) -> Optimizer:
    """Return an optimizer with up to four groups: backbone and the rest, each with and without weight decay.

    Vectors (norms and biases) have no weight decay. scaled: whether the gradients are, as in `Precision`.
    """
    if config.backbone_lr == 0:
        model.backbone.body.requires_grad_(requires_grad=False)
    lr = scaled_lr(config, pictures=pictures)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("backbone.body."), parameter.ndim > 1), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "lr": lr * (config.backbone_lr if in_backbone else 1.0),
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (in_backbone, decayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    if config.optimizer == "adamw":
        return AdamW(settings, lr=lr, fused=True)
    # If the first step is left out because of an overflow, torch's fused SGD keeps a momentum that it never set.
    return SGD(settings, lr=lr, momentum=0.9, nesterov=True, fused=not scaled)


def build_average(model: FCOS, config: TrainConfig) -> AveragedModel | None:
    """Return an exponential moving average of weights and buffers, or None if `config.ema` is 0.

    The decay grows from 0, so that the initial weights have little influence.
    """
    if config.ema == 0:
        return None
    average = AveragedModel(model, multi_avg_fn=_ema(config.ema), use_buffers=True)
    return average.requires_grad_(requires_grad=False).eval()


def _ema(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], seen: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + float(seen)) / (10 + float(seen)))
        pairs = list(zip(averaged, current, strict=True))
        floats = [(a, c) for a, c in pairs if a.is_floating_point()]
        if floats:  # tensors come grouped by dtype, and BatchNorm's counters are integers
            torch._foreach_lerp_([a for a, _ in floats], [c for _, c in floats], weight)
        for a, c in pairs:
            if not a.is_floating_point():
                a.copy_(c)

    return update


@dataclass(frozen=True)
class Precision:
    """Precision of the backbone and the head: autocast dtype (None: float32) and whether gradients are scaled."""

    dtype: torch.dtype | None
    scaled: bool
    note: str = ""


def choose_precision(config: TrainConfig, device: torch.device) -> Precision:
    """Choose the training precision. `auto`: bf16 if the hardware supports it, fp16 on older GPUs, else float32.

    On a CPU without bf16 instructions bf16 is emulated, twenty times slower than float32; if requested, it is used with
    a warning.
    """
    if config.amp == "off":
        return Precision(None, scaled=False)
    native = has_native_bf16(device)
    if config.amp == "bf16" or (config.amp == "auto" and native):
        slow = "" if native else "this processor only emulates bf16: float32 (amp = off) is faster"
        return Precision(torch.bfloat16, scaled=False, note=slow)
    if device.type == "cuda":
        return Precision(torch.float16, scaled=True)
    if config.amp == "fp16":
        return Precision(None, scaled=False, note="fp16 training requires a GPU: running in float32")
    return Precision(None, scaled=False)


def build_parts(
    model: FCOS, config: TrainConfig, *, pictures: int, precision: Precision, device: torch.device
) -> Parts:
    """Return everything with state that training `model` needs, as before the first step."""
    optimizer = build_optimizer(model, config, pictures=pictures, scaled=precision.scaled)
    return Parts(
        model=model,
        average=build_average(model, config),
        optimizer=optimizer,
        schedule=Schedule(optimizer, warmup=0),
        scaler=GradScaler(device.type, enabled=precision.scaled),
    )
