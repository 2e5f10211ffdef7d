"""Presets: every published dialect builds, survives a file, and differs from the others."""

from dataclasses import asdict

import pytest

from fcos_cli.model.config import ModelConfig
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.presets import PRESETS, preset_name


def test_default_is_what_new_networks_have() -> None:
    assert PRESETS["default"].conventions == Conventions() == ModelConfig().conventions


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_valid_config_and_is_read_back_by_name(name: str) -> None:
    preset = PRESETS[name]
    config = ModelConfig(**preset.model, conventions=preset.conventions)
    again = Conventions.from_json(asdict(config.conventions))
    assert again == preset.conventions
    assert preset_name(again) == name


def test_no_two_presets_are_the_same() -> None:
    assert len({preset.conventions for preset in PRESETS.values()}) == len(PRESETS)
    assert preset_name(Conventions(radius=2.5)) == "custom"


def test_files_from_before_a_switch_existed_mean_its_default() -> None:
    assert Conventions.from_json({"point_offset": 0.0}) == Conventions(point_offset=0.0)


@pytest.mark.parametrize(
    ("values", "told"),
    [({"colour": "red"}, "unknown convention 'colour'"), ({"clip": "never"}, "input, picture, after")],
)
def test_unknown_switches_and_settings_are_refused(values: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Conventions.from_json(values)
