"""Tuned convolutions: every method of every pass gives the result and gradients of `nn.Conv2d`."""

from itertools import product

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from fcos_cli.train.speed.convolution import Geometry, Method, Plan, TunedConv2d, can_split, guard_narrow_maps

DEPTHWISE = [
    nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False),
    nn.Conv2d(6, 6, 5, stride=2, padding=2, groups=6, bias=False),
    nn.Conv2d(6, 6, 7, padding=3, groups=6),
    nn.Conv2d(6, 6, (4, 9), stride=(1, 2), padding=(0, 4), groups=6),
    Conv2dSame(6, 6, 5, stride=2, groups=6, bias=False),
]
OTHERS = [nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(6, 4, 3, padding=2, dilation=2), nn.Conv2d(6, 8, 1, stride=2)]


def run(conv: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Output, and gradients of the input and of all parameters."""
    x = x.clone().requires_grad_()
    conv.zero_grad()
    y = conv(x)
    (y.float() * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return (y, x.grad, *(parameter.grad for parameter in conv.parameters()))  # type: ignore[return-value]


@pytest.mark.parametrize("conv", [*DEPTHWISE, *OTHERS], ids=repr)
@pytest.mark.parametrize("size", [(11, 13), (16, 16)], ids=str)
def test_every_plan_equals_the_plain_convolution(conv: nn.Conv2d, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, *size)
    expected = run(conv, x)
    tuned = TunedConv2d.wrap(conv)
    methods: tuple[Method, ...] = ("default", "nchw", "fp32", "fp32-nchw")
    last: tuple[Method, ...] = ("split",) if can_split(conv.weight.shape, tuned.geometry) else ()
    for forward, of_input, of_weight in product(methods, methods, (*methods, *last)):
        tuned.plans = {size: Plan(forward, of_input, of_weight)}
        for found, wanted in zip(run(tuned, x), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_only_large_depthwise_kernels_can_be_split() -> None:
    assert [can_split(conv.weight.shape, TunedConv2d.wrap(conv).geometry) for conv in DEPTHWISE] == [True] * 5
    assert [can_split(conv.weight.shape, TunedConv2d.wrap(conv).geometry) for conv in OTHERS] == [False] * 3
    assert not can_split((6, 1, 3, 3), Geometry((1, 1), (1, 1), (1, 1), 6))
    assert not can_split((6, 1, 5, 5), Geometry((1, 1), (4, 4), (2, 2), 6))


@pytest.mark.parametrize("method", ["default", "fp32", "split"])
def test_in_mixed_precision_results_are_bfloat16_and_gradients_float32(method: Method) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 5, padding=2, groups=8)
    x = torch.randn(2, 8, 12, 12)
    tuned = TunedConv2d.wrap(conv)
    tuned.plans = {(12, 12): Plan("fp32", "fp32", method)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, of_x, *of_parameters = run(tuned, x)
    exact = run(conv, x)
    assert (y.dtype, of_x.dtype) == (torch.bfloat16, torch.float32)
    assert [gradient.dtype for gradient in of_parameters] == [torch.float32] * 2
    for found, wanted in zip((y, of_x, *of_parameters), exact, strict=True):
        assert (found.float() - wanted).norm() < 0.01 * wanted.norm()


def test_a_tuned_convolution_shares_its_parameters() -> None:
    conv = nn.Conv2d(4, 4, 3)
    tuned = TunedConv2d.wrap(conv)
    assert tuned.weight is conv.weight
    assert list(tuned.state_dict()) == list(conv.state_dict())


def test_other_sizes_and_inference_take_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = TunedConv2d.wrap(nn.Conv2d(4, 4, 3))
    tuned.plans = {(9, 9): Plan("fp32", "fp32", "fp32")}
    monkeypatch.setattr("fcos_cli.train.speed.convolution._Convolution", None)
    tuned(torch.rand(1, 4, 8, 8)).sum().backward()
    with torch.no_grad():
        tuned(torch.rand(1, 4, 9, 9))
    with pytest.raises(AttributeError):
        tuned(torch.rand(1, 4, 9, 9))


def test_a_frozen_input_gets_no_gradient() -> None:
    tuned = TunedConv2d.wrap(nn.Conv2d(4, 4, 5, padding=2, groups=4))
    tuned.plans = {(9, 9): Plan("default", "fp32", "split")}
    tuned(torch.rand(1, 4, 9, 9)).sum().backward()
    assert tuned.weight.grad is not None


@pytest.mark.parametrize("size", [(1, 1), (4, 1), (1, 4), (2, 2)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradients_in_bfloat16_are_right_for_maps_one_cell_wide(
    size: tuple[int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 16, 3, stride=2, padding=1)
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), conv)
    x = torch.randn(4, 16, *size)
    expected = run(model, x)
    guard_narrow_maps(model)
    assert [type(layer) for layer in model] == [nn.Conv2d, TunedConv2d]
    model.to(memory_format=layout)  # type: ignore[call-overload]
    for _ in range(5):
        junk = [torch.full_like(conv.weight, 1e30, dtype=torch.bfloat16) for _ in range(20)]
        del junk  # what a buffer that is never written to would now contain
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = run(model, x.to(memory_format=layout))
        for grad, wanted in zip(found[2:], expected[2:], strict=True):
            assert (grad - wanted).norm() < 0.05 * wanted.norm()
