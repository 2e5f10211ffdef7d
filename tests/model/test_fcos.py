"""The whole FCOS network: from pixels to raw outputs and detections, compared with torchvision's network."""

import pytest
import torch
from torch import Tensor
from torchvision.models import detection

from fcos_cli.errors import UsageError
from fcos_cli.model.backbone import check_maps, input_normalization
from fcos_cli.model.config import FINE_STRIDES, REALTIME_STRIDES, STRIDES, ModelConfig
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.head import RawOutputs
from tests.tiny import tiny_model

TORCHVISION = ModelConfig(
    backbone="resnet50",
    channels=256,
    convs=4,
    backbone_norm_eps=0.0,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    conventions=Conventions(point_offset=0.0),
)


def pixels(height: int = 64, width: int = 96, *, batch: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def flat(raw: RawOutputs) -> list[Tensor]:
    return [level for part in raw for level in part]


def theirs() -> detection.FCOS:
    model: detection.FCOS = detection.fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    return model.eval()


def test_resnet50_model_has_torchvision_keys_and_shapes() -> None:
    with torch.device("meta"):
        ours, oracle = FCOS(TORCHVISION, classes=91), theirs()
    expected = {k: v.shape for k, v in oracle.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert {k: v.shape for k, v in ours.state_dict().items()} == expected


def test_torchvision_weights_give_torchvision_outputs() -> None:
    torch.manual_seed(0)
    oracle = theirs()
    with torch.device("meta"):
        ours = FCOS(TORCHVISION, classes=91)
    ours = ours.to_empty(device="cpu").eval()
    ours.mean.copy_(torch.tensor(TORCHVISION.mean).view(1, 3, 1, 1))
    ours.std.copy_(torch.tensor(TORCHVISION.std).view(1, 3, 1, 1))
    loaded = ours.load_state_dict(oracle.state_dict(), strict=False)
    assert loaded.missing_keys == []
    assert all(key.endswith("num_batches_tracked") for key in loaded.unexpected_keys)

    images = pixels(64, 96, batch=1)
    with torch.inference_mode():
        raw = ours(images)
        normalized = oracle.transform.normalize(images[0] / 255)[None]
        outputs = oracle.head(list(oracle.backbone(normalized).values()))
    cls, ltrb, ctr = raw.flat()
    strides = torch.cat([torch.full((h * w,), s) for (h, w), s in zip(raw.sizes(), STRIDES, strict=True)])
    torch.testing.assert_close(cls, outputs["cls_logits"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ltrb / strides[:, None], outputs["bbox_regression"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ctr, outputs["bbox_ctrness"][..., 0], rtol=1e-4, atol=1e-4)


def test_uint8_and_float_inputs_give_the_same_outputs() -> None:
    model = tiny_model()
    with torch.inference_mode():
        for a, b in zip(flat(model(pixels())), flat(model(pixels().float())), strict=True):
            assert torch.equal(a, b)


def test_normalization_is_part_of_the_network() -> None:
    plain = tiny_model(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    whitened = tiny_model(mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0))
    images = pixels().float()
    by_hand = (images - torch.tensor([10.0, 20, 30]).view(3, 1, 1)) / torch.tensor([2.0, 4, 8]).view(3, 1, 1)
    with torch.inference_mode():
        for a, b in zip(flat(whitened(images)), flat(plain(by_hand)), strict=True):
            torch.testing.assert_close(a, b)
    assert not {"mean", "std"} & plain.state_dict().keys()


def test_result_does_not_depend_on_the_batch() -> None:
    model, images = tiny_model(), pixels(batch=3)
    with torch.inference_mode():
        together, alone = model(images), model(images[1:2])
    for a, b in zip(flat(together), flat(alone), strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "backbone",
    [
        "resnet18",
        "resnet50",
        "resnet101",
        "resnext50_32x4d",
        "mobilenetv2_100",
        "mobilenetv3_large_100",
        "mobilenetv4_conv_small",
        "efficientnet_lite0",
        "efficientnet_lite2",
        "efficientnet_b0",
        "regnetx_004",
        "regnety_004",
        "convnext_tiny",
        "dla34",
        "hrnet_w18",
        "hgnetv2_b0",
        "repvgg_a0",
        "test_efficientnet",
        "test_resnet.r160_in1k",
    ],
)
def test_backbones_by_name_give_five_levels_with_strides_8_to_128(backbone: str) -> None:
    height, width = 192, 96
    with torch.device("meta"):  # shapes only: even the largest builds in a blink
        model = FCOS(ModelConfig(backbone=backbone, channels=32, convs=1), classes=2)
        raw = model(torch.zeros(1, 3, height, width))
    assert raw.sizes() == [(-(-height // s), -(-width // s)) for s in STRIDES]
    assert {level.shape[1] for level in raw.cls} == {2}


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_large_100", "efficientnet_lite0", "regnety_004"])
def test_fine_strides_give_five_levels_with_strides_4_to_64(backbone: str) -> None:
    height, width = 200, 90
    with torch.device("meta"):
        model = FCOS(ModelConfig(backbone=backbone, channels=32, convs=1, strides=FINE_STRIDES), classes=2)
        raw = model(torch.zeros(1, 3, height, width))
    assert raw.sizes() == [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32, 64)]


def test_keys_of_the_pyramid() -> None:
    """The default's are torchvision's; with fine strides there is one more map of the backbone and no P7."""

    def keys(**changes: object) -> set[str]:
        found = tiny_model(**changes).state_dict()
        return {key.removeprefix("backbone.fpn.") for key in found if key.startswith("backbone.fpn.")}

    def expected(maps: int, *extra: str) -> set[str]:
        layers = [f"{kind}_blocks.{place}.0" for kind in ("inner", "layer") for place in range(maps)]
        layers += [f"extra_blocks.{name}" for name in extra]
        return {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}

    assert keys() == keys(strides=STRIDES) == expected(3, "p6", "p7")
    assert keys(strides=FINE_STRIDES) == expected(4, "p6")
    assert keys(strides=REALTIME_STRIDES) == expected(3)


@pytest.mark.parametrize("strides", [STRIDES, FINE_STRIDES])
@pytest.mark.parametrize("source", ["p5", "c5"])
@pytest.mark.parametrize("equal", [False, True], ids=["other width", "as wide as C5"])
def test_the_level_above_the_backbone_comes_from_p5_or_c5(strides: tuple[int, ...], source: str, equal: bool) -> None:
    wide = tiny_model().backbone.body.feature_info.channels()[-1] if equal else 16
    backbone = tiny_model(strides=strides, top_from=source, channels=wide, groups=1).backbone
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        levels, place = backbone(images), strides.index(32)
        below = {"p5": levels[place], "c5": backbone.body(images)[-1]}
        torch.testing.assert_close(levels[place + 1], backbone.fpn.extra_blocks.p6(below[source]))
    if equal:
        assert below["p5"].shape == below["c5"].shape


def test_the_level_above_the_backbone_starts_like_torchvisions() -> None:
    layers = [tiny_model(strides=strides).backbone.fpn.extra_blocks.p6 for strides in (STRIDES, FINE_STRIDES)]
    bound = (3 / (16 * 9)) ** 0.5  # Kaiming's uniform distribution with slope 1: sqrt(6 / (1 + 1) / fan-in)
    for layer in layers:
        assert 0.9 * bound < float(layer.weight.detach().abs().max()) <= bound
        assert float(layer.bias.detach().abs().max()) == 0


def test_input_size_need_not_be_a_multiple_of_the_strides() -> None:
    with torch.inference_mode():
        raw = tiny_model()(pixels(72, 200))
    assert raw.sizes() == [(9, 25), (5, 13), (3, 7), (2, 4), (1, 2)]
    assert all(bool(torch.isfinite(level).all()) for level in flat(raw))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("resnet5o", "resnet50"), ("vit_small_patch16_224", "strides 8, 16 and 32"), ("nonsense_9", "timm")],
)
def test_unusable_backbone_is_a_usage_error(wrong: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        FCOS(ModelConfig(backbone=wrong), classes=2)
    assert wrong in caught.value.what
    assert caught.value.where == "model.backbone"


def test_unknown_weights_of_a_backbone_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"backbone 'resnet50\.a9_in1k' does not exist") as caught:
        input_normalization("resnet50.a9_in1k")
    assert "resnet50.a3_in1k" in str(caught.value.remedy)


def test_fine_strides_need_a_backbone_with_features_at_stride_4() -> None:
    config = ModelConfig(backbone="visformer_small", strides=FINE_STRIDES)
    for refuse in (lambda: FCOS(config, classes=2), lambda: check_maps(config, size=(224, 224))):
        with pytest.raises(UsageError, match="visformer_small has no features at stride 4") as caught:
            refuse()
        assert caught.value.where == "model.strides"
        assert "[8, 16, 32, 64, 128]" in str(caught.value.remedy)


@pytest.mark.parametrize("norm", ["frozen", "trained"])
def test_backbone_statistics_are_updated_only_if_trained(norm: str) -> None:
    model = tiny_model(backbone_norm=norm).train()
    statistics = {k: v.clone() for k, v in model.state_dict().items() if "body" in k and "running" in k}
    assert len(statistics) > 10
    model(pixels())
    moved = [k for k, v in statistics.items() if not torch.equal(v, model.state_dict()[k])]
    assert bool(moved) == (norm == "trained")


def test_backbone_norm_epsilon_comes_from_the_config() -> None:
    for frozen in ("frozen", "trained"):
        model = tiny_model(backbone_norm=frozen, backbone_norm_eps=0.25)
        found = {module.eps for module in model.backbone.body.modules() if "BatchNorm" in type(module).__name__}
        assert found == {0.25}


def test_every_parameter_gets_a_gradient() -> None:
    model = tiny_model(conventions=Conventions(scales=True)).train()
    sum(level.sum() for level in flat(model(pixels()))).backward()  # type: ignore[union-attr]
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def test_points_match_the_outputs() -> None:
    model = tiny_model(conventions=Conventions(point_offset=0.0))
    with torch.inference_mode():
        raw = model(pixels())
        points = model.points(raw)
    assert len(points.xy) == raw.flat()[0].shape[1]
    assert points.xy[:2].tolist() == [[0, 0], [8, 0]]


def test_points_of_fine_strides_begin_4_pixels_apart() -> None:
    model = tiny_model(strides=FINE_STRIDES)
    with torch.inference_mode():
        raw = model(pixels(70, 90))
        points = model.points(raw)
    assert points.xy[:2].tolist() == [[2, 2], [6, 2]]
    assert points.level.bincount().tolist() == [18 * 23, 9 * 12, 5 * 6, 3 * 3, 2 * 2]
    assert points.stride.unique().tolist() == [4, 8, 16, 32, 64]
    assert len(points.xy) == raw.flat()[0].shape[1]


def test_detections_are_decoded_outputs_after_nms() -> None:
    model = tiny_model(max_detections=7)
    with torch.inference_mode():
        found = model.detect(pixels())
        again = model.post_process(model(pixels()), height=64, width=96)
    assert found.boxes.shape == (2, 7, 4)
    assert found.counts.tolist() == [7, 7]
    assert bool((found.boxes[..., 0::2] <= 96).all())
    assert bool((found.boxes[..., 1::2] <= 64).all())
    for a, b in zip(found, again, strict=True):
        assert torch.equal(a, b)


def test_no_detections_above_a_high_threshold() -> None:
    with torch.inference_mode():
        found = tiny_model(score_threshold=0.9).detect(pixels())
    assert found.counts.tolist() == [0, 0]
    assert bool((found.classes == -1).all())


def test_mean_and_std_depend_on_the_backbone() -> None:
    assert input_normalization("efficientnet_lite0") == input_normalization("efficientnet_lite2") == {}
    facts = input_normalization("resnet50")
    assert facts["mean"] == pytest.approx((123.675, 116.28, 103.53))
    assert facts["std"] == pytest.approx((58.395, 57.12, 57.375))
    assert facts["backbone_norm_eps"] == 0
    ModelConfig(backbone="resnet50", **facts)


@pytest.mark.parametrize(
    ("backbone", "size", "named"),
    [
        ("efficientnet_lite0", (320, 320), None),
        ("efficientnet_lite0", (200, 333), None),
        ("resnet18", (90, 70), None),
        ("convnext_tiny", (320, 416), None),
        ("convnext_tiny", (200, 333), "map of 25x41 at stride 8"),
        ("inception_v3", (320, 320), "inception_v3 gives a map of"),
        ("swin_tiny_patch4_window7_224", (320, 320), "swin_tiny_patch4_window7_224 does not take 320 x 320"),
    ],
)
def test_backbones_with_misfitting_feature_sizes_are_refused(
    backbone: str, size: tuple[int, int], named: str | None
) -> None:
    config = ModelConfig(backbone=backbone)
    if named is None:
        check_maps(config, size=size)
        return
    with pytest.raises(UsageError, match=named):
        check_maps(config, size=size)


def test_the_finest_map_is_checked_too() -> None:
    with pytest.raises(UsageError, match="map of 50x83 at stride 4, not 50x84"):
        check_maps(ModelConfig(backbone="convnext_tiny", strides=FINE_STRIDES), size=(200, 333))
