"""Head: weights shared by all levels, and the effect of each switch."""

import math

import pytest
import torch
from torch import Tensor, nn

from fcos_cli.model.config import FINE_STRIDES, REALTIME_STRIDES, STRIDES
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.head import GroupNorm, Head, PerLevel, RawOutputs
from tests.tiny import tiny_config

SIZES = [(8, 6), (4, 3), (2, 2), (1, 1), (1, 1)]


def head_of(
    *,
    classes: int = 3,
    seed: int = 0,
    norm: str = "group",
    convs: int = 1,
    strides: tuple[int, ...] = STRIDES,
    **switches: object,
) -> Head:
    torch.manual_seed(seed)
    config = tiny_config(conventions=Conventions(**switches), norm=norm, convs=convs, strides=strides)  # type: ignore[arg-type]
    return Head(config, classes).eval()


def features(seed: int = 1, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 16, h, w, generator=generator) * 5 for h, w in SIZES]


def test_a_single_value_per_group_is_normalized_to_the_bias() -> None:
    """As many groups as channels, one image, levels of one cell: torch's own GroupNorm refuses to run."""
    torch.manual_seed(0)
    head = Head(tiny_config(groups=16), 3).eval()
    raw = head([level[:1] for level in features()])
    alone, together = raw.cls[-1], head(features()).cls[-1]
    assert torch.allclose(alone, together[:1], atol=1e-4)
    assert torch.allclose(raw.cls[-1], raw.cls[-2], atol=1e-4)  # whatever the features are


def branch_says(head: Head, value: float) -> None:
    """Make the box branch output `value` everywhere."""
    nn.init.zeros_(head.regression_head.bbox_reg.weight)
    nn.init.constant_(head.regression_head.bbox_reg.bias, value)  # type: ignore[arg-type]


@torch.no_grad()
def outputs_of(head: Head) -> RawOutputs:
    raw: RawOutputs = head(features())
    return raw


def test_output_sizes_of_each_level() -> None:
    raw = outputs_of(head_of(classes=7))
    assert [tuple(level.shape) for level in raw.cls] == [(2, 7, h, w) for h, w in SIZES]
    assert [tuple(level.shape) for level in raw.ltrb] == [(2, 4, h, w) for h, w in SIZES]
    assert [tuple(level.shape) for level in raw.ctr] == [(2, 1, h, w) for h, w in SIZES]
    assert raw.sizes() == SIZES


@pytest.mark.parametrize("strides", [STRIDES, FINE_STRIDES])
def test_relu_distances_are_multiplied_by_the_stride(strides: tuple[int, ...]) -> None:
    head = head_of(strides=strides)
    branch_says(head, 1.5)
    assert [level.unique().tolist() for level in outputs_of(head).ltrb] == [[1.5 * stride] for stride in strides]
    branch_says(head, -1.5)
    assert all(float(level.abs().max()) == 0 for level in outputs_of(head).ltrb)


def test_pixel_distances_are_not_multiplied_by_the_stride() -> None:
    head = head_of(stride_normalised=False)
    branch_says(head, 1.5)
    assert [level.unique().tolist() for level in outputs_of(head).ltrb] == [[1.5]] * 5


def test_exp_distances_are_positive() -> None:
    head = head_of(activation="exp", stride_normalised=False)
    branch_says(head, -2.0)
    for level in outputs_of(head).ltrb:
        assert level.unique().tolist() == pytest.approx([math.exp(-2)])


def test_scale_is_applied_before_the_activation() -> None:
    head = head_of(scales=True, activation="exp", stride_normalised=False)
    assert [scale.item() for scale in head.regression_head.scales] == [1.0] * 5
    branch_says(head, 2.0)
    with torch.no_grad():
        head.regression_head.scales[1].fill_(0.5)
    assert [float(level.max()) for level in outputs_of(head).ltrb] == pytest.approx(
        [math.exp(2), math.e, *[math.exp(2)] * 3]
    )


def test_no_scale_weights_without_scales() -> None:
    assert not [key for key in head_of().state_dict() if "scales" in key]
    assert len([key for key in head_of(scales=True).state_dict() if "scales" in key]) == 5


def test_centerness_is_on_the_configured_tower() -> None:
    raws = {}
    for place in ("box", "class"):
        head = head_of(centerness_on=place)
        before = outputs_of(head).ctr[0]
        with torch.no_grad():
            head.regression_head.conv[0].weight.mul_(-1)
        raws[place] = torch.equal(outputs_of(head).ctr[0], before)
    assert raws == {"box": False, "class": True}


@pytest.mark.parametrize(
    "switch",
    [{"activation": "exp"}, {"stride_normalised": False}, {"centerness_on": "class"}],
    ids=lambda switch: next(iter(switch)),
)
def test_switches_change_the_outputs(switch: dict[str, object]) -> None:
    plain, switched = head_of(), head_of(**switch)
    assert plain.state_dict().keys() == switched.state_dict().keys()
    switched.load_state_dict(plain.state_dict())
    a, b = outputs_of(plain), outputs_of(switched)
    different = ["ctr"] if "centerness_on" in switch else ["ltrb"]
    for part in RawOutputs._fields:
        same = all(torch.equal(x, y) for x, y in zip(getattr(a, part), getattr(b, part), strict=True))
        assert same == (part not in different)


@pytest.mark.parametrize("activation", ["relu", "exp"])
def test_distances_are_never_negative(activation: str) -> None:
    for seed in range(3):
        assert all(bool((level >= 0).all()) for level in outputs_of(head_of(activation=activation, seed=seed)).ltrb)


def test_weights_are_shared_by_all_levels() -> None:
    head = head_of(stride_normalised=False)
    feature = features()[0]
    with torch.no_grad():
        raw = head([feature] * 5)
    for level in range(1, 5):
        assert torch.equal(raw.cls[level], raw.cls[0])
        assert torch.equal(raw.ltrb[level], raw.ltrb[0])
        assert torch.equal(raw.ctr[level], raw.ctr[0])


def test_initial_class_probability_is_one_percent() -> None:
    logits = torch.cat([level.flatten() for level in outputs_of(head_of()).cls])
    assert float(logits.sigmoid().mean()) == pytest.approx(0.01, rel=0.1)
    assert float(head_of().state_dict()["regression_head.bbox_ctrness.bias"]) == 0


def test_initial_distances_have_gradients() -> None:
    for strides in (STRIDES, FINE_STRIDES):
        for level, stride in zip(outputs_of(head_of(strides=strides)).ltrb, strides, strict=True):
            assert float(level.min()) > 2 * stride
            assert float(level.max()) < 8 * stride
        pixels = torch.cat([x.flatten() for x in outputs_of(head_of(strides=strides, stride_normalised=False)).ltrb])
        assert float(pixels.mean()) == pytest.approx(4 * strides[0], rel=0.1)
        assert float(pixels.min()) > 2 * strides[0]
    # exp has a gradient everywhere, and starts at one stride
    assert float(outputs_of(head_of(activation="exp")).ltrb[0].mean()) == pytest.approx(8, rel=0.2)


def test_tower_depth_and_norm_come_from_the_config() -> None:
    for norm, kind in (("group", GroupNorm), ("batch", nn.BatchNorm2d), ("batch-per-level", PerLevel)):
        head = head_of(norm=norm, convs=3)
        for tower in (head.classification_head.conv, head.regression_head.conv):
            assert [type(layer) for layer in tower] == [nn.Conv2d, kind, nn.ReLU] * 3
    groups = [layer.num_groups for layer in head_of().modules() if isinstance(layer, nn.GroupNorm)]
    assert groups == [4, 4]


def test_a_separable_tower_is_depthwise_and_then_pointwise() -> None:
    torch.manual_seed(0)
    head = Head(tiny_config(tower="separable", convs=2), 3).eval()
    for tower in (head.classification_head.conv, head.regression_head.conv):
        assert [type(layer) for layer in tower] == [nn.Conv2d, nn.Conv2d, GroupNorm, nn.ReLU] * 2
        assert [(layer.kernel_size, layer.groups) for layer in tower[:2]] == [((3, 3), 16), ((1, 1), 1)]
    assert [level.shape[-2:] for level in outputs_of(head).cls] == SIZES
    # each channel of the first convolution sees its own input channel only
    depthwise = head.classification_head.conv[0]
    one = torch.zeros(1, 16, 5, 5)
    one[0, 3] = 1
    with torch.no_grad():
        assert depthwise(one).abs().sum((0, 2, 3)).nonzero().flatten().tolist() == [3]


def filled(head: Head) -> Head:
    """The head with statistics and weights of its norms that differ from layer to layer."""
    generator = torch.Generator().manual_seed(3)
    for name, value in (*head.named_parameters(), *head.named_buffers()):
        if value.ndim == 1 and "scales" not in name:
            value.data = torch.rand(value.shape, generator=generator) + 0.5
    return head


@torch.no_grad()
def by_hand(head: Head, tower: str, x: Tensor, level: int) -> Tensor:
    """A tower from its state dict: convolution, norm of the level if there is one, ReLU."""
    state, place = head.state_dict(), 0
    while f"{tower}.{place}.weight" in state:
        x = nn.functional.conv2d(x, state[f"{tower}.{place}.weight"], state[f"{tower}.{place}.bias"], padding=1)
        norm = f"{tower}.{place + 1}.{level}"
        if f"{norm}.weight" in state:
            mean, variance, weight, bias = (
                state[f"{norm}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = (x - mean) / (variance + 1e-5).sqrt() * weight + bias
        x, place = x.relu(), place + (3 if f"{norm}.weight" in state else 2)
    return x


@pytest.mark.parametrize("norm", ["batch-per-level", "none"])
@pytest.mark.parametrize(("convs", "shared_convs"), [(2, 0), (0, 2), (1, 1)])
def test_towers_are_shared_by_both_branches_and_normalized_by_level(norm: str, convs: int, shared_convs: int) -> None:
    config = tiny_config(norm=norm, convs=convs, shared_convs=shared_convs, strides=REALTIME_STRIDES)
    head, maps = filled(Head(config, 3).eval()), features()[:3]
    with torch.no_grad():
        raw = head(maps)
        for level, (x, stride) in enumerate(zip(maps, REALTIME_STRIDES, strict=True)):
            shared = by_hand(head, "shared_tower", x, level)
            on_class = by_hand(head, "classification_head.conv", shared, level)
            on_box = by_hand(head, "regression_head.conv", shared, level)
            torch.testing.assert_close(raw.cls[level], head.classification_head.cls_logits(on_class))
            box = head.regression_head.bbox_reg(on_box).relu() * stride
            torch.testing.assert_close(raw.ltrb[level], box, atol=1e-4, rtol=1e-5)
            torch.testing.assert_close(raw.ctr[level], head.regression_head.bbox_ctrness(on_box))


def test_each_level_trains_its_own_norm() -> None:
    head = Head(tiny_config(norm="batch-per-level", strides=REALTIME_STRIDES), 3).train()
    norms = head.classification_head.conv[1]
    assert isinstance(norms, PerLevel)
    head([level + 3 * place for place, level in enumerate(features()[:3])])
    means = torch.stack([norm.running_mean for norm in norms])
    assert [int(norm.num_batches_tracked) for norm in norms] == [1, 1, 1]
    assert float((means[0] - means[1]).abs().max()) > 0
    assert float((means[1] - means[2]).abs().max()) > 0


def test_there_is_no_shared_tower_unless_it_is_asked_for() -> None:
    assert not [key for key in head_of().state_dict() if key.startswith("shared_tower")]
    assert "0.weight" in Head(tiny_config(shared_convs=1), 3).shared_tower.state_dict()


def test_the_signal_is_not_lost_in_a_new_separable_tower() -> None:
    torch.manual_seed(0)
    head = Head(tiny_config(tower="separable", convs=4), 3).eval()
    with torch.no_grad():
        _, hidden = head.classification_head(features()[0])
    assert float(hidden.std()) > 0.3


def test_full_towers_are_the_default_and_have_the_keys_they_always_had() -> None:
    keys = [f"conv.{place}.{part}" for place in (0, 1) for part in ("weight", "bias")]
    assert tiny_config() == tiny_config(tower="full")
    assert list(head_of().classification_head.state_dict())[:4] == keys


def test_flat_concatenates_all_points_in_float32() -> None:
    raw = RawOutputs(*([level.half() for level in part] for part in outputs_of(head_of())))
    cls, ltrb, ctr = raw.flat()
    points = sum(h * w for h, w in SIZES)
    assert (cls.shape, ltrb.shape, ctr.shape) == ((2, points, 3), (2, points, 4), (2, points))
    assert {cls.dtype, ltrb.dtype, ctr.dtype} == {torch.float32}
    row, column = 5, 2  # of the first level, 6 wide
    assert torch.equal(cls[1, row * 6 + column], raw.cls[0][1, :, row, column].float())
    assert torch.equal(ltrb[1, 48 + 3 * 3 + 1], raw.ltrb[1][1, :, 3, 1].float())
    assert torch.equal(ctr[0, -1], raw.ctr[4][0, 0, 0, 0].float())


def test_distances_are_float32_for_any_backbone_dtype() -> None:
    head = head_of()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        raw = head(features())
    assert {level.dtype for level in raw.cls} == {torch.bfloat16}
    assert {level.dtype for level in raw.ltrb} == {torch.float32}
