"""Winograd convolutions equal PyTorch's except for rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fcos_cli.model.optimize import winograd
from fcos_cli.model.optimize.winograd import FILTERINGS, WinogradConv2d, use_winograd

BOUNDS = {torch.float32: 3e-6, torch.bfloat16: 1e-2}


def conv_of(channels: int = 8, outputs: int = 8, *, dtype: torch.dtype = torch.float32, **options: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    settings = {"kernel_size": 3, "padding": 1, **options}
    return nn.Conv2d(channels, outputs, **settings).to(dtype).requires_grad_(requires_grad=False)


def relative(found: Tensor, conv: nn.Conv2d, x: Tensor) -> float:
    """Return the relative error against the convolution in float64."""
    bias = None if conv.bias is None else conv.bias.double()
    expected = nn.functional.conv2d(x.double(), conv.weight.double(), bias, padding=1)
    assert found.shape == expected.shape
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", list(FILTERINGS))
@pytest.mark.parametrize("shape", [(1, 20, 20), (1, 21, 19), (2, 22, 23), (3, 1, 400), (1, 150, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_output_equals_the_convolution(dtype: torch.dtype, shape: tuple[int, int, int], bias: bool) -> None:
    batch, height, width = shape
    conv = conv_of(12, 7, dtype=dtype, bias=bias)
    x = torch.randn(batch, 12, height, width, dtype=dtype)
    for images in (x, x.to(memory_format=torch.channels_last)):
        with torch.inference_mode():
            assert relative(WinogradConv2d(conv)(images), conv, images) < BOUNDS[dtype]


@pytest.mark.parametrize("dtype", list(FILTERINGS))
def test_rounding_error_with_many_channels(dtype: torch.dtype) -> None:
    conv = conv_of(256, 256, dtype=dtype)
    x = torch.randn(1, 256, 20, 24, dtype=dtype).relu()
    with torch.inference_mode():
        assert relative(WinogradConv2d(conv)(x), conv, x) < BOUNDS[dtype]


@pytest.mark.parametrize("dtype", list(FILTERINGS))
def test_matrices_compute_minimal_filtering(dtype: torch.dtype) -> None:
    """Cook-Toom identity in one dimension: m outputs of a 3-tap filter with m + 2 products, exactly."""
    m, _, b, g, a = FILTERINGS[dtype]
    take, filters, give = (torch.tensor(matrix, dtype=torch.float64) for matrix in (b, g, a))
    signal, taps = torch.arange(1.0, m + 3).double() ** 2, torch.tensor([2.0, -3.0, 5.0]).double()
    found = give @ ((filters @ taps) * (take @ signal))
    expected = [sum(signal[place + k] * taps[k] for k in range(3)) for place in range(m)]
    torch.testing.assert_close(found, torch.stack(expected))  # type: ignore[arg-type]


def test_chunking_does_not_change_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = WinogradConv2d(conv_of()), torch.randn(2, 8, 30, 25)
    with torch.inference_mode():
        at_once = module(x)
        monkeypatch.setattr(winograd, "STEP_BYTES", 1)
        assert torch.allclose(module(x), at_once, atol=1e-6)


def test_small_maps_are_convolved_directly() -> None:
    conv = conv_of()
    x = torch.randn(1, 8, 7, 9)
    with torch.inference_mode():
        assert torch.equal(WinogradConv2d(conv)(x), conv(x))


def test_output_is_channels_last() -> None:
    x = torch.randn(1, 8, 20, 20).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert WinogradConv2d(conv_of())(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("conv", "gains"),
    [
        (conv_of(128, 128), True),
        (conv_of(128, 192), True),
        (conv_of(128, 91), False),
        (conv_of(127, 128), False),
        (conv_of(128, 128, dtype=torch.bfloat16), False),
        (conv_of(256, 256, dtype=torch.bfloat16), True),
        (conv_of(256, 256, dtype=torch.float16), False),
        (conv_of(128, 128, stride=2), False),
        (conv_of(128, 128, dilation=2), False),
        (conv_of(128, 128, padding=0), False),
        (conv_of(128, 128, padding_mode="reflect"), False),
        (conv_of(128, 128, groups=2), False),
        (conv_of(128, 128, kernel_size=1, padding=0), False),
        (conv_of(128, 128, kernel_size=5, padding=1), False),
    ],
    ids=lambda value: str(value.extra_repr() if isinstance(value, nn.Conv2d) else value),
)
def test_only_convolutions_that_get_faster_are_replaced(conv: nn.Conv2d, gains: bool) -> None:
    model = nn.Sequential(nn.Sequential(conv, nn.ReLU()), nn.Identity())
    assert use_winograd(model) == gains
    assert isinstance(model[0][0], WinogradConv2d) == gains  # type: ignore[index]
