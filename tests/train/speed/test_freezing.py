"""Stages of the backbone that are not trained."""

import pytest
import torch

from fcos_cli.train.speed.freezing import freeze_stages, keep_frozen_norms
from tests.tiny import tiny_model


@pytest.mark.parametrize(
    ("stages", "first_trained"),
    [(0, "conv1"), (1, "layer1.0"), (2, "layer2.0"), (3, "layer3.0"), (4, "layer4.0"), (5, None)],
)
def test_the_first_stages_of_a_resnet_are_frozen(stages: int, first_trained: str | None) -> None:
    model = tiny_model(backbone="resnet18")
    frozen = freeze_stages(model, stages)
    trained = [name for name, parameter in model.backbone.body.named_parameters() if parameter.requires_grad]
    if first_trained is None:
        assert trained == []
    else:
        assert trained[0].startswith(first_trained)
    named = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert set(frozen) == {name for name in named if name.startswith("backbone.body.")}
    assert all(parameter.requires_grad for parameter in model.head.parameters())


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "mobilenetv3_small_050", "convnext_atto"])
def test_frozen_stages_get_no_gradient_and_their_map_is_a_constant(backbone: str) -> None:
    model = tiny_model(backbone=backbone).train()
    frozen = freeze_stages(model, 3)
    assert frozen
    maps = model.backbone.body(torch.rand(1, 3, 64, 64))
    strides = model.backbone.body.feature_info.reduction()  # type: ignore[union-attr, operator]
    assert [feature.requires_grad for feature in maps] == [stride > 8 for stride in strides]


def test_statistics_of_frozen_norms_stay_as_they_are() -> None:
    model = tiny_model(backbone="resnet18", backbone_norm="trained")
    freeze_stages(model, 2)
    keep_frozen_norms(model.train())
    before = {name: value.clone() for name, value in model.state_dict().items() if name.endswith("running_mean")}
    model(torch.rand(2, 3, 64, 64) * 255)
    changed = {name for name, value in before.items() if not torch.equal(model.state_dict()[name], value)}
    assert changed
    assert all(".layer" in name and ".layer1." not in name for name in changed)
