"""Templates for tensor names, and round trips of all names of the published layouts."""

import json
from pathlib import Path

import pytest
import torch

from fcos_cli.convert.families import FAMILIES
from fcos_cli.convert.key_map import KeyMap
from fcos_cli.model.config import ModelConfig
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.presets import PRESETS
from tests.convert.foreign import shapes_of, theirs

LISTS = sorted((Path(__file__).parent.parent / "vectors").glob("keys_*.json"))


def test_placeholders_are_numbers_sums_products_and_text() -> None:
    names = KeyMap((("res{k+1}.{b}.{tail}", "layer{k}.{b}.{tail}"), ("gn{i}.{tail}", "conv.{3i+1}.{tail}")))
    assert names.to_native("res5.12.bias") == "layer4.12.bias"
    assert names.to_native("gn2.weight") == "conv.7.weight"
    assert names.to_foreign("conv.7.weight") == "gn2.weight"
    assert names.to_foreign("layer0.0.bias") == "res1.0.bias"


@pytest.mark.parametrize("key", ["res0.0.bias", "res2.0.conv.bias", "res2.x.bias", "res2.0.", "xres2.0.bias", "r"])
def test_name_that_matches_no_row(key: str) -> None:
    assert KeyMap((("res{k+1}.{b}.{tail}", "layer{k}.{b}.{tail}"),)).to_native(key) is None


def test_index_that_is_not_a_multiple_matches_no_row() -> None:
    names = KeyMap((("gn{i}.{tail}", "conv.{3i+1}.{tail}"),))
    assert [names.to_foreign(f"conv.{place}.bias") for place in range(5)] == [None, "gn0.bias", None, None, "gn1.bias"]


@pytest.mark.parametrize("file", LISTS, ids=lambda file: file.stem)
def test_published_names_survive_a_round_trip(file: Path) -> None:
    shapes = json.loads(file.read_text(encoding="utf-8"))
    shapes = {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    family = file.stem.removeprefix("keys_").partition("-")[0]
    names = FAMILIES[family].names
    found = {names.to_native(key): key for key in shapes}
    assert {ours: names.to_foreign(ours) for ours in found if ours} == found
    preset = PRESETS[FAMILIES[family].presets[0]]
    with torch.device("meta"):
        expected = FCOS(ModelConfig(**preset.model, backbone="resnet50", conventions=preset.conventions), classes=80)
    missing = expected.state_dict().keys() - found.keys()
    without_bias = {key for key in missing if key.endswith(".bias") and ".conv." in key}
    assert missing == (without_bias if file.stem == "keys_mmdet-base" else set())
    assert found.keys() <= expected.state_dict().keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_tables_agree_with_independent_patterns(family: str) -> None:
    ours = shapes_of(scales=family in ("fcos", "adelaidet", "mmdet"), backbone="resnet50")
    names = FAMILIES[family].names
    for key, other in zip(ours, theirs(family, ours), strict=True):
        assert names.to_native(other) == key
        assert names.to_foreign(key) == other
