"""ModelConfig: which strides and towers a model can have."""

import pytest
from pydantic import ValidationError

from fcos_cli.model.config import FINE_STRIDES, REALTIME_STRIDES, STRIDES, ModelConfig, level_name


def test_strides_are_8_to_128_unless_set() -> None:
    assert ModelConfig().strides == STRIDES == (8, 16, 32, 64, 128)
    assert ModelConfig.model_validate({"strides": [4, 8, 16, 32, 64]}).strides == FINE_STRIDES


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        (8, 16),
        (8, 16, 32, 64),
        (16, 32, 64),
        (4, 8, 16, 32, 128),
        (16, 32, 64, 128, 256),
        (2, 4, 8, 16, 32),
        (64, 32, 16, 8, 4),
    ],
    ids=str,
)
def test_other_strides_are_refused_with_the_possible_ones(wrong: tuple[int, ...]) -> None:
    message = r"must be \[8, 16, 32, 64, 128\], \[4, 8, 16, 32, 64\] or \[8, 16, 32\]"
    with pytest.raises(ValidationError, match=message):
        ModelConfig(strides=wrong)


def test_a_level_is_named_after_its_stride() -> None:
    assert [level_name(stride) for stride in STRIDES] == ["P3", "P4", "P5", "P6", "P7"]
    assert [level_name(stride) for stride in FINE_STRIDES] == ["P2", "P3", "P4", "P5", "P6"]


def test_three_levels_have_two_ranges() -> None:
    assert ModelConfig.model_validate({"strides": [8, 16, 32]}).ranges == (64, 128)
    assert ModelConfig(strides=REALTIME_STRIDES, ranges=(32, 64)).ranges == (32, 64)
    assert ModelConfig(strides=FINE_STRIDES).ranges == ModelConfig().ranges == (64, 128, 256, 512)


@pytest.mark.parametrize(
    ("strides", "ranges", "message"),
    [
        (STRIDES, (64, 128), "must be 4 numbers for these strides"),
        (REALTIME_STRIDES, (64, 128, 256, 512), "must be 2 numbers for these strides"),
        (REALTIME_STRIDES, (), "must be 2 numbers"),
        (REALTIME_STRIDES, (128, 64), "positive and ascending"),
    ],
)
def test_ranges_must_fit_the_levels(strides: tuple[int, ...], ranges: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig(strides=strides, ranges=ranges)


def test_towers_have_a_convolution() -> None:
    assert ModelConfig(convs=0, shared_convs=1).shared_convs == 1
    with pytest.raises(ValidationError, match="both 0"):
        ModelConfig(convs=0)


def test_only_a_tower_with_convolutions_of_its_own_is_deformable() -> None:
    assert ModelConfig(deformable_tower=True).deformable
    assert ModelConfig(deformable_stages=(4,)).deformable
    assert not ModelConfig(deformable_tower=True, convs=0, shared_convs=2).deformable
