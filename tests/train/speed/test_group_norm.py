"""GroupNorm in another layout: the same result and gradients."""

import pytest
import torch
from torch import nn

from fcos_cli.train.speed.group_norm import TunedGroupNorm


@pytest.mark.parametrize("size", [(6, 7), (1, 1)], ids=str)
def test_channels_first_gives_the_same_result_and_gradients(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    tuned = TunedGroupNorm.wrap(norm)
    tuned.layouts = {size: "nchw"}
    x = torch.randn(2, 8, *size).contiguous(memory_format=torch.channels_last)
    results = []
    for module in (norm, tuned):
        inputs = x.clone().requires_grad_()
        module.zero_grad()
        y = module(inputs)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        results.append([y, inputs.grad, norm.weight.grad, norm.bias.grad])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted)
    assert results[1][0].is_contiguous(memory_format=torch.channels_last)


def test_a_tuned_norm_shares_its_parameters() -> None:
    norm = nn.GroupNorm(2, 4)
    tuned = TunedGroupNorm.wrap(norm)
    assert tuned.weight is norm.weight
    assert list(tuned.state_dict()) == list(norm.state_dict())


def test_one_image_with_a_single_value_per_group_can_be_trained() -> None:
    tuned = TunedGroupNorm.wrap(nn.GroupNorm(4, 4)).train()
    tuned.layouts = {(2, 1): "nchw"}
    for size in ((1, 1), (2, 1)):
        out = tuned(torch.rand(1, 4, *size, requires_grad=True))
        out.sum().backward()
    assert torch.allclose(tuned(torch.rand(1, 4, 1, 1)), torch.zeros(1, 4, 1, 1), atol=1e-4)
