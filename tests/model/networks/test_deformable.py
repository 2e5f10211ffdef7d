"""Deformable convolution: cases by hand, a slow reference, every wrong reading of its channels, and training."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fcos_cli.errors import UsageError
from fcos_cli.model.config import ModelConfig
from fcos_cli.model.networks.cost import network_cost
from fcos_cli.model.networks.deformable import DeformConv2d
from fcos_cli.model.optimize.fuse import fold_batch_norm
from tests.small_resnets import small_resnet
from tests.tiny import tiny_config, tiny_model

sys.path.insert(0, str(Path(__file__).parents[2] / "vectors"))  # its scripts are not a package

from deformable import deformed

BACKBONE = small_resnet.__name__


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(*, stride: int = 1, groups: int = 1, dilation: int = 1, bias: bool = True) -> DeformConv2d:
    """4 → 6 channels; taps move by about a pixel, and some look outside the map."""
    conv = DeformConv2d(4, 6, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups, bias=bias)
    with torch.no_grad():
        for seed, value in enumerate(conv.parameters()):
            value.copy_(random(*value.shape, seed=seed) / (3 if value is conv.offset.weight else 1))
    return conv


def by_reference(conv: DeformConv2d, image: Tensor, moves: Tensor, masks: Tensor) -> Tensor:
    """The slow reference in float64 for one image [C, H, W] with these moves [18, h, w] and masks [9, h, w]."""
    given = (value.detach().double().numpy() for value in (image, moves, masks, conv.weight))
    rest = {"stride": conv.stride[0], "groups": conv.groups, "dilation": conv.dilation[0]}
    out = torch.from_numpy(deformed(*given, **rest))
    return out if conv.bias is None else out + conv.bias.detach()[:, None, None]


@pytest.mark.parametrize(
    "shape",
    [{}, {"stride": 2}, {"groups": 2}, {"stride": 2, "groups": 2, "bias": False}, {"dilation": 2}],
    ids=str,
)
def test_operator_agrees_with_the_slow_reference(shape: dict[str, int]) -> None:
    conv, images = layer(**shape), random(2, 4, 7, 6, seed=9)
    with torch.no_grad():
        outputs, channels = conv(images), conv.offset(images)
    assert channels.shape[1] == 27
    for image, out, found in zip(images, outputs, channels, strict=True):
        expected = by_reference(conv, image, found[:18], found[18:].sigmoid())
        assert float((out - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


WRONG: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "x before y": lambda found: (found[:18].unflatten(0, (9, 2)).flip(1).flatten(0, 1), found[18:].sigmoid()),
    "all y, then all x": lambda found: (
        found[:18].unflatten(0, (2, 9)).transpose(0, 1).flatten(0, 1),
        found[18:].sigmoid(),
    ),
    "taps column by column": lambda found: (
        found[:18].unflatten(0, (3, 3, 2)).transpose(0, 1).flatten(0, 2),
        found[18:].unflatten(0, (3, 3)).transpose(0, 1).flatten(0, 1).sigmoid(),
    ),
    "masks first": lambda found: (found[9:], found[:9].sigmoid()),
    "masks without sigmoid": lambda found: (found[:18], found[18:]),
    "masks up to 2, as of a convolution that starts at 1": lambda found: (found[:18], 2 * found[18:].sigmoid()),
    "no masks (version 1)": lambda found: (found[:18], torch.ones_like(found[18:])),
    "minus": lambda found: (-found[:18], found[18:].sigmoid()),
}


@pytest.mark.parametrize("reading", WRONG)
def test_another_reading_of_the_channels_shows(reading: str) -> None:
    conv, images = layer(), random(1, 4, 7, 6, seed=9)
    with torch.no_grad():
        out, found = conv(images)[0], conv.offset(images)[0]
    other = by_reference(conv, images[0], *WRONG[reading](found))
    assert float((out - other).abs().max()) > 0.1 * float(out.abs().max())


def single(*, channel: int, value: float) -> Tensor:
    """A map of 0…24 in 5 × 5 through one tap, the centre, with weight 1 and mask 1; all taps with one channel set."""
    conv = DeformConv2d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 1, 1] = 1
        conv.offset.bias[18:] = 100.0  # sigmoid: 1
        conv.offset.bias[channel] = value
        return conv(torch.arange(25.0).view(1, 1, 5, 5))[0, 0]


def test_moves_by_hand() -> None:
    """The centre tap is the fifth: channels 8 (down) and 9 (right)."""
    assert single(channel=8, value=1)[0].tolist() == [5, 6, 7, 8, 9]
    assert single(channel=9, value=1)[0].tolist() == [1, 2, 3, 4, 0]  # outside the map is 0
    assert single(channel=9, value=-0.25)[1].tolist() == [3.75, 5.75, 6.75, 7.75, 8.75]
    assert single(channel=8, value=0.5)[4].tolist() == [10, 10.5, 11, 11.5, 12]  # half of it outside
    assert single(channel=7, value=3)[2].tolist() == [10, 11, 12, 13, 14]  # another tap


def test_masks_by_hand() -> None:
    """Channel 22 is the fifth mask."""
    assert single(channel=22, value=0)[2].tolist() == [5, 5.5, 6, 6.5, 7]
    assert single(channel=22, value=-200)[2].tolist() == [0, 0, 0, 0, 0]


def test_untrained_it_is_half_an_ordinary_convolution() -> None:
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False)
    moved, images = DeformConv2d.replacing(conv), random(1, 4, 9, 8)
    assert torch.allclose(moved(images), conv(images) / 2, atol=1e-6)
    assert set(moved.state_dict()) == {"weight", "offset.weight", "offset.bias"}


def test_gradients_are_those_of_the_function() -> None:
    conv = layer(stride=2, groups=2).double()
    images = random(1, 4, 5, 5, seed=3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: conv(x), (images, *conv.parameters()), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_its_type_and_positions_of_float32(dtype: torch.dtype) -> None:
    conv, images = layer(), random(1, 4, 7, 6, seed=9)
    expected = conv(images)
    with torch.autocast("cpu", dtype):
        found = conv(images)
    assert found.dtype == torch.float32
    assert float((found - expected).detach().abs().max()) < 0.05 * float(expected.detach().abs().max())
    assert conv.to(dtype)(images.to(dtype)).dtype == dtype


def test_stages_and_the_last_tower_convolutions_become_deformable() -> None:
    model = tiny_model(backbone=BACKBONE, convs=2, deformable_stages=[2, 4], deformable_tower=True)
    found = {name for name, module in model.named_modules() if isinstance(module, DeformConv2d)}
    body = {f"backbone.body.layer{block}.conv2" for block in ("2.0", "2.1", "4.0")}
    assert found == body | {"head.classification_head.conv.3", "head.regression_head.conv.3"}
    strides = {name: model.get_submodule(name).stride for name in body}
    assert strides == {"backbone.body.layer2.0.conv2": (2, 2), "backbone.body.layer2.1.conv2": (1, 1)} | {
        "backbone.body.layer4.0.conv2": (2, 2)
    }
    assert {model.get_submodule(f"{name}.offset").stride for name in body} == {(2, 2), (1, 1)}
    in_1x1 = tiny_model(backbone=BACKBONE, deformable_stages=[2], stride_in_1x1=True)
    assert in_1x1.get_submodule("backbone.body.layer2.0.conv2").stride == (1, 1)
    plain = tiny_model(backbone=BACKBONE, convs=2)
    assert not any(isinstance(module, DeformConv2d) for module in plain.modules())
    extra = model.state_dict().keys() - plain.state_dict().keys()
    assert {key.rpartition(".offset.")[0] for key in extra} == found


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deformable_stages": [0]}, "ascending numbers from 1 to 4"),
        ({"deformable_stages": [3, 2]}, "ascending numbers from 1 to 4"),
        ({"deformable_tower": True, "tower": "separable"}, "needs tower"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**settings)


def test_backbone_without_such_blocks_is_refused() -> None:
    with pytest.raises(UsageError, match="test_efficientnet has no blocks with a 3x3 convolution in stage 3") as caught:
        tiny_model(deformable_stages=[3])
    assert caught.value.where == "model.deformable_stages"


def test_multiplications_are_those_of_two_ordinary_convolutions() -> None:
    plain, moved = (
        network_cost(tiny_config(deformable_tower=tower), classes=3, size=(64, 96)).macs for tower in (False, True)
    )
    assert moved - plain == 2 * (96 + 24 + 6 + 2 + 1) * 27 * 16 * 9  # those of the offsets, 16 → 27 channels


def test_folding_batch_norm_leaves_the_results() -> None:
    model, images = trained_offsets(), random(1, 3, 64, 96).abs() * 100
    with torch.no_grad():
        before = model(images).flat()
        assert fold_batch_norm(model) > 0
        for expected, found in zip(before, model(images).flat(), strict=True):
            assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def trained_offsets() -> nn.Module:
    """A model whose taps move, as after training."""
    model = tiny_model(backbone=BACKBONE, deformable_stages=[3, 4], deformable_tower=True)
    with torch.no_grad():
        for seed, (name, value) in enumerate(model.named_parameters()):
            if ".offset." in name:
                value.copy_(random(*value.shape, seed=seed) * 0.1)
    return model


def test_training_moves_the_taps() -> None:
    """A few steps on one image reduce a simple loss, and every offset and mask takes part."""
    model = tiny_model(backbone=BACKBONE, deformable_stages=[2, 3, 4], deformable_tower=True).train()
    for name, value in model.state_dict().items():
        if name.endswith("bn3.weight"):
            nn.init.ones_(value)  # timm starts with residual branches that are worth nothing
    images = random(2, 3, 128, 128).abs() * 60
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(4):
        cls, ltrb, _ = model(images).flat()
        loss = cls.sigmoid().sub(0.5).square().mean() + ltrb.div(100).sub(1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    offsets = {name: value for name, value in model.named_parameters() if ".offset." in name}
    assert len(offsets) == 2 * (4 + 2)
    assert all(bool(value.ne(0).any()) for value in offsets.values())  # they started at 0
