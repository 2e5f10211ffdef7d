"""ModelConfig: which strides a model can have."""

import pytest
from pydantic import ValidationError

from fcos_cli.model.config import FINE_STRIDES, STRIDES, ModelConfig, level_name


def test_strides_are_8_to_128_unless_set() -> None:
    assert ModelConfig().strides == STRIDES == (8, 16, 32, 64, 128)
    assert ModelConfig.model_validate({"strides": [4, 8, 16, 32, 64]}).strides == FINE_STRIDES


@pytest.mark.parametrize(
    "wrong",
    [(), (8, 16, 32), (4, 8, 16, 32, 128), (16, 32, 64, 128, 256), (2, 4, 8, 16, 32), (64, 32, 16, 8, 4)],
    ids=str,
)
def test_other_strides_are_refused_with_the_possible_ones(wrong: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match=r"must be \[8, 16, 32, 64, 128\] or \[4, 8, 16, 32, 64\]"):
        ModelConfig(strides=wrong)


def test_a_level_is_named_after_its_stride() -> None:
    assert [level_name(stride) for stride in STRIDES] == ["P3", "P4", "P5", "P6", "P7"]
    assert [level_name(stride) for stride in FINE_STRIDES] == ["P2", "P3", "P4", "P5", "P6"]
