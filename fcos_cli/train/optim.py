"""The recipe's parts, built from TrainConfig: optimiser, schedule, averaged weights, precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from fcos_cli.config import TrainConfig
from fcos_cli.hardware import has_native_bf16
from fcos_cli.model.fcos import FCOS

REFERENCE_BATCH = 16


def scaled_lr(config: TrainConfig, *, pictures: int) -> float:
    """Learning rate for `pictures` per step (all processes), from `config.lr` meant for 16.

    SGD: in proportion (Goyal et al. 2017). AdamW: by the square root, since its steps are normalised (Malladi 2022).
    """
    factor = pictures / REFERENCE_BATCH
    return config.lr * (factor if config.optimizer == "sgd" else math.sqrt(factor))


def build_optimizer(model: FCOS, config: TrainConfig, *, pictures: int) -> Optimizer:
    """Four groups: backbone and the rest, each with and without weight decay (none for vectors: norms, biases)."""
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
    return AdamW(settings, lr=lr) if config.optimizer == "adamw" else SGD(settings, lr=lr, momentum=0.9, nesterov=True)


def build_schedule(optimizer: Optimizer, *, steps: int, warmup: int) -> LambdaLR:
    """Linear warm-up, then half a cosine down to 1 % of the learning rate at the last of `steps`."""
    warmup = min(warmup, steps // 10)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(1, steps - warmup)
        return 0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, progress))) / 2

    return LambdaLR(optimizer, factor)


def build_average(model: FCOS, config: TrainConfig) -> AveragedModel | None:
    """Exponential moving average of weights and buffers; the decay grows from 0 so that the start is forgotten."""
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
        if floats:  # tensors come grouped by dtype: BatchNorm's counters alone, too
            torch._foreach_lerp_([a for a, _ in floats], [c for _, c in floats], weight)
        for a, c in pairs:
            if not a.is_floating_point():
                a.copy_(c)

    return update


@dataclass(frozen=True)
class Precision:
    """What the network's body runs in: dtype of autocast (None = float32), and whether gradients need scaling."""

    dtype: torch.dtype | None
    scaled: bool
    note: str = ""


def choose_precision(config: TrainConfig, device: torch.device) -> Precision:
    """`auto`: bf16 where the hardware multiplies in it, fp16 on older GPUs, else float32.

    A CPU without such instructions emulates bf16, twenty times slower than float32: asked for, it is done and said.
    """
    if config.amp == "off":
        return Precision(None, scaled=False)
    native = has_native_bf16(device)
    if config.amp == "bf16" or (config.amp == "auto" and native):
        slow = "" if native else "bf16 was asked for, but this processor emulates it: float32 (amp = off) is faster"
        return Precision(torch.bfloat16, scaled=False, note=slow)
    if device.type == "cuda":
        return Precision(torch.float16, scaled=True)
    if config.amp == "fp16":
        return Precision(None, scaled=False, note="fp16 training needs a GPU: running in float32")
    return Precision(None, scaled=False)
