"""Detection of the family and preset from tensor names and tower biases."""

from pathlib import Path

import pytest
import torch

from fcos_cli.convert.families import FAMILIES, PRESET_HINTS
from fcos_cli.convert.run import convert
from fcos_cli.errors import ModelError, UsageError
from fcos_cli.model.presets import PRESETS, preset_name
from tests.convert.foreign import file_of, pth


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_detected_from_tensor_names(family: str, tmp_path: Path) -> None:
    file = file_of(tmp_path, family, classes=91 if family == "torchvision" else 80)
    for source in ("auto", family):
        assert convert(file, source=source, preset=FAMILIES[family].presets[-1]).family == family


@pytest.mark.parametrize("family", FAMILIES)
def test_contradicting_family_is_refused(family: str, tmp_path: Path) -> None:
    file = file_of(tmp_path, family)
    for other in FAMILIES.keys() - {family}:
        with pytest.raises(UsageError, match=f"--from {other} contradicts the file"):
            convert(file, source=other)


def test_unknown_family_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown --from 'yolo'") as caught:
        convert(file_of(tmp_path, "mmdet"), source="yolo")
    assert "detectron2" in str(caught.value.remedy)


@pytest.mark.parametrize("key", ["features.0.weight", "bbox_head.atss_cls.weight", "a.rpn.head.cls_logits.weight"])
def test_unknown_tensor_names_are_refused_and_listed(key: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="match no known FCOS") as caught:
        convert(pth(tmp_path / "x.pth", {key: torch.ones(1)}))
    assert key in str(caught.value.details)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if len(family.presets) > 1])
def test_ambiguous_preset_is_requested_with_hints(family: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its tensors do not show which") as caught:
        convert(file_of(tmp_path, family))
    assert caught.value.exit_code == 2
    for preset in FAMILIES[family].presets:
        assert f"--preset {preset}: {PRESET_HINTS[preset]}" in str(caught.value.remedy)


@pytest.mark.parametrize("family", FAMILIES)
def test_preset_of_another_family_is_refused(family: str, tmp_path: Path) -> None:
    file = file_of(tmp_path, family)
    for preset in (PRESETS.keys() | {"nonsense"}) - set(FAMILIES[family].presets):
        with pytest.raises(UsageError, match=f"--preset {preset} is not a preset of") as caught:
            convert(file, preset=preset)
        assert FAMILIES[family].presets[0] in str(caught.value.remedy)


def test_every_preset_but_default_has_a_family() -> None:
    listed = [preset for family in FAMILIES.values() for preset in family.presets]
    assert sorted([*listed, "default"]) == sorted(PRESETS)


def test_mmdetection_towers_without_bias_are_assumed_to_be_of_the_base_preset(tmp_path: Path) -> None:
    file = file_of(tmp_path, "mmdet", without_bias=True)
    found = convert(file)
    assert found.preset == "mmdet-base"
    assert not found.artifact.weights["head.regression_head.conv.3.bias"].any()
    assert any("zero biases added" in note for note in found.notes)
    assert "(from the towers without bias, an assumption; if it is wrong, use --preset mmdet-tricks)" in found.notes[0]


def test_the_users_preset_wins_over_towers_without_bias(tmp_path: Path) -> None:
    """norm_on_bbox=True with conv_bias left at its default."""
    found = convert(file_of(tmp_path, "mmdet", without_bias=True), preset="mmdet-tricks")
    assert (found.preset, preset_name(found.artifact.config.conventions)) == ("mmdet-tricks", "mmdet-tricks")
    assert any("zero biases added" in note for note in found.notes)
