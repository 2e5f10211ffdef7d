"""Conversion from and to torchvision, with torchvision's own model and random weights as reference."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import detection

from fcos_cli.convert.labels import coco_classes
from fcos_cli.convert.run import convert
from fcos_cli.convert.torchvision import save, to_torchvision
from fcos_cli.errors import ModelError
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.config import FINE_STRIDES, STRIDES, ModelConfig
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.presets import PRESETS
from tests.convert.foreign import pth

LAYER = "head.classification_head.cls_logits"


def empty(rows: int) -> detection.FCOS:
    model: detection.FCOS = detection.fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=rows)
    return model.eval()


@pytest.fixture(scope="module")
def theirs() -> detection.FCOS:
    """torchvision's model with random weights, some of which give confident detections."""
    torch.manual_seed(0)
    model = empty(91)
    torch.nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.2)
    return model


@pytest.fixture(scope="module")
def artifact(theirs: detection.FCOS, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    file = pth(tmp_path_factory.mktemp("theirs") / "fcos.pth", theirs.state_dict())
    return convert(file).artifact


def raw_of(model: detection.FCOS, image: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        return dict(model.head(list(model.backbone(model.transform.normalize(image)[None]).values())))


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randint(0, 256, (3, 96, 64), generator=torch.Generator().manual_seed(1)).float()


def test_converted_network_gives_the_same_outputs(theirs: detection.FCOS, artifact: Artifact, image: Tensor) -> None:
    reference = raw_of(theirs, image / 255)
    with torch.inference_mode():
        raw = artifact.build()(image[None])
    cls, ltrb, ctr = raw.flat()
    strides = torch.cat([torch.full((h * w,), s) for (h, w), s in zip(raw.sizes(), STRIDES, strict=True)])
    found = (cls, ltrb / strides[:, None], ctr[..., None])
    rows = list(coco_classes().ids)
    expected = (reference["cls_logits"][..., rows], reference["bbox_regression"], reference["bbox_ctrness"])
    for ours, other in zip(found, expected, strict=True):
        assert float((ours - other).abs().max()) <= 1e-5 * float(other.abs().max())


def test_exported_state_dict_loads_strictly_and_gives_the_same_outputs(
    theirs: detection.FCOS, artifact: Artifact, image: Tensor, tmp_path: Path
) -> None:
    state = to_torchvision(artifact, where=Path("ours.safetensors"))
    save(tmp_path / "x.pth", state)
    assert state.call == "fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)"
    assert "category ids" in state.labels
    again = empty(91)
    weights = torch.load(tmp_path / "x.pth", weights_only=True)
    assert str(again.load_state_dict(weights, strict=True)) == "<All keys matched successfully>"
    rows = list(coco_classes().ids)
    for key, value in theirs.state_dict().items():
        converted = weights[key]
        assert torch.equal(converted[rows], value[rows]) if key.startswith(LAYER) else torch.equal(converted, value), (
            key
        )

    before, after = raw_of(theirs, image / 255), raw_of(again, image / 255)
    assert torch.equal(before["bbox_regression"], after["bbox_regression"])
    assert torch.equal(before["cls_logits"][..., rows], after["cls_logits"][..., rows])
    others = [row for row in range(91) if row not in rows]
    assert not after["cls_logits"][..., others].sigmoid().gt(1e-30).any()
    again.transform.min_size, again.transform.max_size = (96,), 128
    again.score_thresh = 0.0
    with torch.inference_mode():
        labels = again([image / 255])[0]["labels"]
    assert len(labels) > 0
    assert set(labels.tolist()) <= set(rows)


def test_round_trip_gives_an_equal_artifact(artifact: Artifact, tmp_path: Path) -> None:
    save(tmp_path / "x.pth", to_torchvision(artifact, where=Path("x")))
    again = convert(tmp_path / "x.pth").artifact
    assert again.classes == artifact.classes
    assert again.config == artifact.config
    assert all(torch.equal(again.weights[key], value) for key, value in artifact.weights.items())


def test_few_classes_are_placed_at_their_ids_or_indices(artifact: Artifact) -> None:
    weights = {**artifact.weights, f"{LAYER}.weight": torch.ones(2, 256, 3, 3), f"{LAYER}.bias": torch.ones(2)}
    for ids, rows, message in (((3, 1), [3, 1], "category ids"), ((7000, 1), [0, 1], "class indices")):
        few = replace(artifact, weights=weights, classes=ClassTable(("b", "a"), ids))
        state = to_torchvision(few, where=Path("x"))
        assert f"num_classes={max(rows) + 1}" in state.call
        assert message in state.labels
        bias = state.weights[f"{LAYER}.bias"]
        assert bias[rows].tolist() == [1, 1]
        assert sorted(bias.tolist())[:-2] == [-100.0] * (len(bias) - 2)


def test_constructor_call_has_thresholds_and_sizes(artifact: Artifact) -> None:
    config = artifact.config.model_copy(update={"score_threshold": 0.3, "max_detections": 10})
    other = replace(artifact, config=config, geometry={**artifact.geometry, "size": [320, 1333]})
    call = to_torchvision(other, where=Path("x")).call
    assert call.endswith("num_classes=91, min_size=320, score_thresh=0.3, detections_per_img=10)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "resnet18"}, "backbone is resnet18, torchvision's is resnet50"),
        ({"channels": 128}, "channels is 128, torchvision's is 256"),
        ({"convs": 3}, "convs is 3"),
        ({"strides": FINE_STRIDES}, "strides is (4, 8, 16, 32, 64), torchvision's is (8, 16, 32, 64, 128)"),
        ({"stride_in_1x1": True}, "stride_in_1x1 is True"),
        ({"mean": (1.0, 2.0, 3.0)}, "mean is"),
        ({"backbone_norm_eps": 1e-3}, "backbone_norm_eps is 0.001"),
        ({"conventions": PRESETS["fcos-v1"].conventions}, "convention activation is exp, torchvision's is relu"),
    ],
)
def test_every_difference_from_torchvision_is_named(change: dict[str, Any], message: str, artifact: Artifact) -> None:
    other = replace(artifact, config=artifact.config.model_copy(update=change))
    with pytest.raises(ModelError, match="would give different results") as caught:
        to_torchvision(other, where=Path("x.safetensors"))
    assert message in str(caught.value.details)
    if "conventions" in change:
        assert str(caught.value.details).count("convention ") > 5


def test_other_resize_rule_is_refused(artifact: Artifact) -> None:
    other = replace(artifact, geometry={**artifact.geometry, "mode": "letterbox"})
    with pytest.raises(ModelError) as caught:
        to_torchvision(other, where=Path("x"))
    assert "resize rule: mode is letterbox, torchvision's is shortest" in str(caught.value.details)
    assert "only a model that was converted from torchvision's" in str(caught.value.remedy)


def test_trained_batch_norm_keeps_its_counters(artifact: Artifact, make: Callable[..., FCOS]) -> None:
    model = make(artifact.config.model_copy(update={"backbone_norm": "trained"}))
    state = to_torchvision(replace(artifact, weights=model.state_dict(), config=model.config), where=Path("x"))
    assert state.weights.keys() == empty(91).state_dict().keys()


@pytest.fixture
def make() -> Callable[..., FCOS]:
    def run(config: ModelConfig) -> FCOS:
        with torch.device("meta"):
            return FCOS(config, classes=80).to_empty(device="cpu")

    return run
