"""Presets: each one builds a network, survives a round trip, and differs from the others."""

from dataclasses import asdict

import pytest

from fcos_cli.model.config import ModelConfig
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.presets import PRESETS, preset_name


def test_default_preset_equals_the_default_config() -> None:
    assert PRESETS["default"].conventions == Conventions() == ModelConfig().conventions


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_a_valid_config_and_is_found_by_name(name: str) -> None:
    preset = PRESETS[name]
    config = ModelConfig(**preset.model, conventions=preset.conventions)
    again = Conventions.from_json(asdict(config.conventions))
    assert again == preset.conventions
    assert preset_name(again) == name


def test_presets_differ() -> None:
    assert len({preset.conventions for preset in PRESETS.values()}) == len(PRESETS)
    assert preset_name(Conventions(radius=2.5)) == "custom"


def test_missing_switches_get_their_defaults() -> None:
    assert Conventions.from_json({"point_offset": 0.0}) == Conventions(point_offset=0.0)
    assert Conventions.from_json({"radius": 1}) == Conventions(radius=1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "red"}, "unknown convention 'colour'"),
        ({"clip": "never"}, "input, picture, after"),
        ({"point_offset": "0.5"}, "point_offset = '0.5' is not a number"),
        ({"point_offset": True}, "point_offset = True is not a number"),
        ({"radius": float("inf")}, "radius = inf is not a number"),
        ({"stride_normalised": "false"}, "stride_normalised = 'false' is neither true nor false"),
        ({"scales": 0}, "scales = 0 is neither true nor false"),
    ],
)
def test_unknown_switches_and_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conventions.from_json(values)
