"""The PyTorch detector: quick, in the precision that was asked for, and as right as the network itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.backends import cudnn

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import UsageError
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.optimize.fuse import NORMS
from fcos_cli.model.optimize.winograd import WinogradConv2d
from fcos_cli.parity.matching import Limits, image_detections, match
from fcos_cli.parity.tolerance import TOLERANCES
from fcos_cli.runtime import pytorch
from fcos_cli.runtime.open import open_detector
from fcos_cli.runtime.pytorch import PyTorchDetector, check_precision, facts_of, optimized
from fcos_cli.runtime.results import RawDetections
from tests.tiny import CLASSES, tiny_model

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SIZE = (160, 192)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    """A network wide enough for everything that speeds one up, with random weights that find a lot."""
    model = tiny_model(channels=256, groups=32, convs=2, conventions=Conventions(scales=True))
    with torch.no_grad():
        for branch in (model.head.classification_head.cls_logits, model.head.regression_head.bbox_reg):
            branch.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        model.head.classification_head.cls_logits.bias.fill_(-2.0)
        for level, scale in enumerate(model.head.regression_head.scales):
            scale.fill_(1 + level / 1000)  # bfloat16 would make 1 of it
    return Artifact(model.state_dict(), model.config, CLASSES, ResizeRule("letterbox", SIZE).to_json())


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.uint8]:
    """Three pictures with smooth parts and edges."""
    coarse = np.random.default_rng(0).integers(0, 256, (3, 3, SIZE[0] // 16, SIZE[1] // 16), np.uint8)
    return coarse.repeat(16, 2).repeat(16, 3)


@pytest.fixture(scope="module")
def plain(artifact: Artifact) -> PyTorchDetector:
    return PyTorchDetector(artifact.build(), facts_of(artifact), name="plain", device=CPU)


def quick_one(artifact: Artifact, precision: str | None = None) -> PyTorchDetector:
    return PyTorchDetector.from_artifact(artifact, name="quick", device="cpu", precision=precision)


def test_in_float32_raw_outputs_stay_the_same(artifact: Artifact, images: npt.NDArray[np.uint8]) -> None:
    pixels, model = torch.from_numpy(images), optimized(artifact.build())
    assert any(isinstance(module, WinogradConv2d) for module in model.modules())
    assert not any(isinstance(module, NORMS) for module in model.modules())
    with torch.inference_mode():
        pairs = zip(model(pixels).flat(), artifact.build()(pixels).flat(), strict=True)
        assert max(float((found - wanted).norm() / wanted.norm()) for found, wanted in pairs) < 1e-5


def test_in_float32_detections_are_the_same_in_the_same_order(
    artifact: Artifact, plain: PyTorchDetector, images: npt.NDArray[np.uint8]
) -> None:
    found, wanted = quick_one(artifact)(images), plain(images)
    assert wanted.counts.min() > 20
    assert found.counts.tolist() == wanted.counts.tolist()
    assert found.classes.tolist() == wanted.classes.tolist()
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=0, atol=0.01)


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any processor computes in bfloat16 here; some slowly."""
    monkeypatch.setattr(pytorch, "has_native_bf16", lambda _: True)


@pytest.mark.usefixtures("able")
def test_in_bfloat16_detections_match_within_the_tolerance(
    artifact: Artifact, plain: PyTorchDetector, images: npt.NDArray[np.uint8]
) -> None:
    detector = quick_one(artifact, "bf16")
    assert detector.precision == "bf16"
    found, wanted = detector(images), plain(images)
    assert_dtypes(found)
    tolerance, config = TOLERANCES["bf16"], artifact.config
    limits = Limits(
        config.score_threshold,
        config.nms_iou,
        config.max_detections,
        same_iou=tolerance.same_iou,
        same_px=tolerance.same_px,
        score_eps=tolerance.score_eps,
        iou_eps=tolerance.iou_eps,
    )
    for picture in range(len(images)):
        compared = match(image_detections(wanted, picture), image_detections(found, picture), limits=limits)
        unexplained = [alone for alone in compared.unmatched if alone.reason is None]
        assert len(unexplained) <= tolerance.missing(compared.reference)
        assert compared.max_score < (tolerance.max_score or 0)
        assert len(compared.pairs) > compared.reference / 2
        assert np.median(compared.px) < (tolerance.median_px or 0)


@pytest.mark.usefixtures("able")
def test_in_bfloat16_body_and_head_are_halved_and_what_multiplies_distances_is_not(artifact: Artifact) -> None:
    model = quick_one(artifact, "bf16").model
    dtypes = {name: tensor.dtype for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    whole = {name for name, dtype in dtypes.items() if dtype == torch.float32}
    assert set(dtypes.values()) == {torch.float32, torch.bfloat16}
    assert whole == {"mean", "std", *(f"head.regression_head.scales.{level}" for level in range(5))}
    kept = [scale.item() for scale in model.head.regression_head.scales.parameters()]
    assert kept == pytest.approx([1.0, 1.001, 1.002, 1.003, 1.004], rel=1e-6)


def assert_dtypes(found: RawDetections) -> None:
    assert [values.dtype for values in found] == [np.float32, np.float32, np.int64, np.int64]


@pytest.mark.parametrize(
    ("device", "native", "able"),
    [
        (CPU, True, {"fp32", "bf16"}),
        (CPU, False, {"fp32"}),
        (GPU, True, {"fp32", "bf16", "fp16"}),
        (GPU, False, {"fp32", "fp16"}),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_can(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, native: bool, able: set[str]
) -> None:
    monkeypatch.setattr(pytorch, "has_native_bf16", lambda _: native)
    for precision in ("fp32", "bf16", "fp16", "int8"):
        if precision in able:
            check_precision(precision, device)
            continue
        with pytest.raises(UsageError, match=f"{precision} on this {device.type}") as caught:
            check_precision(precision, device)
        assert set(caught.value.remedy.split("one of ")[1].split(", ")) == able


@pytest.mark.usefixtures("able")
def test_open_detector_passes_the_precision_on(model_file: Path) -> None:
    assert open_detector(model_file, device="cpu", precision="bf16").precision == "bf16"
    assert open_detector(model_file, device="cpu", precision="fp32").precision == "fp32"
    assert open_detector(model_file, device="cpu").precision == "fp32"


def test_a_network_that_is_handed_over_is_left_as_it_is(artifact: Artifact, images: npt.NDArray[np.uint8]) -> None:
    """Training validates with the network that it goes on to train."""
    model = artifact.build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    PyTorchDetector(model, facts_of(artifact), name="training", device=CPU)(images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(isinstance(module, WinogradConv2d) for module in model.modules())
    assert any(isinstance(module, NORMS) for module in model.modules())


@pytest.mark.parametrize("backbone", ["test_convnext", "test_nfnet", "mobilenetv3_small_050", "test_resnet"])
def test_any_backbone_is_made_quick_or_left_alone(backbone: str) -> None:
    model = tiny_model(backbone=backbone)
    pixels = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = model(pixels).flat()
        found = optimized(model)(pixels).flat()
    for mine, theirs in zip(found, wanted, strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 1e-5


def test_convolutions_keep_their_layout(artifact: Artifact) -> None:
    convs = [module for module in optimized(artifact.build()).modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convs)


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("fp16", True)])
def test_float32_is_not_tf32_and_settings_of_cudnn_stay(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, precision: str, tf32: bool
) -> None:
    monkeypatch.setattr(cudnn, "allow_tf32", True)  # torch's default
    monkeypatch.setattr(cudnn, "benchmark", True)
    detector = PyTorchDetector(artifact.build(), facts_of(artifact), name="x", device=CPU, precision=precision)
    seen = []

    def fail(*_: object) -> None:
        seen.append((cudnn.allow_tf32, cudnn.benchmark, cudnn.enabled))
        raise RuntimeError("out of memory")

    monkeypatch.setattr(detector.model, "detect", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        detector(np.zeros((1, 3, *SIZE), np.uint8))
    assert seen == [(tf32, True, True)]
    assert (cudnn.allow_tf32, cudnn.benchmark) == (True, True)
