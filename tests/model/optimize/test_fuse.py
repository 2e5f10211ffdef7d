"""Folding BatchNorm into convolutions: outputs stay the same, and unfoldable modules are left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers.std_conv import StdConv2d
from torch import Tensor, nn

from fcos_cli.model.fcos import FCOS
from fcos_cli.model.optimize.fuse import NORMS, fold_batch_norm, fold_inside
from tests.tiny import tiny_model


def norm(channels: int) -> nn.BatchNorm2d:
    """Return a BatchNorm in eval mode with nontrivial statistics and weights."""
    layer = nn.BatchNorm2d(channels)
    nn.init.uniform_(layer.weight, 0.5, 2)
    nn.init.normal_(layer.bias)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    nn.init.normal_(layer.running_mean)
    nn.init.uniform_(layer.running_var, 0.5, 2)
    return layer.eval()


def norms_in(module: nn.Module) -> int:
    return sum(isinstance(part, NORMS) for part in module.modules())


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_fold_computed_by_hand() -> None:
    """y = 3 · (2x + 1 - 5) / √(3 + 1) + 7 = 3x + 1."""
    conv, layer = nn.Conv2d(1, 1, 1).eval(), nn.BatchNorm2d(1, eps=1.0).eval()
    assert conv.bias is not None
    assert layer.running_mean is not None
    assert layer.running_var is not None
    for tensor, value in (
        (conv.weight, 2), (conv.bias, 1), (layer.weight, 3), (layer.bias, 7),
        (layer.running_mean, 5), (layer.running_var, 3),
    ):  # fmt: skip
        nn.init.constant_(tensor, value)
    parts = nn.Sequential(conv, layer)
    assert fold_inside(parts) == 1
    folded = parts[0]
    assert isinstance(folded, nn.Conv2d)
    assert [tensor.detach().item() for tensor in folded.parameters()] == [3.0, 1.0]
    assert isinstance(parts[1], nn.Identity)


@pytest.mark.parametrize(
    "changes",
    [
        {},  # norms that hold their activation
        {"backbone_norm": "trained"},
        {"backbone": "test_resnet"},
        {"backbone": "test_resnet", "backbone_norm": "trained", "norm": "batch", "convs": 2},
        {"tower": "separable", "norm": "batch", "convs": 2},
        {"norm": "batch-per-level", "convs": 2, "shared_convs": 1},
        {"tower": "separable", "norm": "batch-per-level", "strides": (8, 16, 32)},
        {"backbone": "tf_efficientnet_lite0"},  # padded by what the picture's size asks for
    ],
    ids=str,
)
def test_folded_network_gives_the_same_outputs(changes: dict[str, Any]) -> None:
    model = with_statistics(tiny_model(**changes))
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.inference_mode():
        expected = model(images).flat()
    before = norms_in(model)
    assert fold_batch_norm(model) == before > 0
    assert norms_in(model) == 0
    with torch.inference_mode():
        found = model(images).flat()
    assert max(map(relative, found, expected)) < 1e-5


def with_statistics(model: FCOS) -> FCOS:
    """Set statistics near those of an untrained network, but different from the initial ones."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, NORMS):
            for values in (module.running_mean, module.bias):
                values.data.normal_(0, 0.2)
            for values in (module.running_var, module.weight):
                values.data.uniform_(0.7, 1.4)
    return model.eval()


class Forked(nn.Module):
    """The output of the convolution is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), norm(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y + self.norm(y)


class Shared(nn.Module):
    """One convolution is followed by two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), norm(4), norm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.conv(x)) + self.second(self.conv(x))


class Between(nn.Module):
    """There is another operation between convolution and norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), norm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).relu())


class Wavering(nn.Module):
    """Control flow depends on values and cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), norm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if x.sum() > 0 else x


def standardized() -> nn.Module:
    return nn.Sequential(StdConv2d(4, 4, 3, padding=1), norm(4))


def first() -> nn.Module:
    return nn.Sequential(norm(4), nn.Conv2d(4, 4, 3, padding=1))


@pytest.mark.parametrize("build", [Forked, Shared, Between, Wavering, standardized, first])
def test_unfoldable_modules_are_unchanged(build: Any) -> None:
    torch.manual_seed(0)
    module = build().eval()
    x = torch.randn(2, 4, 8, 8)
    with torch.inference_mode():
        expected, norms = module(x), norms_in(module)
        assert fold_inside(module) == 0
        assert torch.equal(module(x), expected)
    assert norms_in(module) == norms


def test_norm_without_fixed_statistics_is_not_folded() -> None:
    assert fold_inside(nn.Sequential(nn.Conv2d(4, 4, 1), norm(4).train())) == 0
    assert fold_inside(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()) == 0
